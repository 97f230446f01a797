//! [`Publisher`]: messages that the worker itself sends, batched, over whichever connection is up.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tracing::warn;

use crate::app::{Open, Outgoing};
use crate::transport::{Backoff, Connection};
use crate::{Error, ErrorKind, Result};

/// How many messages one publication to the broker carries at most.
const BATCH: usize = 500;

/// Sends messages; cheap to clone. What gathers while a batch is under way is the next batch.
#[derive(Debug, Clone)]
pub(crate) struct Publisher {
    orders: mpsc::UnboundedSender<Order>,
}

#[derive(Debug)]
struct Order {
    messages: Vec<Outgoing>,
    /// Why one of its messages will never be accepted.
    refused: Option<Error>,
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
    /// connection. While no connection is up it waits; a batch whose fate a lost connection hides is sent again.
    pub(crate) async fn publish(&self, messages: Vec<Outgoing>) -> Result<()> {
        let (done, answer) = oneshot::channel();
        let stopped = || Error::new(ErrorKind::Connection, "cannot publish: the worker has stopped");
        self.orders.send(Order { messages, refused: None, done }).map_err(|_| stopped())?;
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }
}

async fn serve(mut orders: mpsc::UnboundedReceiver<Order>, mut connection: Current) {
    let (mut batch, mut open) = (Vec::with_capacity(BATCH), None);
    while orders.recv_many(&mut batch, BATCH).await > 0 {
        if !send(&mut batch, &mut connection, &mut open).await {
            return;
        }
    }
}

/// Sends one batch, over the next connection if this one breaks; `false` when there will be no further connection.
async fn send(batch: &mut Vec<Order>, current: &mut Current, open: &mut Option<Open>) -> bool {
    let mut backoff = Backoff::new(batch.len() as u64);
    loop {
        let connection = match current.wait_for(Option::is_some).await {
            Ok(connection) => connection.clone(),
            Err(_) => return false,
        };
        let Some(connection) = connection else { continue };
        match attempt(batch, &connection, open).await {
            Err(error) if error.is_connection() => {
                warn!("cannot publish, waiting for the next connection: {error}");
                if !changed_from(current, &connection).await {
                    return false;
                }
            }
            Ok(accepted) => {
                settle_each(batch, accepted);
                if batch.is_empty() {
                    return true;
                }
                let pause = backoff.next_pause();
                warn!("the broker takes no messages for now, trying again in {:.2} seconds", pause.as_secs_f64());
                tokio::time::sleep(pause).await;
            }
            Err(error) => {
                answer_all(batch, &error);
                return true;
            }
        }
    }
}

async fn attempt(
    batch: &[Order],
    connection: &Arc<dyn Connection>,
    open: &mut Option<Open>,
) -> Result<Vec<Result<()>>> {
    let known = open.take().filter(|known| Arc::ptr_eq(known.connection(), connection));
    let open = open.insert(known.unwrap_or_else(|| Open::new(Arc::clone(connection))));
    open.publish(&batch.iter().flat_map(|order| &order.messages).collect::<Vec<_>>()).await
}

/// Waits until another connection than `failed` is current, or none; `false` when there will be none again.
pub(crate) async fn changed_from(current: &mut Current, failed: &Arc<dyn Connection>) -> bool {
    let is_other = |now: &Option<Arc<dyn Connection>>| !now.as_ref().is_some_and(|now| Arc::ptr_eq(now, failed));
    current.wait_for(is_other).await.is_ok()
}

/// Tells each whether all of its messages were accepted; what the broker cannot take for now stays in the batch.
fn settle_each(batch: &mut Vec<Order>, accepted: Vec<Result<()>>) {
    let mut accepted = accepted.into_iter();
    for mut order in std::mem::take(batch) {
        order.messages.retain(|_| match accepted.next().unwrap_or(Ok(())) {
            Ok(()) => false,
            Err(error) if error.kind() == ErrorKind::Unready => true,
            Err(error) => {
                order.refused.get_or_insert(error);
                false
            }
        });
        if order.messages.is_empty() {
            // Who asked may have been cancelled: nobody is left to tell.
            let _ = order.done.send(order.refused.map_or(Ok(()), Err));
        } else {
            batch.push(order);
        }
    }
}

fn answer_all(batch: &mut Vec<Order>, error: &Error) {
    for order in batch.drain(..) {
        let _ = order.done.send(Err(Error::new(error.kind(), error.to_string())));
    }
}
