//! [`Publisher`]: messages that the worker itself sends, batched, over whichever connection is up.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tracing::warn;

use crate::app::{Open, Orders, Outgoing};
use crate::transport::{Backoff, Connection};
use crate::{Error, ErrorKind, Result};

/// How many orders are taken in at a time.
const ORDERS: usize = 500;

/// Sends messages; cheap to clone. What gathers while a batch is under way is the next batch.
#[derive(Debug, Clone)]
pub(crate) struct Publisher {
    orders: mpsc::UnboundedSender<Order>,
}

#[derive(Debug)]
struct Order {
    messages: Vec<Outgoing>,
    done: oneshot::Sender<Result<()>>,
}

/// The connection that is up, if one is.
pub(crate) type Current = watch::Receiver<Option<Arc<dyn Connection>>>;

impl Publisher {
    /// A publisher and its background part, which ends when every clone of the publisher is gone.
    pub(crate) fn start(connection: Current) -> (Self, tokio::task::JoinHandle<()>) {
        let (orders, receiver) = mpsc::unbounded_channel();
        (Publisher { orders }, tokio::spawn(serve(receiver, connection)))
    }

    /// Sends the messages; returns when the broker has accepted all of them. The queues are declared before, once on each
    /// connection. While no connection is up it waits; messages whose fate a lost connection hides are sent again.
    pub(crate) async fn publish(&self, messages: Vec<Outgoing>) -> Result<()> {
        let (done, answer) = oneshot::channel();
        let stopped = || Error::new(ErrorKind::Connection, "cannot publish: the worker has stopped");
        self.orders.send(Order { messages, done }).map_err(|_| stopped())?;
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }
}

async fn serve(mut orders: mpsc::UnboundedReceiver<Order>, mut connection: Current) {
    let (mut received, mut batch, mut open) = (Vec::with_capacity(ORDERS), Orders::default(), None);
    while orders.recv_many(&mut received, ORDERS).await > 0 {
        for Order { messages, done } in received.drain(..) {
            batch.push(messages, done);
        }
        while let Some(chunk) = batch.next_chunk() {
            match send(chunk, &mut connection, &mut open).await {
                Some(Ok(answers)) => batch.answered(answers),
                Some(Err(error)) => batch.failed(&error),
                None => return,
            }
        }
    }
}

/// Sends one chunk, over the next connection if this one breaks, and again what the broker cannot take for now; `None`
/// when there will be no further connection.
async fn send(
    mut chunk: Vec<Outgoing>,
    current: &mut Current,
    open: &mut Option<Open>,
) -> Option<Result<Vec<Result<()>>>> {
    let mut backoff = Backoff::new(chunk.len() as u64);
    let mut answers = Answers::new(chunk.len());
    loop {
        let connection = current.wait_for(Option::is_some).await.ok()?.clone();
        let Some(connection) = connection else { continue };
        match attempt(&chunk, &connection, open).await {
            Err(error) if error.is_connection() => {
                warn!("cannot publish, trying again: {error}");
                // This one may go on: what it could not do is tried again in any case.
                if let Ok(false) = timeout(backoff.next_pause(), changed_from(current, &connection)).await {
                    return None;
                }
            }
            Ok(accepted) => {
                answers.take(&mut chunk, accepted);
                if chunk.is_empty() {
                    return Some(Ok(answers.all));
                }
                let pause = backoff.next_pause();
                warn!("the broker takes no messages for now, trying again in {:.2} seconds", pause.as_secs_f64());
                tokio::time::sleep(pause).await;
            }
            Err(error) => return Some(Err(error)),
        }
    }
}

async fn attempt(
    chunk: &[Outgoing],
    connection: &Arc<dyn Connection>,
    open: &mut Option<Open>,
) -> Result<Vec<Result<()>>> {
    let known = open.take().filter(|known| Arc::ptr_eq(known.connection(), connection));
    let open = open.insert(known.unwrap_or_else(|| Open::new(Arc::clone(connection))));
    open.publish(chunk).await
}

/// What the broker has said of the messages of a chunk.
struct Answers {
    all: Vec<Result<()>>,
    /// Where those stand that are still to be sent.
    left: Vec<usize>,
}

impl Answers {
    fn new(count: usize) -> Self {
        Answers { all: (0..count).map(|_| Ok(())).collect(), left: (0..count).collect() }
    }

    /// What the broker cannot take for now stays in the chunk.
    fn take(&mut self, chunk: &mut Vec<Outgoing>, accepted: Vec<Result<()>>) {
        let mut accepted = accepted.into_iter();
        let mut left = Vec::new();
        let mut places = std::mem::take(&mut self.left).into_iter();
        chunk.retain(|_| match (places.next(), accepted.next()) {
            (Some(place), Some(Err(error))) if error.kind() == ErrorKind::Unready => {
                left.push(place);
                true
            }
            (Some(place), Some(answer)) => {
                self.all[place] = answer;
                false
            }
            _ => false,
        });
        self.left = left;
    }
}

/// Waits until another connection than `failed` is current, or none; `false` when there will be none again.
pub(crate) async fn changed_from(current: &mut Current, failed: &Arc<dyn Connection>) -> bool {
    let is_other = |now: &Option<Arc<dyn Connection>>| !now.as_ref().is_some_and(|now| Arc::ptr_eq(now, failed));
    current.wait_for(is_other).await.is_ok()
}
