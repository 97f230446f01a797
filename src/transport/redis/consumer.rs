//! [`RedisConsumer`] and its driver, which reserves the next messages while the worker has the last ones.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::connection::{Link, register};
use super::ledger::Pause;
use super::reserve::{Reserved, Reserver};
use super::unacked::{entry, is_written_in_vain};
use super::wake::{Wake, Woken};
use crate::protocol::envelope;
use crate::transport::cycle::Cycle;
use crate::transport::{Consumer, Delivery, ExchangeType, Prefetch, Queue, QueueName, Undecodable};
use crate::{Error, Result};

/// The most that one script call reserves: more would cost more each, since it no longer fits the processors' caches.
const BATCH: usize = 400;
/// How many messages are read without letting others go first.
const READ_AT_ONCE: usize = 16;
/// How long to let a nearly full window empty itself, while there is more to take than fits.
const GATHER: Duration = Duration::from_millis(1);

/// A subscription to queues in Redis.
pub(super) struct RedisConsumer {
    link: Arc<Link>,
    batches: mpsc::Receiver<Result<Vec<Delivery>>>,
    /// A batch that was received and not handed out yet: a call that is cancelled leaves it here.
    unread: Vec<Delivery>,
    /// What the driver is to take from.
    wanted: watch::Sender<Vec<QueueName>>,
    /// What it takes from was changed: it may still bring what it had taken before.
    has_changed: bool,
    /// Ends the driver.
    stop: CancellationToken,
    farewell: Farewell,
}

/// Holds settlements back from when the consumer is dropped until its driver has ended: what both give back is then
/// written together and keeps its order.
type Farewell = Arc<OnceLock<Pause>>;

#[async_trait]
impl Consumer for RedisConsumer {
    async fn next(&mut self) -> Result<Vec<Delivery>> {
        while self.unread.is_empty() {
            self.unread = self.batches.recv().await.unwrap_or_else(|| Err(self.link.is_lost()))?;
            self.give_back_unwanted();
        }
        // The driver's next request leaves before this batch is read, so that the server works meanwhile.
        if self.unread.len() > READ_AT_ONCE {
            yield_now().await;
        }
        self.unread.iter_mut().for_each(|delivery| delivery.decode(envelope::parse));
        self.wrap().await;
        Ok(std::mem::take(&mut self.unread))
    }

    async fn consume_from(&mut self, queues: &[Queue]) -> Result<()> {
        consumable(queues)?;
        if self.link.lost.is_cancelled() {
            return Err(self.link.is_lost());
        }
        self.wanted.send_replace(queues.iter().map(|queue| queue.name.clone()).collect());
        self.has_changed = true;
        self.give_back_unwanted();
        Ok(())
    }
}

/// Whether these queues are of a kind that is consumed here.
pub(super) fn consumable(queues: &[Queue]) -> Result<()> {
    match queues.iter().find(|queue| queue.exchange_type == ExchangeType::Fanout) {
        None => Ok(()),
        Some(queue) => {
            let message = format!("cannot consume from {}: fanout queues are not supported yet", queue.name);
            Err(Error::new(crate::ErrorKind::Configuration, message))
        }
    }
}

impl RedisConsumer {
    /// What comes of a queue that is consumed no more goes back, all in one go, so that it keeps its order.
    fn give_back_unwanted(&mut self) {
        if !self.has_changed {
            return;
        }
        let _pause = self.link.shared.ledger.pause();
        let wanted = self.wanted.borrow();
        self.unread.retain(|delivery| wanted.contains(delivery.queue()));
    }

    /// Wraps what stands in `unacked` and what no stock worker could restore from there, if this one died now.
    async fn wrap(&self) {
        let shared = &self.link.shared;
        let mut call = shared.scripts.wrap.call(1);
        call.arg(&shared.keys.unacked);
        let mut wrapped = 0;
        for delivery in &self.unread {
            let Err(Undecodable { raw, .. }) = delivery.message() else { continue };
            if is_written_in_vain(raw)
                && let Ok(entry) = entry(raw, delivery.queue().as_str())
            {
                call.arg(shared.ledger.field(delivery.tag())).arg(entry);
                wrapped += 1;
            }
        }
        if wrapped == 0 {
            return;
        }
        if let Err(error) = shared.scripts.wrap.run(&mut self.link.connection.clone(), &call).await {
            tracing::warn!("{}", self.link.refused("cannot wrap what is no message at", error));
        }
    }
}

