//! [`PeriodicTask`]: what `beat_schedule` says.

use toml::{Table, Value};

use super::names;
use super::parser::{Kind, Mismatch, NestedParser};

/// An entry of `beat_schedule` (celery/beat.py `ScheduleEntry`).
#[derive(Debug, Clone, PartialEq)]
pub struct PeriodicTask {
    /// Its key.
    pub name: String,
    /// The name of the task, which may be one that only other workers know.
    pub task: String,
    /// When it is due.
    pub schedule: ScheduleDefinition,
    /// Its arguments by position.
    pub args: Vec<Value>,
    /// Its arguments by name.
    pub kwargs: Table,
    /// The options of `apply_async`.
    pub options: Table,
}

/// When an entry is due. What the words of a crontab, or of an event, mean is not known here.
#[derive(Debug, Clone, PartialEq)]
pub enum ScheduleDefinition {
    /// So long after the last run: `schedule = 30.0`.
    Interval {
        /// How long, in seconds; above 0.
        seconds: f64,
        /// Whether it is rounded down to full days, hours or minutes: `relative = true` in the entry.
        relative: bool,
    },
    /// `schedule = { crontab = "30 4 * * mon-fri" }`, in the order of cron.
    CrontabText(String),
    /// `schedule = { crontab = { minute = "30", hour = 4 } }`: the fields under Celery's names that are not `*`, each a number, a
    /// text or a list of numbers.
    Crontab(Table),
    /// `schedule = { solar = { event = "sunrise", lat = 52.5, lon = 13.4 } }`.
    Solar {
        /// Celery's name of the event.
        event: String,
        /// In degrees north.
        latitude: f64,
        /// In degrees east.
        longitude: f64,
    },
}

const KEYS: &[&str] = &["task", "schedule", "args", "kwargs", "options", "relative"];
const SCHEDULES: &[&str] = &["crontab", "solar"];
const FIELDS: &[&str] = &["minute", "hour", "day_of_week", "day_of_month", "month_of_year"];
const PLACE: &[&str] = &["event", "lat", "lon"];
/// Options of a message that a slip of the pen would otherwise make one that nobody reads.
const OPTIONS: &[&str] = &[
    "compression",
    "countdown",
    "delivery_mode",
    "eta",
    "exchange",
    "exchange_type",
    "expires",
    "headers",
    "ignore_result",
    "link",
    "link_error",
    "priority",
    "queue",
    "routing_key",
    "serializer",
    "shadow",
    "soft_time_limit",
    "task_id",
    "time_limit",
];
const SCHEDULE: &str = "seconds, such as 30 or 1.5, { crontab = … } or { solar = … }";

/// A table of entries by name, or a list of such tables.
pub(super) const PERIODIC_TASKS: NestedParser<Vec<PeriodicTask>> =
    NestedParser::new(Kind::Table, |value| match value {
        Value::String(text) if text.is_empty() => Ok(Vec::new()),
        Value::Table(table) => entries(table),
        Value::Array(items) => {
            let listed = items.iter().enumerate().map(|(index, item)| {
                let table = item.as_table().ok_or_else(|| Mismatch::new(EXPECTED));
                table.and_then(entries).map_err(|mismatch| mismatch.within(&format!("[{index}]")))
            });
            Ok(listed.collect::<Result<Vec<_>, _>>()?.concat())
        }
        _ => Err(Mismatch::new(EXPECTED)),
    });

const EXPECTED: &str = "a table of entries by name";

fn entries(table: &Table) -> Result<Vec<PeriodicTask>, Mismatch> {
    table.iter().map(|(name, value)| entry(name, value)).collect()
}

fn entry(name: &str, value: &Value) -> Result<PeriodicTask, Mismatch> {
    let Value::Table(table) = value else {
        return Err(Mismatch::new("a table with task and schedule").within(name));
    };
    read(name, table).map_err(|mismatch| mismatch.within(name))
}

fn read(name: &str, table: &Table) -> Result<PeriodicTask, Mismatch> {
    known(table, KEYS)?;
    let relative = optional(table, "relative", Value::as_bool, "true or false")?.unwrap_or(false);
    let task = table.get("task").and_then(Value::as_str).filter(|task| !task.is_empty());
    let schedule = table.get("schedule").ok_or_else(|| Mismatch::new(SCHEDULE));
    let schedule = schedule.and_then(|value| schedule_of(value, relative)).map_err(|m| m.within("schedule"))?;
    let options = optional(table, "options", Value::as_table, "a table of options")?.cloned().unwrap_or_default();
    checked(&options).map_err(|mismatch| mismatch.within("options"))?;
    let args = optional(table, "args", Value::as_array, "a list")?.cloned().unwrap_or_default();
    let kwargs = optional(table, "kwargs", Value::as_table, "a table of arguments by name")?.cloned();
    for key in ["args", "kwargs", "options"] {
        table.get(key).map_or(Ok(()), undated).map_err(|mismatch| mismatch.within(key))?;
    }
    Ok(PeriodicTask {
        name: name.to_owned(),
        task: task.ok_or_else(|| Mismatch::new("the name of a task").within("task"))?.to_owned(),
        schedule,
        args,
        kwargs: kwargs.unwrap_or_default(),
        options,
    })
}

