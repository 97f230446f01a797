//! [`RedisConnection`]: an open connection and its background parts.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use redis::{Pipeline, RedisError};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::browse::RedisBrowser;
use super::claimed::Tables;
use super::consumer::{RedisConsumer, consumable, start};
use super::fanout::{self, Announcer, RedisSubscription};
use super::flush::{flush, run};
use super::inbox::RedisInbox;
use super::{Shared, Waiting, bindings, claimed, keeper, notes, publish, wake};
use crate::redis_client::{ConnectOptions, Opened, SharedConnection, failure, is_refusal, lost, refusal};
use crate::transport::{
    Bound, Browser, Claim, Connection, Consumer, ExchangeType, Note, Prefetch, Publication, Queue, QueueName,
    Settlement, Settler, Subscription,
};
use crate::{Error, ErrorKind, Result};

/// How long closing goes on without Redis taking any settlement; less if answers have to come sooner.
const CLOSE: Duration = Duration::from_secs(10);
/// How many settlements are written at a time.
const FLUSH: usize = 5000;

/// An open connection to a Redis broker.
pub(super) struct RedisConnection {
    link: Arc<Link>,
    /// Cancelled when consumers are to stop, before the rest does.
    stop_consuming: CancellationToken,
    /// The consumers' drivers: closing waits until they have given back what they were about to hand over.
    drivers: Mutex<Vec<JoinHandle<()>>>,
    /// Begins to restore others' messages with the first consumer.
    consuming: watch::Sender<bool>,
    announcer: Announcer,
}

/// The connection itself, as its background parts use it.
pub(super) struct Link {
    pub(super) shared: Arc<Shared>,
    pub(super) connection: SharedConnection,
    /// Cancelled when the connection is of no further use, whoever noticed.
    pub(super) lost: CancellationToken,
    /// Told of changes to lists; absent where the server does not tell.
    pub(super) changes: Option<watch::Receiver<u64>>,
    /// Where the last messages that were published against a claim went.
    pub(super) tables: Tables,
}

impl Shared {
    pub(super) fn connect_options(&self) -> ConnectOptions {
        ConnectOptions {
            connect_timeout: self.options.socket_connect_timeout,
            response_timeout: Some(self.options.socket_timeout),
            client_name: self.options.client_name.clone(),
            ..ConnectOptions::default()
        }
    }
}

impl RedisConnection {
    /// Opens a connection, prepares it, and starts its background parts.
    pub(super) async fn open(shared: Arc<Shared>) -> Result<Self> {
        let link = Arc::new(Link::open(shared).await?);
        let (consuming, begun) = watch::channel(false);
        tokio::spawn(run_flusher(Arc::clone(&link)));
        tokio::spawn(keeper::run_leases(Arc::clone(&link)));
        tokio::spawn(keeper::run_restores(Arc::clone(&link), begun));
        let stop_consuming = link.lost.child_token();
        Ok(RedisConnection {
            link,
            stop_consuming,
            drivers: Mutex::default(),
            consuming,
            announcer: Announcer::default(),
        })
    }

    /// Finishes for as long as that gets on: how much there is to settle is no reason to leave it.
    async fn finish_patiently(&self) -> Result<()> {
        let (shared, options) = (&self.link.shared, &self.link.shared.options);
        let patience = CLOSE.min(options.socket_timeout + options.socket_connect_timeout);
        let finished = self.finish();
        tokio::pin!(finished);
        loop {
            let before = shared.ledger.progress();
            match timeout(patience, &mut finished).await {
                Ok(finished) => return finished,
                Err(_) if shared.ledger.progress() != before => {}
                Err(_) => {
                    let message = format!("cannot settle everything at {} before closing: timed out", shared.url);
                    return Err(Error::new(ErrorKind::Connection, message));
                }
            }
        }
    }

    async fn finish(&self) -> Result<()> {
        self.stop_consuming.cancel();
        let drivers = std::mem::take(&mut *self.drivers.lock().unwrap_or_else(PoisonError::into_inner));
        for driver in drivers {
            // A driver that panicked has nothing left to give back.
            let _ = driver.await;
        }
        let ledger = &self.link.shared.ledger;
        tokio::select! {
            () = ledger.settled() => Ok(()),
            () = self.link.lost.cancelled() => match ledger.is_settled() {
                true => Ok(()),
                false => settle_elsewhere(Arc::clone(&self.link.shared)).await,
            },
        }
    }
}

