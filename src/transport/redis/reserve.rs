//! [`Reserver`]: takes messages from the lists and registers them in `unacked`, in one script.

use std::sync::Arc;

use bytes::Bytes;
use redis::{Cmd, ErrorKind, RedisError, Value};
use tokio::time::Instant;

use super::Shared;
use super::misfits::Misfits;
use super::unacked::{suffix, unwrapped};
use crate::Result;
use crate::redis_client::{SharedConnection, failure};
use crate::transport::cycle::Cycle;
use crate::transport::{Delivery, Prefetch, QueueName, Tag, Undecodable};

/// Reserves messages for one consumer.
pub(super) struct Reserver {
    shared: Arc<Shared>,
    connection: SharedConnection,
    prefetch: Arc<Prefetch>,
    cycle: Cycle,
    /// Whether the server is to tell of changes to empty lists.
    tracking: bool,
    misfits: Misfits,
}

/// What one reservation brought.
pub(super) struct Reserved {
    pub(super) deliveries: Vec<Delivery>,
    /// All lists are empty now, and the server tells of the next change if it is asked to.
    pub(super) drained: bool,
}

/// A message as it was popped.
struct Popped {
    tag: Tag,
    queue: QueueName,
    raw: Bytes,
}

impl Reserver {
    pub(super) fn new(
        shared: Arc<Shared>,
        connection: SharedConnection,
        prefetch: Arc<Prefetch>,
        cycle: Cycle,
        tracking: bool,
    ) -> Self {
        Reserver { shared, connection, prefetch, cycle, tracking, misfits: Misfits::default() }
    }

    /// Takes from these queues from now on.
    pub(super) fn change(&mut self, queues: &[QueueName]) {
        self.cycle.change(queues.iter().cloned());
    }

    /// Whether there is nothing to take from.
    pub(super) fn is_idle(&self) -> bool {
        self.cycle.queues().is_empty()
    }

    /// Reserves up to `count` messages.
    pub(super) async fn reserve(&mut self, count: usize) -> Result<Reserved> {
        let reservation = self.shared.ledger.begin(count);
        let call = self.call(count, reservation.first())?;
        let script = &self.shared.scripts.reserve;
        let answer = match script.run(&mut self.connection, &call).await {
            Ok(answer) => Answer::read(answer),
            Err(error) => return Err(self.failed(error)),
        };
        let answer = answer.map_err(|error| self.failed(error))?;
        let first = reservation.first();
        reservation.confirm(answer.messages.len());
        self.note_misfits(&answer);
        Ok(Reserved { drained: answer.drained, deliveries: self.deliver(first, answer) })
    }

    /// The lists, the one to take from first in front: priority before the queues' order.
    pub(super) fn lists(&self) -> impl Iterator<Item = String> {
        let keys = &self.shared.keys;
        keys.steps().iter().flat_map(|step| self.cycle.queues().iter().map(|queue| keys.list(queue.as_str(), *step)))
    }

    /// Those of the lists that are lists.
    pub(super) fn sound_lists(&self) -> Vec<String> {
        self.lists().filter(|key| !self.misfits.contains(key)).collect()
    }

    fn note_misfits(&mut self, answer: &Answer) {
        if answer.misfits.is_empty() && self.misfits.is_empty() {
            return;
        }
        let queues = self.cycle.queues();
        let lists: Vec<_> = self.lists().collect();
        let named = |list: &usize| Some((queues[list % queues.len()].clone(), lists.get(*list)?.clone()));
        let found: Vec<_> = answer.misfits.iter().filter_map(named).collect();
        self.misfits.looked(&found, answer.drained, &self.shared.url, Instant::now());
    }

    fn call(&self, count: usize, first: u64) -> Result<Cmd> {
        let (keys, queues) = (&self.shared.keys, self.cycle.queues());
        let mut call = self.shared.scripts.reserve.call(queues.len() * keys.steps().len());
        for list in self.lists() {
            call.arg(list);
        }
        call.arg(&keys.unacked).arg(&keys.unacked_index);
        call.arg(count).arg(queues.len()).arg(u8::from(self.cycle.is_fair()));
        call.arg(self.shared.lease()).arg(self.shared.ledger.prefix()).arg(first);
        call.arg(u8::from(self.tracking));
        for queue in queues {
            call.arg(suffix(queue.as_str())?);
        }
        Ok(call)
    }

