//! [`messages`]: what events are sent as.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::Event;
use super::together::Together;
use crate::Result;
use crate::protocol::{Map, Message, Properties, Serializer, Value};
use crate::time::zone;

/// The node that events come from, as all of them tell it.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Its name: `celery@host`, or `gen<pid>@host` for a producer.
    pub hostname: String,
    /// Its process.
    pub pid: u32,
    /// The process's own time zone.
    pub timezone: TimeZone,
    /// What it runs (celery/worker/state.py `SOFTWARE_INFO`); a worker names itself honestly, and nothing compares it.
    pub sw_ident: &'static str,
    /// Which version of it.
    pub sw_ver: &'static str,
    /// On which system.
    pub sw_sys: &'static str,
}

/// One message, and the key that it is sent with.
#[derive(Debug, Clone, PartialEq)]
pub struct EventMessage {
    /// `worker.heartbeat`; `task.multi` for what left together.
    pub routing_key: String,
    /// A map, or with `task.multi` a list of them.
    pub message: Message,
}

impl Origin {
    /// A node of that name, which is this process.
    pub fn new(hostname: impl Into<String>) -> Self {
        Origin {
            hostname: hostname.into(),
            pid: std::process::id(),
            timezone: zone::local(),
            sw_ident: "celeriac",
            sw_ver: env!("CARGO_PKG_VERSION"),
            // Python's `platform.system()`.
            sw_sys: if cfg!(target_os = "macos") { "Darwin" } else { "Linux" },
        }
    }

    /// Hours west of UTC, as a float (celery/utils/time.py `utcoffset`): Berlin in winter is at -1.0.
    pub(super) fn utcoffset(&self, time: Timestamp) -> f64 {
        // No zone is at 0 west: Python writes 0.0 for UTC, and not -0.0.
        f64::from(0 - self.timezone.to_offset(time).seconds()) / 3600.0
    }
}

/// The messages of events, in the events' order: task events that follow each other leave together
/// (celery/events/dispatcher.py `EventDispatcher.flush`).
///
/// # Errors
/// `Encode`: the serializer has no form for a value.
pub fn messages(
    events: impl IntoIterator<Item = Event>,
    origin: &Origin,
    serializer: Serializer,
) -> Result<Vec<EventMessage>> {
    let (mut messages, mut together) = (Vec::new(), Together::new(origin.clone(), serializer));
    for event in events {
        if event.is_buffered() {
            together.push(event)?;
        } else {
            multi(&mut together, origin, serializer, &mut messages)?;
            messages.push(single(event, origin, serializer)?);
        }
    }
    multi(&mut together, origin, serializer, &mut messages)?;
    Ok(messages)
}

/// What has gathered, if anything has.
fn multi(
    together: &mut Together,
    origin: &Origin,
    serializer: Serializer,
    messages: &mut Vec<EventMessage>,
) -> Result<()> {
    for bundle in together.take(usize::MAX) {
        messages.push(bundle.into_message(origin, serializer)?);
    }
    Ok(())
}

fn single(event: Event, origin: &Origin, serializer: Serializer) -> Result<EventMessage> {
    let routing_key = event.name().replace('-', ".");
    let body = serializer.encode(&Value::Map(event.into_map(origin)))?;
    Ok(wrapped(routing_key, body, origin, serializer))
}

/// The message of that body.
pub(super) fn wrapped(routing_key: String, body: Vec<u8>, origin: &Origin, serializer: Serializer) -> EventMessage {
    let message = Message {
        headers: Map::from([("hostname", origin.hostname.as_str())]),
        properties: Properties { delivery_mode: Some(1), priority: Some(0), ..Properties::default() },
        content_type: Some(serializer.content_type().to_owned()),
        content_encoding: Some(serializer.content_encoding().to_owned()),
        body: body.into(),
    };
    EventMessage { routing_key, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{Heartbeat, Kind, Stamp};
    use crate::protocol::json;

    fn event(clock: u64, kind: Kind) -> Event {
        Event { kind, stamp: Stamp { clock, time: Timestamp::UNIX_EPOCH } }
    }

    #[test]
    fn task_events_leave_together_and_in_order_with_those_of_the_worker() {
        let heartbeat = || Kind::WorkerHeartbeat(Heartbeat { freq: 2.0.into(), load: None });
        let tasks =
            |from: u64, count: u64| (from..from + count).map(|clock| event(clock, Kind::TaskStarted("i".into())));
        let events = tasks(0, 2).chain([event(2, heartbeat()), event(3, heartbeat())]).chain(tasks(4, 101));
        let sent = messages(events, &Origin::new("w1@h"), Serializer::Json).unwrap();
        let shown: Vec<_> = sent
            .iter()
            .map(|sent| match json::parse(&sent.message.body).unwrap() {
                Value::List(events) => (sent.routing_key.as_str(), events.len()),
                _ => (sent.routing_key.as_str(), 0),
            })
            .collect();
        let expected = [
            ("task.multi", 2),
            ("worker.heartbeat", 0),
            ("worker.heartbeat", 0),
            ("task.multi", 100),
            ("task.multi", 1),
        ];
        assert_eq!(shown, expected);
        for EventMessage { message, .. } in sent {
            assert_eq!(message.headers, Map::from([("hostname", "w1@h")]));
            assert_eq!(message.properties.delivery_mode, Some(1));
            assert_eq!(message.content_type.as_deref(), Some("application/json"));
        }
        assert_eq!(messages([], &Origin::new("w1@h"), Serializer::Json).unwrap(), []);
    }

    #[test]
    fn the_offset_is_told_in_hours_west_of_utc() {
        let time: Timestamp = "2026-01-15T12:00:00Z".parse().unwrap();
        let rows = [("Europe/Berlin", -1.0), ("America/New_York", 5.0), ("Asia/Kolkata", -5.5), ("UTC", 0.0)];
        for (name, hours) in rows {
            let origin = Origin { timezone: TimeZone::get(name).unwrap(), ..Origin::new("h") };
            let offset = origin.utcoffset(time);
            assert_eq!((offset, offset.is_sign_negative()), (hours, hours < 0.0), "{name}");
        }
    }
}
