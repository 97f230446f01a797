//! [`Wake`]: how an idle consumer learns that there may be messages again.

use std::sync::Arc;
use std::time::Duration;

use redis::{PushInfo, PushKind, RedisError, Value};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::redis_client::{ConnectOptions, SharedConnection, failure};
use crate::transport::redis::options::Waiting;
use crate::{Error, ErrorKind, Result};

/// How long `BRPOP` blocks, as Kombu's does.
const BLOCK: Duration = Duration::from_secs(1);
/// While tracking works, the lists are looked at this often all the same, plus up to as much again: it proves that the
/// connection still carries what it should.
const LIVENESS: Duration = Duration::from_secs(2);
/// Bounds of the pauses between two looks where nothing tells of messages.
const POLL: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));
/// A consumer that is woken waits for up to this, times the square of how often it was woken in vain. With n idle
/// consumers the quickest of them waits for about n times this.
const PATIENCE: Duration = Duration::from_micros(10);
/// The most that it waits.
const HERD: Duration = Duration::from_millis(250);

/// Wakes one consumer.
pub(super) enum Wake {
    Tracking(Tracking),
    Blocking(Blocking),
    Polling(Polling),
}

/// What ended a wait.
pub(super) enum Woken {
    /// There may be messages.
    Look,
    /// A message was popped from this list: it has to be registered at once.
    Popped { list: Vec<u8>, raw: Vec<u8> },
}

impl Wake {
    /// The wake-up for a consumer on a connection that has tracking or not.
    pub(super) async fn new(shared: &Shared, changes: Option<watch::Receiver<u64>>) -> Result<Self> {
        let rng = shared.fork_rng();
        Ok(match (shared.options.waiting, changes) {
            (Waiting::Polling, _) => Wake::Polling(Polling { pause: POLL.0, rng }),
            (Waiting::Automatic | Waiting::Tracking, Some(changes)) => {
                Wake::Tracking(Tracking { changes, rng, in_vain: 0, liveness: LIVENESS, looked: Look::Told })
            }
            (Waiting::Tracking, None) => {
                let message = format!("{} does not offer client tracking", shared.url);
                return Err(Error::new(ErrorKind::Configuration, message));
            }
            (Waiting::Automatic, None) => {
                tracing::info!("{} does not offer client tracking: waiting for messages with BRPOP", shared.url);
                Wake::Blocking(Blocking::connect(shared).await?)
            }
            (Waiting::Blocking, _) => Wake::Blocking(Blocking::connect(shared).await?),
        })
    }

    /// Whether the server is to be asked to tell of changes.
    pub(super) fn is_tracking(&self) -> bool {
        matches!(self, Wake::Tracking(_))
    }

    /// The lists are about to be looked at: what was told before is known.
    pub(super) fn looking(&mut self) {
        if let Wake::Tracking(tracking) = self {
            tracking.changes.mark_unchanged();
        }
    }

    /// A look found something or nothing.
    pub(super) fn looked(&mut self, found: bool) {
        match self {
            Wake::Tracking(tracking) => tracking.looked(found),
            Wake::Polling(polling) if found => polling.pause = POLL.0,
            Wake::Polling(_) | Wake::Blocking(_) => {}
        }
    }

    /// Waits until it is worth looking again, or until `stop`. Not cancel safe: only `stop` ends it.
    pub(super) async fn wait(
        &mut self,
        connection: &SharedConnection,
        lists: Vec<String>,
        stop: &CancellationToken,
    ) -> Result<Woken, RedisError> {
        match self {
            Wake::Blocking(blocking) => return blocking.wait(connection, lists, stop).await,
            Wake::Tracking(tracking) => tokio::select! {
                () = tracking.wait() => {}
                () = stop.cancelled() => {}
            },
            Wake::Polling(polling) => tokio::select! {
                () = polling.wait() => {}
                () = stop.cancelled() => {}
            },
        }
        Ok(Woken::Look)
    }
}

/// Waiting for the server's word.
pub(super) struct Tracking {
    /// Counts the changes that the connection was told of.
    changes: watch::Receiver<u64>,
    rng: fastrand::Rng,
    /// How many wake-ups in a row found nothing: about as many as there are other idle consumers, all of which one
    /// message wakes. Whoever was lucky lately is quick; the others look a little later, and once for all that came
    /// meanwhile.
    in_vain: u32,
    /// How long to wait for word before looking without it.
    liveness: Duration,
    /// Why the lists were looked at last.
    looked: Look,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Told,
    Untold,
}

