//! [`FilesystemConsumer`] and its driver, which claims the next messages while the worker has the last ones.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::connection::Link;
use super::files::{failed, read_all};
use super::ledger::Held;
use super::names::FileName;
use super::open::{open, set_aside};
use super::own::claim;
use super::settle;
use crate::Result;
use crate::protocol::envelope;
use crate::transport::cycle::Cycle;
use crate::transport::{
    Consumer, Delivery, Prefetch, Queue, QueueName, QueueOrder, Settlement, Settler, Tag, Undecodable,
};

/// The most that one call hands over.
const BATCH: usize = 100;

pub(super) struct FilesystemConsumer {
    link: Arc<Link>,
    batches: mpsc::Receiver<Vec<Delivery>>,
    /// What the driver is to take from.
    wanted: watch::Sender<Vec<Queue>>,
    /// Ends the driver.
    stop: CancellationToken,
}

#[async_trait]
impl Consumer for FilesystemConsumer {
    async fn next(&mut self) -> Result<Vec<Delivery>> {
        loop {
            let mut batch = tokio::select! {
                biased;
                () = self.link.lost.cancelled() => return Err(self.link.is_lost()),
                batch = self.batches.recv() => batch.ok_or_else(|| self.link.is_lost())?,
            };
            // What of it is consumed no more goes back.
            batch.retain(|delivery| self.wanted.borrow().iter().any(|queue| queue.name == *delivery.queue()));
            if !batch.is_empty() {
                return Ok(batch);
            }
        }
    }

    async fn consume_from(&mut self, queues: &[Queue]) -> Result<()> {
        if self.link.lost.is_cancelled() {
            return Err(self.link.is_lost());
        }
        self.wanted.send_replace(queues.to_vec());
        self.link.look.notify_one();
        Ok(())
    }
}

impl Drop for FilesystemConsumer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Starts to consume.
pub(super) fn start(
    link: &Arc<Link>,
    queues: &[Queue],
    prefetch: Arc<Prefetch>,
    stop: CancellationToken,
) -> (FilesystemConsumer, JoinHandle<()>) {
    let (handed, batches) = mpsc::channel(1);
    let (wanted, changed) = watch::channel(queues.to_vec());
    let driver = Driver {
        link: Arc::clone(link),
        cycle: Cycle::new(names(queues), QueueOrder::RoundRobin),
        prefetch,
        wanted: changed,
        handed,
        stop: stop.clone(),
    };
    link.look.notify_one();
    let consumer = FilesystemConsumer { link: Arc::clone(link), batches, wanted, stop };
    (consumer, tokio::spawn(driver.run()))
}

fn names(queues: &[Queue]) -> impl Iterator<Item = QueueName> {
    queues.iter().map(|queue| queue.name.clone())
}

struct Driver {
    link: Arc<Link>,
    cycle: Cycle,
    prefetch: Arc<Prefetch>,
    wanted: watch::Receiver<Vec<Queue>>,
    handed: mpsc::Sender<Vec<Delivery>>,
    stop: CancellationToken,
}

impl Driver {
    async fn run(mut self) {
        let (stop, mut changes) = (self.stop.clone(), self.link.waiting.changes());
        loop {
            let room = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                room = room(&self.prefetch) => room,
            };
            changes.borrow_and_update();
            if self.wanted.has_changed().unwrap_or(false) {
                let wanted = self.wanted.borrow_and_update().clone();
                self.cycle.change(names(&wanted));
            }
            let Some(deliveries) = self.take(room).await else { return };
            if !deliveries.is_empty() {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    handed = self.handed.send(deliveries) => if handed.is_err() { return },
                }
                continue;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = self.wanted.changed() => self.wanted.mark_changed(),
                _ = changes.changed() => {}
            }
        }
    }

    /// Claims what there is and fits; `None`: the connection is lost.
    async fn take(&mut self, room: usize) -> Option<Vec<Delivery>> {
        let (link, mut cycle, prefetch) = (Arc::clone(&self.link), self.cycle.clone(), Arc::clone(&self.prefetch));
        let unacknowledged: Vec<_> = names_without_ack(&self.wanted.borrow());
        let taking = tokio::task::spawn_blocking(move || {
            let taken = take(&link, &mut cycle, &prefetch, room, &unacknowledged);
            (taken, cycle)
        });
        let (taken, cycle) = taking.await.ok()?;
        self.cycle = cycle;
        match taken {
            Ok(deliveries) => Some(deliveries),
            Err(error) => {
                self.link.lose(&error);
                None
            }
        }
    }
}

/// The queues whose messages are done with as they are taken.
fn names_without_ack(queues: &[Queue]) -> Vec<QueueName> {
    queues.iter().filter(|queue| queue.no_ack).map(|queue| queue.name.clone()).collect()
}

fn take(
    link: &Link,
    cycle: &mut Cycle,
    prefetch: &Arc<Prefetch>,
    room: usize,
    unacknowledged: &[QueueName],
) -> Result<Vec<Delivery>> {
    let mut deliveries = Vec::new();
    while deliveries.len() < room
        && let Some((queue, name)) = link.waiting.next(cycle.queues())
    {
        let Some((held, raw)) = take_one(link, name)? else { continue };
        cycle.used(&queue);
        let message = envelope::parse(&raw);
        let message = message.map_err(|error| Undecodable { reason: error.to_string(), raw: raw.into() });
        let (tag, settler): (_, Arc<dyn Settler>) = match unacknowledged.contains(&queue) {
            true => (done_with(link, &held)?, Arc::new(Done)),
            false => (link.shared.ledger.hold(held), Arc::clone(&link.shared.ledger) as _),
        };
        deliveries.push(Delivery::new(message, queue, tag, settler, prefetch.take()));
    }
    Ok(deliveries)
}

/// Nobody will settle it.
fn done_with(link: &Link, held: &Held) -> Result<Tag> {
    settle::carry_out(&link.shared, held, &Settlement::Ack)?;
    Ok(Tag(0))
}

/// What is done with is settled already.
struct Done;

impl Settler for Done {
    fn settle(&self, _tag: Tag, _settlement: Settlement) {}
}

/// Claims a message and reads it. `None`: it is not whole yet, or somebody else has it, or it cannot be read.
fn take_one(link: &Link, name: FileName) -> Result<Option<(Held, Vec<u8>)>> {
    let folder = &link.shared.incoming;
    let Some(mut file) = open(link, &name) else { return Ok(None) };
    let own = folder.own()?;
    let refused = |error| failed("cannot take messages out of the folder", folder.path(), error);
    if claim(folder, &own, &name).map_err(refused)?.is_none() {
        return Ok(None);
    }
    let held = Held { own, name };
    match read_all(&mut file) {
        Ok(raw) => Ok(Some((held, raw))),
        Err(error) => {
            set_aside(link, &held.name, &held.own.claim(&held.name), &error.to_string());
            Ok(None)
        }
    }
}

/// Waits until there is room for messages, and says for how many: at least one.
async fn room(prefetch: &Prefetch) -> usize {
    loop {
        match prefetch.available().min(BATCH) {
            0 => prefetch.changed().await,
            room => return room,
        }
    }
}
