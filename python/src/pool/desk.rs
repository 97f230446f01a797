//! [`Desk`]: which child gets which call, and what becomes of calls whose child is gone.

mod fates;
mod lines;

use std::collections::{BTreeMap, VecDeque};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use celeriac::task::{CallEnd, Order};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::{error, info};

use self::fates::Fates;
use self::lines::Line;
use super::child::{self, Gone};
use super::job::{Job, News};
use super::nursery::{self, Ask};
use super::pace::Pace;
use crate::frame::{self, FromChild};

/// How many calls a child has at most, the one that it runs among them.
const DEEPEST: usize = 4;
/// How many calls there are for each child while all are short: those that it has, and as many that it has ended and
/// whose results are on their way.
const DEPTH: usize = 2 * DEEPEST;
/// A call before whose beginning so many processes have died, one after the other, is what kills them.
const FATAL: u8 = 2;
/// After so many short tasks more are expected.
const ENOUGH: u32 = 16;
/// How long a process has to end after it was asked to (billiard/pool.py `Pool._trywaitkill`).
const GRACE: Duration = Duration::from_millis(100);
/// How long the pool waits for its children when it stops.
const PARTING: Duration = Duration::from_secs(5);
/// How long it waits before it has a child replaced that did not come up.
const PAUSE: Duration = Duration::from_secs(1);

/// What a child exits with that has run its tasks, or needs too much memory (billiard/pool.py `EX_RECYCLE`).
const RECYCLED: &str = "exitcode 155";

/// What a pool is told when it is made.
#[derive(Debug, Clone)]
pub struct PreforkOptions {
    /// The children are processes of their own, and not threads of this one, which nobody can end.
    pub has_processes: bool,
    /// After so many tasks a child is replaced.
    pub max_tasks_per_child: Option<u32>,
    /// A child that is not ready after so long is killed, and replaced.
    pub alive_timeout: Duration,
    /// The process that forks the others, if it is a child of this one and is not waited for before the pool has stopped.
    pub nursery: Option<i32>,
    /// How often it is asked whether it is there; five questions without an answer are too many.
    pub ping_every: Duration,
}

impl Default for PreforkOptions {
    fn default() -> Self {
        PreforkOptions {
            has_processes: true,
            max_tasks_per_child: None,
            alive_timeout: Duration::from_secs(4),
            nursery: None,
            ping_every: Duration::from_secs(2),
        }
    }
}

/// Hands calls to children.
#[derive(Debug)]
pub(super) struct Desk {
    options: PreforkOptions,
    state: Mutex<State>,
    /// Who forks now.
    nursery: Mutex<Line>,
    /// The other end, until the pool is started.
    begin: Mutex<Option<(UnixStream, mpsc::UnboundedReceiver<Ask>)>>,
    /// A child is gone.
    left: Notify,
    /// Why nothing can be run any more.
    failed: watch::Sender<Option<String>>,
    runtime: OnceLock<tokio::runtime::Handle>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Job>,
    fates: Fates,
    children: BTreeMap<u32, Child>,
    /// How many children there are to be.
    size: usize,
    /// How many children there ever were.
    born: u32,
    pace: Pace,
    /// So many short tasks have ended, one after the other.
    short: u32,
    /// Nothing more begins.
    is_closing: bool,
    /// The nursery does not answer.
    is_stuck: bool,
}

/// A process, as far as the desk knows.
#[derive(Debug)]
struct Child {
    pid: u32,
    is_ready: bool,
    /// It is to end when its calls have.
    is_retiring: bool,
    /// It was told to.
    is_dismissed: bool,
    /// It is there for what becomes of tasks, and runs none.
    is_clerk: bool,
    /// In the order in which it runs them.
    jobs: VecDeque<Job>,
    /// How many it was ever given.
    given: u32,
    outbox: mpsc::UnboundedSender<Bytes>,
    gone: Gone,
    /// To who has forked it.
    nursery: Line,
}

