//! The worker's link to its broker: connects, consumes, and connects again for as long as the worker runs.
//!
//! A lost connection is a state and not an exception path: what runs goes on, and what was reserved over the lost
//! connection is settled over the next one by the transport.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::delays::Delays;
use super::event::Event;
use super::mailbox::MailboxDoor;
use super::pace::Pace;
use super::patience::Patience;
use super::queues::Consumed;
use crate::app::Observer;
use crate::config::Config;
use crate::transport::{Backoff, Connection, Consumer, Prefetch, Queue, Transport};
use crate::{Error, ErrorKind, Result};

/// A connection that lasted so long was a good one: the next is sought with the shortest pauses again.
const STEADY: Duration = Duration::from_secs(5);

/// One that lasted so long has served: the next is sought as if it had just been lost.
const SERVED: Duration = Duration::from_secs(1);

/// How long a worker that stops looks for a broker that is away, to tell it what has been done.
const LAST_TRY: Duration = Duration::from_secs(5);

/// Keeps a worker connected.
pub(crate) struct Link {
    /// The worker's own, without which it is of no use; of those that clients have added each may be refused alone.
    pub(crate) own: Vec<Queue>,
    pub(crate) queues: Consumed,
    pub(crate) delays: Delays,
    pub(crate) prefetch: Arc<Prefetch>,
    pub(crate) events: mpsc::UnboundedSender<Event>,
    /// Who hears of the messages, in its own time.
    pub(crate) observer: Option<Arc<dyn Observer>>,
    /// Where commands are heard; `None`: nobody listens.
    pub(crate) mailbox: Option<MailboxDoor>,
    /// Tells the publisher which connection is up.
    pub(crate) current: watch::Sender<Option<Arc<dyn Connection>>>,
    /// Cancelled when no more messages are to be taken; the connection stays up for settlements.
    pub(crate) stop_consuming: CancellationToken,
    /// Cancelled when nothing is left to settle or publish.
    pub(crate) stop: CancellationToken,
}

/// Opens connections, and tries again as `broker_connection_retry`, `broker_connection_retry_on_startup` and
/// `broker_connection_max_retries` say.
#[derive(Debug)]
pub(crate) struct Connector {
    pub(crate) transport: Arc<dyn Transport>,
    /// Who tries, for the log: `consumer`.
    pub(crate) name: &'static str,
    backoff: Backoff,
    patience: Patience,
    /// Whether the next connection is tried again at all: the first one may differ from those after a loss.
    may_retry: bool,
    after_loss: bool,
    /// The setting that says so for the first connection, until there was one.
    on_startup: Option<&'static str>,
}

impl Connector {
    pub(crate) fn new(name: &'static str, transport: Arc<dyn Transport>, config: &Config, backoff: Backoff) -> Self {
        Connector {
            transport,
            name,
            backoff,
            patience: Patience::new(config.broker_connection_max_retries.filter(|&limit| limit > 0)),
            may_retry: config.retries_on_startup(),
            after_loss: config.broker_connection_retry,
            on_startup: Some(match config.broker_connection_retry_on_startup {
                Some(_) => "broker_connection_retry_on_startup",
                None => "broker_connection_retry",
            }),
        }
    }

    pub(crate) async fn connect(&mut self) -> Result<Arc<dyn Connection>> {
        let (mut waited, mut tries) = (Duration::ZERO, 0);
        loop {
            tries += 1;
            let failed = match self.transport.connect().await {
                Ok(connection) => {
                    (self.may_retry, self.on_startup) = (self.after_loss, None);
                    return Ok(connection);
                }
                Err(failed) => failed,
            };
            if !self.may_retry || self.patience.is_spent(waited) || self.is_final(&failed) {
                self.give_up(&failed);
                return Err(failed);
            }
            let pause = self.backoff.next_pause();
            self.report(&failed, pause, tries);
            tokio::time::sleep(pause).await;
            waited += pause;
        }
    }

