//! [`RabbitConnection`]: an open connection to a RabbitMQ broker.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use lapin::Channel;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::announce::Announcer;
use super::browse::RabbitBrowser;
use super::consumer::RabbitConsumer;
use super::fanout::RabbitSubscription;
use super::ledger::Ledger;
use super::publish::Publisher;
use super::{declare, flush, notes};
use crate::amqp_client::{AmqpConnectOptions, AmqpConnection, AmqpUrl};
use crate::routing::Declaration;
use crate::transport::{Browser, Connection, Consumer, Note, Prefetch, Publication, Queue, QueueName, Subscription};
use crate::{Error, ErrorKind, Result};

/// How long closing waits for a server that does not answer.
const CLOSE: Duration = Duration::from_secs(10);

/// An open connection to a RabbitMQ broker.
pub(super) struct RabbitConnection {
    link: Arc<Link>,
    /// Cancelled when consumers are to stop, before the rest does.
    stop_consuming: CancellationToken,
}

/// The connection itself, as its parts use it.
pub(super) struct Link {
    /// For consuming; for all until it consumes.
    pub(super) main: AmqpConnection,
    url: AmqpUrl,
    options: AmqpConnectOptions,
    /// For publishing, once something is consumed; opened for the first message.
    publishing: OnceCell<AmqpConnection>,
    consuming: AtomicBool,
    publisher: Publisher,
    announcer: Announcer,
    /// The ledgers of the channels that something was consumed on.
    ledgers: Mutex<Vec<Arc<Ledger>>>,
    /// Channels that are closing, with what goes back to its queue thereby.
    closings: Mutex<Vec<JoinHandle<()>>>,
}

impl Link {
    /// Cancelled when the connection is of no further use.
    pub(super) fn lost(&self) -> &CancellationToken {
        self.main.lost_token()
    }

    /// A channel to consume on, with its ledger, whose flusher runs from now on.
    pub(super) async fn consuming_channel(self: &Arc<Self>) -> Result<(Channel, Arc<Ledger>)> {
        let channel = self.main.channel().await?;
        self.consuming.store(true, Ordering::Release);
        let ledger = Arc::new(Ledger::default());
        self.ledgers.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&ledger));
        tokio::spawn(flush::run(Arc::clone(self), channel.clone(), Arc::clone(&ledger)));
        Ok((channel, ledger))
    }

    /// Publishes, and says of each message whether it was accepted.
    pub(super) async fn publish(&self, batch: &[Publication], mandatory: bool) -> Result<Vec<Result<()>>> {
        let published = async { self.publisher.publish(self.publishing().await?, batch, mandatory).await };
        self.main.unless_lost(published).await
    }

    async fn publishing(&self) -> Result<&AmqpConnection> {
        if self.publishing.initialized() || self.consuming.load(Ordering::Acquire) {
            return self.publishing.get_or_try_init(|| self.open_publishing()).await;
        }
        Ok(&self.main)
    }

    /// Whoever publishes over a connection learns of its loss from the one that consumes, and the other way round.
    async fn open_publishing(&self) -> Result<AmqpConnection> {
        let opened = match self.url.connect(&self.options).await {
            Ok(opened) => opened,
            Err(error) => {
                // Whoever waits for the loss of this connection is to seek another.
                self.main.ended(&error.to_string());
                return Err(error);
            }
        };
        self.main.ends_with(&opened);
        Ok(opened)
    }

    /// Something that must be over before others look into the queues again.
    pub(super) fn closing(&self, closing: JoinHandle<()>) {
        self.closings.lock().unwrap_or_else(PoisonError::into_inner).push(closing);
    }

    async fn closed(&self) {
        let closings = std::mem::take(&mut *self.closings.lock().unwrap_or_else(PoisonError::into_inner));
        for closing in closings {
            // One that panicked has closed its channel with that.
            let _ = closing.await;
        }
    }

    async fn settled(&self) {
        let ledgers = self.ledgers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for ledger in ledgers {
            ledger.settled().await;
        }
    }
}

impl RabbitConnection {
    pub(super) async fn open(url: AmqpUrl, options: AmqpConnectOptions) -> Result<Self> {
        let link = Arc::new(Link {
            main: url.connect(&options).await?,
            url,
            options,
            publishing: OnceCell::new(),
            consuming: AtomicBool::new(false),
            publisher: Publisher::default(),
            announcer: Announcer::default(),
            ledgers: Mutex::default(),
            closings: Mutex::default(),
        });
        let stop_consuming = link.lost().child_token();
        Ok(RabbitConnection { link, stop_consuming })
    }