impl Desk {
    pub(super) fn new(nursery: UnixStream, options: PreforkOptions) -> Arc<Self> {
        let (asks, asked) = mpsc::unbounded_channel();
        let line = Line { generation: 0, asks, process: options.nursery };
        Arc::new(Desk {
            options,
            state: Mutex::default(),
            nursery: Mutex::new(line),
            begin: Mutex::new(Some((nursery, asked))),
            left: Notify::new(),
            failed: watch::Sender::new(None),
            runtime: OnceLock::new(),
        })
    }

    /// Asks for the children; once is enough.
    pub(super) fn start(self: &Arc<Self>, size: usize) {
        let begin = self.begin.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((nursery, asked)) = begin else { return };
        // A pool is started once, so this is its runtime.
        let _ = self.runtime.set(tokio::runtime::Handle::current());
        tokio::spawn(nursery::serve(Arc::clone(self), 0, nursery, asked));
        self.resize(size);
    }

    /// Has as many children as that, in time: of those that are too many the idle ones end first.
    pub(super) fn resize(self: &Arc<Self>, size: usize) {
        let mut state = self.state();
        state.size = size;
        state.retire();
        drop(state);
        self.fill();
    }

    /// Has children forked until there are enough.
    fn fill(self: &Arc<Self>) {
        let missing = {
            let state = self.state();
            let running = state.children.values().filter(|child| !child.is_clerk).count();
            if state.is_closing { 0 } else { state.size.saturating_sub(running) }
        };
        // Where there is no socket for one there is none for the next: one try later is enough for all.
        let _ = (0..missing).all(|_| self.bear(false));
    }

    /// How many calls find a place: as many as there are children, and more while all are short.
    pub(super) fn places(&self) -> usize {
        let state = self.state();
        let mut busy = state.children.values().flat_map(|child| &child.jobs).chain(&state.waiting);
        let are_short = state.short >= ENOUGH && busy.all(|job| state.pace.is_short(&job.task));
        state.size * if are_short { DEPTH } else { 1 }
    }

    pub(super) fn enqueue(self: &Arc<Self>, job: Job) {
        let mut state = self.state();
        if state.is_closing {
            return job.tell(News::Ended(CallEnd::NotBegun));
        }
        if job.is_fate {
            drop(state);
            return self.enqueue_fate(job);
        }
        state.waiting.push_back(job);
        state.feed(&self.options);
    }

    /// Carries out what a call is told.
    pub(super) fn obey(self: &Arc<Self>, number: u64, order: Order) {
        let mut state = self.state();
        let is_it = |job: &Job| job.number == number;
        if state.fates.forget(number) {
            return;
        }
        if let Some(at) = state.waiting.iter().position(is_it) {
            if order != Order::SoftLimit
                && let Some(job) = state.waiting.remove(at)
            {
                job.tell(News::Ended(CallEnd::NotBegun));
            }
            return;
        }
        let found = state.children.iter_mut().find_map(|(index, child)| {
            let job = child.jobs.iter_mut().find(|job| job.number == number)?;
            Some((*index, job))
        });
        let Some((index, job)) = found else { return };
        if job.began.is_none() {
            job.doomed = Some(order);
            return;
        }
        if !self.options.has_processes {
            return job.outlive(order);
        }
        drop(state);
        self.carry_out(index, order);
    }

    fn carry_out(self: &Arc<Self>, index: u32, order: Order) {
        match order {
            Order::SoftLimit => self.signal(index, Signal::USR1),
            Order::Signal(signal) => self.signal_number(index, signal),
            Order::Kill => self.end(index),
        }
    }

    fn signal(&self, index: u32, signal: Signal) {
        self.signal_number(index, signal.as_raw().into());
    }

    fn signal_number(&self, index: u32, signal: i64) {
        let state = self.state();
        // While the nursery does not wait for its children, their process ids are theirs: none is given to another.
        let child = state.children.get(&index).filter(|_| state.is_stuck);
        match child.map(|child| child.pid) {
            Some(pid) => kill(pid, signal),
            None => {
                let line = state.children.get(&index).map(|child| child.nursery.clone());
                drop(state);
                self.ask_over(line, Ask::Signal { index, signal });
            }
        }
    }

