//! [`Parking`]: what is for much later waits at the broker, and not here (`worker_park_eta_after`).
//!
//! A message that is held is unacknowledged: it takes a place of the prefetch window, and RabbitMQ closes the channel of
//! who holds one for longer than its `consumer_timeout`. A parked message is published to exchanges and queues that keep
//! it for as long as its delay's binary digits say ([`DelayLevels::PARKING`], which are Celery's but for their names), and
//! acknowledged when the broker has taken it. Behind them it finds the very queue that it was taken from, by the queue's
//! name and past its exchange: a direct exchange could not tell its key, and others would bring it to other queues too.
//!
//! It is there again a second or two before its time, so that it is held for these and runs on time. Where it came from
//! stands in its header [`HEADER`], and is put back when it is received: a task cannot see that it was parked.
//!
//! A copy that the broker refuses is no way to lose or to keep back a task: the message comes again, and is held here, as is
//! all that comes within the [`PAUSE`] after it.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::request::Work;
use super::retry::DEATH_HEADERS;
use crate::protocol::{Map, Message, Value};
use crate::routing::{Declaration, DelayLevels};
use crate::transport::{Publication, Queue, QueueName, Refused, Settlement};

/// The header of a parked message: the exchange and the routing key that it came with before.
pub(crate) const HEADER: &str = "x-celeriac-parked";

/// So much earlier than its ETA a message is to be back: each level may be late by milliseconds.
const EARLY: u64 = 1;

/// How long nothing is parked after a copy was refused.
const PAUSE: Duration = Duration::from_secs(60);

/// What is for much later waits at the broker.
#[derive(Debug, Default)]
pub(crate) struct Parking {
    /// How far away an ETA may be to be waited for here; `None`: however far.
    after: Option<Duration>,
    /// The queues that a message comes back to.
    queues: HashSet<QueueName>,
    ready: Ready,
    refused: Refused,
    /// Until when nothing is parked, since a copy was refused.
    paused_until: Option<Instant>,
}

/// Whether the broker has what it takes, on the connection that is up.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ready(Arc<AtomicBool>);

impl Ready {
    pub(crate) fn set(&self, is_ready: bool) {
        self.0.store(is_ready, Ordering::Release);
    }
}

impl Parking {
    pub(crate) fn new(after: Option<Duration>, queues: &[Queue]) -> Self {
        if after.is_none() {
            return Parking::default();
        }
        let (parking, others): (Vec<_>, Vec<_>) = queues.iter().partition(|queue| may_park(queue));
        for queue in others {
            warn!("worker_park_eta_after has no effect on the queue {}: its messages are held here", queue.name);
        }
        let queues = parking.into_iter().map(|queue| queue.name.clone()).collect();
        Parking { after, queues, ..Parking::default() }
    }

    pub(crate) fn ready(&self) -> Ready {
        self.ready.clone()
    }

    /// What the broker has to have; nothing where nothing is parked.
    pub(crate) fn declarations(&self, queue_type: &str) -> Vec<Declaration> {
        if self.queues.is_empty() {
            return Vec::new();
        }
        let mut all = DelayLevels::PARKING.declarations(queue_type);
        all.extend(self.queues.iter().filter_map(|queue| DelayLevels::PARKING.own_binding(queue.as_str())));
        all
    }

    /// Parks work that is for much later; what is to be held here comes back.
    pub(crate) fn park(&mut self, work: Work, eta: Timestamp, now: Timestamp) -> Option<Work> {
        let parked = self.queues.contains(&work.queue) && self.ready.0.load(Ordering::Acquire) && work.is_unsettled();
        let seconds = self.seconds(eta, now).filter(|_| parked && !self.is_paused());
        let Some(seconds) = seconds else { return Some(work) };
        debug!("Task {}[{}] is parked at the broker until {eta}", work.name, work.request.id);
        let queue = work.queue.clone();
        let (receipt, message) = work.into_message()?;
        // As soon as this copy is there, the other is gone.
        receipt.settle(Settlement::Park(Box::new(publication(message, &queue, seconds)), self.refused.clone()));
        None
    }

    /// Whether a copy was refused of late.
    fn is_paused(&mut self) -> bool {
        let now = Instant::now();
        if self.refused.take() {
            if self.paused_until.is_none_or(|until| until <= now) {
                warn!("the broker refuses to park tasks until their ETA: for {} s they are held here", PAUSE.as_secs());
            }
            self.paused_until = Some(now + PAUSE);
        }
        self.paused_until.is_some_and(|until| now < until)
    }