fn schedule_of(value: &Value, relative: bool) -> Result<ScheduleDefinition, Mismatch> {
    let Value::Table(table) = value else {
        let seconds = number(value).filter(|seconds| *seconds > 0.0 && seconds.is_finite());
        return Ok(ScheduleDefinition::Interval { seconds: seconds.ok_or_else(|| Mismatch::new(SCHEDULE))?, relative });
    };
    known(table, SCHEDULES)?;
    match (table.get("crontab"), table.get("solar")) {
        (Some(crontab), None) => crontab_of(crontab).map_err(|mismatch| mismatch.within("crontab")),
        (None, Some(solar)) => solar_of(solar).map_err(|mismatch| mismatch.within("solar")),
        _ => Err(Mismatch::new(SCHEDULE)),
    }
}

fn crontab_of(value: &Value) -> Result<ScheduleDefinition, Mismatch> {
    let table = match value {
        Value::String(text) => return Ok(ScheduleDefinition::CrontabText(text.clone())),
        Value::Table(table) => table,
        _ => return Err(Mismatch::new("a text such as \"30 4 * * mon-fri\", or a table of fields")),
    };
    known(table, FIELDS)?;
    let is_field = |value: &Value| match value {
        Value::Array(numbers) => numbers.iter().all(Value::is_integer),
        value => value.is_integer() || value.is_str(),
    };
    match table.iter().find(|(_, value)| !is_field(value)) {
        Some((name, _)) => Err(Mismatch::new("a number, a text such as \"*/15\", or a list of numbers").within(name)),
        None => Ok(ScheduleDefinition::Crontab(table.clone())),
    }
}

fn solar_of(value: &Value) -> Result<ScheduleDefinition, Mismatch> {
    let table = value.as_table().ok_or_else(|| Mismatch::new("a table of event, lat and lon"))?;
    known(table, PLACE)?;
    let event = table.get("event").and_then(Value::as_str);
    let degrees = |name| {
        table.get(name).and_then(number).ok_or_else(|| Mismatch::new("degrees, such as 52.5 or -13").within(name))
    };
    Ok(ScheduleDefinition::Solar {
        event: event.ok_or_else(|| Mismatch::new("an event, such as \"sunrise\"").within("event"))?.to_owned(),
        latitude: degrees("lat")?,
        longitude: degrees("lon")?,
    })
}

