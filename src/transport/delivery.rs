//! [`Delivery`]: what was received, and is settled once.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::{Credit, Publication, QueueName};
use crate::protocol::Message;

/// One received message. [`Delivery::settle`] consumes it; dropped unsettled, it goes back to its queue at once.
pub struct Delivery {
    message: Result<Message, Undecodable>,
    receipt: Receipt,
}

/// A delivery without its message: what it is settled by. Dropped unsettled, the message goes back to its queue at once.
pub struct Receipt {
    queue: QueueName,
    /// Where the settlement goes; taken by `settle`, so that `drop` knows whether there was one.
    settler: Option<Arc<dyn Settler>>,
    tag: Tag,
    /// The unit of prefetch that this delivery holds, unless somebody took it.
    credit: Option<Credit>,
}

/// A transport's own number of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(pub u64);

/// Where a transport takes settlements. Must not block: settlements are batched and sent later.
pub trait Settler: Send + Sync {
    /// Called once for each delivery.
    fn settle(&self, tag: Tag, settlement: Settlement);

    /// Whether what is settled here reaches nobody any more: the broker has taken back all that it gave, and gives it to
    /// somebody again.
    fn is_lost(&self) -> bool {
        false
    }
}

/// How a delivery ends.
#[derive(Debug, Clone, PartialEq)]
pub enum Settlement {
    /// Done: the broker forgets it.
    Ack,
    /// `reject(requeue=False)`: the broker throws it away, or to its own dead-letter exchange.
    Reject,
    /// `reject(requeue=True)`: back to the queue, marked as redelivered; on Redis it is then consumed last.
    Requeue,
    /// Given back without having been touched: it is the next to be consumed, marked as redelivered.
    Restore,
    /// Replaced by another message (the dead letter) that is published before, or in the same instant as, the ack.
    DeadLetter(Box<Publication>),
    /// Replaced by a copy that waits elsewhere, as by a dead letter; but where RabbitMQ takes no copy that is told, and the
    /// message is given back. Other brokers have nothing to park messages in: nobody asks them.
    Park(Box<Publication>, Refused),
}

/// Whether a copy was refused since that was asked; all clones are told.
#[derive(Debug, Clone, Default)]
pub struct Refused(Arc<AtomicBool>);

impl Refused {
    /// A copy was refused; told before its message is given back.
    pub fn tell(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it was told, and is so no longer.
    pub fn take(&self) -> bool {
        self.0.swap(false, Ordering::AcqRel)
    }
}

impl PartialEq for Refused {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// What arrived is not a message in the transport's own envelope.
#[derive(Debug, Clone, PartialEq)]
pub struct Undecodable {
    /// What is wrong with it.
    pub reason: String,
    /// All of it.
    pub raw: Bytes,
}

impl Delivery {
    /// A delivery that was taken from `queue`; for transports.
    pub fn new(
        message: Result<Message, Undecodable>,
        queue: QueueName,
        tag: Tag,
        settler: Arc<dyn Settler>,
        credit: Credit,
    ) -> Self {
        Delivery { message, receipt: Receipt { queue, settler: Some(settler), tag, credit: Some(credit) } }
    }

    /// Reads the message from the bytes that stand for it so far: for transports whose deliveries are made before
    /// their messages are read.
    pub(super) fn decode(&mut self, read: impl FnOnce(&[u8]) -> crate::Result<Message>) {
        if let Err(Undecodable { reason, raw }) = &mut self.message {
            match read(raw) {
                Ok(message) => self.message = Ok(message),
                Err(error) => *reason = error.to_string(),
            }
        }
    }

    /// The message, or why there is none.
    pub fn message(&self) -> Result<&Message, &Undecodable> {
        self.message.as_ref()
    }

    /// Takes the message out, to be worked on without a copy.
    pub fn take_message(&mut self) -> Result<Message, Undecodable> {
        std::mem::replace(&mut self.message, Ok(Message::default()))
    }

    /// The message and what settles it, apart.
    pub fn into_parts(self) -> (Result<Message, Undecodable>, Receipt) {
        (self.message, self.receipt)
    }

    /// The queue it was taken from.
    pub fn queue(&self) -> &QueueName {
        self.receipt.queue()
    }

    /// The transport's number for it.
    pub fn tag(&self) -> Tag {
        self.receipt.tag()
    }

    /// Ends it. What the broker is told is sent with the next batch.
    pub fn settle(self, settlement: Settlement) {
        self.receipt.settle(settlement);
    }
}

impl Receipt {
    /// Takes its unit of prefetch, which then is not given back with the settlement but when the unit is dropped.
    pub fn take_credit(&mut self) -> Option<Credit> {
        self.credit.take()
    }

    /// Its unit of prefetch takes nothing of the limit from now on ([`Credit::stand_aside`]).
    pub fn stand_aside(&mut self) {
        self.credit.iter_mut().for_each(Credit::stand_aside);
    }

    /// The queue it was taken from.
    pub fn queue(&self) -> &QueueName {
        &self.queue
    }

    /// The transport's number for it.
    pub fn tag(&self) -> Tag {
        self.tag
    }

    /// Whether the broker has taken the message back, because the connection that it came over is lost
    /// ([`Capabilities::settles_across_connections`](super::Capabilities::settles_across_connections)).
    pub fn is_lost(&self) -> bool {
        self.settler.as_ref().is_some_and(|settler| settler.is_lost())
    }

    /// Ends it. What the broker is told is sent with the next batch.
    pub fn settle(mut self, settlement: Settlement) {
        if let Some(settler) = self.settler.take() {
            settler.settle(self.tag, settlement);
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Some(settler) = self.settler.take() {
            settler.settle(self.tag, Settlement::Restore);
        }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery").field("receipt", &self.receipt).finish_non_exhaustive()
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt").field("queue", &self.queue).field("tag", &self.tag).finish_non_exhaustive()
    }
}
