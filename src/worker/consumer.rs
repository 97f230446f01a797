//! [`Consumer`]: the worker's loop. It takes one [`Event`] at a time and awaits nothing slow.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::event::{Event, Shutdown};
use super::finish::Finisher;
use super::held::Held;
use super::intake::{self, Intake, Tasks};
use super::request::Work;
use super::unknown::Unknown;
use super::{LAST_WORDS, WorkerHandle};
use crate::Result;
use crate::time::Clock;
use crate::transport::{Delivery, Growth, Prefetch};

/// How many events one turn of the loop takes.
const EVENTS: usize = 256;

/// A wait for an ETA is never longer than this, so that a clock that is set is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// The state of the loop, and nobody else's.
pub(crate) struct Consumer {
    tasks: Tasks,
    finisher: Arc<Finisher>,
    prefetch: Arc<Prefetch>,
    clock: Clock,
    handle: WorkerHandle,
    /// Waits for its ETA; the guard widens the prefetch window meanwhile.
    held: Held<(Box<Work>, Growth)>,
    /// Waits for a slot.
    reserved: VecDeque<Box<Work>>,
    /// How many handlers run; each gives back its slot by [`Event::Freed`].
    running: usize,
    concurrency: usize,
    /// Cloned into all that will settle a message; `None` once nothing more is begun. Not the same as a slot: a thread
    /// that was given up keeps its slot though its message is settled, and what is settled without being run has none.
    unsettled: Option<mpsc::Sender<Infallible>>,
    /// Ends when the last clone is dropped.
    settled: mpsc::Receiver<Infallible>,
    stop_consuming: CancellationToken,
    stopping: Option<Shutdown>,
    /// Nothing is left to settle.
    is_done: bool,
}

/// A place in the pool; dropping it frees it.
#[derive(Debug)]
pub(crate) struct Slot(mpsc::UnboundedSender<Event>);

impl Drop for Slot {
    fn drop(&mut self) {
        // The loop is gone only when the worker is.
        let _ = self.0.send(Event::Freed);
    }
}

impl Consumer {
    pub(crate) fn new(
        tasks: Tasks,
        finisher: Finisher,
        prefetch: Arc<Prefetch>,
        concurrency: usize,
        stop_consuming: CancellationToken,
        handle: &WorkerHandle,
    ) -> Self {
        let (unsettled, settled) = mpsc::channel(1);
        Consumer {
            tasks,
            clock: finisher.clock.clone(),
            finisher: Arc::new(finisher),
            prefetch,
            handle: handle.clone(),
            held: Held::new(),
            reserved: VecDeque::new(),
            running: 0,
            concurrency,
            unsettled: Some(unsettled),
            settled,
            stop_consuming,
            stopping: None,
            is_done: false,
        }
    }

    /// Runs until the worker has been told to stop, nothing runs any more, and what ran is settled.
    pub(crate) async fn run(mut self, mut events: mpsc::UnboundedReceiver<Event>) -> Result<()> {
        let ended = self.take_events(&mut events).await;
        if !self.is_done {
            self.wait_until_settled().await;
        }
        ended
    }

    async fn take_events(&mut self, events: &mut mpsc::UnboundedReceiver<Event>) -> Result<()> {
        let mut batch = Vec::with_capacity(EVENTS);
        while !self.is_done && self.stopping != Some(Shutdown::Cold) {
            tokio::select! {
                biased;
                _ = events.recv_many(&mut batch, EVENTS) => {}
                _ = self.settled.recv(), if self.unsettled.is_none() => self.is_done = true,
                () = until(self.held.next_eta(), &self.clock) => {}
            }
            for event in batch.drain(..) {
                self.on(event)?;
            }
            self.release_due();
            self.start_reserved();
        }
        Ok(())
    }

    /// Waits for the last results and acknowledgements, but not for ever if backend or broker are away.
    /// A cold shutdown, or a broker that was given up: what runs is being ended. A handler that does not yield cannot be
    /// waited for.
    async fn wait_until_settled(mut self) {
        self.unsettled = None;
        self.finisher.cold.cancel();
        let _ = timeout(LAST_WORDS, self.settled.recv()).await;
    }

