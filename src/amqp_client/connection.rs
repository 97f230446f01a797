//! [`AmqpConnection`]: an open connection, and how it ended.

use std::fmt;
use std::sync::{Arc, OnceLock};

use futures_util::StreamExt;
use lapin::{Channel, Connection, ConnectionStatus, Event};
use tokio_util::sync::CancellationToken;

use super::connect::{Handle, shut_down};
use super::{failure, is_refusal};
use crate::{Error, ErrorKind, Result};

/// The server's words when it closes a channel for a message that was not acknowledged in time.
const CONSUMER_TIMEOUT: &str = "delivery acknowledgement on channel";

/// An open connection to a RabbitMQ server. Dropping it closes it.
pub struct AmqpConnection {
    connection: Connection,
    fate: Arc<Fate>,
}

/// What becomes of a connection; known to whoever holds it, and to the one who listens.
#[derive(Debug)]
struct Fate {
    /// The server, without its password.
    place: String,
    /// Cancelled when the connection is of no further use, whoever noticed.
    lost: CancellationToken,
    /// Why it was lost, if somebody told.
    reason: OnceLock<Error>,
    socket: Handle,
}

impl AmqpConnection {
    pub(super) fn new(connection: Connection, place: String, socket: Handle) -> Self {
        let (lost, reason) = (CancellationToken::new(), OnceLock::new());
        let fate = Arc::new(Fate { place, lost, reason, socket });
        tokio::spawn(listen(connection.events_listener(), connection.status().clone(), Arc::clone(&fate)));
        AmqpConnection { connection, fate }
    }

    /// The server, without its password.
    pub fn place(&self) -> &str {
        &self.fate.place
    }

    /// Opens a channel.
    ///
    /// # Errors
    /// The connection is lost, or has no room for another channel.
    pub(crate) async fn channel(&self) -> Result<Channel> {
        let opened = async {
            loop {
                match self.connection.create_channel().await {
                    // A number that the server closed a channel of before: the library refuses it with the reason of then,
                    // and gives out the next one afterwards.
                    Err(error) if is_refusal(&error) => {}
                    opened => return opened.map_err(|error| self.failed("cannot open a channel at", &error)),
                }
            }
        };
        self.unless_lost(opened).await
    }

    /// What a request comes to, or the loss of the connection where nothing else is heard: the library takes in requests
    /// until it has found out that nobody is there any more, and does not answer all of the last.
    pub(crate) async fn unless_lost<T>(&self, request: impl Future<Output = Result<T>>) -> Result<T> {
        if self.fate.lost.is_cancelled() {
            return Err(self.is_lost());
        }
        tokio::select! {
            biased;
            done = request => done,
            () = self.fate.lost.cancelled() => Err(self.is_lost()),
        }
    }

    /// Cancelled when the connection is of no further use.
    pub(crate) fn lost_token(&self) -> &CancellationToken {
        &self.fate.lost
    }

    /// Waits until the connection is of no further use, and says why.
    pub async fn lost(&self) -> Error {
        self.fate.lost.cancelled().await;
        self.is_lost()
    }

    /// The error of a connection that somebody found to be lost.
    pub(crate) fn is_lost(&self) -> Error {
        match self.fate.reason.get() {
            Some(reason) => Error::new(reason.kind(), reason.to_string()),
            None => super::lost(self.place()),
        }
    }

    /// Gives the connection up.
    pub(crate) fn give_up(&self) {
        self.fate.lost.cancel();
    }

    /// What a request's failure is to the caller; the connection is given up.
    pub(crate) fn failed(&self, doing: &str, error: &lapin::Error) -> Error {
        self.fate.end(error);
        match error.is_amqp_error() {
            true => failure(doing, self.place(), error),
            // The state in which it was found says less than what brought it there.
            false => self.is_lost(),
        }
    }

    /// Gives the connection up for what happened to a channel of it.
    pub(crate) fn ended_by(&self, doing: &str, error: &lapin::Error) -> Error {
        let error = failure(doing, self.place(), error);
        self.ended(&error.to_string())
    }

    /// Gives the connection up for a reason in words.
    pub(crate) fn ended(&self, reason: &str) -> Error {
        self.fate.end_for(Error::new(ErrorKind::Connection, reason));
        self.is_lost()
    }

    /// Gives the connection up as soon as the other is lost.
    pub(crate) fn ends_with(&self, other: &AmqpConnection) {
        let (fate, other) = (Arc::clone(&self.fate), Arc::clone(&other.fate));
        tokio::spawn(async move {
            tokio::select! {
                () = fate.lost.cancelled() => {}
                () = other.lost.cancelled() => match other.reason.get() {
                    Some(reason) => fate.end_for(Error::new(reason.kind(), reason.to_string())),
                    None => fate.lost.cancel(),
                },
            }
        });
    }

    /// How many bytes a frame has at most.
    pub(crate) fn frame_max(&self) -> usize {
        self.connection.configuration().frame_max() as usize
    }

    /// Says goodbye to the server, and closes.
    ///
    /// # Errors
    /// The connection was lost before.
    pub(crate) async fn close(&self) -> Result<()> {
        let closed = self.connection.close(200, super::short("OK")?).await;
        let closed = closed.map_err(|error| self.failed("cannot close the connection to", &error));
        self.give_up();
        closed
    }

    /// Ends the connection without a word, as a server that does not answer must be left.
    pub(crate) fn abort(&self) {
        self.give_up();
        shut_down(&self.fate.socket);
    }
}

impl Drop for AmqpConnection {
    fn drop(&mut self) {
        // The library would say goodbye, and wait for the answer of a server that may be gone.
        if self.fate.reason.get().is_some() {
            shut_down(&self.fate.socket);
        }
    }
}

impl Fate {
    fn end(&self, error: &lapin::Error) {
        let reason = failure("lost the connection to", &self.place, error);
        let reason = match reason.kind() {
            ErrorKind::Connection => reason,
            // What a lost connection is lost for is no reason not to open another.
            _ => Error::new(ErrorKind::Connection, reason.to_string()),
        };
        self.end_for(reason);
    }

    /// Who comes first knows it best.
    fn end_for(&self, reason: Error) {
        let says = reason.to_string();
        if self.reason.set(reason).is_ok() && says.contains(CONSUMER_TIMEOUT) {
            tracing::warn!("{says}: a message was held or run for longer than the server's consumer_timeout");
        }
        self.lost.cancel();
    }
}

impl fmt::Debug for AmqpConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AmqpConnection({})", self.place())
    }
}

/// Hears what the library says about the connection, until it is lost.
async fn listen(events: impl futures_util::Stream<Item = Event>, status: ConnectionStatus, fate: Arc<Fate>) {
    let mut events = std::pin::pin!(events);
    // What happened before anybody listened is told to nobody.
    if !status.connected() {
        return fate.end_for(super::lost(&fate.place));
    }
    loop {
        let event = tokio::select! {
            () = fate.lost.cancelled() => return,
            event = events.next() => event,
        };
        match event {
            Some(Event::ConnectionBlocked(reason)) => {
                tracing::warn!("{} is low on resources ({reason}): publishing waits", fate.place);
            }
            Some(Event::ConnectionUnblocked) => tracing::info!("{}: publishing goes on", fate.place),
            // A channel's error is told here too.
            Some(Event::Error(error)) if !status.connected() => fate.end(&error),
            Some(_) => {}
            None => fate.lost.cancel(),
        }
    }
}
