//! What is done to a call that runs, or waits: it is limited, terminated, or wanted by nobody any more.

use std::sync::Arc;
use std::time::Duration;

use celeriac::task::{CallEnd, Order};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

use super::super::job::{Job, News};
use super::super::nursery::Ask;
use super::Desk;

/// How long a process has to end after it was asked to (billiard/pool.py `Pool._trywaitkill`).
const GRACE: Duration = Duration::from_millis(100);

impl Desk {
    /// Carries out what a call is told.
    pub(in super::super) fn obey(self: &Arc<Self>, number: u64, order: Order) {
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
        if state.has_not_begun(number) && order != Order::SoftLimit && state.retract(number) {
            return state.feed(&self.options);
        }
        let found = state.children.iter_mut().find_map(|(index, child)| {
            let job = child.jobs.iter_mut().find(|job| job.number == number)?;
            Some((*index, job))
        });
        let Some((index, job)) = found else { return };
        if job.began.is_none() {
            // It begins in this moment.
            job.doomed = Some(order);
            return;
        }
        if !self.options.has_processes {
            return job.outlive(order);
        }
        drop(state);
        self.carry_out(index, order);
    }

    /// Carries out what the call is told that a child has begun. A signal is for a process and not for a call, so nothing is
    /// to begin there until it has come: what could, goes to others.
    pub(super) fn carry_out(self: &Arc<Self>, index: u32, order: Order) {
        let mut state = self.state();
        let is_alone = state.single_out(index);
        state.feed(&self.options);
        drop(state);
        if !is_alone {
            // The call has ended, and the news of that is on its way.
            return;
        }
        match order {
            Order::SoftLimit => self.signal(index, Signal::USR1),
            Order::Signal(signal) => self.signal_number(index, signal),
            Order::Kill => self.end(index),
        }
    }

    /// Ends a child, and makes sure of it: one that goes on all the same begins nothing more until it is killed.
    pub(in super::super) fn end(self: &Arc<Self>, index: u32) {
        self.leaving(index);
        self.signal(index, Signal::TERM);
        let desk = Arc::clone(self);
        self.spawn(async move {
            sleep(GRACE).await;
            if desk.state().children.contains_key(&index) {
                desk.kill(index);
            }
        });
    }

    /// Ends a child that cannot be asked.
    pub(in super::super) fn kill(&self, index: u32) {
        self.signal(index, Signal::KILL);
    }

    pub(super) fn signal(&self, index: u32, signal: Signal) {
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
}

pub(super) fn kill(pid: u32, signal: i64) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let signal = i32::try_from(signal).ok().and_then(Signal::from_named_raw);
    if let (Some(pid), Some(signal)) = (pid, signal) {
        // A process that is gone needs no signal.
        let _ = kill_process(pid, signal);
    }
}
