//! [`Source`]: one queue that is consumed, and how many of its messages the server may send ahead.
//!
//! The server counts for each consumer what it has sent and was not told of (`basic.qos` without `global`, which is the
//! one that every kind of queue and every version of RabbitMQ has), and the count of a consumer cannot be changed. So
//! where the worker's window has grown beyond it, for tasks that wait for their ETA, the consumer is replaced: what the
//! old one received stays valid, and the new one has a count of its own.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::Stream;
use lapin::message::Delivery;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use tokio::task::JoinHandle;

use super::ledger::Ledger;
use crate::Result;
use crate::amqp_client::{short, table};
use crate::transport::{Prefetch, Queue, QueueName, Settlement, Settler, Tag};

/// One queue that is consumed.
pub(super) struct Source {
    pub(super) queue: QueueName,
    /// What it is consumed over, and what came over that.
    pub(super) channel: Channel,
    pub(super) ledger: Arc<Ledger>,
    arguments: FieldTable,
    /// What the server regards as told when it is sent.
    pub(super) no_ack: bool,
    consumer: Consumer,
    /// The consumer's number in the ledger.
    pub(super) number: u32,
    /// How many the server may send ahead; 0: any number.
    count: u16,
    /// The consumer has ended, and all of it has arrived.
    ended: bool,
    /// Came, and is not handed out: there was no room in the window.
    pub(super) waiting: VecDeque<Delivery>,
    /// Where another consumer is about to take this one's place.
    replacement: Option<Replacement>,
}

struct Replacement {
    count: u16,
    consumer: JoinHandle<lapin::Result<Consumer>>,
}

/// What a source has to say.
pub(super) enum News {
    /// Something may have arrived.
    Arrived,
    /// The server ended the consumer: its queue is gone.
    Cancelled,
    Failed(lapin::Error),
}

impl Source {
    /// Begins to consume.
    pub(super) async fn start(
        channel: &Channel,
        ledger: &Arc<Ledger>,
        queue: &Queue,
        count: u16,
    ) -> Result<lapin::Result<Self>> {
        let (name, arguments) = (short(queue.name.as_str())?, table(&queue.consumer_arguments)?);
        let consumer = match consume(channel, name, arguments.clone(), queue.no_ack, count).await {
            Ok(consumer) => consumer,
            Err(error) => return Ok(Err(error)),
        };
        Ok(Ok(Source {
            queue: queue.name.clone(),
            channel: channel.clone(),
            ledger: Arc::clone(ledger),
            arguments,
            no_ack: queue.no_ack,
            consumer,
            number: ledger.consumer(),
            count,
            ended: false,
            waiting: VecDeque::new(),
            replacement: None,
        }))
    }

