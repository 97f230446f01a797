//! What begins next, and how the loop keeps apart what may have killed a worker: see [`super::poison`].

use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;

use super::consumer::Consumer;
use super::event::Event;
use super::inspect::Content;
use super::poison::{Alone, Judgement, Quarantine, Turn};
use super::request::Work;
use super::running::Start;

impl Consumer {
    /// What is to begin now; with it, that it is to be alone.
    pub(super) fn next_work(&mut self) -> Option<(Box<Work>, Option<Alone>)> {
        let Some(quarantine) = &mut self.quarantine else { return Some((self.pop()?, None)) };
        match quarantine.turn(self.running.len(), Instant::now()) {
            Turn::Closed => None,
            Turn::Alone(work, alone) => Some((work, Some(alone))),
            Turn::Open => self.pop_unsuspected(),
        }
    }

    /// What is to be looked up begins later.
    fn pop_unsuspected(&mut self) -> Option<(Box<Work>, Option<Alone>)> {
        loop {
            let work = self.pop()?;
            let work = match &mut self.quarantine {
                Some(quarantine) => quarantine.ask(work),
                None => Some(work),
            };
            if let Some(work) = work {
                return Some((work, None));
            }
        }
    }

    /// Of what is due and what is reserved in turn.
    fn pop(&mut self) -> Option<Box<Work>> {
        self.due_next = !self.due_next;
        let due = if self.due_next || self.reserved.is_empty() { self.pop_due() } else { None };
        due.or_else(|| {
            let (running, pools, size) = (&self.running, &self.pools, self.pool.size());
            self.reserved.pop(|lane| running.len_in(lane) < pools.places(lane, size))
        })
    }

    /// When something is to begin that is held; `None` if nothing is, or if nothing can begin before another event.
    pub(super) fn next_eta(&self) -> Option<Timestamp> {
        let is_closed = self.quarantine.as_ref().is_some_and(Quarantine::is_closed);
        let can_begin = self.has_room_in(self.pool.most()) && !is_closed;
        self.held.next_eta().filter(|_| can_begin)
    }

    /// Begins to run it, and counts that if it is to be counted.
    pub(super) fn begin(&mut self, mut work: Box<Work>, alone: Option<Alone>) {
        let lane = self.reserved.placed(&mut work);
        let credit = if self.disable_prefetch { work.take_credit() } else { None };
        let is_late = work.task.policy.acks_late;
        if is_late {
            self.patient.begin(Instant::now());
        }
        let at = self.clock.now();
        // What expired while it was held is met in the pool, and does not run there.
        if !work.is_expired(at) {
            self.about.count(&work.name);
        }
        let (request, content) = (Arc::clone(&work.request), Content::of(&work.message));
        let slot = self.running.begin(Start { request, content, lane, at, is_late }, credit);
        match &self.quarantine {
            Some(quarantine) if work.record.is_some() => {
                let poison = quarantine.poison.clone();
                self.spawn(|finisher| poison.run(finisher, work, slot, alone));
            }
            _ => {
                work.hand_over(self.clock.now());
                self.spawn(|finisher| finisher.run(work, slot));
            }
        }
    }

    /// Looks up, in one go, all that waits for it.
    pub(super) fn look_up(&mut self) {
        let Some(quarantine) = &mut self.quarantine else { return };
        let (asked, poison) = (quarantine.asked(), quarantine.poison.clone());
        if asked.is_empty() {
            return;
        }
        let events = self.handle.events.clone();
        self.spawn(|_| async move {
            // The loop is gone only when the worker is; then the messages go back.
            let _ = events.send(Event::Judged(poison.look_up(asked).await));
        });
    }

    pub(super) fn judged(&mut self, judged: Vec<(Box<Work>, Judgement)>) {
        let Some(quarantine) = self.quarantine.as_mut().filter(|_| self.stopping.is_none()) else { return };
        let (mut innocent, mut guilty) = (Vec::new(), Vec::new());
        for (work, judgement) in judged.into_iter().filter(|(work, _)| !work.is_lost()) {
            match judgement {
                Judgement::Innocent => innocent.push(work),
                Judgement::Suspect => quarantine.admit(work),
                Judgement::Guilty => guilty.push((work, quarantine.poison.clone())),
            }
        }
        innocent.into_iter().rev().for_each(|work| self.reserved.push_front(work));
        for (work, poison) in guilty {
            self.spawn(|finisher| poison.condemn(finisher, work));
        }
    }

    /// A suspect is no longer alone.
    pub(super) fn left(&mut self) {
        self.quarantine.iter_mut().for_each(Quarantine::leave);
    }

    /// When a suspect may begin though others run.
    pub(super) fn next_suspect(&self) -> Option<Instant> {
        let has_room = self.has_room_in(self.pool.most());
        self.quarantine.as_ref().filter(|_| has_room)?.opens()
    }
}
