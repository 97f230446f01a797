//! [`RabbitConsumer`]: hands out what the server has sent, as the worker's window has room for it.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use lapin::Channel;
use lapin::message::Delivery as AmqpDelivery;
use lapin::options::BasicQosOptions;
use tokio_util::sync::CancellationToken;

use super::connection::Link;
use super::declare::{BASIC_CONSUME, Failed};
use super::ledger::Ledger;
use super::source::{News, Source, count};
use crate::amqp_client::read;
use crate::transport::{Consumer, Delivery, Prefetch, Queue, Settlement, Settler, Tag, Undecodable};
use crate::{Error, ErrorKind, Result};

/// The most that one call hands over.
const BATCH: usize = 400;

/// Consumes queues over a channel of its own.
pub(super) struct RabbitConsumer {
    link: Arc<Link>,
    channel: Channel,
    ledger: Arc<Ledger>,
    prefetch: Arc<Prefetch>,
    sources: Vec<Source>,
    /// The source whose turn it is.
    turn: usize,
    stop: CancellationToken,
}

impl RabbitConsumer {
    pub(super) async fn start(
        link: Arc<Link>,
        queues: &[Queue],
        prefetch: Arc<Prefetch>,
        stop: CancellationToken,
    ) -> Result<Self> {
        let (channel, ledger) = link.consuming_channel().await?;
        let mut consumer = RabbitConsumer { link, channel, ledger, prefetch, sources: Vec::new(), turn: 0, stop };
        // A queue that is named twice is consumed once.
        for (nth, queue) in queues.iter().enumerate() {
            if queues[..nth].iter().any(|other| other.name == queue.name) {
                continue;
            }
            let started =
                Source::start(&consumer.channel, &consumer.ledger, queue, consumer.first_count(queues.len())).await?;
            let source =
                started.map_err(|error| Failed::There(error).into_error(&consumer.link.main, BASIC_CONSUME))?;
            consumer.sources.push(source);
        }
        // As stock workers do; and when this is answered, each queue's first messages are here and can take turns.
        let again = consumer.channel.basic_qos(consumer.first_count(queues.len()), BasicQosOptions::default()).await;
        again.map_err(|error| consumer.link.main.ended_by("cannot consume from", &error))?;
        Ok(consumer)
    }

    /// Each queue begins with its share of the window; the one that has more to give gets more.
    fn first_count(&self, queues: usize) -> u16 {
        let count = usize::from(count(&self.prefetch));
        u16::try_from(count.div_ceil(queues.max(1))).unwrap_or(u16::MAX)
    }

    /// Takes in what has arrived.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        let mut arrived = Poll::Pending;
        for source in &mut self.sources {
            match source.poll(context, &self.ledger, &self.channel) {
                Poll::Ready(News::Arrived) => arrived = Poll::Ready(Ok(())),
                Poll::Ready(News::Cancelled) => {
                    let error = self.link.main.ended(&format!(
                        "the server cancelled the consumer of the queue {}: it was deleted, or has moved",
                        source.queue
                    ));
                    return Poll::Ready(Err(error));
                }
                Poll::Ready(News::Failed(error)) => {
                    return Poll::Ready(Err(self.link.main.ended_by("cannot consume from", &error)));
                }
                Poll::Pending => {}
            }
        }
        arrived
    }

    /// Hands out what there is room for, each queue in its turn.
    fn batch(&mut self) -> Vec<Delivery> {
        let waiting: usize = self.sources.iter().map(|source| source.waiting.len()).sum();
        let room = self.prefetch.available().min(BATCH).min(waiting);
        let mut batch = Vec::with_capacity(room);
        while batch.len() < room {
            let source = &mut self.sources[self.turn];
            if let Some(delivery) = source.waiting.pop_front() {
                batch.push(handed_out(delivery, source, &self.ledger, &self.prefetch));
            }
            self.turn = (self.turn + 1) % self.sources.len();
        }
        batch
    }

    /// Asks for more, or for less, of one source at a time: the count is the channel's until the consumer is there.
    fn adapt(&mut self) {
        if self.sources.iter().any(Source::is_changing) {
            return;
        }
        for source in &mut self.sources {
            if let Some(count) = source.wanted(&self.ledger, &self.prefetch) {
                source.replace(&self.channel, count);
                return;
            }
        }
    }
}

fn handed_out(mut delivery: AmqpDelivery, source: &Source, ledger: &Arc<Ledger>, prefetch: &Arc<Prefetch>) -> Delivery {
    let message = read(&mut delivery)
        .map_err(|error| Undecodable { reason: error.to_string(), raw: std::mem::take(&mut delivery.data).into() });
    let settler: Arc<dyn Settler> = if source.no_ack { Arc::new(Told) } else { Arc::clone(ledger) as _ };
    Delivery::new(message, source.queue.clone(), Tag(delivery.delivery_tag), settler, prefetch.take())
}

/// Of what came without a need to be acknowledged the server wants to hear no more.
struct Told;

impl Settler for Told {
    fn settle(&self, _tag: Tag, _settlement: Settlement) {}
}

#[async_trait]
impl Consumer for RabbitConsumer {
    async fn next(&mut self) -> Result<Vec<Delivery>> {
        let prefetch = Arc::clone(&self.prefetch);
        let (lost, stop) = (self.link.lost().clone(), self.stop.clone());
        loop {
            // What is there is taken in first: queues take turns with what they have.
            let taken = poll_fn(|context| Poll::Ready(self.poll(context))).await;
            if let Poll::Ready(Err(error)) = taken {
                return Err(error);
            }
            let batch = self.batch();
            if !batch.is_empty() {
                return Ok(batch);
            }
            self.adapt();
            tokio::select! {
                biased;
                () = lost.cancelled() => return Err(self.link.main.is_lost()),
                () = stop.cancelled() => {
                    return Err(Error::new(ErrorKind::Connection, format!("{} is being closed", self.link.main.place())));
                }
                arrived = poll_fn(|context| self.poll(context)) => arrived?,
                () = prefetch.changed() => {}
            }
        }
    }
}

impl Drop for RabbitConsumer {
    fn drop(&mut self) {
        let (channel, ledger) = (self.channel.clone(), Arc::clone(&self.ledger));
        let sources = std::mem::take(&mut self.sources);
        if self.link.lost().is_cancelled() || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        // What was not handed out goes back at once, and what is out stays valid: the channel stays open.
        let ending = tokio::spawn(async move {
            for source in sources {
                let number = source.number;
                let known = source.waiting.len();
                let left = source.stop(&channel).await;
                ledger.receive(number, left.iter().skip(known).map(|delivery| delivery.delivery_tag));
                left.iter().for_each(|delivery| ledger.settle(Tag(delivery.delivery_tag), Settlement::Restore));
            }
        });
        self.link.closing(ending);
    }
}
