//! [`Consumer`]: the worker's loop. It takes one [`Event`] at a time and awaits nothing slow.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::chores::Chores;
use super::commands::{CommandDoor, Commands};
use super::consumer_timeout::ConsumerTimeout;
use super::event::{Event, Shutdown};
use super::farewell::{self, Farewell};
use super::finish::Finisher;
use super::frozen::{Freezer, Frozen};
use super::held::Held;
use super::inspect::About;
use super::intake::{self, Intake, Tasks};
use super::parking::Parking;
use super::poison::Quarantine;
use super::pool::Pool;
use super::pools::Pools;
use super::pulse::{self, Load, Pulse};
use super::queues::Queues;
use super::rate_limit::RateLimits;
use super::remote::Remote;
use super::request::Work;
use super::reserved::Reserved;
use super::revoked::Revoked;
use super::running::Running;
use super::state_file::StateFile;
use super::streak::Streak;
use super::unknown::Unknown;
use super::{LAST_WORDS, WorkerHandle};
use crate::Result;
use crate::app::Panel;
use crate::control::Rate;
use crate::time::Clock;
use crate::trace::Scope;
use crate::transport::{Delivery, Growth, Prefetch};

/// How many events one turn of the loop takes.
const EVENTS: usize = 256;

/// A wait for an ETA is never longer than this, so that a clock that is set is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// The state of the loop, and nobody else's.
pub(crate) struct Consumer {
    pub(super) tasks: Tasks,
    pub(super) finisher: Arc<Finisher>,
    pub(super) prefetch: Arc<Prefetch>,
    pub(super) clock: Clock,
    pub(super) handle: WorkerHandle,
    /// Waits for its ETA; the guard widens the prefetch window meanwhile.
    pub(super) held: Held<Frozen>,
    pub(super) freezer: Freezer,
    /// What is due goes before what is reserved the next time, so that neither waits for all of the other.
    pub(super) due_next: bool,
    /// Waits for a slot.
    pub(super) reserved: Reserved,
    /// Waits for its turn; the guard, which the first of them have, widens the window too.
    pub(super) limits: RateLimits<(Box<Work>, Option<Growth>)>,
    /// Set: limits are accepted, and without effect (`worker_disable_rate_limits`).
    pub(super) disable_rate_limits: bool,
    /// Keeps those apart that may have killed a worker; `None`: nobody counts.
    pub(super) quarantine: Option<Quarantine>,
    /// Set: what runs counts as reserved although its message is acknowledged (`worker_disable_prefetch`).
    pub(super) disable_prefetch: bool,
    /// What runs; each gives back its place by [`Event::Freed`].
    pub(super) running: Running,
    /// How much may run at a time.
    pub(super) pool: Pool,
    /// Where it runs, and how much in each place.
    pub(super) pools: Pools,
    /// How much of what is not for the pool is taken ahead.
    pub(super) streak: Streak,
    /// What is consumed.
    pub(super) queues: Queues,
    pub(super) revoked: Revoked,
    pub(super) remote: Arc<Remote>,
    /// What it tells of itself.
    pub(super) about: About,
    pub(super) state_file: Option<StateFile>,
    /// Writes the state file at this moment, or did: two writes at a time would be in each other's way.
    pub(super) writing: Option<JoinHandle<()>>,
    pub(super) chores: Chores,
    /// Cloned into all that will settle a message; `None` once nothing more is begun. Not the same as a slot: a thread
    /// that was given up keeps its slot though its message is settled, and what is settled without being run has none.
    unsettled: Option<mpsc::Sender<Infallible>>,
    /// Ends when the last clone is dropped.
    settled: mpsc::Receiver<Infallible>,
    stop_consuming: CancellationToken,
    pub(super) stopping: Option<Shutdown>,
    farewell: Farewell,
    /// Messages that are large or compressed are read one at a time.
    heavy: Arc<Semaphore>,
    /// What a lost connection takes along.
    lost: Lost,
    /// Where what is for much later waits.
    pub(super) parking: Parking,
    /// Until when the broker waits.
    pub(super) patient: ConsumerTimeout,
    /// Takes commands that are the program's own; `None`: it has none.
    pub(super) commands: Option<CommandDoor>,
    /// Shows whoever watches that the loop moves; `None`: nobody does.
    pulse: Option<Arc<Pulse>>,
    /// Nothing is left to settle.
    is_done: bool,
}

/// What a lost connection takes along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// Nothing: what came over it is settled over the next.
    Nothing,
    /// What came over it; and with `cancel`, the runs of what is acknowledged late.
    Deliveries {
        /// `worker_cancel_long_running_tasks_on_connection_loss`.
        cancel: bool,
    },
}

