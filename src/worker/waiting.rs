//! What waits within the worker: for its turn, because its name has a rate limit, or for a slot; and what is done about it
//! when some of it is revoked.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::warn;

use super::consumer::Consumer;
use super::intake::Intake;
use super::poison::Quarantine;
use super::request::Work;
use super::revoked::Reason;
use super::state_file::{Remembered, StateFile};
use crate::control::Rate;
use crate::trace::Scope;

/// How much of what is due is decoded at a time, if none of it can begin: the loop has other things to do.
const THAWS: usize = 500;

impl Consumer {
    pub(super) fn accept(&mut self, eta: Option<Timestamp>, mut work: Box<Work>) {
        self.streak.came(self.reserved.lane(&work) == 0);
        match (self.reason(&work), eta) {
            (Some(reason), _) => self.discard(work, reason),
            (None, eta) => {
                self.finisher.witness.received(&mut work);
                match eta {
                    Some(eta) => self.hold(eta, *work),
                    None => self.reserve(work),
                }
            }
        }
    }

    fn hold(&mut self, eta: Timestamp, work: Work) {
        let now = self.clock.now();
        let Some(work) = self.parking.park(work, eta, now) else { return };
        self.patient.hold(&work, eta, now);
        let id = self.freezer.hash(&work.request.id);
        if let Some(frozen) = self.freezer.freeze(work, self.prefetch.grow()) {
            self.held.hold(eta, id, frozen);
        }
    }

    /// What has been held and is due, ready to begin. Each is decoded when there is room for it, and not before.
    pub(super) fn pop_due(&mut self) -> Option<Box<Work>> {
        if self.held.len() == 0 {
            return None;
        }
        let now = self.clock.now();
        for _ in 0..THAWS {
            match self.freezer.thaw(self.held.due(now)?, &self.tasks) {
                Intake::Run(work) => {
                    let Some(work) = self.admit(work) else { continue };
                    let lane = self.reserved.lane(&work);
                    if self.running.len_in(lane) < self.pools.places(lane, self.pool.size()) {
                        return Some(work);
                    }
                    // Something else that is due may find its place, in another lane.
                    self.reserved.push_back(work);
                }
                other => self.take_in(other),
            }
        }
        None
    }

    /// Why a task is not to run, if it was revoked.
    pub(super) fn reason(&self, work: &Work) -> Option<Reason> {
        if self.revoked.is_empty() {
            return None;
        }
        self.revoked.reason(&work.request.id, &work.request.headers)
    }

    pub(super) fn discard(&self, mut work: Box<Work>, reason: Reason) {
        let scope = Scope::of_headers(&work.request.headers);
        self.spawn(|finisher| scope.run(async move { finisher.discard(&mut work, &reason).await }));
    }

    /// What waits for a place, for its turn, or to be alone.
    pub(super) fn works(&self) -> impl Iterator<Item = &Work> {
        let limited = self.limits.iter().map(|(work, _)| work);
        let suspects = self.quarantine.iter().flat_map(Quarantine::iter);
        self.reserved.iter().chain(limited.chain(suspects).map(|work| &**work))
    }

    /// Those of the ids by which something waits.
    pub(super) fn waiting<'a>(&self, ids: &HashSet<&'a str>) -> HashSet<&'a str> {
        let named = |work: &Work| ids.get(work.request.id.as_str()).copied();
        let held = ids.iter().copied().filter(|id| self.held.contains(self.freezer.hash(id)));
        self.works().filter_map(named).chain(held).collect()
    }

    /// Discards all that waits and was revoked.
    fn discard_revoked(&mut self) {
        let is_revoked = |work: &Work| self.revoked.reason(&work.request.id, &work.request.headers).is_some();
        let (discarded, kept): (Vec<_>, Vec<_>) = self.reserved.take().into_iter().partition(|work| is_revoked(work));
        self.reserved.extend(kept);
        let limited = self.limits.extract(|(work, _)| is_revoked(work)).into_iter().map(|(work, _)| work);
        let mut discarded: Vec<_> = discarded.into_iter().chain(limited).collect();
        self.extract_revoked(&mut discarded);
        for work in discarded {
            if let Some(reason) = self.reason(&work) {
                self.discard(work, reason);
            }
        }
    }

    /// What is held and was revoked. Only those are decoded of which the id's hash, or a stamp, says that they may be.
    fn extract_revoked(&mut self, revoked: &mut impl Extend<Box<Work>>) {
        let ids = self.revoked.ids().map(|id| self.freezer.hash(id));
        let ids: HashSet<u64> = ids.filter(|id| self.held.contains(*id)).collect();
        let any_stamp = self.revoked.has_stamps();
        if ids.is_empty() && !any_stamp {
            return;
        }
        for (eta, frozen) in self.held.extract(|id, frozen| ids.contains(&id) || any_stamp && frozen.is_stamped()) {
            match self.freezer.thaw(frozen, &self.tasks) {
                Intake::Run(work) if self.reason(&work).is_some() => revoked.extend([work]),
                Intake::Run(work) => self.hold(eta, *work),
                other => self.take_in(other),
            }
        }
    }

    /// Lets a task wait for a slot, after it has waited for its turn if its name has a rate limit.
    pub(super) fn reserve(&mut self, work: Box<Work>) {
        let admitted = self.admit(work);
        self.reserved.extend(admitted);
    }

    /// Gives back what need not wait for its turn.
    fn admit(&mut self, work: Box<Work>) -> Option<Box<Work>> {
        if self.limits.may_start(&work.request.task, Instant::now()) {
            return Some(work);
        }
        let task = Arc::clone(&work.request);
        let growth = self.prefetch.grow_beside();
        self.limits.hold(&task.task, (work, growth));
        None
    }

    pub(super) fn set_rate_limit(&mut self, task_name: &str, rate: Option<Rate>) {
        if !self.disable_rate_limits {
            let freed = self.limits.set(task_name, rate, Instant::now());
            self.reserved.extend(freed.into_iter().map(|(work, _)| work));
        }
    }

    pub(super) fn next_chore(&self) -> Option<Instant> {
        [self.limits.next(), self.chores.next(), self.patient.next()].into_iter().flatten().min()
    }

    pub(super) fn do_chores(&mut self) {
        if self.next_chore().is_none() {
            return;
        }
        let now = Instant::now();
        while let Some((work, _growth)) = self.limits.due(now) {
            self.reserved.push_back(work);
        }
        self.patient.look(&mut self.running, now);
        if self.chores.discard.is_due(now) {
            self.discard_revoked();
        }
        if self.chores.remember.is_due(now) {
            self.remember_aside(now);
        }
    }

    /// Writes the state file on a thread that may block: one write at a time, so that what is written last is what was
    /// remembered last.
    fn remember_aside(&mut self, now: Instant) {
        if self.writing.as_ref().is_some_and(|writing| !writing.is_finished()) {
            return self.chores.remember.soon(now);
        }
        if let Some((file, remembered)) = self.remembered() {
            let write = move || drop(file.write(&remembered).inspect_err(|error| warn!("cannot {error}")));
            self.writing = Some(tokio::task::spawn_blocking(write));
        }
    }

    /// Writes the state file for the last time, after the write that is under way.
    pub(super) async fn remember(&mut self) {
        if let Some(writing) = self.writing.take() {
            // What it has to say it has said in the log.
            let _ = writing.await;
        }
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