    fn on(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Received(deliveries) => deliveries.into_iter().for_each(|delivery| self.receive(delivery)),
            Event::Freed => self.running -= 1,
            Event::Connected => self.connected(),
            Event::Disconnected => {}
            Event::Shutdown(how) => self.shut_down(how),
            Event::LogState => self.log_state(),
            Event::Unrecoverable(error) => {
                self.shut_down(Shutdown::Cold);
                return Err(error);
            }
        }
        Ok(())
    }

    fn connected(&self) {
        self.handle.is_ready();
        info!("{} ready.", self.finisher.hostname());
    }

    fn log_state(&self) {
        let (running, reserved, held) = (self.running, self.reserved.len(), self.held.len());
        warn!("{}: {running} running, {reserved} reserved, {held} scheduled", self.finisher.hostname());
        for work in &self.reserved {
            warn!("reserved: {}[{}]", work.name, work.request.id);
        }
    }

    fn receive(&mut self, delivery: Delivery) {
        if self.stopping.is_some() {
            // Dropped unsettled, it goes back to the front of its queue.
            return;
        }
        match intake::read(delivery, &self.tasks, self.clock.now()) {
            Intake::Run(work) => self.reserved.push_back(work),
            Intake::Hold(eta, work) => self.held.hold(eta, (work, self.prefetch.grow())),
            Intake::Expired(work) => self.spawn(|finisher| async move {
                let mut work = work;
                finisher.expire(&mut work).await;
            }),
            Intake::HandBack(unknown) => self.hand_back(*unknown),
            Intake::Malformed(malformed) => {
                self.spawn(|finisher| async move { finisher.refuse(*malformed).await });
            }
        }
    }

    /// Holds the message for a while, and then gives it back; at once, and unchanged, when the worker stops.
    fn hand_back(&self, unknown: Unknown) {
        unknown.log();
        let stop = self.stop_consuming.clone();
        self.spawn(|_| async move {
            tokio::select! {
                () = stop.cancelled() => drop(unknown),
                () = sleep(unknown.delay()) => unknown.hand_back(),
            }
        });
    }

    fn release_due(&mut self) {
        if self.held.len() == 0 {
            return;
        }
        let now = self.clock.now();
        while let Some((work, _growth)) = self.held.due(now) {
            self.reserved.push_back(work);
        }
    }

    fn start_reserved(&mut self) {
        while self.running < self.concurrency {
            let Some(work) = self.reserved.pop_front() else { return };
            let slot = self.slot();
            self.spawn(|finisher| finisher.run(work, slot));
        }
    }

    /// Starts what will settle a message; the worker does not stop before it. What needs the backend but no handler
    /// takes no place in the pool.
    fn spawn<F, W>(&self, work: W)
    where
        W: FnOnce(Arc<Finisher>) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        let (unsettled, work) = (self.unsettled.clone(), work(Arc::clone(&self.finisher)));
        tokio::spawn(async move {
            work.await;
            drop(unsettled);
        });
    }

    fn slot(&mut self) -> Slot {
        self.running += 1;
        Slot(self.handle.events.clone())
    }

    fn shut_down(&mut self, how: Shutdown) {
        if self.stopping.is_some_and(|stopping| stopping >= how) {
            return;
        }
        self.stopping = Some(how);
        self.stop_consuming.cancel();
        let given_back = self.reserved.len() + self.held.len();
        if given_back > 0 {
            info!("Restoring {given_back} unacknowledged message(s)");
        }
        // What has not begun goes back to its queue at once, as each delivery drops.
        self.reserved.clear();
        self.held.drain().for_each(drop);
        self.unsettled = None;
        if how == Shutdown::Cold {
            if self.running > 0 {
                warn!("Cold shutdown: ending {} running task(s)", self.running);
            }
            self.finisher.cold.cancel();
        }
    }
}

/// Sleeps until `eta`, or a while towards it; without one, for ever.
async fn until(eta: Option<Timestamp>, clock: &Clock) {
    let Some(eta) = eta else { return std::future::pending().await };
    let wait = Duration::try_from(eta.duration_since(clock.now())).unwrap_or(Duration::ZERO);
    sleep(wait.min(LONGEST_SLEEP)).await;
}
