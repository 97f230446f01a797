//! [`FilesystemConnection`]: folders that are looked after by background parts until it is closed or a folder is gone.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::browse::FilesystemBrowser;
use super::complaints::Complaints;
use super::look::after_the_dead;
use super::publish::{Aim, publish, purge};
use super::tables::Kept;
use super::waiting::Waiting;
use super::watch::{self, Notices};
use super::{Shared, consumer, listen, notes, tables};
use crate::transport::binding::Binding;
use crate::transport::{
    Bound, Browser, Connection, Consumer, Note, Prefetch, Publication, Queue, QueueName, Subscription,
};
use crate::{Error, ErrorKind, Result};

/// How long closing waits for what is still to be settled.
const CLOSE: Duration = Duration::from_secs(10);

pub(super) struct FilesystemConnection {
    link: Arc<Link>,
    /// Cancelled when consumers and subscriptions are to stop, before the rest does.
    stop: CancellationToken,
    drivers: Mutex<Vec<JoinHandle<()>>>,
}

/// The connection as its background parts use it.
pub(super) struct Link {
    pub(super) shared: Arc<Shared>,
    pub(super) waiting: Waiting,
    /// Cancelled when the connection is of no further use.
    pub(super) lost: CancellationToken,
    /// Asks for a look through the folder.
    pub(super) look: Notify,
    /// What it has bound.
    pub(super) kept: Kept,
    pub(super) complaints: Complaints,
    reason: Mutex<Option<String>>,
}

impl Link {
    pub(super) fn lose(&self, error: &Error) {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| error.to_string());
        self.lost.cancel();
    }

    pub(super) fn is_lost(&self) -> Error {
        let reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let reason = reason.unwrap_or_else(|| "the connection to filesystem:// was closed".to_owned());
        Error::new(ErrorKind::Connection, reason)
    }

    /// Works on files where nobody waits for it.
    async fn work<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Arc<Shared>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.work_as(|link| work(&link.shared)).await
    }

    async fn work_as<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Link) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if self.lost.is_cancelled() {
            return Err(self.is_lost());
        }
        let link = Arc::clone(self);
        let done = spawn_blocking(move || work(&link)).await.map_err(|_| self.is_lost())?;
        if let Err(error) = &done
            && error.is_connection()
        {
            self.lose(error);
        }
        done
    }
}

impl FilesystemConnection {
    pub(super) async fn open(shared: Arc<Shared>) -> Result<Self> {
        let (waiting, lost) = (Waiting::default(), CancellationToken::new());
        let (look, kept, complaints) = (Notify::new(), Kept::default(), Complaints::default());
        let link = Arc::new(Link { shared, waiting, lost, look, kept, complaints, reason: Mutex::default() });
        link.work_as(|link| {
            link.shared.incoming.check()?;
            link.shared.outgoing.check()?;
            link.shared.incoming.own()?;
            // One of them may have had our name, and be bound as we will be.
            after_the_dead(link);
            Ok(())
        })
        .await?;
        let notices = Notices::of(link.shared.incoming.path());
        let notices = notices.inspect_err(|error| tracing::debug!("no notices of changes in the folder: {error}"));
        tokio::spawn(watch::run(Arc::clone(&link), notices.ok()));
        let stop = link.lost.child_token();
        Ok(FilesystemConnection { link, stop, drivers: Mutex::default() })
    }

    fn keep(&self, driver: JoinHandle<()>) {
        let mut drivers = self.drivers.lock().unwrap_or_else(PoisonError::into_inner);
        drivers.retain(|driver| !driver.is_finished());
        drivers.push(driver);
    }

    async fn finish(&self) {
        self.stop.cancel();
        let drivers = std::mem::take(&mut *self.drivers.lock().unwrap_or_else(PoisonError::into_inner));
        for driver in drivers {
            // One that panicked has nothing left to give back.
            let _ = driver.await;
        }
        self.link.shared.ledger.settled().await;
    }

    async fn send(&self, batch: Vec<Publication>, aim: Aim) -> Result<Vec<Result<()>>> {
        self.link.work(move |shared| publish(shared, &batch, aim)).await
    }
}