    /// Ends a child, and makes sure of it.
    pub(super) fn end(self: &Arc<Self>, index: u32) {
        self.signal(index, Signal::TERM);
        let desk = Arc::clone(self);
        self.spawn(async move {
            sleep(GRACE).await;
            if desk.state().children.contains_key(&index) {
                desk.signal(index, Signal::KILL);
            }
        });
    }

    /// Has a child forked, or tries again in a moment; says which.
    fn bear(self: &Arc<Self>, is_clerk: bool) -> bool {
        let (ours, theirs) = match UnixStream::pair() {
            Ok(pair) => pair,
            Err(error) => {
                error!("no socket for a child: {error}; it is tried again in a moment");
                self.fill_later();
                return false;
            }
        };
        let mut state = self.state();
        state.born += 1;
        let (index, (outbox, outgoing)) = (state.born, mpsc::unbounded_channel());
        let gone = Gone::default();
        let nursery = self.line_to_nursery().clone();
        let child = Child {
            nursery: nursery.clone(),
            pid: 0,
            is_ready: false,
            is_retiring: false,
            is_dismissed: false,
            is_clerk,
            jobs: VecDeque::new(),
            given: 0,
            outbox,
            gone: gone.clone(),
        };
        state.children.insert(index, child);
        drop(state);
        self.ask_over(Some(nursery), Ask::Fork { index, socket: theirs.into() });
        let desk = Arc::clone(self);
        self.spawn(async move { child::serve(desk, index, ours, outgoing, gone).await });
        true
    }

    /// The nursery has forked a child, which is to be ready soon
    /// (celery/concurrency/asynpool.py `AsynPool.register_with_event_loop`, `verify_process_alive`).
    pub(super) fn forked(self: &Arc<Self>, index: u32, pid: u32) {
        if let Some(child) = self.state().children.get_mut(&index) {
            child.pid = pid;
        }
        let desk = Arc::clone(self);
        self.spawn(async move {
            sleep(desk.options.alive_timeout).await;
            if desk.state().children.get(&index).is_some_and(|child| !child.is_ready) {
                error!("Timed out waiting for UP message from <ForkProcess(ForkPoolWorker-{index}, started daemon)>");
                desk.signal(index, Signal::KILL);
            }
        });
    }

    /// The nursery says how a child has ended.
    pub(super) fn exited(&self, index: u32, how: &str) {
        if let Some(child) = self.state().children.get(&index) {
            child.gone.tell(how.to_owned());
        }
    }

    /// Whether the children can be ended.
    pub(super) fn has_processes(&self) -> bool {
        self.options.has_processes
    }

    /// How often the nursery is asked whether it is there.
    pub(super) fn ping_every(&self) -> Duration {
        self.options.ping_every
    }

    /// A nursery is gone, and its children with it: they are killed when it dies.
    pub(super) fn orphaned(self: &Arc<Self>, generation: u32) {
        let is_last = self.is_last(generation);
        let was_closing = !is_last || self.close();
        let state = self.state();
        let children = state.children.values().filter(|child| child.nursery.generation == generation);
        children.for_each(|child| child.gone.tell("signal 9 (SIGKILL)".to_owned()));
        drop(state);
        if was_closing {
            return;
        }
        error!("the process that forks the others is gone, and those that it has forked");
        let desk = Arc::clone(self);
        self.spawn(async move {
            // What ran is lost, and known to be, before anything else is said.
            let _ = timeout(PARTING, desk.all_left()).await;
            desk.fail("the process that forks the others is gone");
        });
    }

    /// A nursery has not answered for so long. Its children go on: what runs may end. One that was replaced is not needed.
    pub(super) fn stuck(&self, generation: u32, waited: Duration) {
        if !self.is_last(generation) {
            return;
        }
        self.state().is_stuck = true;
        if !self.close() {
            error!("the process that forks the others has not answered for {} s", waited.as_secs_f64());
            self.fail("the process that forks the others does not answer");
        }
    }