/// What a loop is made from.
pub(crate) struct Parts {
    pub(crate) about: About,
    pub(crate) tasks: Tasks,
    pub(crate) pools: Pools,
    pub(crate) streak: Streak,
    pub(crate) finisher: Finisher,
    pub(crate) remote: Remote,
    pub(crate) revoked: Revoked,
    /// The rate limits of tasks that have one.
    pub(crate) rates: Vec<(String, Rate)>,
    pub(crate) disable_rate_limits: bool,
    pub(crate) disable_prefetch: bool,
    pub(crate) state_file: Option<StateFile>,
    pub(super) quarantine: Option<Quarantine>,
    pub(super) freezer: Freezer,
    pub(crate) lost: Lost,
    pub(super) parking: Parking,
    pub(super) patient: ConsumerTimeout,
    pub(super) pulse: Option<Arc<Pulse>>,
    pub(super) panel: Option<Arc<dyn Panel>>,
    pub(super) queues: Queues,
}

impl Consumer {
    pub(crate) fn new(
        parts: Parts,
        prefetch: Arc<Prefetch>,
        pool: Pool,
        stop_consuming: CancellationToken,
        handle: &WorkerHandle,
    ) -> Self {
        let Parts {
            about,
            tasks,
            pools,
            streak,
            finisher,
            remote,
            revoked,
            rates,
            disable_rate_limits,
            disable_prefetch,
            state_file,
            quarantine,
            freezer,
            lost,
            parking,
            patient,
            pulse,
            panel,
            queues,
        } = parts;
        let remote = Arc::new(remote);
        let (unsettled, settled) = mpsc::channel(1);
        Consumer {
            tasks,
            clock: finisher.clock.clone(),
            finisher: Arc::new(finisher),
            prefetch,
            handle: handle.clone(),
            held: Held::new(),
            freezer,
            due_next: false,
            reserved: Reserved::new(pools.clone()),
            limits: RateLimits::new(rates, Instant::now()),
            disable_rate_limits,
            quarantine,
            disable_prefetch,
            running: Running::new(handle.events.clone()),
            pool,
            pools,
            streak,
            queues,
            revoked,
            commands: panel.map(|panel| Commands::start(panel, Arc::clone(&remote))),
            remote,
            about,
            state_file,
            writing: None,
            chores: Chores::default(),
            unsettled: Some(unsettled),
            settled,
            stop_consuming,
            stopping: None,
            farewell: Farewell::default(),
            heavy: Arc::new(Semaphore::new(1)),
            lost,
            parking,
            patient,
            pulse,
            is_done: false,
        }
    }

    /// Runs until the worker has been told to stop, nothing runs any more, and what ran is settled.
    pub(crate) async fn run(mut self, mut events: mpsc::UnboundedReceiver<Event>) -> Result<()> {
        let ended = self.take_events(&mut events).await;
        self.pulse.iter().for_each(|pulse| pulse.ended());
        self.remember().await;
        if !self.is_done {
            self.wait_until_settled().await;
        }
        ended
    }

    async fn take_events(&mut self, events: &mut mpsc::UnboundedReceiver<Event>) -> Result<()> {
        let mut batch = Vec::with_capacity(EVENTS);
        while !self.is_done && self.stopping != Some(Shutdown::Cold) {
            self.beat();
            let chore = [self.next_chore(), self.next_suspect(), self.next_scaling()].into_iter().flatten().min();
            let eta = self.next_eta();
            tokio::select! {
                biased;
                _ = events.recv_many(&mut batch, EVENTS) => {}
                _ = self.settled.recv(), if self.unsettled.is_none() => self.is_done = true,
                () = until(eta, &self.clock) => {}
                () = at(chore) => {}
                () = sleep(farewell::LOOK), if self.stopping.is_some() => self.look_around(),
                () = sleep(pulse::BEAT), if self.pulse.is_some() => {}
            }
            for event in batch.drain(..) {
                self.on(event)?;
            }
            self.do_chores();
            self.autoscale();
            self.follow_pools();
            self.start_reserved();
            self.look_up();
            self.handle.relief.held(self.running.len() + self.not_begun());
        }
        Ok(())
    }

    fn beat(&self) {
        let Some(pulse) = &self.pulse else { return };
        let load = Load {
            running: self.running.len(),
            reserved: self.reserved.len(),
            scheduled: self.held.len(),
            limited: self.limits.waiting(),
            concurrency: self.pool.size(),
        };
        pulse.beat(Instant::now(), load);
    }

