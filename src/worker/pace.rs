//! [`Pace`]: what has come goes to the loop as fast as the app's [`Observer`] hears of it.
//!
//! Under Celery a receiver of `task_received` is called before the next message is looked at, so that a slow one slows the
//! intake. The loop waits for no receiver, so the messages wait before it: they are reserved, and go back to their queue if the
//! worker stops before their turn.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::event::Event;
use crate::app::Observer;
use crate::transport::Delivery;

/// Hands on what has come.
pub(crate) struct Pace {
    observer: Option<Arc<dyn Observer>>,
    events: mpsc::UnboundedSender<Event>,
    waiting: VecDeque<Delivery>,
    /// Resolves when the loop has seen what was handed on last, and the observer was told of it.
    seen: Option<oneshot::Receiver<()>>,
}

/// The loop is gone, and nobody is left to run anything.
pub(crate) struct Gone;

impl Pace {
    pub(crate) fn new(observer: Option<Arc<dyn Observer>>, events: mpsc::UnboundedSender<Event>) -> Self {
        Pace { observer, events, waiting: VecDeque::new(), seen: None }
    }

    /// Takes what has come. Where nobody hears of messages it does not wait.
    pub(crate) fn take(&mut self, batch: Vec<Delivery>) -> Result<(), Gone> {
        if self.observer.is_none() {
            return self.send(Event::Received(batch));
        }
        self.waiting.extend(batch);
        Ok(())
    }

    /// Whether something waits for its turn: nothing more is to be taken meanwhile.
    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Hands on as much of what waits as the observer has room for, when it has. A cancelled wait loses nothing.
    pub(crate) async fn turn(&mut self) -> Result<(), Gone> {
        if let Some(seen) = &mut self.seen {
            // One that is dropped is seen, too.
            let _ = seen.await;
            self.seen = None;
        }
        let room = match &self.observer {
            Some(observer) => observer.room().await,
            None => usize::MAX,
        };
        let most = self.waiting.len().min(room.max(1));
        let batch = self.waiting.drain(..most).collect();
        if room == usize::MAX {
            return self.send(Event::Received(batch));
        }
        let (sender, seen) = oneshot::channel();
        self.seen = Some(seen);
        self.send(Event::Received(batch))?;
        self.send(Event::Reached(sender))
    }

    fn send(&self, event: Event) -> Result<(), Gone> {
        self.events.send(event).map_err(|_| Gone)
    }
}