    /// Begins nothing more; whether that was so before.
    fn close(&self) -> bool {
        let mut state = self.state();
        state.waiting.drain(..).for_each(|job| job.tell(News::Ended(CallEnd::NotBegun)));
        state.fates.close();
        std::mem::replace(&mut state.is_closing, true)
    }

    fn fail(&self, why: &str) {
        self.failed.send_if_modified(|known| known.is_none() && known.replace(why.to_owned()).is_none());
    }

    /// Resolves when nothing can be run any more.
    pub(super) async fn failed(&self) -> String {
        let mut told = self.failed.subscribe();
        // The sender is `self`, so that the channel is not closed while this waits.
        let known = told.wait_for(Option::is_some).await;
        known.ok().and_then(|why| why.clone()).unwrap_or_default()
    }

    /// What a child says.
    pub(super) fn told(self: &Arc<Self>, index: u32, frame: FromChild) {
        let mut state = self.state();
        let State { children, pace, short, .. } = &mut *state;
        let Some(child) = children.get_mut(&index) else { return };
        match frame {
            FromChild::Ready { pid } => (child.pid, child.is_ready) = (pid, true),
            FromChild::Accepted => {
                let pid = child.pid;
                let Some(job) = child.jobs.front_mut() else { return };
                job.began = Some(Instant::now());
                job.tell(News::Accepted { pid });
                let doomed = job.doomed;
                drop(state);
                if let Some(order) = doomed.filter(|_| self.options.has_processes) {
                    self.carry_out(index, order);
                }
                return;
            }
            FromChild::Store { meta, waits } => {
                let answer = waits.then(|| child.outbox.clone());
                if let Some(job) = child.jobs.front() {
                    job.tell(News::Store { meta, answer });
                }
                return;
            }
            FromChild::Ended(end) => {
                let Some(job) = child.jobs.pop_front() else { return };
                if let Some(began) = job.began.filter(|_| !job.is_fate) {
                    pace.note(&job.task, began.elapsed());
                    *short = if pace.is_short(&job.task) { short.saturating_add(1) } else { 0 };
                }
                job.tell(News::Ended(end));
            }
        }
        state.feed(&self.options);
    }

    /// A child is gone, and all that it said has been heard.
    pub(super) fn bury(self: &Arc<Self>, index: u32, how: &str) {
        let mut state = self.state();
        let Some(mut child) = state.children.remove(&index) else { return };
        let lost = child.jobs.front().is_some_and(|job| job.began.is_some());
        let is_expected = !lost && (matches!(how, "exitcode 0" | RECYCLED) || state.is_closing);
        if !is_expected {
            error!("Process 'ForkPoolWorker-{index}' pid:{} exited with '{how}'", child.pid);
        }
        if lost && let Some(job) = child.jobs.pop_front() {
            job.tell(News::Ended(CallEnd::Lost(format!("{how} Job: {}", job.number))));
        }
        if !is_expected && let Some(job) = child.jobs.front_mut() {
            job.deaths += 1;
        }
        while let Some(job) = child.jobs.pop_back() {
            if job.deaths >= FATAL {
                // It is acknowledged as what a run has that kills its process: it would kill the next one, too.
                job.tell(News::Accepted { pid: child.pid });
                job.tell(News::Ended(CallEnd::Lost(format!("{how} Job: {}", job.number))));
            } else if job.doomed.is_some() || state.is_closing {
                job.tell(News::Ended(CallEnd::NotBegun));
            } else if job.is_fate {
                state.fates.put_back(job);
            } else {
                state.waiting.push_front(job);
            }
        }
        let is_closing = state.is_closing;
        state.feed(&self.options);
        drop(state);
        self.left.notify_waiters();
        if child.is_ready || child.is_dismissed || is_closing {
            self.fill();
            return self.see_to_fates();
        }
        info!("the process ended before it was ready; another one is started in a moment");
        self.fill_later();
    }

