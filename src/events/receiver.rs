//! [`Receiver`]: reads messages of events.

use crate::protocol::{Map, Value};

/// Reads what is heard on the exchange of events (celery/events/receiver.py `EventReceiver`).
#[derive(Debug, Clone, Default)]
pub struct Receiver {
    /// Its logical clock.
    clock: u64,
    /// How far local time is behind UTC, in hours: what Celery calls `utcoffset`.
    utcoffset: f64,
}

/// What others say of the time is believed up to here.
const FURTHEST: u64 = 1 << 62;

impl Receiver {
    /// A receiver in a place whose time is so many hours behind UTC.
    pub fn new(utcoffset: f64) -> Self {
        Receiver { clock: 0, utcoffset }
    }

    /// The events in the body of one message, which is one event or a list of them; `now` is the time in seconds since the
    /// epoch. Each has a type; what has none is left out, so that one bad sender harms nobody.
    pub fn receive(&mut self, body: Value, now: f64) -> Vec<Map> {
        let events = match body {
            Value::List(events) => events,
            one => vec![one],
        };
        events.into_iter().filter_map(|event| self.receive_one(event, now)).collect()
    }

    fn receive_one(&mut self, event: Value, now: f64) -> Option<Map> {
        let mut event = event.into_map()?;
        let is_sent = event.get("type").and_then(Value::as_str)? == "task-sent";
        match event.get("clock").and_then(Value::as_u64) {
            // Clients never synchronize their clocks, so theirs says nothing.
            _ if is_sent => {
                let clock = self.clock.max(1) - 1;
                event.insert("clock", clock);
                self.adjust(clock);
            }
            Some(clock) => self.adjust(clock),
            None => {
                self.adjust(0);
                event.insert("clock", self.clock);
            }
        }
        let number = |name| event.get(name).and_then(Value::as_f64);
        if let (Some(offset), Some(timestamp)) = (number("utcoffset"), number("timestamp")) {
            event.insert("timestamp", timestamp - (offset - self.utcoffset) * 3600.0);
        }
        event.insert("local_received", now);
        Some(event)
    }

    /// kombu/clocks.py `LamportClock.adjust`.
    fn adjust(&mut self, other: u64) {
        self.clock = self.clock.max(other.min(FURTHEST)) + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::json;

    fn receive(receiver: &mut Receiver, body: &str) -> Vec<String> {
        let events = receiver.receive(json::parse(body.as_bytes()).unwrap(), 9.5);
        events.into_iter().map(|event| String::from_utf8(json::to_vec(&event.into()).unwrap()).unwrap()).collect()
    }

    #[test]
    fn events_are_read_as_celery_reads_them() {
        let mut receiver = Receiver::new(-1.0);
        let one =
            receive(&mut receiver, r#"{"type": "worker-online", "clock": 7, "utcoffset": -1.0, "timestamp": 5.5}"#);
        let expected =
            r#"{"type": "worker-online", "clock": 7, "utcoffset": -1.0, "timestamp": 5.5, "local_received": 9.5}"#;
        assert_eq!(one, [expected]);
        let several = receive(
            &mut receiver,
            r#"[{"type": "task-sent", "clock": 900}, {"type": "x"}, {"type": "y", "utcoffset": 0, "timestamp": 7200.0},
                7, {"clock": 1}, {"type": 3}]"#,
        );
        let expected = [
            r#"{"type": "task-sent", "clock": 7, "local_received": 9.5}"#,
            r#"{"type": "x", "clock": 10, "local_received": 9.5}"#,
            r#"{"type": "y", "utcoffset": 0, "timestamp": 3600.0, "clock": 11, "local_received": 9.5}"#,
        ];
        assert_eq!(several, expected);
    }

    #[test]
    fn nobody_turns_the_clock_over() {
        let mut receiver = Receiver::new(0.0);
        receive(&mut receiver, r#"{"type": "x", "clock": 18446744073709551615}"#);
        assert_eq!(receive(&mut receiver, r#"{"type": "x", "clock": 3}"#).len(), 1);
        assert_eq!(receive(&mut receiver, "[[[]]]"), [""; 0]);
    }
}
