//! What was given to a child and has not begun: it is taken back when another child has nothing to do, when the child ends,
//! and when it is not to run.

use std::time::Duration;

use celeriac::task::CallEnd;

use super::super::job::{Job, News};
use super::{Child, Desk, State};

impl Desk {
    /// A child is to begin nothing more, and may be unable to: what it has not begun goes to others. Returns how long it may take to
    /// end.
    pub(in super::super) fn leaving(&self, index: u32) -> Duration {
        let mut state = self.state();
        state.retire_now(index);
        state.feed(&self.options);
        self.options.exit_timeout
    }
}

impl State {
    /// Has a child begin nothing more.
    pub(super) fn retire_now(&mut self, index: u32) {
        if let Some(child) = self.children.get_mut(&index) {
            child.is_retiring = true;
            let left = child.take_all_back();
            self.put_back(left);
        }
    }

    /// Gives calls that wait behind others to children that have nothing to do.
    pub(super) fn share(&mut self, limit: Option<u32>) {
        while self.waiting.is_empty() {
            let is_idle = |child: &Child| child.jobs.is_empty() && child.can_take(&self.pace);
            let Some(idle) = self.children.iter().find_map(|(index, child)| is_idle(child).then_some(*index)) else {
                break;
            };
            let mut busy = self.children.values_mut().filter(|child| child.jobs.len() > 1 && !child.jobs[1].is_fate);
            let Some(job) = busy.find_map(Child::take_back) else { break };
            if let Some(child) = self.children.get_mut(&idle) {
                child.give_run(job, limit);
            }
        }
    }

    pub(super) fn has_not_begun(&self, number: u64) -> bool {
        let mut given = self.children.values().flat_map(|child| &child.jobs);
        given.any(|job| job.number == number && job.began.is_none())
    }

    /// Has a call not begin that a child has; `false`: it has begun. Those before it are given anew.
    pub(super) fn retract(&mut self, number: u64) -> bool {
        let is_it = |job: &Job| job.number == number;
        let Some(child) = self.children.values_mut().find(|child| child.jobs.iter().any(is_it)) else { return false };
        let mut others = Vec::new();
        let found = loop {
            match child.take_back() {
                Some(job) if is_it(&job) => break Some(job),
                Some(job) => others.push(job),
                None => break None,
            }
        };
        self.put_back(others);
        found.is_some_and(|job| {
            job.tell(News::Ended(CallEnd::NotBegun));
            true
        })
    }

    /// Has a child begin nothing after the call of that number, until that has ended. `false`: it has something else already.
    pub(super) fn single_out(&mut self, index: u32, number: u64) -> bool {
        let Some(child) = self.children.get_mut(&index) else { return false };
        if child.jobs.front().is_none_or(|job| job.number != number) {
            return false;
        }
        let left = child.take_all_back();
        let is_alone = child.jobs.len() == 1;
        if let Some(job) = child.jobs.front_mut().filter(|_| is_alone) {
            (job.is_signalled, child.was_signalled) = (true, true);
        }
        self.put_back(left);
        is_alone
    }

    /// Calls that were taken back come before all that wait.
    fn put_back(&mut self, jobs: Vec<Job>) {
        for job in jobs.into_iter().rev() {
            if self.is_closing {
                job.tell(News::Ended(CallEnd::NotBegun));
            } else if job.is_fate {
                self.fates.put_back(job);
            } else {
                self.waiting.push_front(job);
            }
        }
    }
}

impl Child {
    fn take_all_back(&mut self) -> Vec<Job> {
        std::iter::from_fn(|| self.take_back()).collect()
    }

    /// Takes back the first call that it has not begun.
    fn take_back(&mut self) -> Option<Job> {
        let token = self.claims.take_back()?;
        let at = self.jobs.iter().position(|job| job.began.is_none() && job.token == token)?;
        self.jobs.remove(at)
    }
}
