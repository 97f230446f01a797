//! [`Outbox`]: the one connection that a producer sends over.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use super::orders::tell;
use super::{Open, Orders, Outgoing};
use crate::config::{Config, RetryPolicy};
use crate::transport::{Claim, Publication, Transport};
use crate::{Error, ErrorKind, Result};

/// How long the broker may take to accept events.
const ANNOUNCE: Duration = Duration::from_secs(1);

/// How many orders are sent as one batch at most.
const BATCH: usize = 500;

/// Sends messages over one connection, which is made when the first is sent and made again when it is lost. What gathers
/// while a batch is under way is the next batch.
#[derive(Debug)]
pub(super) struct Outbox {
    transport: Arc<dyn Transport>,
    retry: Option<RetryPolicy>,
    /// Where the background part takes its orders. It runs on the runtime of whoever sent first, and ends with it: the
    /// next to send then starts another.
    orders: Mutex<Option<mpsc::UnboundedSender<Order>>>,
}

#[derive(Debug)]
struct Order {
    what: What,
    done: oneshot::Sender<Result<()>>,
}

#[derive(Debug)]
enum What {
    /// To queues.
    Messages(Vec<Outgoing>),
    /// One to its queues, unless its claim is gone.
    Claimed(Box<Outgoing>, Claim),
    /// To everybody who listens.
    Broadcast(Box<Publication>),
    /// The same, and nobody waits for it.
    Announcement(Vec<Publication>),
    /// Close the connection.
    Close,
}

impl Outbox {
    pub(super) fn new(transport: Arc<dyn Transport>, config: &Config) -> Self {
        let retry = config.task_publish_retry.then(|| config.task_publish_retry_policy.clone());
        Outbox { transport, retry, orders: Mutex::new(None) }
    }

    /// Sends the messages in their order; returns when the broker has accepted all of them. Queues are declared before
    /// the first message to them. After a lost connection what was under way is sent again, so that a message may come twice.
    ///
    /// # Errors
    /// `Connection` when the retries of `task_publish_retry_policy` are used up, or what the broker said of the first
    /// message that it refused.
    pub(super) async fn send(&self, messages: Vec<Outgoing>) -> Result<()> {
        match messages.is_empty() {
            true => Ok(()),
            false => self.order(What::Messages(messages)).await,
        }
    }

    /// Sends a message and takes its claim away in one instant; nothing is sent if the claim is gone. After a lost
    /// connection this is tried again as for others, and yet the message comes once.
    ///
    /// # Errors
    /// As [`Outbox::send`].
    pub(super) async fn send_claimed(&self, message: Outgoing, claim: Claim) -> Result<()> {
        self.order(What::Claimed(Box::new(message), claim)).await
    }

    /// Whether the broker keeps the claims of this server.
    pub(super) fn keeps_claims(&self, server: &str) -> bool {
        self.transport.keeps_claims(server)
    }

    /// Asks for something that sending needs, again after a lost connection as for messages.
    ///
    /// # Errors
    /// As [`Outbox::send`].
    pub(super) async fn insist<F: Future<Output = Result<()>>>(&self, ask: impl Fn() -> F) -> Result<()> {
        let (mut retries, began) = (0, Instant::now());
        loop {
            match ask().await {
                Err(error) if error.is_connection() => pause(self.retry.as_ref(), &mut retries, began, error).await?,
                answer => return answer,
            }
        }
    }

    /// Sends to everybody who is subscribed to the exchange.
    ///
    /// # Errors
    /// As [`Outbox::send`].
    pub(super) async fn broadcast(&self, publication: Publication) -> Result<()> {
        self.order(What::Broadcast(Box::new(publication))).await
    }

    /// Tells everybody who is subscribed, after what was ordered before. Nobody is told whether that succeeds.
    pub(super) fn announce(&self, announcements: Vec<Publication>) {
        let (done, _) = oneshot::channel();
        // The background part is gone with its runtime, and then nothing is sent any more.
        let _ = self.orders().send(Order { what: What::Announcement(announcements), done });
    }

    /// Closes the connection when what was ordered before is sent; the next message opens another.
    pub(super) async fn close(&self) -> Result<()> {
        let started = self.orders.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if started { self.order(What::Close).await } else { Ok(()) }
    }

    async fn order(&self, what: What) -> Result<()> {
        let (done, answer) = oneshot::channel();
        let ended = || Error::new(ErrorKind::Connection, "cannot send: the runtime that the producer ran on has ended");
        self.orders().send(Order { what, done }).map_err(|_| ended())?;
        answer.await.unwrap_or_else(|_| Err(ended()))
    }

    fn orders(&self) -> mpsc::UnboundedSender<Order> {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        match orders.as_ref().filter(|orders| !orders.is_closed()) {
            Some(orders) => orders.clone(),
            None => orders.insert(self.start()).clone(),
        }
    }

    fn start(&self) -> mpsc::UnboundedSender<Order> {
        let (orders, receiver) = mpsc::unbounded_channel();
        let sender = Sender { transport: Arc::clone(&self.transport), retry: self.retry.clone(), open: None };
        tokio::spawn(sender.serve(receiver));
        orders
    }
}

/// The background part.
struct Sender {
    transport: Arc<dyn Transport>,
    retry: Option<RetryPolicy>,
    open: Option<Open>,
}

