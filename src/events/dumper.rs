//! [`Dumper`]: events as lines for people and for `grep` (celery/events/dumper.py).

use std::collections::{HashMap, VecDeque};

use jiff::{Timestamp, tz::TimeZone};

use crate::protocol::{Map, Value, repr};

/// How many tasks' calls are remembered.
const TASKS: usize = 0xFFF;

/// Writes events as lines. What a task was called with is said once, and remembered for its later events.
#[derive(Debug, Default)]
pub struct Dumper {
    calls: HashMap<String, String>,
    /// The ids of the calls, the oldest first.
    order: VecDeque<String>,
}

impl Dumper {
    /// The line of an event; `None`: it lacks what every event has.
    pub fn line(&mut self, mut event: Map) -> Option<String> {
        let kind = event.remove("type")?.into_string()?.to_lowercase();
        let hostname = text(&event.remove("hostname")?);
        let timestamp = moment(event.remove("timestamp")?.as_f64()?)?;
        let call = match kind.starts_with("task-") {
            true => Some(self.call(&kind, &mut event)?),
            false => None,
        };
        let mut fields: Vec<_> = event.iter().collect();
        fields.sort_by_key(|(name, _)| *name);
        let fields: Vec<_> = fields.into_iter().map(|(name, value)| format!("{name}={}", text(value))).collect();
        let (fields, colon) = (fields.join(", "), if event.is_empty() { "" } else { ":" });
        let call = call.map_or(String::new(), |call| format!(" {call}"));
        Some(format!("{hostname} [{timestamp}] {}{colon}{call} {fields}", human(&kind)))
    }

    fn call(&mut self, kind: &str, event: &mut Map) -> Option<String> {
        let uuid = text(&event.remove("uuid")?);
        if !matches!(kind, "task-received" | "task-sent") {
            return Some(self.calls.get(&uuid).cloned().unwrap_or_default());
        }
        let [name, args, kwargs] = ["name", "args", "kwargs"].map(|name| text(&event.remove(name).unwrap_or_default()));
        let call = format!("{name}({uuid}) args={args} kwargs={kwargs}");
        if self.calls.insert(uuid.clone(), call.clone()).is_none() {
            self.order.push_back(uuid);
        }
        if self.order.len() > TASKS
            && let Some(oldest) = self.order.pop_front()
        {
            self.calls.remove(&oldest);
        }
        Some(call)
    }
}

fn human(kind: &str) -> String {
    match kind {
        "worker-offline" => "shutdown".to_owned(),
        "worker-online" => "started".to_owned(),
        "worker-heartbeat" => "heartbeat".to_owned(),
        kind => kind.replace('-', " "),
    }
}

/// Python's `str()`.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| repr::repr(value), str::to_owned)
}

/// Python's `str()` of the time, in UTC; its `fromtimestamp` rounds the fraction alone.
fn moment(seconds: f64) -> Option<String> {
    let fraction = ((seconds - seconds.trunc()) * 1e6).round_ties_even() as i64;
    let micros = (seconds.trunc() as i64).checked_mul(1_000_000)?.checked_add(fraction)?;
    let time = Timestamp::from_microsecond(micros).ok()?.to_zoned(TimeZone::UTC);
    let micros = time.subsec_nanosecond() / 1000;
    let micros = if micros == 0 { String::new() } else { format!(".{micros:06}") };
    Some(format!("{}{micros}+00:00", time.strftime("%Y-%m-%d %H:%M:%S")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::json;

    /// As Celery 5.7's `Dumper` writes them.
    #[test]
    fn lines_are_celerys() {
        let rows = [
            (
                r#"{"hostname": "w@h", "type": "worker-online", "timestamp": 1700000000.25, "freq": 2.0, "active": null, "a": [0.5]}"#,
                Some("w@h [2023-11-14 22:13:20.250000+00:00] started: a=[0.5], active=None, freq=2.0"),
            ),
            (
                r#"{"hostname": "w@h", "type": "worker-x", "timestamp": 1700000000}"#,
                Some("w@h [2023-11-14 22:13:20+00:00] worker x "),
            ),
            (
                r#"{"hostname": "w@h", "type": "task-received", "timestamp": 0, "uuid": "u", "name": "t", "args": "(1,)", "kwargs": "{}", "eta": null}"#,
                Some("w@h [1970-01-01 00:00:00+00:00] task received: t(u) args=(1,) kwargs={} eta=None"),
            ),
            (
                r#"{"hostname": "w@h", "type": "task-started", "timestamp": 0, "uuid": "u", "pid": 1}"#,
                Some("w@h [1970-01-01 00:00:00+00:00] task started: t(u) args=(1,) kwargs={} pid=1"),
            ),
            (
                r#"{"hostname": "w@h", "type": "task-started", "timestamp": 0, "uuid": "v"}"#,
                Some("w@h [1970-01-01 00:00:00+00:00] task started  "),
            ),
            (r#"{"hostname": "w@h", "type": "task-started", "timestamp": 0}"#, None),
            (r#"{"hostname": "w@h", "type": "x", "timestamp": 1e300}"#, None),
            (r#"{"type": "x", "timestamp": 0}"#, None),
        ];
        let mut dumper = Dumper::default();
        for (event, expected) in rows {
            let event = json::parse(event.as_bytes()).unwrap().into_map().unwrap();
            assert_eq!(dumper.line(event).as_deref(), expected);
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut dumper = Dumper::default();
        for number in 0..2 * TASKS {
            let uuid = number.to_string();
            let event = [("type", "task-sent"), ("hostname", "h"), ("uuid", &uuid), ("name", "t")];
            let mut event = Map::from(event);
            event.insert("timestamp", 0);
            assert!(dumper.line(event).is_some());
        }
        assert_eq!((dumper.calls.len(), dumper.order.len()), (TASKS, TASKS));
    }
}
