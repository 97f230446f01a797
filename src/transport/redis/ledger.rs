//! [`Ledger`]: what this transport holds, and what is still to be settled. It outlives every connection.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use crate::transport::{Settlement, Settler, Tag};

/// How long to wait for more messages that go back.
const GATHER: Duration = Duration::from_millis(1);
/// How often a reservation without an answer is looked for: at once, with the next connection, and after a while.
const LOOKS: u8 = 3;

/// The account of reserved messages: each is held from its reservation until Redis has accepted its settlement.
#[derive(Debug)]
pub(super) struct Ledger {
    /// What our tags begin with; no other transport's do.
    prefix: String,
    state: Mutex<State>,
    /// Told when there is something to settle.
    work: Notify,
    /// Told when there may be nothing left to settle.
    idle: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the next tag.
    next: u64,
    /// What is leased.
    held: HashSet<u64, ahash::RandomState>,
    pending: Vec<(Tag, Settlement)>,
    /// A message is to be restored: those that were dropped with it are about to follow, and only together do they
    /// keep their order.
    giving_back: bool,
    /// Tags of reservations whose answer never came, and how often more to look for them: Redis may have made them or
    /// not, and a server that stalled may still make them after we have looked over another connection.
    doubts: Vec<(Range<u64>, u8)>,
    /// Messages that were popped and whose registration failed.
    unregistered: Vec<(Tag, Vec<u8>)>,
    /// How many batches are being written.
    writing: usize,
    /// How many ask to hold settlements back for a moment, so that what belongs together is written together.
    pauses: usize,
}

impl Ledger {
    pub(super) fn new(prefix: String) -> Self {
        Ledger { prefix, state: Mutex::default(), work: Notify::new(), idle: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What our tags begin with.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The field of a tag in `unacked`, and its member of the index. Of one length, so that Redis orders equal scores by
    /// number; and of more than 64 bytes, from which on it keeps even a short index as a tree: in its compact form
    /// (`zset-max-listpack-value`) each insertion reads all scores before it.
    pub(super) fn field(&self, tag: Tag) -> String {
        format!("{}{:024}", self.prefix, tag.0)
    }

    /// The tag of one of our fields.
    fn tag(&self, field: &str) -> Option<Tag> {
        field.strip_prefix(&self.prefix)?.parse().ok().map(Tag)
    }

    /// Whether a field is that of a message that we hold.
    pub(super) fn holds(&self, field: &str) -> bool {
        self.tag(field).is_some_and(|tag| self.state().held.contains(&tag.0))
    }

    /// The fields of everything that we hold.
    pub(super) fn held(&self) -> Vec<Tag> {
        self.state().held.iter().copied().map(Tag).collect()
    }

    /// Tags for up to `count` messages that are about to be reserved.
    pub(super) fn begin(self: &Arc<Self>, count: usize) -> Reservation {
        let mut state = self.state();
        let first = state.next;
        state.next += count as u64;
        Reservation { ledger: Arc::clone(self), tags: first..state.next }
    }

    /// Keeps a message that was popped and could not be registered, for the next connection.
    pub(super) fn keep_unregistered(&self, tag: Tag, value: Vec<u8>) {
        self.state().unregistered.push((tag, value));
    }

    pub(super) fn take_unregistered(&self) -> Vec<(Tag, Vec<u8>)> {
        std::mem::take(&mut self.state().unregistered)
    }

    /// Gives back, once more, what reservations without an answer may have taken.
    pub(super) fn resolve_doubts(&self) {
        let mut state = self.state();
        for (tags, looks) in std::mem::take(&mut state.doubts) {
            state.doubt(tags, looks);
        }
        drop(state);
        self.work.notify_one();
    }

    /// Settlements wait until the guard drops.
    pub(super) fn pause(self: &Arc<Self>) -> Pause {
        self.state().pauses += 1;
        Pause(Arc::clone(self))
    }

    /// Waits until there is something to settle, and takes up to `most` of it.
    pub(super) async fn take(self: &Arc<Self>, most: usize) -> Batch {
        loop {
            if self.is_giving_back() {
                sleep(GATHER).await;
            }
            if let Some(batch) = self.try_take(most) {
                return batch;
            }
            self.work.notified().await;
        }
    }

    /// Whether messages are on their way back to their queues.
    fn is_giving_back(&self) -> bool {
        let mut state = self.state();
        state.pauses == 0 && std::mem::take(&mut state.giving_back)
    }

    /// What is to be settled now, if anything is.
    pub(super) fn try_take(self: &Arc<Self>, most: usize) -> Option<Batch> {
        let mut state = self.state();
        if state.pauses > 0 || state.pending.is_empty() {
            return None;
        }
        let rest = if state.pending.len() > most { state.pending.split_off(most) } else { Vec::new() };
        let settlements = std::mem::replace(&mut state.pending, rest);
        state.writing += 1;
        if !state.pending.is_empty() {
            self.work.notify_one();
        }
        Some(Batch { ledger: Arc::clone(self), settlements })
    }

    /// Waits until everything is settled.
    pub(super) async fn settled(&self) {
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            idle.as_mut().enable();
            {
                let state = self.state();
                if state.pending.is_empty() && state.writing == 0 {
                    return;
                }
            }
            idle.await;
        }
    }

    /// Whether something is still to be settled.
    pub(super) fn is_settled(&self) -> bool {
        let state = self.state();
        state.pending.is_empty() && state.writing == 0
    }
}

impl State {
    /// Restores those of the tags that Redis has; to be done again unless this is the last of the `looks`.
    fn doubt(&mut self, tags: Range<u64>, looks: u8) {
        self.pending.extend(tags.clone().map(|tag| (Tag(tag), Settlement::Restore)));
        if looks > 1 {
            self.doubts.push((tags, looks - 1));
        }
    }
}

impl Settler for Ledger {
    fn settle(&self, tag: Tag, settlement: Settlement) {
        let mut state = self.state();
        state.giving_back |= settlement == Settlement::Restore;
        state.pending.push((tag, settlement));
        drop(state);
        self.work.notify_one();
    }
}

/// Tags of messages that are being reserved. Dropped without an answer, they are in doubt.
#[derive(Debug)]
pub(super) struct Reservation {
    ledger: Arc<Ledger>,
    tags: Range<u64>,
}

impl Reservation {
    /// The number of the first tag.
    pub(super) fn first(&self) -> u64 {
        self.tags.start
    }

