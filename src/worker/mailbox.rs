//! [`Mailbox`]: hears the commands that are broadcast to workers.
//!
//! What goes wrong here is logged and ends nothing: a lost subscription is made again, over the same connection or over
//! the next, and tasks go on meanwhile.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::{debug, error, warn};

use super::event::Event;
use crate::control::{ControlRequest, LamportClock};
use crate::protocol::{AcceptContent, Value};
use crate::transport::{Backoff, Broadcast, Connection, ExchangeType, Queue, Subscription};
use crate::{Error, ErrorKind, Result};

/// A worker that cannot subscribe within this is ready all the same.
const FIRST_TRY: Duration = Duration::from_secs(2);

/// Where the link hands over each new connection.
#[derive(Debug, Clone)]
pub(crate) struct MailboxDoor {
    queue: Queue,
    connections: mpsc::UnboundedSender<Opened>,
}

type Opened = (Arc<dyn Connection>, Result<Box<dyn Subscription>>);

/// Hears commands, for as long as there is a door.
pub(crate) struct Mailbox {
    pub(crate) hostname: String,
    pub(crate) accept: AcceptContent,
    pub(crate) clock: Arc<LamportClock>,
    pub(crate) events: mpsc::UnboundedSender<Event>,
    pub(crate) backoff: Backoff,
    queue: Queue,
    connections: mpsc::UnboundedReceiver<Opened>,
}

/// The node's own queue on the exchange of all mailboxes (kombu/pidbox.py `Mailbox.get_queue`).
fn queue(hostname: &str, control_exchange: &str) -> Queue {
    Queue {
        exchange: format!("{control_exchange}.pidbox"),
        exchange_type: ExchangeType::Fanout,
        routing_key: String::new(),
        ..Queue::direct(format!("{hostname}.{control_exchange}.pidbox"))
    }
}

impl MailboxDoor {
    /// Subscribes over a new connection, so that whoever sees the worker ready is heard.
    pub(crate) async fn open(&self, connection: &Arc<dyn Connection>) {
        let first = timeout(FIRST_TRY, connection.subscribe(&self.queue)).await;
        let first = first.unwrap_or_else(|_| Err(Error::new(ErrorKind::Connection, "it takes too long")));
        // The mailbox is gone only when the worker is.
        let _ = self.connections.send((Arc::clone(connection), first));
    }
}

impl Mailbox {
    pub(crate) fn new(
        hostname: &str,
        control_exchange: &str,
        accept: AcceptContent,
        clock: Arc<LamportClock>,
        events: mpsc::UnboundedSender<Event>,
        backoff: Backoff,
    ) -> (Self, MailboxDoor) {
        let (sender, connections) = mpsc::unbounded_channel();
        let queue = queue(hostname, control_exchange);
        let door = MailboxDoor { queue: queue.clone(), connections: sender };
        (Mailbox { hostname: hostname.to_owned(), accept, clock, events, backoff, queue, connections }, door)
    }

    /// Runs until the door is gone.
    pub(crate) async fn run(mut self) {
        let mut opened = self.connections.recv().await;
        while let Some((connection, first)) = opened {
            let mut subscription = Some(first);
            opened = loop {
                let heard = tokio::select! {
                    biased;
                    opened = self.connections.recv() => break opened,
                    lost = connection.lost() => {
                        debug!("pidbox: {lost}");
                        break self.connections.recv().await;
                    }
                    heard = hear(&mut subscription, &connection, &self.queue) => heard,
                };
                match heard {
                    Ok(broadcast) => {
                        self.backoff.reset();
                        self.handle(broadcast);
                    }
                    Err(error) => {
                        warn!("pidbox: commands are not heard, subscribing again: {error}");
                        let pause = self.backoff.next_pause();
                        tokio::select! {
                            opened = self.connections.recv() => break opened,
                            () = sleep(pause) => {}
                        }
                    }
                }
            };
        }
    }

    /// Celery's `Pidbox.on_message` (celery/worker/pidbox.py).
    fn handle(&self, broadcast: Broadcast) {
        self.clock.forward();
        match self.read(broadcast) {
            Ok(Some(request)) => {
                // The loop is gone only when the worker is.
                let _ = self.events.send(Event::Control(Box::new(request)));
            }
            Ok(None) => {}
            Err(problem) => error!("{problem}"),
        }
    }

    fn read(&self, broadcast: Broadcast) -> std::result::Result<Option<ControlRequest>, String> {
        let undecodable = |reason: &dyn std::fmt::Display| format!("Cannot decode message: {reason}");
        let message = broadcast.map_err(|message| undecodable(&message.reason))?;
        let body = message.payload(&self.accept).map_err(|error| undecodable(&error))?;
        if let Some(clock) = message.headers.get("clock").and_then(Value::as_u64) {
            self.clock.adjust(clock);
        }
        let request = ControlRequest::read(body, &self.hostname);
        request.map_err(|exception| format!("Control command error: {exception}"))
    }
}

/// The next broadcast, over a new subscription if there is none. An error ends the subscription. Cancel safe: what is
/// heard is heard by [`Subscription::next`].
async fn hear(
    subscription: &mut Option<Result<Box<dyn Subscription>>>,
    connection: &Arc<dyn Connection>,
    queue: &Queue,
) -> Result<Broadcast> {
    if subscription.is_none() {
        *subscription = Some(connection.subscribe(queue).await);
    }
    let heard = match subscription {
        Some(Ok(open)) => open.next().await,
        _ => subscription.take().and_then(Result::err).map_or_else(unsubscribed, Err),
    };
    if heard.is_err() {
        *subscription = None;
    }
    heard
}

fn unsubscribed() -> Result<Broadcast> {
    Err(Error::new(ErrorKind::Connection, "there is no subscription"))
}
