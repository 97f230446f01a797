//! [`Together`]: the events of tasks, which leave together.

use std::collections::VecDeque;

use super::json_events::JsonEvents;
use super::messages::wrapped;
use super::{Event, EventMessage, Origin};
use crate::Result;
use crate::protocol::{Serializer, Value};

/// How many task events one message holds at most. Celery's dispatcher sends 24 at most, and receivers take any number;
/// a message of so many is some thirty kilobytes long.
pub(crate) const TOGETHER: usize = 100;

/// Task events that wait, in the order in which they came, in messages as full as may be
/// (celery/events/dispatcher.py `EventDispatcher.flush`).
#[derive(Debug)]
pub(crate) struct Together {
    /// What the last message holds so far, and how many that is.
    open: Open,
    count: usize,
    /// Those before it, of which each holds as much as it may.
    full: VecDeque<Bundle>,
}

/// JSON is written as the events come. What other serializers will write waits as values.
#[derive(Debug)]
enum Open {
    Json(JsonEvents),
    Values(Origin, Vec<Value>),
}

/// The events of one message.
#[derive(Debug)]
pub(crate) enum Bundle {
    /// Written.
    Json(Vec<u8>),
    /// To be written.
    Values(Vec<Value>),
}

impl Together {
    /// For the events of this node; there are none yet.
    pub(crate) fn new(origin: Origin, serializer: Serializer) -> Self {
        let open = match serializer {
            Serializer::Json => Open::Json(JsonEvents::new(origin)),
            _ => Open::Values(origin, Vec::new()),
        };
        Together { open, count: 0, full: VecDeque::new() }
    }

    /// How many events wait.
    pub(crate) fn len(&self) -> usize {
        self.full.len() * TOGETHER + self.count
    }

    /// Adds an event.
    ///
    /// # Errors
    /// `Encode`: there is no form for a value. Nothing is added.
    pub(crate) fn push(&mut self, event: Event) -> Result<()> {
        match &mut self.open {
            Open::Json(events) => events.push(event)?,
            Open::Values(origin, events) => events.push(Value::Map(event.into_map(origin))),
        }
        self.count += 1;
        if self.count == TOGETHER {
            self.close();
        }
        Ok(())
    }

    /// Takes so many messages at most, the oldest first. The last one is taken though it is not full.
    pub(crate) fn take(&mut self, most: usize) -> Vec<Bundle> {
        if self.full.len() < most && self.count > 0 {
            self.close();
        }
        self.full.drain(..most.min(self.full.len())).collect()
    }

    fn close(&mut self) {
        self.count = 0;
        self.full.push_back(match &mut self.open {
            Open::Json(events) => Bundle::Json(events.take()),
            Open::Values(_, events) => Bundle::Values(std::mem::take(events)),
        });
    }
}

impl Bundle {
    /// The message.
    ///
    /// # Errors
    /// `Encode`: the serializer has no form for a value.
    pub(crate) fn into_message(self, origin: &Origin, serializer: Serializer) -> Result<EventMessage> {
        let body = match self {
            Bundle::Json(text) => text,
            Bundle::Values(events) => serializer.encode(&Value::List(events))?,
        };
        Ok(wrapped("task.multi".to_owned(), body, origin, serializer))
    }
}
