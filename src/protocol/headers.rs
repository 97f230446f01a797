//! [`TaskHeaders`]: what the headers of a task message say, read leniently.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{DateTime, Map, Value, repr};

/// The headers of a version 2 message that a worker acts on (celery/app/amqp.py `AMQP.as_task_v2`,
/// celery/worker/request.py `Request.__init__`).
///
/// Every header but `task` and `id` may be missing. The map that they are read from keeps those that are not named here.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TaskHeaders {
    /// The registered name of the task.
    pub task: String,
    /// The task's id: any text.
    pub id: String,
    /// A name to show in place of the task's.
    pub shadow: Option<String>,
    /// Not before this. A naive time is read as UTC.
    pub eta: Option<Timestamp>,
    /// Not after this. A naive time is read as UTC.
    pub expires: Option<Timestamp>,
    /// The group's id.
    pub group: Option<String>,
    /// The position in the group.
    pub group_index: Option<i64>,
    /// How often the task was retried.
    pub retries: u32,
    /// The hard limit; a null or 0 in the message is none.
    pub time_limit: Option<Duration>,
    /// The soft limit; a null or 0 in the message is none.
    pub soft_time_limit: Option<Duration>,
    /// The id of the workflow's first task.
    pub root_id: Option<String>,
    /// The id of the task that sent this one.
    pub parent_id: Option<String>,
    /// Whether to store no result; `None` leaves it to the task.
    pub ignore_result: Option<bool>,
    /// How often `Task.replace` put another task in its place.
    pub replaced_task_nesting: i64,
}

/// Why headers cannot be acted on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Not a version 2 message: only the body can say more.
    #[error("the header 'task' is missing")]
    NoTask,
    /// Nothing to store a result under.
    #[error("the header 'id' is missing")]
    NoId,
    /// A time that is no ISO 8601 text; the words are Celery's `InvalidTaskError`.
    #[error("invalid {header} value {value}: {reason}")]
    InvalidTime {
        /// `ETA` or `expires`.
        header: &'static str,
        /// As Python's repr.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A time after the year 9999 in UTC.
    #[error("{header} is out of range: {value}")]
    TimeOutOfRange {
        /// `ETA`: what expires then does not expire.
        header: &'static str,
        /// As Python's repr.
        value: String,
    },
}

impl TaskHeaders {
    /// Reads the headers of a message.
    ///
    /// # Errors
    /// Those that make a stock worker reject the message, and those that kill it.
    pub fn read(headers: &Map) -> Result<Self, HeaderError> {
        let (time_limit, soft_time_limit) = time_limits(headers.get("timelimit"));
        Ok(TaskHeaders {
            task: text(headers, "task").ok_or(HeaderError::NoTask)?,
            id: text(headers, "id").filter(|id| !id.is_empty()).ok_or(HeaderError::NoId)?,
            shadow: text(headers, "shadow").filter(|shadow| !shadow.is_empty()),
            eta: eta(headers)?,
            // Stock Celery compares it and converts it to nothing, so none is too late.
            expires: time(headers, "expires", "expires")?.map(|expires| expires.unwrap_or(Timestamp::MAX)),
            group: text(headers, "group"),
            group_index: headers.get("group_index").and_then(Value::as_i64),
            retries: retries(headers),
            time_limit,
            soft_time_limit,
            root_id: text(headers, "root_id"),
            parent_id: text(headers, "parent_id"),
            ignore_result: headers.get("ignore_result").filter(|value| !value.is_null()).map(Value::is_truthy),
            replaced_task_nesting: headers.get("replaced_task_nesting").and_then(Value::as_i64).unwrap_or(0),
        })
    }
}

/// A header's text; other producers' numbers and UUIDs are taken as the text that they stand for.
fn text(headers: &Map, name: &str) -> Option<String> {
    match headers.get(name)? {
        Value::String(text) => Some(text.clone()),
        Value::Int(number) => Some(number.to_string()),
        Value::Uuid(uuid) => Some(uuid.hyphenated().to_string()),
        _ => None,
    }
}

fn retries(headers: &Map) -> u32 {
    let retries = headers.get("retries").and_then(Value::as_i64).unwrap_or(0);
    u32::try_from(retries.max(0)).unwrap_or(u32::MAX)
}

/// Stock Celery converts it to a timestamp.
fn eta(headers: &Map) -> Result<Option<Timestamp>, HeaderError> {
    let out_of_range = || {
        let value = headers.get("eta").map(repr::repr).unwrap_or_default();
        HeaderError::TimeOutOfRange { header: "ETA", value }
    };
    time(headers, "eta", "ETA")?.map(|eta| eta.ok_or_else(out_of_range)).transpose()
}

