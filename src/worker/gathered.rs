//! [`Gathered`]: the events of tasks, on their way from where they happen to the part that sends them.
//!
//! Each is written into the next message where it happens, by whoever tells of it: to hand over what it is made from, for
//! somebody else to write, took four times as long. Messages leave from the other end. What waits has a bound.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::Result;
use crate::events::{Bundle, Event, Origin, TOGETHER, Together};
use crate::protocol::Serializer;

/// Events that wait for whoever sends them.
#[derive(Debug)]
pub(super) struct Gathered {
    /// How many wait at most.
    bound: usize,
    events: Mutex<Events>,
    /// Some wait now, where none did.
    has_come: Notify,
}

#[derive(Debug)]
struct Events {
    together: Together,
    /// The last ones have been taken, or are about to be.
    is_closed: bool,
}

impl Gathered {
    pub(super) fn new(bound: usize, origin: Origin, serializer: Serializer) -> Self {
        let events = Events { together: Together::new(origin, serializer), is_closed: false };
        Gathered { bound, events: Mutex::new(events), has_come: Notify::new() }
    }

    /// Adds an event, which is made when its place is sure, so that they are in the order of their clocks. `false`: there is
    /// no room for it.
    ///
    /// # Errors
    /// `Encode`: it cannot be written.
    pub(super) fn put(&self, event: impl FnOnce() -> Event) -> Result<bool> {
        let mut events = self.lock();
        let before = events.together.len();
        if events.is_closed || before >= self.bound {
            return Ok(events.is_closed);
        }
        events.together.push(event())?;
        drop(events);
        if before == 0 {
            self.has_come.notify_one();
        }
        Ok(true)
    }

    /// How many wait, as soon as there are any. Cancel safe; only one may wait.
    pub(super) async fn some(&self) -> usize {
        loop {
            match self.lock().together.len() {
                0 => {}
                count => return count,
            }
            self.has_come.notified().await;
        }
    }

    /// Takes so many of the oldest, or all if there are fewer.
    pub(super) fn take(&self, count: usize) -> Vec<Bundle> {
        self.lock().together.take(count / TOGETHER)
    }

    /// What comes from now on is not sent, and no loss.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
    }

    /// Whoever holds it waits for nothing, and computes nothing but the text of one event.
    fn lock(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
