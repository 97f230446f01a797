//! [`SentEvents`]: the events that tell of what is sent (celery/app/amqp.py `send_task_message`).

use jiff::Timestamp;

use super::{Outgoing, origin};
use crate::Result;
use crate::config::Config;
use crate::control::LamportClock;
use crate::events::{Event, EventMessage, Kind, Origin, Sent, Stamp, Task, messages};
use crate::protocol::Serializer;
use crate::transport::Publication;

/// Makes `task-sent` of messages. A producer has a name of its own, whether it runs in a worker or not.
#[derive(Debug)]
pub(crate) struct SentEvents {
    origin: Origin,
    /// `event_exchange`.
    exchange: String,
    serializer: Serializer,
}

impl SentEvents {
    /// `None`: nobody wants them (`task_send_sent_event`).
    ///
    /// # Errors
    /// `Configuration`: `event_serializer` is none.
    pub(crate) fn new(config: &Config) -> Result<Option<Self>> {
        if !config.task_send_sent_event {
            return Ok(None);
        }
        let serializer = Serializer::from_name(&config.event_serializer)?;
        Ok(Some(SentEvents { origin: Origin::new(origin()), exchange: config.event_exchange.clone(), serializer }))
    }

    /// What is to be told of messages when the broker has accepted them.
    pub(crate) fn of(&self, sent: &[Outgoing]) -> Vec<Sent> {
        sent.iter().map(of).collect()
    }

    /// The events' messages: each leaves singly, as Celery's producers send them.
    ///
    /// # Errors
    /// `Encode`: the serializer has no form for a value.
    pub(crate) fn publications(
        &self,
        sent: Vec<Sent>,
        lamport: &LamportClock,
        time: Timestamp,
    ) -> Result<Vec<Publication>> {
        let event =
            |sent| Event { kind: Kind::TaskSent(Box::new(sent)), stamp: Stamp { clock: lamport.forward(), time } };
        let made = messages(sent.into_iter().map(event), &self.origin, self.serializer)?;
        Ok(made
            .into_iter()
            .map(|EventMessage { routing_key, message }| Publication {
                exchange: self.exchange.clone(),
                routing_key,
                message,
            })
            .collect())
    }
}

fn of(outgoing: &Outgoing) -> Sent {
    let (publication, queue) = (&outgoing.publication, outgoing.queue_name());
    let header = |name| publication.message.headers.get(name).cloned().unwrap_or_default();
    let text = |name| header(name).as_str().map(str::to_owned).unwrap_or_default();
    Sent {
        task: Task {
            uuid: text("id"),
            name: text("task"),
            args: header("argsrepr"),
            kwargs: header("kwargsrepr"),
            root_id: header("root_id"),
            parent_id: header("parent_id"),
            retries: header("retries"),
            eta: header("eta"),
            expires: header("expires"),
        },
        queue: queue.into(),
        exchange: publication.exchange.clone(),
        routing_key: publication.routing_key.clone(),
    }
}