impl Sender {
    async fn serve(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let mut batch = Vec::with_capacity(BATCH);
        while orders.recv_many(&mut batch, BATCH).await > 0 {
            let (mut messages, mut announcements) = (Orders::default(), Vec::new());
            for Order { what, done } in batch.drain(..) {
                match what {
                    What::Messages(outgoing) => messages.push(outgoing, done),
                    What::Claimed(message, claim) => tell(done, self.send_claimed(&message, &claim).await),
                    What::Broadcast(publication) => tell(done, self.broadcast(*publication).await),
                    What::Announcement(told) => announcements.extend(told),
                    What::Close => {
                        self.send_all(&mut messages).await;
                        self.announce(std::mem::take(&mut announcements)).await;
                        self.close().await;
                        tell(done, Ok(()));
                    }
                }
            }
            self.send_all(&mut messages).await;
            self.announce(announcements).await;
        }
        self.close().await;
    }

    async fn send_all(&mut self, orders: &mut Orders) {
        while let Some(chunk) = orders.next_chunk() {
            match self.send(&chunk).await {
                Ok(answers) => orders.answered(answers),
                Err(error) => orders.failed(&error),
            }
        }
    }

    /// Sends a chunk, again after a lost connection for as long as the policy allows (kombu/connection.py
    /// `Connection.ensure`); the answers are the messages' own.
    async fn send(&mut self, chunk: &[Outgoing]) -> Result<Vec<Result<()>>> {
        let (mut retries, began) = (0, Instant::now());
        loop {
            let lost = match self.send_once(chunk).await {
                Err(error) if error.is_connection() => error,
                answer => return answer,
            };
            self.pause(&mut retries, began, lost).await?;
        }
    }

    async fn send_once(&mut self, chunk: &[Outgoing]) -> Result<Vec<Result<()>>> {
        self.open().await?.publish(chunk).await
    }

    async fn send_claimed(&mut self, message: &Outgoing, claim: &Claim) -> Result<()> {
        let (mut retries, began) = (0, Instant::now());
        loop {
            let sent = match self.open().await {
                Ok(open) => open.publish_claimed(message, claim).await,
                Err(error) => Err(error),
            };
            match sent {
                Err(error) if error.is_connection() => self.pause(&mut retries, began, error).await?,
                answer => return answer.map(drop),
            }
        }
    }

    async fn broadcast(&mut self, publication: Publication) -> Result<()> {
        let (mut retries, began) = (0, Instant::now());
        loop {
            let sent = match self.open().await {
                Ok(open) => open.connection().broadcast(vec![publication.clone()]).await,
                Err(error) => Err(error),
            };
            match sent {
                Err(error) if error.is_connection() => self.pause(&mut retries, began, error).await?,
                answer => return answer,
            }
        }
    }

    /// Over the connection that is open, once, and not for long: tasks have precedence.
    async fn announce(&mut self, announcements: Vec<Publication>) {
        let Some(open) = self.open.as_ref().filter(|_| !announcements.is_empty()) else { return };
        match timeout(ANNOUNCE, open.connection().announce(announcements)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!("producer: events are not sent: {error}"),
            Err(_) => debug!("producer: events are not sent: the broker takes too long"),
        }
    }

    async fn open(&mut self) -> Result<&mut Open> {
        if self.open.is_none() {
            let connection = self.transport.connect().await?;
            debug!("producer: connected to {}", self.transport.uri());
            self.open = Some(Open::new(connection));
        }
        // It was filled a moment ago.
        self.open.as_mut().ok_or_else(|| Error::new(ErrorKind::Connection, "there is no connection"))
    }

    async fn pause(&mut self, retries: &mut u32, began: Instant, lost: Error) -> Result<()> {
        self.open = None;
        pause(self.retry.as_ref(), retries, began, lost).await
    }

    async fn close(&mut self) {
        if let Some(open) = self.open.take()
            && let Err(error) = open.connection().close().await
        {
            warn!("producer: cannot close the connection to the broker: {error}");
        }
    }
}

/// Waits before the next try; the error when there is none.
async fn pause(policy: Option<&RetryPolicy>, retries: &mut u32, began: Instant, lost: Error) -> Result<()> {
    let Some(policy) = policy else { return Err(lost) };
    if policy.max_retries.is_some_and(|most| *retries >= most)
        || policy.timeout.is_some_and(|timeout| began.elapsed() >= timeout)
    {
        return Err(lost);
    }
    let pause = interval(policy, *retries);
    *retries += 1;
    warn!("producer: cannot send, trying again in {:.2} seconds: {lost}", pause.as_secs_f64());
    tokio::time::sleep(pause).await;
    Ok(())
}

/// The pause before the retry of that number, counted from 0 (kombu/utils/functional.py `retry_over_time`).
fn interval(policy: &RetryPolicy, retries: u32) -> Duration {
    let longest = policy.interval_max.saturating_add(policy.interval_start);
    policy.interval_step.saturating_mul(retries).saturating_add(policy.interval_start).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_longest() {
        let policy = RetryPolicy { interval_start: Duration::from_millis(100), ..RetryPolicy::default() };
        let pauses = [0, 1, 2, 5, 99, u32::MAX].map(|retries| interval(&policy, retries).as_millis());
        assert_eq!(pauses, [100, 300, 500, 1100, 1100, 1100]);
    }
}
