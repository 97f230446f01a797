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
    prefetch: Arc<Prefetch>,
    /// Channels on which nothing is consumed any more, and perhaps something is still to be settled.
    spare: Vec<(Channel, Arc<Ledger>)>,
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
        let mut consumer = RabbitConsumer {
            link,
            prefetch,
            spare: Vec::new(),
            sources: Vec::with_capacity(queues.len()),
            turn: 0,
            stop,
        };
        // A queue that is named twice is consumed once.
        for (nth, queue) in queues.iter().enumerate() {
            if queues[..nth].iter().any(|other| other.name == queue.name) {
                continue;
            }
            let source = consumer.source(&channel, &ledger, queue, queues.len()).await?;
            consumer.sources.push(source);
        }
        // As stock workers do; and when this is answered, each queue's first messages are here and can take turns.
        let again = channel.basic_qos(consumer.first_count(queues.len()), BasicQosOptions::default()).await;
        again.map_err(|error| consumer.link.main.ended_by("cannot consume from", &error))?;
        Ok(consumer)
    }

    async fn source(&self, channel: &Channel, ledger: &Arc<Ledger>, queue: &Queue, queues: usize) -> Result<Source> {
        let started = Source::start(channel, ledger, queue, self.first_count(queues)).await?;
        started.map_err(|error| Failed::There(error).into_error(&self.link.main, BASIC_CONSUME))
    }

    /// One more queue, over a channel that no other is consumed over: a server that refuses ends the channel with that.
    async fn add(&mut self, queue: &Queue) -> Result<()> {
        let (channel, ledger) = match self.spare.iter().position(|(_, ledger)| ledger.owes_nothing()) {
            Some(at) => self.spare.swap_remove(at),
            None => self.link.consuming_channel().await?,
        };
        let source = self.source(&channel, &ledger, queue, self.sources.len() + 1).await?;
        self.sources.push(source);
        Ok(())
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
            match source.poll(context) {
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
                batch.push(handed_out(delivery, source, &self.prefetch));
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
            if let Some(count) = source.wanted(&self.prefetch) {
                source.replace(count);
                return;
            }
        }
    }
}

fn handed_out(mut delivery: AmqpDelivery, source: &Source, prefetch: &Arc<Prefetch>) -> Delivery {
    let message = read(&mut delivery)
        .map_err(|error| Undecodable { reason: error.to_string(), raw: std::mem::take(&mut delivery.data).into() });
    let settler: Arc<dyn Settler> = if source.no_ack { Arc::new(Told) } else { Arc::clone(&source.ledger) as _ };
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

    async fn consume_from(&mut self, queues: &[Queue]) -> Result<()> {
        for queue in queues {
            if self.sources.iter().all(|source| source.queue != queue.name) {
                self.add(queue).await?;
            }
        }
        let is_wanted = |source: &Source| queues.iter().any(|queue| queue.name == source.queue);
        let (kept, left): (Vec<_>, Vec<_>) = std::mem::take(&mut self.sources).into_iter().partition(is_wanted);
        (self.sources, self.turn) = (kept, 0);
        for source in left {
            let (channel, ledger) = (source.channel.clone(), Arc::clone(&source.ledger));
            let lost = self.link.lost().clone();
            tokio::select! {
                biased;
                () = source.end() => {}
                () = lost.cancelled() => return Err(self.link.main.is_lost()),
            }
            if self.sources.iter().all(|other| !Arc::ptr_eq(&other.ledger, &ledger)) {
                self.spare.push((channel, ledger));
            }
        }
        Ok(())
    }
}

impl Drop for RabbitConsumer {
    fn drop(&mut self) {
        let sources = std::mem::take(&mut self.sources);
        if self.link.lost().is_cancelled() || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        // What was not handed out goes back at once, and what is out stays valid: the channel stays open.
        let ending = tokio::spawn(async move {
            for source in sources {
                source.end().await;
            }
        });
        self.link.closing(ending);
    }
}