    /// Redis has reserved the first `taken`, and no more.
    pub(super) fn confirm(mut self, taken: usize) {
        let taken = self.tags.start..self.tags.end.min(self.tags.start + taken as u64);
        self.tags = 0..0;
        self.ledger.state().held.extend(taken);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.tags.is_empty() {
            self.ledger.state().doubt(self.tags.clone(), LOOKS);
            self.ledger.work.notify_one();
        }
    }
}

/// Settlements that are being written. Dropped before they are done, they are settled later, over another connection.
#[derive(Debug)]
pub(super) struct Batch {
    ledger: Arc<Ledger>,
    settlements: Vec<(Tag, Settlement)>,
}

impl Batch {
    pub(super) fn settlements(&self) -> &[(Tag, Settlement)] {
        &self.settlements
    }

    /// Redis has accepted all of them.
    pub(super) fn done(mut self) {
        let settled = std::mem::take(&mut self.settlements);
        let mut state = self.ledger.state();
        for (tag, _) in &settled {
            state.held.remove(&tag.0);
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let mut state = self.ledger.state();
        let later = std::mem::take(&mut state.pending);
        state.pending = std::mem::take(&mut self.settlements);
        state.pending.extend(later);
        state.writing -= 1;
        drop(state);
        self.ledger.work.notify_one();
        self.ledger.idle.notify_waiters();
    }
}

/// See [`Ledger::pause`].
#[derive(Debug)]
pub(super) struct Pause(Arc<Ledger>);

impl Drop for Pause {
    fn drop(&mut self) {
        self.0.state().pauses -= 1;
        self.0.work.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Arc<Ledger> {
        Arc::new(Ledger::new("p-".into()))
    }

    #[test]
    fn a_message_is_held_until_its_settlement_is_written() {
        let ledger = ledger();
        ledger.begin(5).confirm(2);
        let field = |number| ledger.field(Tag(number));
        assert!(ledger.holds(&field(1)) && !ledger.holds(&field(2)) && !ledger.holds(&field(1).replace("p-", "x-")));
        ledger.settle(Tag(1), Settlement::Ack);
        let batch = ledger.try_take(10).unwrap();
        assert!(ledger.holds(&field(1)) && !ledger.is_settled());
        batch.done();
        assert!(!ledger.holds(&field(1)) && ledger.is_settled());
    }

    #[test]
    fn what_was_not_written_comes_first_the_next_time() {
        let ledger = ledger();
        ledger.settle(Tag(1), Settlement::Ack);
        let lost = ledger.try_take(10).unwrap();
        ledger.settle(Tag(2), Settlement::Reject);
        drop(lost);
        let batch = ledger.try_take(1).unwrap();
        assert_eq!(batch.settlements(), [(Tag(1), Settlement::Ack)]);
        assert_eq!(ledger.try_take(9).unwrap().settlements(), [(Tag(2), Settlement::Reject)]);
    }

    #[test]
    fn reservations_without_an_answer_are_looked_for_three_times() {
        let ledger = ledger();
        drop(ledger.begin(2));
        ledger.begin(1).confirm(0);
        for (nth, expected) in [2, 2, 2, 0].into_iter().enumerate() {
            if nth > 0 {
                ledger.resolve_doubts();
            }
            let batch = ledger.try_take(10);
            assert_eq!(batch.as_ref().map_or(0, |batch| batch.settlements().len()), expected);
            batch.into_iter().for_each(Batch::done);
        }
    }

    #[test]
    fn a_pause_holds_settlements_back() {
        let ledger = ledger();
        let pause = ledger.pause();
        ledger.settle(Tag(1), Settlement::Restore);
        assert!(ledger.try_take(10).is_none());
        drop(pause);
        assert!(ledger.try_take(10).is_some());
    }
}