    /// Whether another try would end as this one did.
    fn is_final(&self, failed: &Error) -> bool {
        match failed.kind() {
            ErrorKind::Configuration => true,
            ErrorKind::Authentication => !self.transport.capabilities().retries_refused_logins,
            _ => false,
        }
    }

    /// The words of `Consumer.start` (celery/worker/consumer/consumer.py), if a setting is why there is no other try.
    fn give_up(&self, failed: &Error) {
        if !self.may_retry && !self.is_final(failed) {
            let establish = if self.on_startup.is_some() { "establish" } else { "re-establish" };
            let setting = self.on_startup.unwrap_or("broker_connection_retry");
            error!(
                critical = true,
                "Retrying to {establish} a connection to the message broker after a connection loss has been disabled \
                 (app.conf.{setting}=False). Shutting down..."
            );
        }
    }

    /// The words of `Consumer.ensure_connected` (celery/worker/consumer/consumer.py), in one line.
    fn report(&self, failed: &Error, pause: Duration, tries: u32) {
        let (uri, pause, progress) = (self.transport.uri(), pause.as_secs_f64(), self.patience.progress(tries));
        let reason = failed.to_string();
        let reason = reason.strip_prefix(&format!("cannot connect to {uri}: ")).unwrap_or(&reason);
        error!(
            "{}: Cannot connect to {uri}: {}. Trying again in {pause:.2} seconds... ({progress})",
            self.name,
            reason.trim_end_matches('.'),
        );
    }
}

impl Link {
    /// Runs until `stop`, or until the broker is given up.
    pub(crate) async fn run(self, connector: Connector) {
        let (stop, transport) = (self.stop.clone(), Arc::clone(&connector.transport));
        tokio::select! {
            () = stop.cancelled() => self.close(&*transport).await,
            error = self.keep_connected(connector) => {
                // The loop is gone only when the worker is, and then nobody needs to know.
                let _ = self.events.send(Event::Unrecoverable(error));
            }
        }
    }

    async fn keep_connected(&self, mut connector: Connector) -> Error {
        loop {
            let connection = match connector.connect().await {
                Ok(connection) => connection,
                Err(error) => return error,
            };
            info!("Connected to {}", connector.transport.uri());
            let since = Instant::now();
            let lost = self.serve(&connection).await;
            if connector.is_final(&lost) || lost.kind() == ErrorKind::Broker {
                // A queue that is there with other arguments, or that this user may not consume.
                return lost;
            }
            self.current.send_replace(None);
            let _ = self.events.send(Event::Disconnected);
            warn!("consumer: Connection to broker lost. Trying to re-establish the connection...");
            if since.elapsed() > STEADY {
                debug!("{lost}");
                connector.backoff.reset();
            } else {
                // A broker that answers and cannot be consumed from, such as a replica, is not asked without pause.
                warn!("consumer: {lost}");
                if since.elapsed() > SERVED {
                    connector.backoff.freshen();
                }
            }
            tokio::time::sleep(connector.backoff.next_pause()).await;
        }
    }

    /// Consumes over one connection until it is lost.
    async fn serve(&self, connection: &Arc<dyn Connection>) -> Error {
        let consumed = tokio::select! {
            consumed = self.consume(connection) => consumed,
            // Whatever was being asked of it: an answer may never come.
            lost = connection.lost() => return lost,
        };
        match consumed {
            // The last results and settlements need a connection too.
            Ok(()) => connection.lost().await,
            Err(error) => error,
        }
    }