    /// How much is held that has not begun.
    fn not_begun(&self) -> usize {
        let suspects = self.quarantine.as_ref().map_or(0, Quarantine::len);
        self.reserved.len() + self.held.len() + self.limits.waiting() + suspects
    }

    /// A warm shutdown does not wait for ever for a broker or a backend that is away.
    fn look_around(&mut self) {
        let left = self.unsettled_runs();
        if self.farewell.is_over(left, self.finisher.witness.tally().active(), Instant::now()) {
            self.shut_down(Shutdown::Cold);
        }
    }

    /// How many runs have ended or not, and are not settled.
    fn unsettled_runs(&self) -> usize {
        self.settled.sender_strong_count()
    }

    /// A cold shutdown, or a broker that was given up: what runs is being ended. A handler that does not yield cannot be
    /// waited for.
    async fn wait_until_settled(mut self) {
        self.unsettled = None;
        self.finisher.cold.begin();
        let _ = timeout(LAST_WORDS, self.settled.recv()).await;
    }

    fn on(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Received(deliveries) => {
                self.pool.received(Instant::now());
                deliveries.into_iter().for_each(|delivery| self.receive(delivery));
            }
            // Who asked may be gone.
            Event::Reached(asked) => drop(asked.send(())),
            Event::Read(intake) if self.stopping.is_none() && !intake.is_lost() => self.take_in(*intake),
            // Dropped unsettled, it goes back to the front of its queue, unless it is there already.
            Event::Read(_) => {}
            Event::Judged(judged) => self.judged(judged),
            Event::Left => self.left(),
            Event::Freed(place) => self.running.freed(place),
            Event::Control(request) => self.control(*request),
            Event::Asked(asked) => self.asked(*asked),
            Event::RevokedElsewhere(ids) => self.take_revoked(&ids),
            Event::Connected => self.connected(),
            Event::Disconnected => self.disconnected(),
            Event::Shutdown(how) => self.shut_down(how),
            Event::LogState => self.log_state(),
            Event::Unrecoverable(error) => {
                self.shut_down(Shutdown::Cold);
                return Err(error);
            }
        }
        Ok(())
    }

    fn connected(&mut self) {
        self.pulse.iter().for_each(|pulse| pulse.connected(true));
        self.handle.is_ready();
        self.finisher.witness.online();
        info!("{} ready.", self.finisher.hostname());
        if let (Some(mingle), None) = (self.remote.neighbours.mingle.clone(), self.stopping) {
            let (revoked, _) = self.revoked.remembered(Instant::now());
            // Not stopped before it has taken back what it has declared at the broker.
            self.spawn(|_| mingle.sync(revoked));
        }
    }

    fn log_state(&self) {
        let (running, reserved, held) = (self.running.len(), self.reserved.len(), self.held.len());
        let limited = self.limits.waiting();
        let hostname = self.finisher.hostname();
        warn!("{hostname}: {running} running, {reserved} reserved, {held} scheduled, {limited} limited");
        for work in self.reserved.iter() {
            warn!("reserved: {}[{}]", work.name, work.request.id);
        }
    }

    fn receive(&mut self, delivery: Delivery) {
        if self.stopping.is_some() {
            // Dropped unsettled, it goes back to the front of its queue.
            return;
        }
        if intake::is_heavy(&delivery) {
            return self.read_aside(delivery);
        }
        self.take_in(intake::read(delivery, &self.tasks, self.clock.now()));
    }

    /// Reads a message that takes long to read beside the loop, which awaits nothing slow.
    fn read_aside(&self, delivery: Delivery) {
        let (tasks, now, events) = (self.tasks.clone(), self.clock.now(), self.handle.events.clone());
        let (heavy, unsettled) = (Arc::clone(&self.heavy), self.unsettled.clone());
        tokio::spawn(async move {
            // The semaphore is never closed.
            let _turn = heavy.acquire().await;
            let read = tokio::task::spawn_blocking(move || intake::read(delivery, &tasks, now)).await;
            if let Ok(intake) = read {
                // A loop that has ended takes nothing more: the message goes back as it drops.
                let _ = events.send(Event::Read(Box::new(intake)));
            }
            drop(unsettled);
        });
    }

    pub(super) fn take_in(&mut self, intake: Intake) {
        match intake {
            Intake::Run(work) => self.accept(None, work),
            Intake::Hold(eta, work) => self.accept(Some(eta), work),
            Intake::Expired(work) => self.spawn(|finisher| async move {
                let mut work = work;
                Scope::of_headers(&work.request.headers).run(finisher.expire(&mut work)).await;
            }),
            Intake::HandBack(unknown) => self.hand_back(*unknown),
            Intake::Malformed(malformed) => {
                let headers = malformed.message.as_ref().map(|message| &message.headers);
                let scope = headers.map_or_else(|_| Scope::here(), Scope::of_headers);
                self.spawn(|finisher| scope.run(async move { finisher.refuse(*malformed).await }));
            }
        }
    }

    /// Holds the message for a while, and then gives it back; at once, and unchanged, when the worker stops.
    fn hand_back(&self, unknown: Unknown) {
        unknown.log();
        let (stop, delay) = (self.stop_consuming.clone(), unknown.delay(self.finisher.chance()));
        self.spawn(|_| async move {
            tokio::select! {
                () = stop.cancelled() => drop(unknown),
                () = sleep(delay) => unknown.hand_back(),
            }
        });
    }

    /// Whether another run may begin.
    pub(super) fn has_room(&self) -> bool {
        self.has_room_in(self.pool.size())
    }

    /// The same for a pool of that size.
    pub(super) fn has_room_in(&self, size: usize) -> bool {
        (0..self.pools.lanes()).any(|lane| self.running.len_in(lane) < self.pools.places(lane, size))
    }

    fn start_reserved(&mut self) {
        while self.has_room() {
            let Some((mut work, alone)) = self.next_work() else { return };
            // What was revoked since it came is met here at the latest.
            if let Some(reason) = self.reason(&work) {
                self.discard(work, reason);
                continue;
            }
            self.tasks.renew_limits(&mut work);
            self.begin(work, alone);
        }
    }

    /// Starts what will settle a message; the worker does not stop before it. What needs the backend but no handler
    /// takes no place in the pool.
    pub(super) fn spawn<F, W>(&self, work: W)
    where
        W: FnOnce(Arc<Finisher>) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        let (unsettled, work) = (self.unsettled.clone(), work(Arc::clone(&self.finisher)));
        // An async block would hold the work twice: once to be begun, and once begun.
        tokio::spawn(work.map(|()| drop(unsettled)));
    }

    /// Drops all that has not begun.
    fn drop_waiting(&mut self) {
        let waiting = self.not_begun();
        if waiting > 0 {
            info!("Restoring {waiting} unacknowledged message(s)");
        }
        drop(self.reserved.take());
        self.quarantine.iter_mut().for_each(Quarantine::clear);
        self.held.drain().for_each(drop);
        drop(self.limits.extract(|_| true));
    }

    /// Where a lost connection takes its deliveries along, the broker delivers them again: what has not begun is
    /// forgotten. What runs goes on, or is ended if that is wanted and it would be run again
    /// (celery/worker/consumer/consumer.py `Consumer.on_connection_error_after_connected`).
    fn disconnected(&mut self) {
        self.pulse.iter().for_each(|pulse| pulse.connected(false));
        self.finisher.witness.disconnected();
        let Lost::Deliveries { cancel } = self.lost else { return };
        self.drop_waiting();
        let orphans = self.running.iter().filter(|run| cancel && self.tasks.acks_late(&run.request.task));
        for run in orphans {
            warn!(
                "Task {}[{}] cannot be acknowledged after a connection loss since late acknowledgement is enabled for it. \
                 Terminating it instead.",
                run.request.task, run.request.id
            );
            run.orphan();
        }
    }

    pub(super) fn shut_down(&mut self, how: Shutdown) {
        if self.stopping.is_some_and(|stopping| stopping >= how) {
            return;
        }
        if self.stopping.replace(how).is_none() {
            self.finisher.witness.stopping(how == Shutdown::Cold);
        }
        self.pulse.iter().for_each(|pulse| pulse.stopping());
        self.stop_consuming.cancel();
        // What has not begun goes back to its queue at once, as each delivery drops.
        self.drop_waiting();
        self.unsettled = None;
        if how == Shutdown::Cold {
            if self.running.len() > 0 {
                warn!("Cold shutdown: ending {} running task(s)", self.running.len());
            }
            self.finisher.cold.begin();
        }
    }
}

/// Sleeps until that moment; without one, for ever.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Sleeps until `eta`, or a while towards it; without one, for ever.
async fn until(eta: Option<Timestamp>, clock: &Clock) {
    let Some(eta) = eta else { return std::future::pending().await };
    let wait = Duration::try_from(eta.duration_since(clock.now())).unwrap_or(Duration::ZERO);
    sleep(wait.min(LONGEST_SLEEP)).await;
}
