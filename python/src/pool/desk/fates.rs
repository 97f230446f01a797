//! [`Fates`]: what has become of tasks, and which child carries it out.
//!
//! It waits for no task: where no child is free or about to be, one more is forked for it, a clerk, which ends when there
//! is nothing left to carry out.

use std::collections::VecDeque;
use std::sync::Arc;

use celeriac::task::CallEnd;

use super::super::job::{Job, News};
use super::{Child, DEEPEST, Desk, State};

/// What is to be carried out, in the order in which it came.
#[derive(Debug, Default)]
pub(super) struct Fates {
    waiting: VecDeque<Job>,
    /// Nobody forks any more.
    is_closed: bool,
}

impl Fates {
    /// The child that had it has ended before it began.
    pub(super) fn put_back(&mut self, job: Job) {
        self.waiting.push_front(job);
    }

    /// Forgets what nobody waits for any more; whether it was here.
    pub(super) fn forget(&mut self, number: u64) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|job| job.number != number);
        self.waiting.len() < before
    }

    /// Gives up what waits, and whatever comes from now on.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
        self.waiting.drain(..).for_each(|job| job.tell(News::Ended(CallEnd::NotBegun)));
    }
}

impl Desk {
    pub(super) fn enqueue_fate(self: &Arc<Self>, job: Job) {
        let mut state = self.state();
        state.fates.waiting.push_back(job);
        if state.fates.is_closed {
            return state.fates.close();
        }
        drop(state);
        self.see_to_fates();
    }

    /// Has somebody carry out what waits.
    pub(super) fn see_to_fates(self: &Arc<Self>) {
        let mut state = self.state();
        state.give_fates();
        let needs_clerk = !state.is_closing && !state.fates.waiting.is_empty() && !state.has_hands();
        drop(state);
        if needs_clerk {
            self.bear(true);
        }
    }
}

impl State {
    /// Gives what is to be carried out to those who have nothing to do, and sends the clerk home when that is all.
    pub(super) fn give_fates(&mut self) {
        while !self.fates.waiting.is_empty() {
            let Some(child) = self.children.values_mut().find(|child| child.can_take_fate()) else { break };
            let Some(job) = self.fates.waiting.pop_front() else { break };
            child.give(job);
        }
        for clerk in self.children.values_mut().filter(|child| child.is_clerk && child.is_ready) {
            clerk.is_retiring |= clerk.jobs.is_empty();
        }
        self.dismiss();
    }

    /// Whether a child comes, or carries out something already, so that what waits need not wait long.
    fn has_hands(&self) -> bool {
        let is_at_it = |child: &Child| child.jobs.front().is_some_and(|job| job.is_fate);
        self.children.values().any(|child| !child.is_retiring && (!child.is_ready || is_at_it(child)))
    }
}

impl Child {
    fn can_take_fate(&self) -> bool {
        let deepest = if self.is_clerk { DEEPEST } else { 1 };
        let may_begin = self.is_ready && !self.is_retiring && self.on_their_way == 0;
        may_begin && self.jobs.len() < deepest && self.jobs.iter().all(|job| !job.is_signalled)
    }
}