    fn failed(&self, error: RedisError) -> crate::Error {
        failure("cannot take messages from", &self.shared.url, error)
    }

    /// Makes deliveries of an answer, those of one priority taken from the queues in turn.
    fn deliver(&mut self, first: u64, answer: Answer) -> Vec<Delivery> {
        let queues = self.cycle.queues().to_vec();
        let mut messages = answer.messages.into_iter();
        let mut tag = first;
        let mut steps: Vec<Vec<std::collections::VecDeque<Popped>>> = Vec::new();
        for (list, count) in answer.counts {
            let (step, nth) = (list / queues.len(), list % queues.len());
            if steps.len() <= step {
                steps.resize_with(step + 1, || queues.iter().map(|_| Default::default()).collect());
            }
            for raw in messages.by_ref().take(count) {
                steps[step][nth].push_back(Popped { tag: Tag(tag), queue: queues[nth].clone(), raw });
                tag += 1;
            }
        }
        let mut deliveries = Vec::with_capacity((tag - first) as usize);
        for mut step in steps {
            while step.iter().any(|queue| !queue.is_empty()) {
                let turn = step.iter_mut().filter_map(std::collections::VecDeque::pop_front);
                deliveries.extend(turn.map(|popped| self.delivery(popped)));
            }
        }
        self.rotate(&deliveries);
        deliveries
    }

    /// Moves the queues that were used to the end, the one that was used last to the very end.
    fn rotate(&mut self, deliveries: &[Delivery]) {
        if self.cycle.queues().len() < 2 {
            return;
        }
        let mut used: Vec<&QueueName> = Vec::new();
        for delivery in deliveries.iter().rev() {
            if !used.contains(&delivery.queue()) {
                used.push(delivery.queue());
            }
            if used.len() == self.cycle.queues().len() {
                break;
            }
        }
        for queue in used.into_iter().rev() {
            self.cycle.used(queue);
        }
    }

    /// A delivery whose message is still to be read.
    fn delivery(&self, Popped { tag, queue, raw }: Popped) -> Delivery {
        let message = Err(Undecodable { reason: String::new(), raw: unwrapped(raw) });
        Delivery::new(message, queue, tag, Arc::clone(&self.shared.ledger) as _, self.prefetch.take())
    }

    /// The queue of one of our lists.
    pub(super) fn queue_of(&self, list: &[u8]) -> Option<QueueName> {
        let nth = self.lists().position(|name| name.as_bytes() == list)?;
        self.cycle.queues().get(nth % self.cycle.queues().len()).cloned()
    }

    /// One message that was popped and registered by other means.
    pub(super) fn single(&mut self, tag: Tag, queue: QueueName, raw: Vec<u8>) -> Delivery {
        self.cycle.used(&queue);
        self.delivery(Popped { tag, queue, raw: raw.into() })
    }
}

/// What the script returns.
struct Answer {
    drained: bool,
    /// The number of a list, from 0, and how many messages came from it.
    counts: Vec<(usize, usize)>,
    /// The numbers of those that are no lists.
    misfits: Vec<usize>,
    messages: Vec<Bytes>,
}

impl Answer {
    fn read(value: Value) -> Result<Self, RedisError> {
        let Value::Array(parts) = value else { return Err(unexpected()) };
        let mut parts = parts.into_iter();
        let Some(Value::Array(heads)) = parts.next() else { return Err(unexpected()) };
        let mut heads = heads.into_iter().map(|head| match head {
            Value::Int(number) => usize::try_from(number).map_err(|_| unexpected()),
            _ => Err(unexpected()),
        });
        let drained = heads.next().ok_or_else(unexpected)?? == 1;
        let (mut counts, mut misfits) = (Vec::new(), Vec::new());
        while let Some(list) = heads.next() {
            let list = list?.checked_sub(1).ok_or_else(unexpected)?;
            match heads.next().ok_or_else(unexpected)?? {
                0 => misfits.push(list),
                count => counts.push((list, count)),
            }
        }
        let message = |part| match part {
            Value::BulkString(raw) => Ok(Bytes::from(raw)),
            _ => Err(unexpected()),
        };
        Ok(Answer { drained, counts, misfits, messages: parts.map(message).collect::<Result<_, _>>()? })
    }
}

fn unexpected() -> RedisError {
    (ErrorKind::UnexpectedReturnType, "the reserving script answered something else").into()
}