    fn fill_later(self: &Arc<Self>) {
        let desk = Arc::clone(self);
        self.spawn(async move {
            sleep(PAUSE).await;
            desk.fill();
            desk.see_to_fates();
        });
    }

    /// Ends all children, and waits for that.
    pub(super) async fn stop(self: &Arc<Self>) {
        self.close();
        {
            let state = self.state();
            state.children.values().for_each(|child| child.say(frame::quit().into()));
            if state.is_stuck
                && let Some(nursery) = self.line_to_nursery().process
            {
                kill(nursery.unsigned_abs(), Signal::KILL.as_raw().into());
            }
        }
        if timeout(PARTING, self.all_left()).await.is_err() {
            let indexes: Vec<u32> = self.state().children.keys().copied().collect();
            indexes.into_iter().for_each(|index| self.signal(index, Signal::KILL));
            // A process that SIGKILL does not end is waited for by nobody.
            let _ = timeout(PARTING, self.all_left()).await;
        }
        self.ask(Ask::Close);
    }

    async fn all_left(&self) {
        loop {
            let left = self.left.notified();
            if self.state().children.values().all(|child| self.is_left_behind(child)) {
                return;
            }
            left.await;
        }
    }

    /// A thread that runs something is waited for by nobody once the worker ends.
    fn is_left_behind(&self, child: &Child) -> bool {
        !self.options.has_processes && child.jobs.front().is_some_and(|job| job.began.is_some())
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = self.runtime.get() {
            runtime.spawn(work);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn kill(pid: u32, signal: i64) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let signal = i32::try_from(signal).ok().and_then(Signal::from_named_raw);
    if let (Some(pid), Some(signal)) = (pid, signal) {
        // A process that is gone needs no signal.
        let _ = kill_process(pid, signal);
    }
}

impl State {
    /// Gives what waits to those who can take it.
    fn feed(&mut self, options: &PreforkOptions) {
        let limit = options.max_tasks_per_child;
        self.give_fates();
        while !self.waiting.is_empty() {
            let free = self.children.values_mut().filter(|child| child.can_take(&self.pace));
            let Some(child) = free.min_by_key(|child| child.jobs.len()) else { break };
            let Some(job) = self.waiting.pop_front() else { break };
            child.say(job.frame.clone());
            child.given += 1;
            child.is_retiring |= limit.is_some_and(|limit| child.given >= limit);
            child.jobs.push_back(job);
        }
        self.dismiss();
    }

    /// Chooses who ends, where there are too many.
    fn retire(&mut self) {
        let staying = self.children.values_mut().filter(|child| !child.is_retiring && !child.is_clerk);
        let mut staying: Vec<&mut Child> = staying.collect();
        staying.sort_by_key(|child| child.jobs.len());
        let surplus = staying.len().saturating_sub(self.size);
        staying.into_iter().take(surplus).for_each(|child| child.is_retiring = true);
        self.dismiss();
    }

    /// Tells those to end that are to, and have nothing left to do.
    fn dismiss(&mut self) {
        let idle = |child: &&mut Child| child.is_retiring && !child.is_dismissed && child.jobs.is_empty();
        for child in self.children.values_mut().filter(idle) {
            child.is_dismissed = true;
            child.say(frame::quit().into());
        }
    }
}

impl Child {
    /// A child that is free; or one whose calls are short, so that what is given to it now begins soon.
    fn can_take(&self, pace: &Pace) -> bool {
        self.is_ready
            && !self.is_retiring
            && !self.is_clerk
            && self.jobs.len() < DEEPEST
            && self.jobs.iter().all(|job| !job.is_fate && pace.is_short(&job.task))
    }

    fn say(&self, frame: Bytes) {
        // A child that is gone is buried soon, and its calls are looked after then.
        let _ = self.outbox.send(frame);
    }
}