#[async_trait]
impl Connection for RedisConnection {
    async fn declare(&self, queues: &[Queue]) -> Result<()> {
        let shared = &self.link.shared;
        let declared = bindings::declare(shared, &mut self.link.connection.clone(), queues).await;
        declared.map_err(|error| self.link.refused("cannot declare queues at", error))
    }

    async fn publish(&self, batch: Vec<Publication>) -> Result<Vec<Result<()>>> {
        publish::publish(&self.link, &batch).await
    }

    async fn publish_claimed(&self, publication: Publication, claim: &Claim) -> Result<bool> {
        claimed::publish_claimed(&self.link, &publication, claim).await
    }

    async fn consume(&self, queues: &[Queue], prefetch: Arc<Prefetch>) -> Result<Box<dyn Consumer>> {
        consumable(queues)?;
        let (consumer, driver): (RedisConsumer, _) =
            start(Arc::clone(&self.link), queues, prefetch, self.stop_consuming.child_token()).await?;
        let mut drivers = self.drivers.lock().unwrap_or_else(PoisonError::into_inner);
        drivers.retain(|driver| !driver.is_finished());
        drivers.push(driver);
        self.consuming.send_replace(true);
        Ok(Box::new(consumer))
    }

    async fn subscribe(&self, queue: &Queue) -> Result<Box<dyn Subscription>> {
        Ok(match queue.exchange_type {
            ExchangeType::Direct => Box::new(RedisInbox::open(Arc::clone(&self.link), queue).await?),
            _ => Box::new(RedisSubscription::open(Arc::clone(&self.link), queue).await?),
        })
    }

    async fn broadcast(&self, batch: Vec<Publication>) -> Result<()> {
        fanout::broadcast(&self.link, &batch).await
    }

    async fn announce(&self, batch: Vec<Publication>) -> Result<()> {
        self.announcer.announce(&self.link, &batch).await
    }

    async fn answer(&self, answer: Publication) -> Result<()> {
        publish::answer(&self.link, &answer).await
    }

    async fn bindings(&self, queues: &[Queue]) -> Result<Vec<Bound>> {
        bindings::list(&self.link, queues).await
    }

    async fn purge(&self, queues: &[Queue]) -> Result<u64> {
        publish::purge(&self.link, queues).await
    }

    async fn lost(&self) -> Error {
        self.link.lost.cancelled().await;
        self.link.is_lost()
    }

    async fn browse(&self, queue: &QueueName) -> Result<Box<dyn Browser>> {
        Ok(Box::new(RedisBrowser::new(Arc::clone(&self.link), queue)))
    }

    async fn notes(&self, names: &[String]) -> Result<Vec<Option<String>>> {
        notes::read(&self.link, names).await
    }

    async fn write_notes(&self, notes: Vec<Note>, kept_for: Duration) -> Result<()> {
        notes::write(&self.link, &notes, kept_for).await
    }

    async fn close(&self) -> Result<()> {
        let closed = self.finish_patiently().await;
        self.link.lost.cancel();
        closed
    }
}

impl Drop for RedisConnection {
    fn drop(&mut self) {
        self.link.lost.cancel();
    }
}

impl fmt::Debug for RedisConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisConnection({})", self.link.shared.url)
    }
}

impl Link {
    async fn open(shared: Arc<Shared>) -> Result<Self> {
        let (pushes, received) = mpsc::unbounded_channel();
        let wants_tracking = matches!(shared.options.waiting, Waiting::Automatic | Waiting::Tracking);
        let options = ConnectOptions { resp3: true, pushes: Some(pushes), ..shared.connect_options() };
        let Opened { mut connection, resp3 } = shared.url.connect(&options).await?;
        let prepared = prepare(&shared, &mut connection, resp3 && wants_tracking).await;
        let tracking = prepared.map_err(|error| failure("cannot prepare the connection to", &shared.url, error))?;
        let (lost, (changed, changes)) = (CancellationToken::new(), watch::channel(0));
        tokio::spawn(wake::listen(Arc::clone(&shared), received, changed, lost.clone()));
        // Since the last renewal an outage has passed: what others might restore comes before all else.
        let renewed = keeper::renew(&shared, &mut connection, Duration::ZERO).await;
        renewed.map_err(|error| failure("cannot renew leases at", &shared.url, error))?;
        shared.ledger.resolve_doubts();
        // What comes from before is settled before anything is reserved: what goes back is then the next to come.
        settle_pending(&shared, &mut connection).await?;
        Ok(Link { shared, connection, lost, changes: tracking.then_some(changes), tables: Tables::default() })
    }