    /// Hands on what arrives; `Ok` when no more is to be taken.
    async fn consume(&self, connection: &Arc<dyn Connection>) -> Result<()> {
        if self.stop_consuming.is_cancelled() {
            self.current.send_replace(Some(Arc::clone(connection)));
            return Ok(());
        }
        let mut wanted = self.queues.subscribe();
        let is_own = |queue: &Queue| self.own.iter().any(|own| own.name == queue.name);
        let (mut consumed, added): (Vec<_>, Vec<_>) = wanted.borrow_and_update().iter().cloned().partition(is_own);
        let (mut consumer, ()) = tokio::try_join!(self.subscribe(connection, &consumed), self.listen(connection))?;
        self.current.send_replace(Some(Arc::clone(connection)));
        let _ = self.events.send(Event::Connected);
        if !added.is_empty() {
            wanted.mark_changed();
        }
        let mut pace = Pace::new(self.observer.clone(), self.events.clone());
        loop {
            tokio::select! {
                biased;
                () = self.stop_consuming.cancelled() => return Ok(()),
                // It is not closed: the sender is our own.
                _ = wanted.changed() => {
                    let wanted = wanted.borrow_and_update().clone();
                    consumed = self.change(connection, &mut *consumer, consumed, wanted).await?;
                }
                handed_on = pace.turn(), if pace.has_waiting() => if handed_on.is_err() {
                    return Ok(());
                },
                batch = consumer.next(), if !pace.has_waiting() => if pace.take(batch?).is_err() {
                    return Ok(());
                },
            }
        }
    }

    /// Consumes what is wanted instead of what was consumed; what it consumes then. A queue that cannot be is no obstacle
    /// to the others.
    async fn change(
        &self,
        connection: &Arc<dyn Connection>,
        consumer: &mut dyn Consumer,
        consumed: Vec<Queue>,
        wanted: Vec<Queue>,
    ) -> Result<Vec<Queue>> {
        let named = |queues: &[Queue], queue: &Queue| queues.iter().any(|other| other.name == queue.name);
        let before = consumed.len();
        let mut queues: Vec<_> = consumed.into_iter().filter(|queue| named(&wanted, queue)).collect();
        if queues.len() < before {
            consumer.consume_from(&queues).await?;
        }
        for queue in wanted {
            if named(&queues, &queue) {
                continue;
            }
            queues.push(queue.clone());
            let declared = connection.declare(std::slice::from_ref(&queue)).await;
            let added = match declared {
                Ok(()) => consumer.consume_from(&queues).await,
                refused => refused,
            };
            match added {
                Ok(()) => info!("Started consuming from {}", queue.name),
                Err(error) => {
                    queues.pop();
                    self.refused(connection, &queue, &error).await?;
                }
            }
        }
        Ok(queues)
    }

    /// A queue cannot be consumed: unless the connection is gone, it is not tried again.
    async fn refused(&self, connection: &Arc<dyn Connection>, queue: &Queue, error: &Error) -> Result<()> {
        tokio::select! {
            biased;
            lost = connection.lost() => return Err(lost),
            () = std::future::ready(()) => {}
        }
        error!("cannot consume from {}: {error}", queue.name);
        self.queues.send_modify(|queues| queues.retain(|other| other.name != queue.name));
        Ok(())
    }

    /// Subscribes to the queues; the first messages are on their way when this returns.
    async fn subscribe(&self, connection: &Arc<dyn Connection>, queues: &[Queue]) -> Result<Box<dyn Consumer>> {
        connection.declare(queues).await?;
        self.delays.arrange(&**connection).await?;
        connection.consume(queues, Arc::clone(&self.prefetch)).await
    }

    /// Subscribes to commands. What goes wrong there is the mailbox's.
    async fn listen(&self, connection: &Arc<dyn Connection>) -> Result<()> {
        if let Some(mailbox) = &self.mailbox {
            mailbox.open(connection).await;
        }
        Ok(())
    }

    /// Closing settles what is still to be settled; between two connections, over one for this alone.
    async fn close(&self, transport: &dyn Transport) {
        let closed = match self.current.send_replace(None) {
            Some(connection) => connection.close().await,
            None => match timeout(LAST_TRY, transport.connect()).await {
                Ok(Ok(connection)) => connection.close().await,
                Ok(Err(error)) => Err(error),
                Err(_) => Err(Error::new(ErrorKind::Connection, "it does not answer")),
            },
        };
        if let Err(error) = closed {
            warn!("cannot close the connection to the broker: {error}");
        }
    }
}
