//! [`Unknown`]: a task that nobody here has registered, where the setting `unknown_tasks` is `hand-back`. It goes back to
//! its queue for a worker that knows it.
//!
//! It is first held for a while, which grows with every time, so that workers that all lack the task do not pass it
//! round without rest. The while is random in part: messages that came together do not come back together, when a peer
//! that takes one at a time would get one, and a Rust worker all others. While it is held it takes up its place in the prefetch window: who cannot run such messages does
//! not empty a queue of them, and passes round no more than a window of them for each delay.
//!
//! How often it was handed back stands in its header [`HEADER`], which travels with the message through whatever broker
//! and worker, together with the number of its retries: a task that a peer has run and sent again starts anew. After
//! [`LIMIT`] times, about an hour, it is what it is by default: FAILURE `NotRegistered` and a dead letter.

use std::time::Duration;

use crate::protocol::{Map, Message, Value};
use crate::transport::{Publication, Receipt, Settlement};

/// The header that counts: `{"count": 3, "retries": 0}`.
pub(crate) const HEADER: &str = "x-celeriac-handed-back";

/// How often a message is handed back before it is given up.
const LIMIT: u32 = 1200;
/// How long it is held the first time; each time twice as long.
const FIRST: Duration = Duration::from_millis(50);
/// The longest that it is held. No longer, because RabbitMQ serves its consumers in turn: who hands a message back may
/// well be who gets it next, several times over, though a peer that knows the task is there.
const LONGEST: Duration = Duration::from_secs(4);

/// A message of a task that nobody here knows.
#[derive(Debug)]
pub(crate) struct Unknown {
    delivery: Receipt,
    message: Message,
    /// How often it was handed back before.
    count: u32,
}

impl Unknown {
    /// Whether a message may be handed back once more.
    pub(crate) fn may_go(message: &Message) -> bool {
        count(&message.headers) < LIMIT
    }

    /// Whether the broker has taken the message back.
    pub(crate) fn is_lost(&self) -> bool {
        self.delivery.is_lost()
    }

    /// The message as one to hand back.
    pub(crate) fn new(delivery: Receipt, message: Message) -> Self {
        Unknown { delivery, count: count(&message.headers), message }
    }

    /// How long to hold it; `chance` lies between 0 and 1.
    pub(crate) fn delay(&self, chance: f64) -> Duration {
        let whole = FIRST.saturating_mul(1 << self.count.min(16)).min(LONGEST);
        whole.mul_f64((0.5 + chance / 2.0).clamp(0.5, 1.0))
    }

    /// Tells of it, the first time more loudly.
    pub(crate) fn log(&self) {
        let text = |name| self.message.headers.get(name).and_then(Value::as_str).unwrap_or("?");
        let (task, id, times) = (text("task"), text("id"), self.count + 1);
        match self.count {
            0 => tracing::info!("Task {task}[{id}] is not registered here, and is handed back"),
            _ => tracing::debug!("Task {task}[{id}] is not registered here, and is handed back for the {times}. time"),
        }
    }

    /// Puts it at the end of its queue.
    pub(crate) fn hand_back(mut self) {
        let times = Map::from([("count", i64::from(self.count) + 1), ("retries", retries(&self.message.headers))]);
        self.message.headers.insert(HEADER, times);
        let publication = Publication::to_queue(self.delivery.queue().as_str(), self.message);
        // In the instant in which this copy is there, the other is gone.
        self.delivery.settle(Settlement::DeadLetter(Box::new(publication)));
    }
}

/// How often a message with these headers was handed back since it was last sent.
fn count(headers: &Map) -> u32 {
    let number = |name: &str| headers.get(HEADER)?.as_map()?.get(name)?.as_i64();
    match number("retries") {
        Some(at) if at == retries(headers) => number("count").map_or(0, |count| u32::try_from(count).unwrap_or(LIMIT)),
        _ => 0,
    }
}

fn retries(headers: &Map) -> i64 {
    headers.get("retries").and_then(Value::as_i64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hand_backs_are_counted_anew_after_a_retry() {
        let note = |count: i64, retries: i64| Value::Map(Map::from([("count", count), ("retries", retries)]));
        for (retries, header, expected) in [
            (Value::Null, Value::Null, 0),
            (Value::Null, note(3, 0), 3),
            (2.into(), note(3, 2), 3),
            (2.into(), note(3, 1), 0),
            (0.into(), note(-1, 0), LIMIT),
            (0.into(), note(i64::MAX, 0), LIMIT),
            (0.into(), "text".into(), 0),
            (0.into(), Value::Map(Map::from([("count", "3"), ("retries", "0")])), 0),
        ] {
            let shown = format!("{retries:?} {header:?}");
            assert_eq!(count(&Map::from([("retries", retries), (HEADER, header)])), expected, "{shown}");
        }
    }

    #[test]
    fn a_message_is_passed_round_for_about_an_hour() {
        let unknown = |count| {
            let headers = Map::from([(HEADER, Map::from([("count", count), ("retries", 0)]))]);
            let message = Message { headers, ..Message::default() };
            Unknown::may_go(&message).then(|| Unknown::new(delivery(), message))
        };
        let delays: Vec<_> = (0..).map_while(|count| Some(unknown(count)?.delay(0.5))).collect();
        assert_eq!(delays[..3], [37500, 75000, 150_000].map(Duration::from_micros));
        assert!(delays.is_sorted());
        assert!((3000..5000).contains(&delays.iter().sum::<Duration>().as_secs()));
        let bounds = [0.0, 1.0].map(|chance| unknown(1).unwrap().delay(chance));
        assert_eq!(bounds, [50, 100].map(Duration::from_millis));
    }

    fn delivery() -> Receipt {
        use crate::transport::{Delivery, Prefetch, Settler, Tag};
        struct Nowhere;
        impl Settler for Nowhere {
            fn settle(&self, _: Tag, _: Settlement) {}
        }
        let settler = std::sync::Arc::new(Nowhere);
        Delivery::new(Ok(Message::default()), "q".into(), Tag(1), settler, Prefetch::new(0).take()).into_parts().1
    }
}
