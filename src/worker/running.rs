//! [`Running`]: what holds a place in the pool, and how it is ended from outside.

use std::sync::{Arc, OnceLock};

use tokio::sync::{Notify, mpsc};

use super::event::Event;
use crate::control::Signal;
use crate::task::Request;
use crate::transport::Credit;

/// The places in the pool that are taken. The loop owns it; places come back by [`Event::Freed`].
#[derive(Debug)]
pub(crate) struct Running {
    places: Vec<Option<Run>>,
    free: Vec<usize>,
    events: mpsc::UnboundedSender<Event>,
}

/// What holds a place.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) request: Arc<Request>,
    leash: Arc<Leash>,
}

/// A place in the pool; dropping it frees it.
#[derive(Debug)]
pub(crate) struct Slot {
    place: usize,
    leash: Arc<Leash>,
    events: mpsc::UnboundedSender<Event>,
    /// Held here, no message is taken before there is a place for it.
    _credit: Option<Credit>,
}

/// By which a run is ended.
#[derive(Debug, Default)]
pub(crate) struct Leash {
    signal: OnceLock<Signal>,
    told: Notify,
}

impl Running {
    pub(crate) fn new(events: mpsc::UnboundedSender<Event>) -> Self {
        Running { places: Vec::new(), free: Vec::new(), events }
    }

    /// Takes a place. The unit of the prefetch window that comes with it, if one does, is given back with the place.
    pub(crate) fn begin(&mut self, request: &Arc<Request>, credit: Option<Credit>) -> Slot {
        let leash = Arc::<Leash>::default();
        let run = Some(Run { request: Arc::clone(request), leash: Arc::clone(&leash) });
        let place = match self.free.pop() {
            Some(place) => {
                self.places[place] = run;
                place
            }
            None => {
                self.places.push(run);
                self.places.len() - 1
            }
        };
        Slot { place, leash, events: self.events.clone(), _credit: credit }
    }

    /// A place is free again.
    pub(crate) fn freed(&mut self, place: usize) {
        if self.places.get_mut(place).and_then(Option::take).is_some() {
            self.free.push(place);
        }
    }

    /// How many places are taken.
    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// What runs.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Run> {
        self.places.iter().flatten()
    }
}

impl Run {
    /// Ends it; once is enough.
    pub(crate) fn terminate(&self, signal: Signal) {
        if self.leash.signal.set(signal).is_ok() {
            // A run that has not begun to listen finds it as it does.
            self.leash.told.notify_one();
        }
    }
}

impl Slot {
    pub(crate) fn leash(&self) -> Arc<Leash> {
        Arc::clone(&self.leash)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // The loop is gone only when the worker is.
        let _ = self.events.send(Event::Freed(self.place));
    }
}

impl Leash {
    /// Waits until the run is to be ended. For the one who runs it.
    pub(crate) async fn terminated(&self) -> Signal {
        loop {
            self.told.notified().await;
            if let Some(signal) = self.signal.get() {
                return *signal;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn places_are_used_again_and_runs_are_ended() {
        let (events, mut freed) = mpsc::unbounded_channel();
        let mut running = Running::new(events);
        let request = Arc::new(Request::default());
        let (one, two) = (running.begin(&request, None), running.begin(&request, None));
        assert_eq!(running.len(), 2);
        running.iter().for_each(|run| run.terminate(Signal::default()));
        running.iter().for_each(|run| run.terminate(Signal::default()));
        assert_eq!(two.leash().terminated().await, Signal::default());
        drop(one);
        let Some(Event::Freed(place)) = freed.recv().await else { panic!("a place is freed") };
        running.freed(place);
        running.freed(place);
        assert_eq!(running.len(), 1);
        let three = running.begin(&request, None);
        assert_eq!((running.len(), running.places.len()), (2, 2));
        assert!(three.leash().signal.get().is_none());
    }
}