    /// For how long a message is parked; `None`: not at all.
    fn seconds(&self, eta: Timestamp, now: Timestamp) -> Option<u64> {
        let wait = Duration::try_from(eta.duration_since(now)).ok().filter(|wait| Some(*wait) > self.after)?;
        self.after?;
        wait.as_secs().checked_sub(EARLY).filter(|seconds| *seconds > 0)
    }
}

/// What is to be there when the message comes back must outlive this worker, and what was sent is settled when it is sent.
fn may_park(queue: &Queue) -> bool {
    let lasts = queue.durable && !queue.exclusive && !queue.auto_delete && !queue.no_ack;
    lasts && DelayLevels::PARKING.own_binding(queue.name.as_str()).is_some()
}

fn publication(mut message: Message, queue: &QueueName, seconds: u64) -> Publication {
    let properties = &mut message.properties;
    let origin = Map::from([
        ("exchange", Value::from(properties.exchange.clone())),
        ("routing_key", properties.routing_key.clone().into()),
    ]);
    message.headers.insert(HEADER, origin);
    // It would end each level's wait; whether the task has expired is seen from its headers when it is back.
    properties.expiration = None;
    let exchange = DelayLevels::PARKING.entrance();
    Publication { exchange, routing_key: DelayLevels::routing_key(seconds, queue.as_str()), message }
}

/// A message as it was before it was parked; one that was not, as it is.
pub(crate) fn unparked(mut message: Message) -> Message {
    let last = message.properties.exchange.as_deref().unwrap_or_default();
    if !message.headers.contains_key(HEADER) || !DelayLevels::PARKING.has_exchange(last) {
        return message;
    }
    let origin = message.headers.remove(HEADER).and_then(Value::into_map).unwrap_or_default();
    for name in DEATH_HEADERS {
        message.headers.remove(name);
    }
    let text = |name: &str| origin.get(name).and_then(Value::as_str).map(str::to_owned);
    (message.properties.exchange, message.properties.routing_key) = (text("exchange"), text("routing_key"));
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parking(after: u64, queues: &[Queue]) -> Parking {
        Parking::new(Some(Duration::from_secs(after)), queues)
    }

    #[test]
    fn what_is_further_away_than_the_setting_says_is_parked_and_back_in_time() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        for (after, millis, expected) in [
            (60, 60_000, None),
            (60, 60_001, Some(59)),
            (60, 7_200_000, Some(7199)),
            (0, 1_999, None),
            (0, 2_000, Some(1)),
            (0, -5_000, None),
        ] {
            let eta = now + jiff::SignedDuration::from_millis(millis);
            assert_eq!(parking(after, &[]).seconds(eta, now), expected, "{after} {millis}");
        }
        assert_eq!(Parking::default().seconds(Timestamp::MAX, now), None);
    }

    #[test]
    fn only_queues_that_last_are_parked_for() {
        let good = Queue::direct("a");
        let others = [
            Queue { durable: false, ..good.clone() },
            Queue { exclusive: true, ..good.clone() },
            Queue { auto_delete: true, ..good.clone() },
            Queue { no_ack: true, ..good.clone() },
            Queue::direct("a.#"),
        ];
        assert_eq!(others.iter().filter(|queue| may_park(queue)).count(), 0);
        assert_eq!(parking(1, &others).declarations("quorum"), []);
        assert_eq!(parking(1, &[good]).declarations("quorum").len(), 114);
    }

    #[test]
    fn a_parked_message_is_what_it_was_when_it_is_back() {
        let mut message = Message { headers: Map::from([("id", "1")]), ..Message::default() };
        (message.properties.exchange, message.properties.routing_key) = (Some("x".into()), Some("a.b".into()));
        let original = message.clone();
        message.properties.expiration = Some("5000".into());
        let parked = publication(message, &"q".into(), 5);
        assert_eq!(parked.exchange, "celeriac_celery_delayed_27");
        assert_eq!(parked.routing_key, DelayLevels::routing_key(5, "q"));
        let mut back = parked.message;
        // A producer's own header of that name is not believed.
        assert_eq!(unparked(back.clone()), back);
        back.properties.exchange = Some("celeriac_celery_delayed_delivery".into());
        back.properties.routing_key = Some(parked.routing_key);
        back.headers.insert("x-death", Value::List(Vec::new()));
        back.headers.insert("x-first-death-queue", "celeriac_celery_delayed_0");
        assert_eq!(unparked(back), original);
    }
}
