//! [`Browser`]: looks into a queue, and takes single messages out of it, without consuming it.

use async_trait::async_trait;
use bytes::Bytes;

use super::{QueueName, Undecodable};
use crate::Result;
use crate::protocol::Message;

/// Looks at what waits in one queue. Nothing that is only looked at is touched: it stays where it is, unmarked.
///
/// A broker that can change a queue in place (Redis) does; one that cannot (AMQP) gets each message without
/// acknowledging it and keeps it until the browser drops.
#[async_trait]
pub trait Browser: Send {
    /// The next messages, in the order in which they would be consumed; none: there are no more. What arrives meanwhile
    /// may be among them or not.
    ///
    /// # Errors
    /// The connection is gone.
    async fn next(&mut self) -> Result<Vec<Browsed>>;

    /// Takes messages out, and puts in place of each what stands beside it. Says for each whether it was still there;
    /// one that was not is replaced by nothing.
    ///
    /// Who is killed half-way has lost no message. Where the broker can do both in one instant (Redis), none is doubled
    /// either.
    ///
    /// # Errors
    /// The connection is gone, or a replacement cannot be written: then nothing was taken.
    async fn take(&mut self, messages: Vec<(Browsed, Option<Replacement>)>) -> Result<Vec<bool>>;
}

/// A message that waits.
#[derive(Debug, Clone, PartialEq)]
pub struct Browsed {
    /// The message, or why there is none.
    pub message: Result<Message, Undecodable>,
    /// It as the broker keeps it: on Redis its envelope.
    pub raw: Bytes,
    /// Where it was seen; the transport's own business.
    pub place: Place,
}

/// A transport's own note of where it saw a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Which of the queue's lists, from 0.
    pub list: usize,
    /// Which message of it, the next to be consumed being 0; or the broker's number of the delivery.
    pub position: u64,
}

/// What is put into a queue, just as it is: no exchange is asked where it goes, and what its properties say of exchange
/// and routing key is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Replacement {
    /// The queue.
    pub queue: QueueName,
    /// What to put there.
    pub content: Content,
}

/// What is put into a queue.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// A message.
    Message(Box<Message>),
    /// Bytes that are no message of the transport's: on Redis they are pushed as they are.
    Raw(Bytes),
}
