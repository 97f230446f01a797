//! The worker's link to its broker: connects, consumes, and connects again for as long as the worker runs.
//!
//! A lost connection is a state and not an exception path: what runs goes on, and what was reserved over the lost
//! connection is settled over the next one by the transport.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::event::Event;
use crate::config::Config;
use crate::transport::{Backoff, Connection, Prefetch, Queue, Transport};
use crate::{Error, Result};

/// Keeps a worker connected.
pub(crate) struct Link {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) queues: Vec<Queue>,
    pub(crate) prefetch: Arc<Prefetch>,
    pub(crate) events: mpsc::UnboundedSender<Event>,
    /// Tells the publisher which connection is up.
    pub(crate) current: watch::Sender<Option<Arc<dyn Connection>>>,
    pub(crate) retry: Retry,
    /// Cancelled when no more messages are to be taken; the connection stays up for settlements.
    pub(crate) stop_consuming: CancellationToken,
    /// Cancelled when nothing is left to settle or publish.
    pub(crate) stop: CancellationToken,
}

/// Whether and how often to try again (`broker_connection_retry`, `broker_connection_retry_on_startup`,
/// `broker_connection_max_retries`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retry {
    /// After a connection was lost.
    pub(crate) after_loss: bool,
    /// Before the first connection.
    pub(crate) on_startup: bool,
    /// How many tries in a row; `None`: for ever.
    pub(crate) limit: Option<u32>,
}

impl Retry {
    pub(crate) fn new(config: &Config) -> Self {
        Retry {
            after_loss: config.broker_connection_retry,
            on_startup: config.retries_on_startup(),
            limit: config.broker_connection_max_retries.filter(|&limit| limit > 0),
        }
    }
}

impl Link {
    /// Runs until `stop`, or until the broker is given up.
    pub(crate) async fn run(self, backoff: Backoff) {
        let stop = self.stop.clone();
        tokio::select! {
            () = stop.cancelled() => self.close().await,
            error = self.keep_connected(backoff) => {
                // The loop is gone only when the worker is, and then nobody needs to know.
                let _ = self.events.send(Event::Unrecoverable(error));
            }
        }
    }

    async fn keep_connected(&self, mut backoff: Backoff) -> Error {
        let mut may_retry = self.retry.on_startup;
        loop {
            let connection = match self.connect(&mut backoff, may_retry).await {
                Ok(connection) => connection,
                Err(error) => return error,
            };
            may_retry = self.retry.after_loss;
            let lost = self.serve(&connection).await;
            self.current.send_replace(None);
            let _ = self.events.send(Event::Disconnected);
            warn!("consumer: Connection to broker lost. Trying to re-establish the connection...");
            debug!("{lost}");
        }
    }

    async fn connect(&self, backoff: &mut Backoff, may_retry: bool) -> Result<Arc<dyn Connection>> {
        let mut tries = 0;
        loop {
            let failed = match self.transport.connect().await {
                Ok(connection) => {
                    backoff.reset();
                    info!("Connected to {}", self.transport.uri());
                    return Ok(connection);
                }
                Err(failed) => failed,
            };
            tries += 1;
            let spent = self.retry.limit.is_some_and(|limit| tries > limit);
            if !may_retry || spent || failed.kind() == crate::ErrorKind::Configuration {
                return Err(failed);
            }
            let pause = backoff.next_pause();
            self.report(&failed, pause, tries);
            tokio::time::sleep(pause).await;
        }
    }

    /// The words of `Consumer.ensure_connected` (celery/worker/consumer/consumer.py), in one line.
    fn report(&self, failed: &Error, pause: Duration, tries: u32) {
        let limit = self.retry.limit.map_or_else(|| "∞".to_owned(), |limit| limit.to_string());
        let (uri, pause) = (self.transport.uri(), pause.as_secs_f64());
        let reason = failed.to_string();
        let reason = reason.strip_prefix(&format!("cannot connect to {uri}: ")).unwrap_or(&reason);
        error!(
            "consumer: Cannot connect to {uri}: {}. Trying again in {pause:.2} seconds... ({tries}/{limit})",
            reason.trim_end_matches('.'),
        );
    }

    /// Consumes over one connection until it is lost.
    async fn serve(&self, connection: &Arc<dyn Connection>) -> Error {
        match self.consume(connection).await {
            Ok(()) => std::future::pending().await,
            Err(error) => error,
        }
    }

    /// Hands on what arrives; `Ok` when no more is to be taken.
    async fn consume(&self, connection: &Arc<dyn Connection>) -> Result<()> {
        if self.stop_consuming.is_cancelled() {
            self.current.send_replace(Some(Arc::clone(connection)));
            return Ok(());
        }
        connection.declare(&self.queues).await?;
        let mut consumer = connection.consume(&self.queues, Arc::clone(&self.prefetch)).await?;
        self.current.send_replace(Some(Arc::clone(connection)));
        let _ = self.events.send(Event::Connected);
        loop {
            tokio::select! {
                biased;
                () = self.stop_consuming.cancelled() => return Ok(()),
                batch = consumer.next() => {
                    let _ = self.events.send(Event::Received(batch?));
                }
            }
        }
    }

    async fn close(&self) {
        let connection = self.current.send_replace(None);
        if let Some(connection) = connection {
            if let Err(error) = connection.close().await {
                warn!("cannot close the connection to {}: {error}", self.transport.uri());
            }
        }
    }
}
