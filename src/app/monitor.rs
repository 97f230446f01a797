//! [`Monitor`]: hears the events of all workers.

use std::fmt;
use std::sync::Arc;

use super::{App, control, new_id, parts};
use crate::Result;
use crate::control::ControlCall;
use crate::events::Receiver;
use crate::protocol::{AcceptContent, Map};
use crate::time::{Clock, zone};
use crate::transport::{Connection, Queue, Subscription, Transport};

/// Where events are heard (celery/events/receiver.py `EventReceiver`). Nothing is connected to before
/// [`Monitor::open`].
pub struct Monitor {
    transport: Arc<dyn Transport>,
    clock: Clock,
    accept: AcceptContent,
    queue: Queue,
    control_exchange: String,
}

/// Events, as they come.
pub struct Events {
    connection: Arc<dyn Connection>,
    subscription: Box<dyn Subscription>,
    receiver: Receiver,
    clock: Clock,
    accept: AcceptContent,
    control_exchange: String,
}

impl Monitor {
    /// What hears the events of the workers at the app's broker.
    ///
    /// # Errors
    /// `Configuration`: a setting or a URL that cannot be used.
    pub fn new(app: &App) -> Result<Self> {
        let (clock, config) = (Clock::system(), app.config());
        let transport = parts::transport(config, None, clock.clone(), fastrand::u64(..))?;
        let accept = AcceptContent::new([config.event_serializer.as_str(), "json"])?;
        let control_exchange = config.control_exchange.clone();
        Ok(Monitor { transport, clock, accept, queue: parts::event_queue(&new_id(), config), control_exchange })
    }

    /// The broker's address, without passwords.
    pub fn uri(&self) -> String {
        self.transport.uri()
    }

    /// Begins to hear, and asks all workers to say that they are there.
    ///
    /// # Errors
    /// The broker's.
    pub async fn open(&self) -> Result<Events> {
        let connection = self.transport.connect().await?;
        let subscription = connection.subscribe(&self.queue).await?;
        let offset = zone::local().to_offset(self.clock.now()).seconds();
        let mut events = Events {
            connection,
            subscription,
            receiver: Receiver::new(f64::from(-offset) / 3600.0),
            clock: self.clock.clone(),
            accept: self.accept.clone(),
            control_exchange: self.control_exchange.clone(),
        };
        events.tell("heartbeat").await?;
        Ok(events)
    }
}

impl Events {
    /// Waits for the next message, and returns the events in it: perhaps none. Cancel safe.
    ///
    /// # Errors
    /// The subscription is lost.
    pub async fn next(&mut self) -> Result<Vec<Map>> {
        let heard = self.subscription.next().await?;
        let body = match heard {
            Ok(message) => message.payload(&self.accept),
            Err(undecodable) => {
                tracing::debug!("an event cannot be read: {}", undecodable.reason);
                return Ok(Vec::new());
            }
        };
        match body {
            Ok(body) => Ok(self.receiver.receive(body, self.clock.epoch_seconds())),
            Err(error) => {
                tracing::debug!("an event cannot be read: {error}");
                Ok(Vec::new())
            }
        }
    }

    /// Tells all workers something that needs no arguments, such as `enable_events`.
    ///
    /// # Errors
    /// The broker's.
    pub async fn tell(&mut self, method: &str) -> Result<()> {
        let call = ControlCall { method: method.to_owned(), ..ControlCall::default() };
        let publication = control::publication(&self.control_exchange, call, 1, None)?;
        self.connection.broadcast(vec![publication]).await
    }

    /// Closes the connection.
    ///
    /// # Errors
    /// The broker's; the connection is closed all the same.
    pub async fn close(self) -> Result<()> {
        let closed = self.subscription.close().await;
        self.connection.close().await.and(closed)
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor").field("queue", &self.queue.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("receiver", &self.receiver).finish_non_exhaustive()
    }
}
