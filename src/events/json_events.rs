//! [`JsonEvents`]: events written as JSON when they happen. A busy worker has three for each task, and to build a
//! [`Map`](crate::protocol::Map) of each only to write it takes longer than to run the task.

use jiff::Timestamp;

use super::fields::Fields;
use super::{Event, Origin, Stamp};
use crate::Result;
use crate::protocol::json::ObjectWriter;
use crate::protocol::{Value, digits, float};

/// A list of one node's events, as text that has no end yet.
#[derive(Debug)]
pub(super) struct JsonEvents {
    origin: Origin,
    text: Vec<u8>,
    /// What the events of `second` begin with: all of them are at one offset from UTC.
    start: Vec<u8>,
    second: i64,
}

/// An event that is being written.
struct Writing<'a> {
    object: ObjectWriter<'a>,
    /// The first error.
    written: Result<()>,
}

impl Fields for Writing<'_> {
    fn put(&mut self, name: &'static str, value: impl Into<Value>) {
        if self.written.is_ok() {
            self.written = self.object.value(name, &value.into());
        }
    }
}

impl JsonEvents {
    pub(super) fn new(origin: Origin) -> Self {
        JsonEvents { origin, text: Vec::new(), start: Vec::new(), second: 0 }
    }

    /// Adds an event, as [`Event::into_map`] has it.
    ///
    /// # Errors
    /// `Encode`: a value is nested too deeply. The list is as it was.
    pub(super) fn push(&mut self, event: Event) -> Result<()> {
        let before = self.text.len();
        self.text.extend_from_slice(if before == 0 { b"[" } else { b", " });
        self.write(event).inspect_err(|_| self.text.truncate(before))
    }

    /// The whole list. The next one will be about as long.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.text.push(b']');
        let room = self.text.len() + self.text.len() / 8;
        std::mem::replace(&mut self.text, Vec::with_capacity(room))
    }

    fn write(&mut self, event: Event) -> Result<()> {
        let Event { kind, stamp: Stamp { clock, time } } = event;
        let name = kind.name();
        self.begin(time);
        let mut fields = Writing { object: ObjectWriter::resume(&mut self.text, &self.start), written: Ok(()) };
        fields.put("clock", clock);
        kind.put_into(&mut fields, &self.origin);
        let Writing { mut object, written } = fields;
        write_time(time, object.key("timestamp"));
        object.text("type", name);
        object.end();
        written
    }

    /// Has `start` right for events of that time.
    fn begin(&mut self, time: Timestamp) {
        if self.second == time.as_second() && !self.start.is_empty() {
            return;
        }
        self.second = time.as_second();
        self.start.clear();
        let mut object = ObjectWriter::begin(&mut self.start);
        object.text("hostname", &self.origin.hostname);
        float::write_json(object.key("utcoffset"), self.origin.utcoffset(time));
        digits::write(self.origin.pid.into(), 1, object.key("pid"));
    }
}

/// Between these microseconds the seconds, as a float, have no shorter text than with all six digits behind the point:
/// from the first second on nothing is written with an exponent, and until 2106 no two microseconds are one float.
const EXACT: std::ops::Range<u64> = 1_000_000..(1 << 32) * 1_000_000;

/// Appends the seconds since the epoch as Python writes the float.
fn write_time(time: Timestamp, out: &mut Vec<u8>) {
    match u64::try_from(time.as_microsecond()) {
        Ok(micros) if EXACT.contains(&micros) => {
            digits::write(micros / 1_000_000, 1, out);
            out.push(b'.');
            digits::write(micros % 1_000_000, 6, out);
            let zeros = out.iter().rev().take(5).take_while(|digit| **digit == b'0').count();
            out.truncate(out.len() - zeros);
        }
        _ => float::write_json(out, time.as_microsecond() as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Kind;
    use crate::protocol::json;

    fn stamp(clock: u64, micros: i64) -> Stamp {
        Stamp { clock, time: Timestamp::from_microsecond(micros).unwrap() }
    }

    /// What is written at once is what would be written of the maps, over changes of the second and of the offset.
    #[test]
    fn a_list_is_written_as_that_of_its_maps() {
        let timezone = jiff::tz::TimeZone::get("Europe/Berlin").unwrap();
        let origin = Origin { timezone, ..Origin::new("w\"ö\"@h") };
        // Summer ends within them.
        let times = [1_792_889_999_999_999, 1_792_890_000_000_000, 1_792_890_000_000_010, 1, -5_000_001, 0];
        let events = times.iter().enumerate().map(|(nth, micros)| {
            let kind = Kind::TaskSucceeded { uuid: format!("{nth}"), result: "'é\n'".into(), runtime: 0.1.into() };
            Event { kind, stamp: stamp(u64::MAX - nth as u64, *micros) }
        });
        let mut written = JsonEvents::new(origin.clone());
        for _ in 0..2 {
            events.clone().for_each(|event| written.push(event).unwrap());
            let maps = events.clone().map(|event| Value::Map(event.into_map(&origin))).collect();
            assert_eq!(
                String::from_utf8(written.take()).unwrap(),
                String::from_utf8(json::to_vec(&Value::List(maps)).unwrap()).unwrap()
            );
        }
    }

    #[test]
    fn an_event_that_cannot_be_written_leaves_no_trace() {
        let deep = (0..2000).fold(Value::Null, |inner, _| Value::List(vec![inner]));
        let bad = Kind::TaskFailed { uuid: "i".into(), exception: "e".into(), traceback: Some(deep) };
        let event = |kind| Event { kind, stamp: stamp(1, 0) };
        let (mut plain, mut disturbed) = (JsonEvents::new(Origin::new("h")), JsonEvents::new(Origin::new("h")));
        for _ in 0..2 {
            assert!(disturbed.push(event(bad.clone())).is_err());
            for events in [&mut plain, &mut disturbed] {
                events.push(event(Kind::TaskStarted("i".into()))).unwrap();
            }
        }
        assert_eq!(disturbed.take(), plain.take());
    }

    #[test]
    fn times_are_written_as_their_floats() {
        let edges = [0, 1, 999_999, 1_000_000, 1_000_001, 1_500_000, 1_764_297_600_000_000, 1_764_297_600_250_000];
        let (start, end) = (EXACT.start as i64, EXACT.end as i64);
        let beyond = [end - 1, end, end + 1, -1, -1_764_297_600_250_001];
        let mut random = fastrand::Rng::with_seed(7);
        let many = (0..100_000).map(|_| random.i64(start..end));
        for micros in edges.into_iter().chain(beyond).chain(many) {
            let (mut written, mut expected) = (Vec::new(), Vec::new());
            write_time(Timestamp::from_microsecond(micros).unwrap(), &mut written);
            float::write_json(&mut expected, micros as f64 / 1e6);
            assert_eq!(String::from_utf8_lossy(&written), String::from_utf8_lossy(&expected), "{micros}");
        }
    }
}