/// A header's time; within, `None` is a time after the year 9999 in UTC. `""` kills a stock worker; here it is no time, as
/// null is.
fn time(headers: &Map, name: &str, header: &'static str) -> Result<Option<Option<Timestamp>>, HeaderError> {
    let value = match headers.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(value) => value,
    };
    let shown = || repr::repr(value);
    let datetime = match value {
        Value::String(text) if text.is_empty() => return Ok(None),
        Value::String(text) => text.parse::<DateTime>().map_err(|error| HeaderError::InvalidTime {
            header,
            value: shown(),
            reason: error.to_string(),
        })?,
        Value::DateTime(datetime) => *datetime,
        other => {
            let reason = format!("expected text, not {}", other.type_name());
            return Err(HeaderError::InvalidTime { header, value: shown(), reason });
        }
    };
    Ok(Some(moment(datetime)))
}

/// A timestamp ends a day before the year 9999 does, so what Python holds beyond that is the last there is:
/// `datetime.max` is how people write "never".
fn moment(datetime: DateTime) -> Option<Timestamp> {
    let offset = datetime.offset.map_or(0, |offset| offset.seconds());
    let in_utc = datetime.civil.checked_sub(SignedDuration::from_secs(offset.into()));
    datetime.timestamp().ok().or(in_utc.ok().map(|_| Timestamp::MAX))
}

/// `[hard, soft]`, in this order whatever the protocol's page says.
fn time_limits(limits: Option<&Value>) -> (Option<Duration>, Option<Duration>) {
    let limit = |at: usize| {
        let seconds = limits?.as_list()?.get(at)?.as_f64()?;
        Duration::try_from_secs_f64(seconds).ok().filter(|limit| !limit.is_zero())
    };
    (limit(0), limit(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, value: impl Into<Value>) -> Result<TaskHeaders, HeaderError> {
        let mut headers = Map::from([("task", "t"), ("id", "i")]);
        headers.insert(name, value);
        TaskHeaders::read(&headers)
    }

    #[test]
    fn every_header_but_two_may_be_missing() {
        let headers = TaskHeaders::read(&Map::from([("task", "t"), ("id", "i")]));
        assert_eq!(headers, Ok(TaskHeaders { task: "t".into(), id: "i".into(), ..TaskHeaders::default() }));
        assert_eq!(TaskHeaders::read(&Map::from([("id", "i")])), Err(HeaderError::NoTask));
        assert_eq!(TaskHeaders::read(&Map::from([("task", "t")])), Err(HeaderError::NoId));
    }

    #[test]
    fn times_are_read_as_celery_reads_them() {
        let noon: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        for text in
            ["2026-11-22T12:00:00", "2026-11-22T12:00:00Z", "2026-11-22T14:00:00+02:00", "2026-11-22 14:00:00+0200"]
        {
            assert_eq!(with("eta", text).unwrap().eta, Some(noon), "{text}");
            assert_eq!(with("expires", text).unwrap().expires, Some(noon), "{text}");
        }
        for nothing in [Value::Null, Value::from("")] {
            assert_eq!(with("eta", nothing).unwrap().eta, None);
        }
        assert!(matches!(with("eta", "soon"), Err(HeaderError::InvalidTime { .. })));
        assert!(matches!(with("expires", 1.5), Err(HeaderError::InvalidTime { .. })));
    }

    #[test]
    fn the_end_of_time_is_no_error_unless_celery_cannot_convert_it() {
        for text in ["9999-12-31T23:59:59.999999", "9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59+05:00"] {
            assert_eq!(with("eta", text).unwrap().eta, Some(Timestamp::MAX), "{text}");
            assert_eq!(with("expires", text).unwrap().expires, Some(Timestamp::MAX), "{text}");
        }
        let beyond = "9999-12-31T23:59:59-12:00";
        assert!(matches!(with("eta", beyond), Err(HeaderError::TimeOutOfRange { .. })));
        assert_eq!(with("expires", beyond).unwrap().expires, Some(Timestamp::MAX));
        assert!(with("eta", "0001-01-01T00:00:00+14:00").unwrap().eta.is_some());
    }

    #[test]
    fn limits_are_hard_then_soft_and_nought_is_none() {
        let second = Some(Duration::from_secs(1));
        for (limits, hard, soft) in [
            (Value::Null, None, None),
            (Value::List(vec![]), None, None),
            (Value::List(vec![1.into(), Value::Null]), second, None),
            (Value::List(vec![0.into(), 1.0.into()]), None, second),
            (Value::List(vec![(-1).into(), f64::NAN.into()]), None, None),
        ] {
            let headers = with("timelimit", limits).unwrap();
            assert_eq!((headers.time_limit, headers.soft_time_limit), (hard, soft));
        }
    }

    #[test]
    fn retries_are_a_count_whatever_is_written() {
        for (written, read) in [(Value::Null, 0), (3.into(), 3), ((-1).into(), 0), (i64::MAX.into(), u32::MAX)] {
            assert_eq!(with("retries", written).unwrap().retries, read);
        }
    }
}