impl Drop for RedisConsumer {
    fn drop(&mut self) {
        let _ = self.farewell.set(self.link.shared.ledger.pause());
        self.stop.cancel();
        // What was not handed out goes back at once.
        self.batches.close();
        self.unread.clear();
        while self.batches.try_recv().is_ok() {}
    }
}

/// Starts to consume.
pub(super) async fn start(
    link: Arc<Link>,
    queues: &[Queue],
    prefetch: Arc<Prefetch>,
    stop: CancellationToken,
) -> Result<(RedisConsumer, JoinHandle<()>)> {
    let shared = &link.shared;
    let wake = Wake::new(shared, link.changes.clone()).await?;
    let cycle = Cycle::new(queues.iter().map(|queue| queue.name.clone()), shared.options.queue_order);
    let reserver =
        Reserver::new(Arc::clone(shared), link.connection.clone(), Arc::clone(&prefetch), cycle, wake.is_tracking());
    let (handed, batches) = mpsc::channel(1);
    let (wanted, _) = watch::channel(queues.iter().map(|queue| queue.name.clone()).collect());
    let farewell = Farewell::default();
    let driver = Driver {
        link: Arc::clone(&link),
        reserver,
        prefetch,
        wake,
        wanted: wanted.subscribe(),
        handed,
        stop: stop.clone(),
        more: false,
        _farewell: Arc::clone(&farewell),
    };
    let consumer = RedisConsumer { link, batches, unread: Vec::new(), wanted, has_changed: false, stop, farewell };
    Ok((consumer, tokio::spawn(driver.run())))
}

/// Reserves messages for a consumer until it stops.
struct Driver {
    link: Arc<Link>,
    reserver: Reserver,
    prefetch: Arc<Prefetch>,
    wake: Wake,
    /// What to take from; a change ends a wait.
    wanted: watch::Receiver<Vec<QueueName>>,
    handed: mpsc::Sender<Result<Vec<Delivery>>>,
    stop: CancellationToken,
    /// The last reservation brought all that was asked for: there is probably more.
    more: bool,
    /// Dropped with the driver.
    _farewell: Farewell,
}

impl Driver {
    async fn run(mut self) {
        let stop = self.stop.clone();
        while !stop.is_cancelled() {
            let turn = match self.turn().await {
                Ok(deliveries) => self.hand_over(deliveries).await,
                Err(error) => Err(error),
            };
            if let Err(error) = turn {
                self.link.lost.cancel();
                // A consumer that is gone, or that has yet to take a batch, learns it from the closed channel.
                let _ = self.handed.try_send(Err(error));
                return;
            }
        }
    }

