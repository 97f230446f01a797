//! [`FilesystemConsumer`] and its driver, which claims the next messages while the worker has the last ones.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::connection::Link;
use super::files::{failed, open_whole, read_all};
use super::ledger::Held;
use super::names::FileName;
use super::own::claim;
use crate::Result;
use crate::protocol::envelope;
use crate::transport::cycle::Cycle;
use crate::transport::{Consumer, Delivery, Prefetch, Queue, QueueName, QueueOrder, Settler, Undecodable};

/// The most that one call hands over.
const BATCH: usize = 100;

pub(super) struct FilesystemConsumer {
    link: Arc<Link>,
    batches: mpsc::Receiver<Vec<Delivery>>,
    /// What the driver is to take from.
    wanted: watch::Sender<Vec<QueueName>>,
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
            batch.retain(|delivery| self.wanted.borrow().contains(delivery.queue()));
            if !batch.is_empty() {
                return Ok(batch);
            }
        }
    }

    async fn consume_from(&mut self, queues: &[Queue]) -> Result<()> {
        if self.link.lost.is_cancelled() {
            return Err(self.link.is_lost());
        }
        self.wanted.send_replace(queues.iter().map(|queue| queue.name.clone()).collect());
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
    let names: Vec<_> = queues.iter().map(|queue| queue.name.clone()).collect();
    let (handed, batches) = mpsc::channel(1);
    let (wanted, changed) = watch::channel(names.clone());
    let driver = Driver {
        link: Arc::clone(link),
        cycle: Cycle::new(names, QueueOrder::RoundRobin),
        prefetch,
        wanted: changed,
        handed,
        stop: stop.clone(),
    };
    link.look.notify_one();
    let consumer = FilesystemConsumer { link: Arc::clone(link), batches, wanted, stop };
    (consumer, tokio::spawn(driver.run()))
}

struct Driver {
    link: Arc<Link>,
    cycle: Cycle,
    prefetch: Arc<Prefetch>,
    wanted: watch::Receiver<Vec<QueueName>>,
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
                self.cycle.change(wanted);
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
        let taking = tokio::task::spawn_blocking(move || {
            let taken = take(&link, &mut cycle, &prefetch, room);
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

fn take(link: &Link, cycle: &mut Cycle, prefetch: &Arc<Prefetch>, room: usize) -> Result<Vec<Delivery>> {
    let mut deliveries = Vec::new();
    while deliveries.len() < room
        && let Some((queue, name)) = link.waiting.next(cycle.queues())
    {
        let Some((held, raw)) = take_one(link, name)? else { continue };
        cycle.used(&queue);
        let message = envelope::parse(&raw);
        let message = message.map_err(|error| Undecodable { reason: error.to_string(), raw: raw.into() });
        let ledger = &link.shared.ledger;
        let tag = ledger.hold(held);
        deliveries.push(Delivery::new(message, queue, tag, Arc::clone(ledger) as Arc<dyn Settler>, prefetch.take()));
    }
    Ok(deliveries)
}

/// Claims a message and reads it. `None`: it is not whole yet, or somebody else has it, or it cannot be read.
fn take_one(link: &Link, name: FileName) -> Result<Option<(Held, Vec<u8>)>> {
    let folder = &link.shared.incoming;
    let path = folder.file(&name);
    let mut file = match open_whole(&path, &link.shared.clock) {
        Ok(Some(file)) => file,
        Ok(None) => return Ok(None),
        Err(error) => {
            tracing::warn!("cannot read the message {}: {error}", path.display());
            return Ok(None);
        }
    };
    let own = folder.own()?;
    let refused = |error| failed("cannot take messages out of the folder", folder.path(), error);
    if claim(folder, &own, &name).map_err(refused)?.is_none() {
        return Ok(None);
    }
    let held = Held { own, name };
    match read_all(&mut file) {
        Ok(raw) => Ok(Some((held, raw))),
        Err(error) => {
            tracing::warn!("cannot read the message {}: {error}", path.display());
            let _ = super::files::move_to(&held.own.claim(&held.name), &path);
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
