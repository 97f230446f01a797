//! [`Desk`]: which child gets which call, and what becomes of calls whose child is gone.

mod fates;
mod lines;
mod lives;
mod orders;
mod sharing;

use std::collections::{BTreeMap, VecDeque};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use celeriac::task::CallEnd;
use rustix::process::Signal;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;

use self::fates::Fates;
use self::lines::Line;
use self::orders::kill;
use super::child::Gone;
use super::job::{Answer, Job, News};
use super::nursery::{self, Ask};
use super::pace::Pace;
use crate::claims::Claims;
use crate::frame::{self, FromChild};

/// How many calls a child has at most, the one that it runs among them.
const DEEPEST: usize = 4;
/// How many calls there are for each child while all are short: those that it has, and as many that it has ended and
/// whose results are on their way.
const DEPTH: usize = 2 * DEEPEST;
/// After so many short tasks more are expected.
const ENOUGH: u32 = 16;
/// How long the pool waits for its children when it stops.
const PARTING: Duration = Duration::from_secs(5);

/// What a pool is told when it is made.
#[derive(Debug, Clone)]
pub struct PreforkOptions {
    /// The children are processes of their own, and not threads of this one, which nobody can end.
    pub has_processes: bool,
    /// After so many tasks a child is replaced.
    pub max_tasks_per_child: Option<u32>,
    /// A child that is not ready after so long is killed, and replaced.
    pub alive_timeout: Duration,
    /// A child that has hung up and has not ended after so long is killed, and replaced.
    pub exit_timeout: Duration,
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
            exit_timeout: PARTING,
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
    /// Its place in the pool, from 0 on: the lowest that was free (billiard/pool.py `Pool._avail_index`).
    place: u64,
    is_ready: bool,
    /// It is to end when its calls have.
    is_retiring: bool,
    /// It was told to.
    is_dismissed: bool,
    /// It is there for what becomes of tasks, and runs none.
    is_clerk: bool,
    /// So many signals have been asked for and are not known to have come. Nothing is given to it meanwhile: they might come to
    /// that.
    on_their_way: u32,
    /// It was ever sent one because of a call.
    was_signalled: bool,
    /// In the order in which it runs them.
    jobs: VecDeque<Job>,
    /// How many it was ever given.
    given: u32,
    outbox: mpsc::UnboundedSender<Bytes>,
    /// Who may have what was given to it and has not begun.
    claims: Claims,
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

    /// Whether the children can be ended.
    pub(super) fn has_processes(&self) -> bool {
        self.options.has_processes
    }

    /// How often the nursery is asked whether it is there.
    pub(super) fn ping_every(&self) -> Duration {
        self.options.ping_every
    }

    /// Begins nothing more; whether that was so before.
    fn close(&self) -> bool {
        let mut state = self.state();
        state.waiting.drain(..).for_each(|job| job.tell(News::Ended(CallEnd::NotBegun)));
        state.fates.close();
        std::mem::replace(&mut state.is_closing, true)
    }

    /// What a child says.
    pub(super) fn told(self: &Arc<Self>, index: u32, frame: FromChild) {
        let mut state = self.state();
        let State { children, pace, short, .. } = &mut *state;
        let Some(child) = children.get_mut(&index) else { return };
        match frame {
            FromChild::Ready { pid } => (child.pid, child.is_ready) = (pid, true),
            FromChild::Reading | FromChild::Accepted => {
                let pid = child.pid;
                let Some(job) = child.jobs.front_mut() else { return };
                if frame == FromChild::Reading {
                    job.read();
                } else {
                    job.accept(pid);
                }
                let (number, doomed) = (job.number, job.doomed.take());
                match doomed {
                    Some(order) if self.options.has_processes => {
                        drop(state);
                        self.carry_out(index, number, order);
                    }
                    Some(order) => job.outlive(order),
                    None => {}
                }
                return;
            }
            FromChild::Store { meta, asks } => {
                let answer = asks.map(|number| Answer::to(number, child.outbox.clone()));
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

impl State {
    /// Gives what waits to those who can take it.
    fn feed(&mut self, options: &PreforkOptions) {
        let limit = options.max_tasks_per_child;
        self.give_fates();
        while !self.waiting.is_empty() {
            let free = self.children.values_mut().filter(|child| child.can_take(&self.pace));
            let Some(child) = free.min_by_key(|child| child.jobs.len()) else { break };
            let Some(job) = self.waiting.pop_front() else { break };
            child.give_run(job, limit);
        }
        self.share(limit);
        self.dismiss();
    }
}

impl Child {
    /// Gives it a call to run.
    fn give_run(&mut self, job: Job, limit: Option<u32>) {
        self.given += 1;
        self.is_retiring |= limit.is_some_and(|limit| self.given >= limit);
        self.give(job);
    }

    fn give(&mut self, mut job: Job) {
        job.token = self.claims.offer();
        self.say(job.frame.clone());
        self.jobs.push_back(job);
    }

    /// A child that is free; or one whose calls are short, so that what is given to it now begins soon.
    fn can_take(&self, pace: &Pace) -> bool {
        self.is_ready
            && !self.is_retiring
            && !self.is_clerk
            && self.on_their_way == 0
            && self.jobs.len() < DEEPEST
            && self.jobs.iter().all(|job| !job.is_fate && pace.is_short(&job.task) && !job.stays_alone())
    }

    fn say(&self, frame: Bytes) {
        // A child that is gone is buried soon, and its calls are looked after then.
        let _ = self.outbox.send(frame);
    }
}