    /// Waits, where there is nothing to take from.
    async fn idle(&mut self) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            // The consumer is gone, and stops this with it.
            _ = self.wanted.changed() => self.wanted.mark_changed(),
        }
    }

    /// Takes from what is wanted now.
    fn adopt(&mut self) {
        if self.wanted.has_changed().unwrap_or(false) {
            self.reserver.change(&self.wanted.borrow_and_update());
        }
    }

    /// Waits for room, and reserves what fits. A request is never given up half-way: its answer holds messages.
    async fn turn(&mut self) -> Result<Vec<Delivery>> {
        let stop = self.stop.clone();
        let room = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(Vec::new()),
            room = room(&self.prefetch, self.more) => room,
        };
        self.adopt();
        if self.reserver.is_idle() {
            self.idle().await;
            return Ok(Vec::new());
        }
        self.wake.looking();
        let Reserved { mut deliveries, drained } = self.reserver.reserve(room).await?;
        self.wake.looked(!deliveries.is_empty());
        self.more = deliveries.len() == room;
        if drained && !deliveries.is_empty() {
            self.hand_over(std::mem::take(&mut deliveries)).await?;
        }
        if drained {
            deliveries.extend(self.wait().await?);
        }
        Ok(deliveries)
    }

    /// Waits for messages to arrive. Brings the one that was popped while waiting, if waiting pops.
    async fn wait(&mut self) -> Result<Option<Delivery>> {
        // A pop may bring a message, so there must be room for it.
        let stop = self.stop.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(None),
            _ = room(&self.prefetch, self.more) => {}
        }
        let lists = if self.wake.is_tracking() { Vec::new() } else { self.reserver.sound_lists() };
        let interrupt = stop.child_token();
        let woken = {
            let mut waiting = std::pin::pin!(self.wake.wait(&self.link.connection, lists, &interrupt));
            tokio::select! {
                woken = &mut waiting => woken,
                _ = self.wanted.changed() => {
                    self.wanted.mark_changed();
                    interrupt.cancel();
                    waiting.await
                }
            }
        };
        match woken {
            Ok(Woken::Look) => Ok(None),
            Ok(Woken::Popped { list, raw }) => self.register(&list, raw).await,
            Err(error) => Err(self.link.failed("cannot wait for messages of", error)),
        }
    }

    /// Registers a message that was popped while waiting. If that fails, the next connection does it.
    async fn register(&mut self, list: &[u8], raw: Vec<u8>) -> Result<Option<Delivery>> {
        let Some(queue) = self.reserver.queue_of(list) else {
            let name = String::from_utf8_lossy(list).into_owned();
            return Err(Error::new(
                crate::ErrorKind::Connection,
                format!("a message came from {name:?}, not asked for"),
            ));
        };
        let ledger = &self.link.shared.ledger;
        let reservation = ledger.begin(1);
        let tag = crate::transport::Tag(reservation.first());
        let messages = [(tag, entry(&raw, queue.as_str())?)];
        if let Err(error) = register(&self.link.shared, &mut self.link.connection.clone(), &messages).await {
            messages.into_iter().for_each(|(tag, value)| ledger.keep_unregistered(tag, value));
            return Err(self.link.failed("cannot register a message at", error));
        }
        reservation.confirm(1);
        Ok(Some(self.reserver.single(tag, queue, raw)))
    }

    async fn hand_over(&self, deliveries: Vec<Delivery>) -> Result<()> {
        if deliveries.is_empty() {
            return Ok(());
        }
        let place = tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            place = self.handed.reserve() => place.ok(),
        };
        match place {
            Some(place) => place.send(Ok(deliveries)),
            None => {
                // Nobody takes them: they go back in one go, so that they keep their order.
                let _pause = self.link.shared.ledger.pause();
                drop(deliveries);
            }
        }
        Ok(())
    }
}

/// Waits until there is room for messages, and says for how many: at least one. Where there is `more` to take than fits,
/// a window that is nearly full is given a moment to empty itself.
async fn room(prefetch: &Prefetch, more: bool) -> usize {
    let mut gathered = false;
    loop {
        let room = prefetch.available().min(BATCH);
        let worthwhile = (prefetch.base() / 4).clamp(1, BATCH / 4);
        if room == 0 {
            prefetch.changed().await;
        } else if gathered || !more || room >= worthwhile || prefetch.out() == 0 {
            return room;
        } else {
            sleep(GATHER).await;
            gathered = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_window_that_closes_while_it_is_given_a_moment_is_waited_for() {
        let prefetch = Prefetch::new(8);
        let mut out: Vec<_> = (0..7).map(|_| prefetch.take()).collect();
        assert_eq!(room(&prefetch, false).await, 1);
        let mut waiting = std::pin::pin!(room(&prefetch, true));
        assert!(timeout(Duration::ZERO, &mut waiting).await.is_err(), "one is not worth a request yet");
        prefetch.set_limit(7);
        assert!(timeout(GATHER * 10, &mut waiting).await.is_err(), "there is no room at all");
        drop(out.pop());
        assert_eq!(waiting.await, 1);
        out.truncate(3);
        assert_eq!(room(&prefetch, true).await, 4);
    }
}