#[async_trait]
impl Connection for FilesystemConnection {
    async fn declare(&self, queues: &[Queue]) -> Result<()> {
        let queues = queues.to_vec();
        self.link
            .work_as(move |link| {
                for queue in queues.iter().filter(|queue| !queue.exchange.is_empty()) {
                    link.shared.know(queue);
                    link.kept.bind(&link.shared.options.control_folder, &queue.exchange, &Binding::of(queue))?;
                }
                Ok(())
            })
            .await
    }

    async fn publish(&self, batch: Vec<Publication>) -> Result<Vec<Result<()>>> {
        self.send(batch, Aim::Queues).await
    }

    async fn consume(&self, queues: &[Queue], prefetch: Arc<Prefetch>) -> Result<Box<dyn Consumer>> {
        if self.link.lost.is_cancelled() {
            return Err(self.link.is_lost());
        }
        let (consumer, driver) = consumer::start(&self.link, queues, prefetch, self.stop.child_token());
        self.keep(driver);
        Ok(Box::new(consumer))
    }

    async fn subscribe(&self, queue: &Queue) -> Result<Box<dyn Subscription>> {
        let (subscription, driver) = listen::open(&self.link, queue, self.stop.child_token()).await?;
        self.keep(driver);
        Ok(Box::new(subscription))
    }

    async fn broadcast(&self, batch: Vec<Publication>) -> Result<()> {
        self.send(batch, Aim::Listeners).await?.into_iter().collect()
    }

    async fn answer(&self, answer: Publication) -> Result<()> {
        self.send(vec![answer], Aim::Asking).await?.into_iter().collect()
    }

    async fn bindings(&self, queues: &[Queue]) -> Result<Vec<Bound>> {
        let mut exchanges: Vec<_> = queues.iter().map(|queue| queue.exchange.clone()).collect();
        exchanges.retain(|exchange| !exchange.is_empty());
        exchanges.sort();
        exchanges.dedup();
        self.link
            .work(move |shared| {
                let mut bound = Vec::new();
                for exchange in exchanges {
                    for Binding { routing_key, queue, .. } in tables::read(&shared.options.control_folder, &exchange)? {
                        bound.push(Bound { exchange: exchange.clone(), queue, routing_key });
                    }
                }
                bound.sort();
                Ok(bound)
            })
            .await
    }

    async fn purge(&self, queues: &[Queue]) -> Result<u64> {
        let queues = queues.to_vec();
        self.link.work(move |shared| purge(shared, &queues)).await
    }

    async fn lost(&self) -> Error {
        self.link.lost.cancelled().await;
        self.link.is_lost()
    }

    async fn browse(&self, queue: &QueueName) -> Result<Box<dyn Browser>> {
        let name = queue.clone();
        let names = self.link.work(move |shared| FilesystemBrowser::look(shared, &name)).await?;
        Ok(Box::new(FilesystemBrowser::new(Arc::clone(&self.link.shared), names)))
    }

    async fn notes(&self, names: &[String]) -> Result<Vec<Option<String>>> {
        let names = names.to_vec();
        self.link.work(move |shared| notes::read(shared, &names)).await
    }

    async fn write_notes(&self, notes: Vec<Note>, kept_for: Duration) -> Result<()> {
        self.link.work(move |shared| notes::write(shared, &notes, kept_for)).await
    }

    async fn close(&self) -> Result<()> {
        let shared = &self.link.shared;
        let closed = timeout(CLOSE, self.finish()).await;
        self.link.lost.cancel();
        if shared.ledger.holds_nothing() {
            shared.release();
        }
        closed.map_err(|_| {
            let folder = shared.incoming.path().display();
            Error::new(ErrorKind::Connection, format!("cannot settle everything in {folder} before closing: timed out"))
        })
    }
}

impl Drop for FilesystemConnection {
    fn drop(&mut self) {
        self.link.lost.cancel();
    }
}

impl fmt::Debug for FilesystemConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FilesystemConnection({})", self.link.shared.incoming.path().display())
    }
}
