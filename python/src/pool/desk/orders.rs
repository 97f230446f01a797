//! What is done to a call that runs, or waits: it is limited, terminated, or wanted by nobody any more.

use std::sync::Arc;
use std::time::Duration;

use celeriac::task::{CallEnd, Order};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

use super::super::job::{Job, News};
use super::super::nursery::Ask;
use super::{Desk, State};

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
        self.carry_out(index, number, order);
    }

    /// Carries out what the call of that number is told, which a child has begun. A signal is for a process and not for a call,
    /// so nothing is to begin there until it is known to have come: what could, goes to others, and nothing more is given to it
    /// meanwhile, though the call may end. All of this is one step, so that the call is still the one that the child has.
    pub(super) fn carry_out(self: &Arc<Self>, index: u32, number: u64, order: Order) {
        let mut state = self.state();
        // Otherwise the call has ended, or the news of that is on its way.
        if state.single_out(index, number) {
            match order {
                Order::SoftLimit => self.send(&mut state, index, Signal::USR1.as_raw().into()),
                Order::Signal(signal) => self.send(&mut state, index, signal),
                Order::Kill => self.end_in(&mut state, index),
            }
        }
        state.feed(&self.options);
    }

    /// Ends a child, and makes sure of it: one that goes on all the same begins nothing more until it is killed.
    pub(in super::super) fn end(self: &Arc<Self>, index: u32) {
        let mut state = self.state();
        self.end_in(&mut state, index);
        state.feed(&self.options);
    }

    fn end_in(self: &Arc<Self>, state: &mut State, index: u32) {
        state.retire_now(index);
        self.send(state, index, Signal::TERM.as_raw().into());
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
        self.send(&mut self.state(), index, signal.as_raw().into());
    }

    /// Has a child sent a signal, which comes later: the nursery says when ([`Desk::delivered`]).
    fn send(&self, state: &mut State, index: u32, signal: i64) {
        let is_stuck = state.is_stuck;
        let Some(child) = state.children.get_mut(&index) else { return };
        if is_stuck {
            // While the nursery does not wait for its children, their process ids are theirs: none is given to another.
            return kill(child.pid, signal);
        }
        child.on_their_way += 1;
        self.ask_over(Some(child.nursery.clone()), Ask::Signal { index, signal });
    }

    /// A signal has come to a child, which may be given calls again: it looks at signals before anything that it is told
    /// after them.
    pub(in super::super) fn delivered(&self, index: u32) {
        let mut state = self.state();
        if let Some(child) = state.children.get_mut(&index) {
            child.on_their_way = child.on_their_way.saturating_sub(1);
        }
        state.feed(&self.options);
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