    /// Takes what has arrived, without waiting for more.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<News> {
        let before = self.waiting.len();
        let drained = if self.ended { Ok(()) } else { self.drain(context) };
        if !self.no_ack && self.waiting.len() > before {
            self.ledger.receive(self.number, self.waiting.range(before..).map(|delivery| delivery.delivery_tag));
        }
        if let Err(error) = drained {
            return Poll::Ready(News::Failed(error));
        }
        if self.ended {
            match self.poll_replacement(context) {
                Poll::Ready(News::Arrived) | Poll::Pending => {}
                bad => return bad,
            }
        }
        if self.waiting.len() > before { Poll::Ready(News::Arrived) } else { Poll::Pending }
    }

    fn drain(&mut self, context: &mut Context<'_>) -> lapin::Result<()> {
        while let Poll::Ready(next) = Pin::new(&mut self.consumer).poll_next(context) {
            match next {
                Some(delivery) => self.waiting.push_back(delivery?),
                None => {
                    self.ended = true;
                    break;
                }
            }
        }
        Ok(())
    }

    /// Puts the consumer that was waited for into the place of the one that has ended.
    fn poll_replacement(&mut self, context: &mut Context<'_>) -> Poll<News> {
        // Who has not asked for the end has lost the queue.
        let Some(replacement) = self.replacement.as_mut() else { return Poll::Ready(News::Cancelled) };
        let done = std::task::ready!(Pin::new(&mut replacement.consumer).poll(context));
        let count = replacement.count;
        self.replacement = None;
        match done {
            Ok(Ok(consumer)) => {
                self.give_back_surplus(usize::from(count));
                (self.consumer, self.count, self.number) = (consumer, count, self.ledger.consumer());
                self.ended = false;
                // It has not been asked yet, and wakes nobody before.
                self.poll(context)
            }
            Ok(Err(error)) => Poll::Ready(News::Failed(error)),
            // The runtime ends.
            Err(_) => Poll::Ready(News::Cancelled),
        }
    }

    /// What would not have been sent with the new count goes back, now that it does not come at once to the old consumer.
    fn give_back_surplus(&mut self, count: usize) {
        if count > 0 && self.waiting.len() > count {
            let surplus = self.waiting.drain(count..);
            surplus.for_each(|delivery| self.ledger.settle(Tag(delivery.delivery_tag), Settlement::Restore));
        }
    }

    /// Whether a replacement is on its way.
    pub(super) fn is_changing(&self) -> bool {
        self.replacement.is_some()
    }

    /// The count that this source should have, if it is another than it has: when all that may be sent ahead was sent,
    /// is still owed and the window has room; or when far too much is waiting.
    pub(super) fn wanted(&self, prefetch: &Prefetch) -> Option<u16> {
        if self.no_ack || (self.count == 0 && prefetch.base() == 0) {
            return None;
        }
        let wanted = count(prefetch);
        let exhausted = || self.ledger.owed(self.number) >= usize::from(self.count);
        if self.count == 0 || wanted == 0 {
            return Some(wanted);
        }
        if self.waiting.is_empty() && prefetch.available() > 0 && exhausted() {
            return Some(wanted);
        }
        (self.waiting.len() > 2 * usize::from(wanted) && wanted < self.count).then_some(wanted)
    }

    /// Lets another consumer take this one's place.
    pub(super) fn replace(&mut self, count: u16) {
        let (channel, tag) = (self.channel.clone(), self.consumer.tag());
        let (queue, arguments, no_ack) = (self.consumer.queue(), self.arguments.clone(), self.no_ack);
        let consumer = tokio::spawn(async move {
            channel.basic_cancel(tag, BasicCancelOptions::default()).await?;
            consume(&channel, queue, arguments, no_ack, count).await
        });
        self.replacement = Some(Replacement { count, consumer });
    }

    /// Ends the consumer. What was not handed out goes back; what is out stays valid, for the channel stays open.
    pub(super) async fn end(self) {
        let (ledger, number, known, no_ack) = (Arc::clone(&self.ledger), self.number, self.waiting.len(), self.no_ack);
        let left = self.stop().await;
        if !no_ack {
            ledger.receive(number, left.iter().skip(known).map(|delivery| delivery.delivery_tag));
            left.iter().for_each(|delivery| ledger.settle(Tag(delivery.delivery_tag), Settlement::Restore));
        }
    }

    /// Ends the consumer, and brings what had arrived by then.
    async fn stop(mut self) -> Vec<Delivery> {
        let mut left: Vec<_> = std::mem::take(&mut self.waiting).into();
        let Some(replacement) = self.replacement.take() else {
            if !self.ended {
                left.extend(end(&self.channel, self.consumer).await);
            }
            return left;
        };
        // It ends the old consumer on its way.
        let new = replacement.consumer.await;
        if !self.ended {
            left.extend(rest(self.consumer).await);
        }
        if let Ok(Ok(consumer)) = new {
            left.extend(end(&self.channel, consumer).await);
        }
        left
    }
}

/// Cancels a consumer and waits for its end.
async fn end(channel: &Channel, consumer: Consumer) -> Vec<Delivery> {
    match channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await {
        Ok(()) => rest(consumer).await,
        Err(_) => Vec::new(),
    }
}

/// What a consumer that was cancelled has left. It says once that it is over, and whoever asks again waits for ever.
async fn rest(mut consumer: Consumer) -> Vec<Delivery> {
    let mut left = Vec::new();
    while let Some(Ok(delivery)) = futures_util::StreamExt::next(&mut consumer).await {
        left.push(delivery);
    }
    left
}

async fn consume(
    channel: &Channel,
    queue: lapin::types::ShortString,
    arguments: FieldTable,
    no_ack: bool,
    count: u16,
) -> lapin::Result<Consumer> {
    channel.basic_qos(count, BasicQosOptions { global: false }).await?;
    let options = BasicConsumeOptions { no_ack, ..BasicConsumeOptions::default() };
    channel.basic_consume(queue, lapin::types::ShortString::default(), options, arguments).await
}

/// For many tasks that wait for their ETA a larger count is worth it: each needs one of the server's.
const LARGEST_GROWTH: usize = 1000;

/// How many the server may send ahead to one consumer: the window without its growth, and some of that.
pub(super) fn count(prefetch: &Prefetch) -> u16 {
    let base = prefetch.base();
    if base == 0 {
        return 0;
    }
    let growth = prefetch.limit().saturating_sub(base) / 4;
    u16::try_from(base.saturating_add(growth.min(LARGEST_GROWTH))).unwrap_or(u16::MAX)
}