/// Refuses keys that are none of these.
fn known(table: &Table, keys: &[&'static str]) -> Result<(), Mismatch> {
    let Some(other) = table.keys().find(|key| !keys.contains(&key.as_str())) else { return Ok(()) };
    Err(match names::misspelt(other, keys) {
        Some(near) => Mismatch::misspelt(other, near),
        None => Mismatch::new(format!("only {}", keys.join(", "))).within(other),
    })
}

/// A mistake would otherwise be told when the first message is sent. Options that are none of Celery's are the message's.
fn checked(options: &Table) -> Result<(), Mismatch> {
    for (name, value) in options {
        let expected = match name.as_str() {
            "queue" | "exchange" | "routing_key" | "serializer" | "compression" if !value.is_str() => "a name",
            "priority" if !value.is_integer() => "a whole number",
            "countdown" | "expires" | "time_limit" | "soft_time_limit" if number(value).is_none() => "seconds",
            "headers" if !value.is_table() => "a table of headers",
            other => match names::misspelt(other, OPTIONS) {
                Some(near) if !OPTIONS.contains(&other) => return Err(Mismatch::misspelt(other, near)),
                _ => continue,
            },
        };
        return Err(Mismatch::new(expected).within(name));
    }
    Ok(())
}

/// A message has no form for the dates of TOML.
fn undated(value: &Value) -> Result<(), Mismatch> {
    match value {
        Value::Datetime(_) => Err(Mismatch::new("no date: put it into quotation marks, and the task reads a text")),
        Value::Array(items) => items.iter().try_for_each(undated),
        Value::Table(table) => {
            table.iter().try_for_each(|(key, item)| undated(item).map_err(|mismatch| mismatch.within(key)))
        }
        _ => Ok(()),
    }
}

fn optional<'t, T>(
    table: &'t Table,
    key: &str,
    read: impl Fn(&'t Value) -> Option<T>,
    expected: &str,
) -> Result<Option<T>, Mismatch> {
    let Some(value) = table.get(key) else { return Ok(None) };
    read(value).map(Some).ok_or_else(|| Mismatch::new(expected).within(key))
}

fn number(value: &Value) -> Option<f64> {
    value.as_float().or(value.as_integer().map(|number| number as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn read(toml: &str) -> Result<Vec<PeriodicTask>, String> {
        let mut config = Config::default();
        config.merge_toml(toml, "test.toml").map_err(|error| error.to_string())?;
        Ok(config.beat_schedule)
    }

    #[test]
    fn an_entry_has_what_celerys_has() {
        let toml = "[beat_schedule.tick]\ntask = 't'\nschedule = 30\nrelative = true\nargs = [1, 'a']\n\
                    kwargs = { x = 2.5 }\noptions = { queue = 'q', expires = 60, priority = 3, own = 1 }\n";
        let table = |text: &str| text.parse::<Table>().unwrap();
        let expected = PeriodicTask {
            name: "tick".to_owned(),
            task: "t".to_owned(),
            schedule: ScheduleDefinition::Interval { seconds: 30.0, relative: true },
            args: vec![Value::from(1), Value::from("a")],
            kwargs: table("x = 2.5"),
            options: table("queue = 'q'\nexpires = 60\npriority = 3\nown = 1"),
        };
        assert_eq!(read(toml).unwrap(), [expected]);
        let schedules = |given: &str| {
            let entries = read(&format!("[beat_schedule]\na = {{ task = 't', schedule = {given} }}")).unwrap();
            entries[0].schedule.clone()
        };
        assert_eq!(schedules("0.5"), ScheduleDefinition::Interval { seconds: 0.5, relative: false });
        let fields = "minute = '*/5'\nhour = 4\nday_of_week = [1, 2]";
        let given = "{ crontab = { minute = '*/5', hour = 4, day_of_week = [1, 2] } }";
        assert_eq!(schedules(given), ScheduleDefinition::Crontab(table(fields)));
        assert_eq!(
            schedules("{ crontab = '30 4 * * mon' }"),
            ScheduleDefinition::CrontabText("30 4 * * mon".to_owned())
        );
        let solar = ScheduleDefinition::Solar { event: "sunrise".to_owned(), latitude: 52.5, longitude: -13.0 };
        assert_eq!(schedules("{ solar = { event = 'sunrise', lat = 52.5, lon = -13 } }"), solar);
    }

    #[test]
    fn mistakes_are_named_with_the_entry_and_the_key() {
        let seconds = format!("expected {SCHEDULE}");
        let rows = [
            ("1", "expected a table with task and schedule".to_owned()),
            ("{ schedule = 1 }", ".task: expected the name of a task".to_owned()),
            ("{ task = 't' }", format!(".schedule: {seconds}")),
            ("{ task = 't', schedule = 0 }", format!(".schedule: {seconds}")),
            ("{ task = 't', schedule = 'hourly' }", format!(".schedule: {seconds}")),
            ("{ task = 't', schedule = {} }", format!(".schedule: {seconds}")),
            ("{ task = 't', shedule = 1 }", ".shedule: unknown, did you mean schedule?".to_owned()),
            (
                "{ task = 't', schedule = 1, enabled = true }",
                ".enabled: expected only task, schedule, args, kwargs, options, relative".to_owned(),
            ),
            (
                "{ task = 't', schedule = { crontab = { minuts = 1 } } }",
                ".schedule.crontab.minuts: unknown, did you mean minute?".to_owned(),
            ),
            (
                "{ task = 't', schedule = { crontab = { minute = 1.5 } } }",
                ".schedule.crontab.minute: expected a number, a text such as \"*/15\", or a list of numbers".to_owned(),
            ),
            (
                "{ task = 't', schedule = { solar = { event = 'dusk', lat = 'x', lon = 1 } } }",
                ".schedule.solar.lat: expected degrees, such as 52.5 or -13".to_owned(),
            ),
            ("{ task = 't', schedule = 1, args = 5 }", ".args: expected a list".to_owned()),
            (
                "{ task = 't', schedule = 1, kwargs = { at = 2026-11-29 } }",
                ".kwargs.at: expected no date: put it into quotation marks, and the task reads a text".to_owned(),
            ),
            (
                "{ task = 't', schedule = 1, options = { priority = 'x' } }",
                ".options.priority: expected a whole number".to_owned(),
            ),
            (
                "{ task = 't', schedule = 1, options = { expirse = 1 } }",
                ".options.expirse: unknown, did you mean expires?".to_owned(),
            ),
        ];
        for (entry, expected) in rows {
            let expected = if expected.starts_with('.') { expected } else { format!(": {expected}") };
            let error = read(&format!("[beat_schedule]\nnightly = {entry}")).unwrap_err();
            assert_eq!(error, format!("test.toml: beat_schedule.nightly{expected}"), "{entry}");
        }
    }
}
