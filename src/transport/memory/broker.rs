//! [`Broker`]: the queues of a [`super::MemoryTransport`], and the settling of what was taken from them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::fanout::Listeners;
use crate::protocol::{Message, Value, envelope};
use crate::transport::binding::{Binding, bound, destinations};
use crate::transport::cycle::Cycle;
use crate::transport::{Publication, Queue, QueueName, Settlement, Settler, Tag};
use crate::{Error, ErrorKind, Result};

/// The priorities that have a list of their own, as on Redis.
const PRIORITY_STEPS: [u8; 4] = [0, 3, 6, 9];

#[derive(Default)]
pub(super) struct Broker {
    state: Mutex<State>,
    /// Wakes consumers when a message arrives.
    pub(super) arrivals: Notify,
    /// How many consumers there are.
    pub(super) consumers: AtomicUsize,
}

/// What the broker holds. A message's place in its list is its number: it keeps it when it is restored, and gets a new
/// one when it is requeued.
#[derive(Default)]
pub(super) struct State {
    lists: HashMap<(u8, QueueName), BTreeMap<u64, Message>>,
    bindings: HashMap<String, Vec<Binding>>,
    out: HashMap<Tag, Taken>,
    /// The queues that take no messages at present.
    refused: HashSet<String>,
    /// The number of the message that came last.
    last: u64,
    pub(super) connections: Vec<CancellationToken>,
    pub(super) listeners: Listeners,
    pub(super) notes: HashMap<String, String>,
}

/// A message that is out: kept whole, because it may come back.
struct Taken {
    place: u64,
    queue: QueueName,
    message: Message,
}

impl Broker {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn publish(&self, batch: Vec<Publication>) -> Vec<Result<()>> {
        let mut state = self.state();
        let accepted = batch.into_iter().map(|publication| state.publish(publication)).collect();
        drop(state);
        self.arrivals.notify_waiters();
        accepted
    }

    /// To the queues that are bound, and nowhere else.
    pub(super) fn answer(&self, answer: Publication) {
        let mut state = self.state();
        let bindings = state.bindings.get(&answer.exchange).map(Vec::as_slice).unwrap_or_default();
        let queues = bound(bindings, &answer.routing_key);
        state.listeners.broadcast(answer.clone());
        state.put_copies(queues, answer);
        drop(state);
        self.arrivals.notify_waiters();
    }
}

impl Settler for Broker {
    fn settle(&self, tag: Tag, settlement: Settlement) {
        self.state().settle(tag, settlement);
        self.arrivals.notify_waiters();
    }
}

impl State {
    pub(super) fn bind(&mut self, queue: &Queue) {
        let (binding, bindings) = (Binding::of(queue), self.bindings.entry(queue.exchange.clone()).or_default());
        if !bindings.contains(&binding) {
            bindings.push(binding);
        }
    }

    fn publish(&mut self, publication: Publication) -> Result<()> {
        let Publication { exchange, routing_key, message } = &publication;
        // What has no form on a wire must not pass the tests that use this broker.
        envelope::write(message, "", &mut Vec::new())?;
        let queues = match exchange.as_str() {
            "" => vec![routing_key.clone()],
            exchange => destinations(self.bindings.get(exchange).map_or(&[], Vec::as_slice), exchange, routing_key),
        };
        if let Some(queue) = queues.iter().find(|queue| self.refused.contains(*queue)) {
            return Err(Error::new(ErrorKind::Broker, format!("cannot publish to memory://: it refuses {queue}")));
        }
        self.put_copies(queues, publication);
        Ok(())
    }

    fn put_copies(&mut self, queues: Vec<String>, publication: Publication) {
        let Publication { exchange, routing_key, mut message } = publication;
        message.properties.exchange = Some(exchange);
        message.properties.routing_key = Some(routing_key);
        for queue in queues {
            let place = self.next_place();
            self.put(place, queue.into(), message.clone());
        }
    }

    pub(super) fn refuse(&mut self, queue: &str, refusing: bool) {
        if refusing {
            self.refused.insert(queue.to_owned());
        } else {
            self.refused.remove(queue);
        }
    }

