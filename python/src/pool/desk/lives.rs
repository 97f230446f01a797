//! The lives of children: they are forked until there are enough, come up, are told to end where there are too many, and
//! what they had goes to others when they are gone.

use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use celeriac::task::CallEnd;
use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::{error, info};

use super::super::child::{self, Gone};
use super::super::job::News;
use super::super::nursery::Ask;
use super::{Child, Desk, State};
use crate::claims::Claims;
use crate::frame;

/// A call before whose beginning so many processes have died, one after the other, is what kills them.
const FATAL: u8 = 2;
/// How long it waits before it has a child replaced that did not come up.
const PAUSE: Duration = Duration::from_secs(1);
/// What a child exits with that has run its tasks, or needs too much memory (billiard/pool.py `EX_RECYCLE`).
const RECYCLED: &str = "exitcode 155";

impl Desk {
    /// Has children forked until there are enough.
    pub(super) fn fill(self: &Arc<Self>) {
        let missing = {
            let state = self.state();
            let running = state.children.values().filter(|child| !child.is_clerk).count();
            if state.is_closing { 0 } else { state.size.saturating_sub(running) }
        };
        // Where there is no socket for one there is none for the next: one try later is enough for all.
        let _ = (0..missing).all(|_| self.bear(false));
    }

    fn fill_later(self: &Arc<Self>) {
        let desk = Arc::clone(self);
        self.spawn(async move {
            sleep(PAUSE).await;
            desk.fill();
            desk.see_to_fates();
        });
    }

    /// Has a child forked, or tries again in a moment; says which.
    pub(super) fn bear(self: &Arc<Self>, is_clerk: bool) -> bool {
        let lines = UnixStream::pair().and_then(|pair| Ok((pair, Claims::new()?)));
        let ((ours, theirs), (claims, their_claims)) = match lines {
            Ok(lines) => lines,
            Err(error) => {
                error!("no socket for a child: {error}; it is tried again in a moment");
                self.fill_later();
                return false;
            }
        };
        let mut state = self.state();
        state.born += 1;
        let (index, (outbox, outgoing)) = (state.born, mpsc::unbounded_channel());
        let (gone, place) = (Gone::default(), state.free_place());
        let nursery = self.line_to_nursery().clone();
        let child = Child {
            nursery: nursery.clone(),
            pid: 0,
            place,
            is_ready: false,
            is_retiring: false,
            is_dismissed: false,
            is_clerk,
            on_their_way: 0,
            was_signalled: false,
            jobs: VecDeque::new(),
            given: 0,
            outbox,
            claims,
            gone: gone.clone(),
        };
        state.children.insert(index, child);
        drop(state);
        self.ask_over(Some(nursery), Ask::Fork { index, place, line: theirs.into(), claims: their_claims });
        let desk = Arc::clone(self);
        self.spawn(async move { child::serve(desk, index, ours, outgoing, gone).await });
        true
    }

    /// The nursery has forked a child, which is to be ready soon
    /// (celery/concurrency/asynpool.py `AsynPool.register_with_event_loop`, `verify_process_alive`).
    pub(in super::super) fn forked(self: &Arc<Self>, index: u32, pid: u32) {
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
    pub(in super::super) fn exited(&self, index: u32, how: &str) {
        if let Some(child) = self.state().children.get(&index) {
            child.gone.tell(how.to_owned());
        }
    }

    /// A child is gone, and all that it said has been heard.
    pub(in super::super) fn bury(self: &Arc<Self>, index: u32, how: &str) {
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
        // One that was sent a signal has not died of what it had not begun.
        if !is_expected
            && !child.was_signalled
            && let Some(job) = child.jobs.front_mut()
        {
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
}

impl State {
    /// Chooses who ends, where there are too many.
    pub(super) fn retire(&mut self) {
        let staying = self.children.values_mut().filter(|child| !child.is_retiring && !child.is_clerk);
        let mut staying: Vec<&mut Child> = staying.collect();
        staying.sort_by_key(|child| child.jobs.len());
        let surplus = staying.len().saturating_sub(self.size);
        staying.into_iter().take(surplus).for_each(|child| child.is_retiring = true);
        self.dismiss();
    }

    /// Tells those to end that are to, and have nothing left to do.
    pub(super) fn dismiss(&mut self) {
        let idle = |child: &&mut Child| child.is_retiring && !child.is_dismissed && child.jobs.is_empty();
        for child in self.children.values_mut().filter(idle) {
            child.is_dismissed = true;
            child.say(frame::quit().into());
        }
    }

    /// The lowest place that nobody has.
    fn free_place(&self) -> u64 {
        let is_free = |place: &u64| self.children.values().all(|child| child.place != *place);
        (0..).find(is_free).unwrap_or_default()
    }
}
