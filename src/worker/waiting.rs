//! What waits within the worker: for its turn, because its name has a rate limit, or for a slot; and what is done about it
//! when some of it is revoked.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::warn;

use super::consumer::Consumer;
use super::request::Work;
use super::revoked::Reason;
use super::state_file::{Remembered, StateFile};
use crate::control::Rate;

impl Consumer {
    pub(super) fn accept(&mut self, eta: Option<Timestamp>, work: Box<Work>) {
        match (self.reason(&work), eta) {
            (Some(reason), _) => self.discard(work, reason),
            (None, Some(eta)) => self.held.hold(eta, (work, self.prefetch.grow())),
            (None, None) => self.reserve(work),
        }
    }

    /// Why a task is not to run, if it was revoked.
    pub(super) fn reason(&self, work: &Work) -> Option<Reason> {
        if self.revoked.is_empty() {
            return None;
        }
        self.revoked.reason(&work.request.id, &work.request.headers)
    }

    pub(super) fn discard(&self, mut work: Box<Work>, reason: Reason) {
        self.spawn(|finisher| async move { finisher.discard(&mut work, &reason).await });
    }

    /// Discards all that waits and was revoked, and tells which that was.
    pub(super) fn discard_revoked(&mut self) -> Vec<String> {
        self.chores.discard.done(Instant::now());
        let is_revoked = |work: &Work| self.revoked.reason(&work.request.id, &work.request.headers).is_some();
        let (discarded, kept): (Vec<_>, Vec<_>) = self.reserved.drain(..).partition(|work| is_revoked(work));
        self.reserved = kept.into();
        let held = self.held.extract(|(work, _)| is_revoked(work)).into_iter().map(|(work, _)| work);
        let limited = self.limits.extract(|(work, _)| is_revoked(work)).into_iter().map(|(work, _)| work);
        let discarded: Vec<_> = discarded.into_iter().chain(held).chain(limited).collect();
        let ids = discarded.iter().map(|work| work.request.id.clone()).collect();
        for work in discarded {
            if let Some(reason) = self.reason(&work) {
                self.discard(work, reason);
            }
        }
        ids
    }

    /// Lets a task wait for a slot, after it has waited for its turn if its name has a rate limit.
    pub(super) fn reserve(&mut self, work: Box<Work>) {
        if self.limits.may_start(&work.request.task, Instant::now()) {
            self.reserved.push_back(work);
            return;
        }
        let task = Arc::clone(&work.request);
        let growth = self.prefetch.grow_beside();
        self.limits.hold(&task.task, (work, growth));
    }

    pub(super) fn set_rate_limit(&mut self, task_name: &str, rate: Option<Rate>) {
        if !self.disable_rate_limits {
            let freed = self.limits.set(task_name, rate, Instant::now());
            self.reserved.extend(freed.into_iter().map(|(work, _)| work));
        }
    }

    pub(super) fn next_chore(&self) -> Option<Instant> {
        [self.limits.next(), self.chores.next()].into_iter().flatten().min()
    }

    pub(super) fn do_chores(&mut self) {
        if self.next_chore().is_none() {
            return;
        }
        let now = Instant::now();
        while let Some((work, _growth)) = self.limits.due(now) {
            self.reserved.push_back(work);
        }
        if self.chores.discard.is_due(now) {
            self.discard_revoked();
        }
        if self.chores.remember.is_due(now) {
            self.remember_aside();
        }
    }

    /// Writes the state file on a thread that may block. Two writes of one worker are a second apart, and each replaces
    /// the file as a whole.
    pub(super) fn remember_aside(&mut self) {
        if let Some((file, remembered)) = self.remembered() {
            tokio::task::spawn_blocking(move || file.write(&remembered).inspect_err(|error| warn!("cannot {error}")));
        }
    }

    /// Writes the state file for the last time.
    pub(super) fn remember(&mut self) {
        if let Some((file, remembered)) = self.remembered()
            && let Err(error) = file.write(&remembered)
        {
            warn!("cannot {error}");
        }
    }

    pub(super) fn remembered(&mut self) -> Option<(StateFile, Remembered)> {
        let file = self.state_file.clone()?;
        let (revoked, stamps) = self.revoked.remembered(Instant::now());
        Some((file, Remembered { revoked, stamps, clock: self.remote.clock.value() }))
    }
}