    /// Takes the next message that the cycle leads to: priority first, then the queues' order.
    pub(super) fn take(&mut self, cycle: &mut Cycle) -> Option<(Tag, QueueName, Message)> {
        let (queue, place, message) = PRIORITY_STEPS.iter().find_map(|step| {
            cycle.queues().iter().find_map(|queue| {
                let (place, message) = self.lists.get_mut(&(*step, queue.clone()))?.pop_first()?;
                Some((queue.clone(), place, message))
            })
        })?;
        cycle.used(&queue);
        let tag = Tag(self.next_place());
        self.out.insert(tag, Taken { place, queue: queue.clone(), message: message.clone() });
        Some((tag, queue, message))
    }

    fn settle(&mut self, tag: Tag, settlement: Settlement) {
        let Some(Taken { place, queue, message }) = self.out.remove(&tag) else { return };
        match settlement {
            Settlement::Ack | Settlement::Reject => {}
            Settlement::Restore => self.put(place, queue, redelivered(message)),
            Settlement::Requeue => {
                let place = self.next_place();
                self.put(place, queue, redelivered(message));
            }
            Settlement::DeadLetter(letter) | Settlement::Park(letter, _) => {
                if self.publish(*letter).is_err() {
                    // As on Redis: the original stays reserved.
                    self.out.insert(tag, Taken { place, queue, message });
                }
            }
        }
    }

    fn put(&mut self, place: u64, queue: QueueName, message: Message) {
        let priority = message.properties.priority.unwrap_or(0).clamp(0, 9);
        let step = PRIORITY_STEPS.into_iter().rfind(|step| i64::from(*step) <= priority).unwrap_or(0);
        self.lists.entry((step, queue)).or_default().insert(place, message);
    }

    fn next_place(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    pub(super) fn waiting(&self, queue: &str) -> Vec<Message> {
        let list = |step| self.lists.get(&(step, QueueName::from(queue))).into_iter().flat_map(BTreeMap::values);
        PRIORITY_STEPS.into_iter().flat_map(list).cloned().collect()
    }

    /// What waits in one list of a queue from this place on, with the places; the list's number counts from 0.
    pub(super) fn page(&self, list: usize, queue: &QueueName, from: u64, most: usize) -> Option<Vec<(u64, Message)>> {
        let key = (*PRIORITY_STEPS.get(list)?, queue.clone());
        let messages = self.lists.get(&key).into_iter().flat_map(|list| list.range(from..));
        Some(messages.take(most).map(|(place, message)| (*place, message.clone())).collect())
    }

    /// Takes a message out of a list and puts others in its place; says whether it was there.
    pub(super) fn replace(
        &mut self,
        list: usize,
        queue: &QueueName,
        place: u64,
        by: Option<(QueueName, Message)>,
    ) -> bool {
        let step = PRIORITY_STEPS.get(list).copied().unwrap_or_default();
        let taken = self.lists.get_mut(&(step, queue.clone())).and_then(|list| list.remove(&place));
        if let (Some(_), Some((queue, message))) = (&taken, by) {
            let place = self.next_place();
            self.put(place, queue, message);
        }
        taken.is_some()
    }

    /// Throws away what waits in a queue; answers how much that was.
    pub(super) fn purge(&mut self, queue: &QueueName) -> u64 {
        let lists = PRIORITY_STEPS.map(|step| self.lists.remove(&(step, queue.clone())));
        lists.iter().flatten().map(|list| list.len() as u64).sum()
    }

    pub(super) fn unsettled(&self) -> usize {
        self.out.len()
    }
}

/// kombu/transport/redis.py `Channel._do_restore_message` sets both.
fn redelivered(mut message: Message) -> Message {
    message.headers.insert("redelivered", Value::Bool(true));
    message.properties.redelivered = true;
    message
}

impl Broker {
    /// This broker as the one who takes settlements.
    pub(super) fn settler(self: &Arc<Self>) -> Arc<dyn Settler> {
        Arc::clone(self) as Arc<dyn Settler>
    }
}
