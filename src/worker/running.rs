//! [`Running`]: what holds a place in the pool, and how it is ended from outside.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::event::Event;
use super::inspect::Content;
use super::pools::Lane;
use crate::control::Signal;
use crate::task::Request;
use crate::transport::Credit;

/// The places in the pool that are taken. The loop owns it; places come back by [`Event::Freed`].
#[derive(Debug)]
pub(crate) struct Running {
    places: Vec<Option<Run>>,
    free: Vec<usize>,
    /// How many places are taken in each lane.
    taken: Vec<usize>,
    events: mpsc::UnboundedSender<Event>,
}

/// What holds a place.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) request: Arc<Request>,
    /// When it began.
    pub(crate) since: Instant,
    /// Where it runs.
    lane: Lane,
    /// The same by the wall clock.
    pub(crate) at: Timestamp,
    /// What its arguments can be read from.
    pub(crate) content: Content,
    /// Its message is acknowledged when it is done.
    pub(crate) is_late: bool,
    /// It was said that it takes long.
    pub(crate) is_named: bool,
    leash: Arc<Leash>,
}

/// What begins.
#[derive(Debug, Default)]
pub(crate) struct Start {
    pub(crate) request: Arc<Request>,
    pub(crate) content: Content,
    /// Where it is to run.
    pub(crate) lane: Lane,
    /// By the wall clock.
    pub(crate) at: Timestamp,
    /// Its message is acknowledged when it is done.
    pub(crate) is_late: bool,
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
    /// What it is to hear next.
    ends: Mutex<VecDeque<End>>,
    told: Notify,
}

/// Why a run is ended from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Somebody asked for it.
    Terminated(Signal),
    /// Its message is the broker's again, and will be run again
    /// (`worker_cancel_long_running_tasks_on_connection_loss`).
    Orphaned,
}

impl Running {
    pub(crate) fn new(events: mpsc::UnboundedSender<Event>) -> Self {
        Running { places: Vec::new(), free: Vec::new(), taken: Vec::new(), events }
    }

    /// Takes a place. The unit of the prefetch window that comes with it, if one does, is given back with the place.
    pub(crate) fn begin(&mut self, start: Start, credit: Option<Credit>) -> Slot {
        let leash = Arc::<Leash>::default();
        let Start { request, content, lane, at, is_late } = start;
        if self.taken.len() <= lane {
            self.taken.resize(lane + 1, 0);
        }
        self.taken[lane] += 1;
        let leash_of_run = Arc::clone(&leash);
        let since = Instant::now();
        let run = Some(Run { request, since, lane, at, content, is_late, is_named: false, leash: leash_of_run });
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
        if let Some(run) = self.places.get_mut(place).and_then(Option::take) {
            self.taken[run.lane] -= 1;
            self.free.push(place);
        }
    }

    /// How many places are taken.
    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// How many places are taken in that lane.
    pub(crate) fn len_in(&self, lane: Lane) -> usize {
        self.taken.get(lane).copied().unwrap_or(0)
    }

    /// What runs unacknowledged, but for what was named.
    pub(crate) fn late_ones(&mut self) -> impl Iterator<Item = &mut Run> {
        self.places.iter_mut().flatten().filter(|run| run.is_late && !run.is_named)
    }

    /// What runs.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Run> {
        self.places.iter().flatten()
    }
}

impl Run {
    /// Ends it. A process may heed one signal and not another, so that who asks again is heard again.
    pub(crate) fn terminate(&self, signal: Signal) {
        self.end(End::Terminated(signal));
    }

    /// Ends it for what became of its message.
    pub(crate) fn orphan(&self) {
        self.end(End::Orphaned);
    }

    fn end(&self, end: End) {
        self.leash.ends().push_back(end);
        // A run that has not begun to listen finds it as it does.
        self.leash.told.notify_one();
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
    /// Waits until the run is to be ended, or to be ended once more. For the one who runs it.
    pub(crate) async fn ended(&self) -> End {
        loop {
            if let Some(end) = self.ends().pop_front() {
                return end;
            }
            self.told.notified().await;
        }
    }

    fn ends(&self) -> MutexGuard<'_, VecDeque<End>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn places_are_used_again_and_runs_are_ended() {
        let (events, mut freed) = mpsc::unbounded_channel();
        let mut running = Running::new(events);
        let (one, two) = (running.begin(Start::default(), None), running.begin(Start::default(), None));
        assert_eq!(running.len(), 2);
        running.iter().for_each(|run| run.terminate(Signal::default()));
        running.iter().for_each(Run::orphan);
        for end in [End::Terminated(Signal::default()), End::Orphaned] {
            assert_eq!(two.leash().ended().await, end);
        }
        drop(one);
        let Some(Event::Freed(place)) = freed.recv().await else { panic!("a place is freed") };
        running.freed(place);
        running.freed(place);
        assert_eq!(running.len(), 1);
        let three = running.begin(Start::default(), None);
        assert_eq!((running.len(), running.places.len()), (2, 2));
        let elsewhere = Start { lane: 1, ..Start::default() };
        let four = running.begin(elsewhere, None);
        assert_eq!([0, 1, 2].map(|lane| running.len_in(lane)), [2, 1, 0]);
        running.freed(four.place);
        assert_eq!([0, 1, 2].map(|lane| running.len_in(lane)), [2, 0, 0]);
        assert!(three.leash().ends().is_empty());
    }
}