    /// What a request's failure is to the caller; the connection is given up.
    pub(super) fn failed(&self, doing: &str, error: RedisError) -> Error {
        self.lost.cancel();
        failure(doing, &self.shared.url, error)
    }

    /// What a failure is to who asked for one thing. A refusal concerns that alone; after anything else, such as an
    /// answer that did not come in time, the connection is given up.
    pub(super) fn refused(&self, doing: &str, error: RedisError) -> Error {
        if is_refusal(&error) { refusal(doing, &self.shared.url, error) } else { self.failed(doing, error) }
    }

    /// The error of a connection that somebody else found to be lost.
    pub(super) fn is_lost(&self) -> Error {
        lost(&self.shared.url)
    }
}

/// Gives the server our scripts and turns tracking on if wanted, in one round trip, and registers what could not be
/// registered before; says whether tracking is on.
async fn prepare(shared: &Shared, connection: &mut SharedConnection, track: bool) -> Result<bool, RedisError> {
    let scripts = &shared.scripts;
    let mut preparing = Pipeline::new();
    for script in [&scripts.reserve, &scripts.moving, &scripts.wrap, &scripts.release] {
        preparing.add_command(script.loading());
    }
    if track {
        preparing.cmd("CLIENT").arg("TRACKING").arg("ON");
    }
    let mut answers = run(connection, &preparing).await?;
    let tracking = if track { answers.pop() } else { None };
    answers.into_iter().try_for_each(|answer| answer.extract_error().map(drop))?;
    let unregistered = shared.ledger.take_unregistered();
    if let Err(error) = register(shared, connection, &unregistered).await {
        unregistered.into_iter().for_each(|(tag, value)| shared.ledger.keep_unregistered(tag, value));
        return Err(error);
    }
    unregistered.iter().for_each(|(tag, _)| shared.ledger.settle(*tag, Settlement::Restore));
    // A server that refuses it is waited for by other means.
    Ok(tracking.is_some_and(|answer| answer.extract_error().is_ok()))
}

/// Writes messages into `unacked` as the reserving script does.
pub(super) async fn register(
    shared: &Shared,
    connection: &mut SharedConnection,
    messages: &[(crate::transport::Tag, Vec<u8>)],
) -> Result<(), RedisError> {
    let mut pipeline = Pipeline::new();
    pipeline.atomic();
    for (tag, value) in messages {
        let field = shared.ledger.field(*tag);
        pipeline.cmd("HSET").arg(&shared.keys.unacked).arg(&field).arg(value).ignore();
        pipeline.cmd("ZADD").arg(&shared.keys.unacked_index).arg(shared.lease()).arg(&field).ignore();
    }
    if messages.is_empty() { Ok(()) } else { pipeline.query_async(connection).await }
}

/// Writes settlements as they come: what gathers while one batch is written is the next.
async fn run_flusher(link: Arc<Link>) {
    loop {
        let batch = tokio::select! {
            () = link.lost.cancelled() => return,
            batch = link.shared.ledger.take(FLUSH) => batch,
        };
        match flush(&link.shared, &mut link.connection.clone(), batch.settlements()).await {
            Ok(()) => batch.done(),
            Err(error) => {
                let error = link.failed("cannot settle messages at", error);
                tracing::debug!("{error}");
                return;
            }
        }
    }
}

/// Writes what is to be settled at this moment.
async fn settle_pending(shared: &Shared, connection: &mut SharedConnection) -> Result<()> {
    while let Some(batch) = shared.ledger.try_take(FLUSH) {
        let flushed = flush(shared, connection, batch.settlements()).await;
        flushed.map_err(|error| failure("cannot settle messages at", &shared.url, error))?;
        batch.done();
    }
    Ok(())
}

/// Writes what is still to be settled over a connection for this alone: the one that is being closed is lost.
async fn settle_elsewhere(shared: Arc<Shared>) -> Result<()> {
    let mut connection = shared.url.connect(&shared.connect_options()).await?.connection;
    let prepared = prepare(&shared, &mut connection, false).await;
    prepared.map_err(|error| failure("cannot prepare the connection to", &shared.url, error))?;
    shared.ledger.resolve_doubts();
    loop {
        settle_pending(&shared, &mut connection).await?;
        tokio::select! {
            biased;
            () = shared.ledger.settled() => return Ok(()),
            batch = shared.ledger.take(FLUSH) => drop(batch),
        }
    }
}