    async fn finish(&self) -> Result<()> {
        self.stop_consuming.cancel();
        let settled = async {
            self.link.closed().await;
            self.link.settled().await;
        };
        tokio::select! {
            biased;
            () = settled => {}
            () = self.link.lost().cancelled() => return Err(self.link.main.is_lost()),
        }
        // The one for publishing last: its end is the end of both.
        let closed = self.link.main.close().await;
        match self.link.publishing.get() {
            Some(publishing) => closed.and(publishing.close().await),
            None => closed,
        }
    }
}

#[async_trait]
impl Connection for RabbitConnection {
    async fn declare(&self, queues: &[Queue]) -> Result<()> {
        self.link.main.unless_lost(declare::declare(&self.link.main, queues)).await
    }

    async fn arrange(&self, declarations: &[Declaration]) -> Result<()> {
        self.link.main.unless_lost(declare::arrange(&self.link.main, declarations)).await
    }

    async fn publish(&self, batch: Vec<Publication>) -> Result<Vec<Result<()>>> {
        self.link.publish(&batch, true).await
    }

    async fn consume(&self, queues: &[Queue], prefetch: Arc<Prefetch>) -> Result<Box<dyn Consumer>> {
        let stop = self.stop_consuming.child_token();
        let started = RabbitConsumer::start(Arc::clone(&self.link), queues, prefetch, stop);
        Ok(Box::new(self.link.main.unless_lost(started).await?))
    }

    async fn subscribe(&self, queue: &Queue) -> Result<Box<dyn Subscription>> {
        let opened = RabbitSubscription::open(Arc::clone(&self.link), queue);
        Ok(Box::new(self.link.main.unless_lost(opened).await?))
    }

    async fn broadcast(&self, batch: Vec<Publication>) -> Result<()> {
        self.heard(&batch).await
    }

    async fn announce(&self, batch: Vec<Publication>) -> Result<()> {
        let announced = async { self.link.announcer.announce(self.link.publishing().await?, &batch).await };
        self.link.main.unless_lost(announced).await
    }

    async fn answer(&self, answer: Publication) -> Result<()> {
        self.heard(std::slice::from_ref(&answer)).await
    }

    async fn purge(&self, queues: &[Queue]) -> Result<u64> {
        self.link.main.unless_lost(declare::purge(&self.link.main, queues)).await
    }

    async fn lost(&self) -> Error {
        self.link.main.lost().await
    }

    async fn browse(&self, queue: &QueueName) -> Result<Box<dyn Browser>> {
        let opened = async {
            self.link.closed().await;
            RabbitBrowser::open(Arc::clone(&self.link), queue).await
        };
        Ok(Box::new(self.link.main.unless_lost(opened).await?))
    }

    async fn notes(&self, names: &[String]) -> Result<Vec<Option<String>>> {
        self.link.main.unless_lost(notes::read(&self.link, names)).await
    }

    async fn write_notes(&self, notes: Vec<Note>, kept_for: Duration) -> Result<()> {
        self.link.main.unless_lost(notes::write(&self.link, notes, kept_for)).await
    }

    async fn close(&self) -> Result<()> {
        let closed = timeout(CLOSE, self.finish()).await.unwrap_or_else(|_| {
            let message = format!("cannot settle everything at {} before closing: timed out", self.link.main.place());
            Err(Error::new(ErrorKind::Connection, message))
        });
        match &closed {
            Ok(()) => self.link.main.give_up(),
            Err(_) => self.link.main.abort(),
        }
        closed
    }
}

impl RabbitConnection {
    /// Publishes what concerns only those who listen: with nobody, not even an exchange, there is nothing to say.
    async fn heard(&self, batch: &[Publication]) -> Result<()> {
        for published in self.link.publish(batch, false).await? {
            match published {
                Err(error) if error.kind() != ErrorKind::Broker => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Drop for RabbitConnection {
    fn drop(&mut self) {
        self.link.main.give_up();
    }
}

impl fmt::Debug for RabbitConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RabbitConnection({})", self.link.main.place())
    }
}