impl Tracking {
    async fn wait(&mut self) {
        let untold = self.liveness.mul_f64(1.0 + self.rng.f64());
        self.looked = match timeout(untold, self.changes.changed()).await {
            Ok(_) => Look::Told,
            Err(_) => Look::Untold,
        };
        let patience = PATIENCE.saturating_mul(self.in_vain.saturating_mul(self.in_vain)).min(HERD);
        if self.looked == Look::Told && patience >= Duration::from_millis(1) {
            sleep(patience.mul_f64(self.rng.f64())).await;
        }
    }

    fn looked(&mut self, found: bool) {
        match (self.looked, found) {
            (Look::Told, true) => (self.in_vain, self.liveness) = (0, LIVENESS),
            (Look::Told, false) => self.in_vain = self.in_vain.saturating_add(1),
            // Messages of which nobody told: something between us and the server eats the pushes.
            (Look::Untold, true) => self.liveness = (self.liveness / 4).max(POLL.1),
            (Look::Untold, false) => {}
        }
        self.looked = Look::Told;
    }
}

/// Waiting in a pop, on a connection of its own.
pub(super) struct Blocking {
    connection: SharedConnection,
    /// The connection's id, by which the pop is ended early.
    id: i64,
    answer_timeout: Duration,
}

impl Blocking {
    async fn connect(shared: &Shared) -> Result<Self> {
        // A pop has no time limit; all before the first one has.
        let options = ConnectOptions { response_timeout: None, ..shared.connect_options() };
        let connecting = async {
            let mut connection = shared.url.connect(&options).await?.connection;
            let id: Result<i64, _> = redis::cmd("CLIENT").arg("ID").query_async(&mut connection).await;
            let id = id.map_err(|error| failure("cannot ask for the connection's id of", &shared.url, error))?;
            Ok(Blocking { connection, id, answer_timeout: BLOCK + shared.options.socket_timeout })
        };
        let limit = options.connect_timeout + shared.options.socket_timeout;
        let silent = |_| Err(Error::new(ErrorKind::Connection, format!("{}: no answer for {limit:?}", shared.url)));
        timeout(limit, connecting).await.unwrap_or_else(silent)
    }

    async fn wait(
        &mut self,
        other: &SharedConnection,
        lists: Vec<String>,
        stop: &CancellationToken,
    ) -> Result<Woken, RedisError> {
        if lists.is_empty() {
            // None of the keys holds a list.
            tokio::select! {
                () = sleep(BLOCK) => {}
                () = stop.cancelled() => {}
            }
            return Ok(Woken::Look);
        }
        let mut pop = redis::cmd("BRPOP");
        pop.arg(lists).arg(BLOCK.as_secs());
        let popped = pop.query_async::<Option<(Vec<u8>, Vec<u8>)>>(&mut self.connection);
        tokio::pin!(popped);
        let popped = tokio::select! {
            popped = timeout(self.answer_timeout, popped.as_mut()) => popped,
            () = stop.cancelled() => {
                // The answer may already be on its way, and then it is a message.
                let mut other = other.clone();
                let unblock = redis::cmd("CLIENT").arg("UNBLOCK").arg(self.id).to_owned();
                let unblocked = async { unblock.query_async::<Value>(&mut other).await };
                let (popped, _) = tokio::join!(timeout(self.answer_timeout, popped.as_mut()), unblocked);
                popped
            }
        };
        match popped {
            Ok(Ok(Some((list, raw)))) => Ok(Woken::Popped { list, raw }),
            Ok(Ok(None)) => Ok(Woken::Look),
            // What is no list is left out the next time: the look finds it.
            Ok(Err(error)) if error.code() == Some("WRONGTYPE") => Ok(Woken::Look),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        }
    }
}

/// Waiting by the clock.
pub(super) struct Polling {
    pause: Duration,
    rng: fastrand::Rng,
}

impl Polling {
    async fn wait(&mut self) {
        sleep(self.pause.mul_f64(0.5 + self.rng.f64() / 2.0)).await;
        self.pause = (self.pause * 2).min(POLL.1);
    }
}

/// Hears what the server says without being asked: that a list changed, and that the connection is gone.
pub(super) async fn listen(
    shared: Arc<Shared>,
    mut pushes: mpsc::UnboundedReceiver<PushInfo>,
    changes: watch::Sender<u64>,
    lost: CancellationToken,
) {
    while let Some(push) = pushes.recv().await {
        match push.kind {
            PushKind::Invalidate if concerns_lists(&shared, &push.data) => changes.send_modify(|count| *count += 1),
            PushKind::Disconnection => lost.cancel(),
            _ => {}
        }
    }
}

/// An invalidation names keys, or none when all are meant.
fn concerns_lists(shared: &Shared, data: &[Value]) -> bool {
    data.iter().any(|part| match part {
        Value::Array(names) => names.iter().any(|name| match name {
            Value::BulkString(name) => shared.keys.is_list(name),
            _ => false,
        }),
        _ => true,
    })
}
