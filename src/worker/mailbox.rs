//! [`Mailbox`]: hears the commands that are broadcast to workers.
//!
//! What goes wrong here is logged and ends nothing: a lost subscription is made again, over the same connection or over
//! the next, and tasks go on meanwhile.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tracing::{debug, error};

use super::ear::{Ear, Setbacks};
use super::event::Event;
use crate::app::Panel;
use crate::config::Config;
use crate::control::{ControlRequest, LamportClock};
use crate::protocol::{AcceptContent, Message, Value};
use crate::transport::{Backoff, Broadcast, Connection, Queue, Subscription};
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
    /// Reads what we refuse.
    panel: Option<Arc<dyn Panel>>,
    setbacks: Setbacks,
    queue: Queue,
    connections: mpsc::UnboundedReceiver<Opened>,
}

/// Refuses what stock Celery refuses, in its words (celery/app/control.py `Control.__init__`).
pub(crate) fn check(config: &Config) -> Result<()> {
    if config.worker_enable_remote_control && config.control_queue_durable && config.control_queue_exclusive {
        let message = "control_queue_durable and control_queue_exclusive cannot both be True \
                       (exclusive queues are automatically deleted and cannot be durable).";
        return Err(Error::new(ErrorKind::Configuration, message));
    }
    Ok(())
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
        queue: Queue,
        accept: AcceptContent,
        clock: Arc<LamportClock>,
        events: mpsc::UnboundedSender<Event>,
        backoff: Backoff,
    ) -> (Self, MailboxDoor) {
        let (sender, connections) = mpsc::unbounded_channel();
        let door = MailboxDoor { queue: queue.clone(), connections: sender };
        let setbacks = Setbacks::new("pidbox: commands", backoff);
        let (hostname, panel) = (hostname.to_owned(), None);
        (Mailbox { hostname, accept, clock, events, panel, setbacks, queue, connections }, door)
    }

    /// Has commands read by the program whose serializer is none of ours.
    pub(crate) fn read_by(self, panel: Option<Arc<dyn Panel>>) -> Self {
        Mailbox { panel, ..self }
    }

    /// Runs until the door is gone.
    pub(crate) async fn run(mut self) {
        let mut opened = self.connections.recv().await;
        while let Some((connection, first)) = opened {
            let mut ear = Ear::from(first);
            opened = loop {
                let heard = tokio::select! {
                    biased;
                    opened = self.connections.recv() => break opened,
                    lost = connection.lost() => {
                        debug!("pidbox: {lost}");
                        break self.connections.recv().await;
                    }
                    heard = ear.hear(&*connection, &self.queue) => heard,
                };
                match heard {
                    Ok(broadcast) => {
                        self.setbacks.end();
                        self.handle(broadcast).await;
                    }
                    Err(error) => {
                        let pause = self.setbacks.pause_after(&error, &ear);
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
    async fn handle(&self, broadcast: Broadcast) {
        self.clock.forward();
        match self.read(broadcast).await {
            Ok(Some(request)) => {
                // The loop is gone only when the worker is.
                let _ = self.events.send(Event::Control(Box::new(request)));
            }
            Ok(None) => {}
            Err(problem) => error!("{problem}"),
        }
    }

    async fn read(&self, broadcast: Broadcast) -> std::result::Result<Option<ControlRequest>, String> {
        let undecodable = |reason: &dyn std::fmt::Display| format!("Cannot decode message: {reason}");
        let message = broadcast.map_err(|message| undecodable(&message.reason))?;
        if let Some(clock) = message.headers.get("clock").and_then(Value::as_u64) {
            self.clock.adjust(clock);
        }
        let body = self.payload(message).await.map_err(|error| undecodable(&error))?;
        let request = ControlRequest::read(body, &self.hostname);
        request.map_err(|exception| format!("Control command error: {exception}"))
    }

    async fn payload(&self, message: Message) -> Result<Value> {
        match (message.payload(&self.accept), &self.panel) {
            (Err(refused), Some(panel)) if refused.kind() == ErrorKind::Refused => {
                let panel = Arc::clone(panel);
                // It panics only if reading does.
                spawn_blocking(move || panel.read(&message)).await.unwrap_or(Err(refused))
            }
            (payload, _) => payload,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::parts::control_queue;

    #[test]
    fn a_queue_of_commands_is_durable_or_exclusive_and_not_both() {
        for (durable, exclusive, auto_delete, is_refused) in [
            (false, true, true, false),
            (true, false, false, false),
            (false, false, true, false),
            (true, true, false, true),
        ] {
            let (control_queue_durable, control_queue_exclusive) = (durable, exclusive);
            let config = Config { control_queue_durable, control_queue_exclusive, ..Config::default() };
            let declared = control_queue("celery@h", &config);
            assert_eq!((declared.durable, declared.exclusive, declared.auto_delete), (durable, exclusive, auto_delete));
            assert_eq!(check(&config).is_err(), is_refused);
            assert!(check(&Config { worker_enable_remote_control: false, ..config }).is_ok(), "it has no such queue");
        }
    }
}
