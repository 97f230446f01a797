//! [`Ledger`]: what this transport holds, and what is still to be settled. It outlives every connection.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use crate::transport::until::until;
use crate::transport::{Settlement, Settler, Tag};

/// How long to wait for more messages that go back, and how often at most while more do come.
const GATHER: Duration = Duration::from_millis(1);
const GATHERINGS: usize = 100;
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
    /// How often Redis has taken a part of what is to be settled.
    progress: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the next tag.
    next: u64,
    /// What is leased.
    held: HashSet<u64, ahash::RandomState>,
    /// What is to be settled, but for what goes back.
    pending: VecDeque<(Tag, Settlement)>,
    /// What goes back to the front of its queue: the last is pushed first, so that the first is consumed first.
    returning: BTreeSet<Tag>,
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
        Ledger {
            prefix,
            state: Mutex::default(),
            work: Notify::new(),
            idle: Notify::new(),
            progress: AtomicU64::new(0),
        }
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

    /// Waits until there is something to settle, and takes up to `most` of what is done and of what goes back.
    pub(super) async fn take(self: &Arc<Self>, most: usize) -> Batch {
        loop {
            for _ in 0..GATHERINGS {
                if !self.is_giving_back() {
                    break;
                }
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
        if state.pauses > 0 || !state.has_work() {
            return None;
        }
        let settlements = state.next(most);
        state.writing += 1;
        if state.has_work() {
            self.work.notify_one();
        }
        Some(Batch { ledger: Arc::clone(self), settlements })
    }

    /// Waits until everything is settled.
    pub(super) async fn settled(&self) {
        until(&self.idle, || self.is_settled()).await;
    }

    /// Whether nothing is still to be settled.
    pub(super) fn is_settled(&self) -> bool {
        let state = self.state();
        !state.has_work() && state.writing == 0
    }

    /// Redis has taken a part of what is being written.
    pub(super) fn progressed(&self) {
        self.progress.fetch_add(1, Ordering::AcqRel);
    }

    /// A number that changes when Redis takes settlements.
    pub(super) fn progress(&self) -> u64 {
        self.progress.load(Ordering::Acquire)
    }
}

impl State {
    fn has_work(&self) -> bool {
        !self.pending.is_empty() || !self.returning.is_empty()
    }

    fn add(&mut self, tag: Tag, settlement: Settlement) {
        match settlement {
            Settlement::Restore => drop(self.returning.insert(tag)),
            settlement => self.pending.push_back((tag, settlement)),
        }
    }

    /// Takes up to `most` of what is done, and up to as many of what goes back.
    fn next(&mut self, most: usize) -> Vec<(Tag, Settlement)> {
        let mut settlements = match self.pending.len() <= most {
            true => Vec::from(std::mem::take(&mut self.pending)),
            false => self.pending.drain(..most).collect(),
        };
        let returning = std::iter::from_fn(|| self.returning.pop_last()).take(most);
        settlements.extend(returning.map(|tag| (tag, Settlement::Restore)));
        settlements
    }

    /// Puts back what was not written: it comes first the next time.
    fn put_back(&mut self, settlements: Vec<(Tag, Settlement)>) {
        let later = std::mem::take(&mut self.pending);
        settlements.into_iter().for_each(|(tag, settlement)| self.add(tag, settlement));
        self.pending.extend(later);
    }

    /// Restores those of the tags that Redis has; to be done again unless this is the last of the `looks`.
    fn doubt(&mut self, tags: Range<u64>, looks: u8) {
        self.returning.extend(tags.clone().map(Tag));
        if looks > 1 {
            self.doubts.push((tags, looks - 1));
        }
    }
}

impl Settler for Ledger {
    fn settle(&self, tag: Tag, settlement: Settlement) {
        let mut state = self.state();
        state.giving_back |= settlement == Settlement::Restore;
        state.add(tag, settlement);
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
        state.put_back(std::mem::take(&mut self.settlements));
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
    fn what_goes_back_is_taken_from_the_end_and_starves_nobody() {
        let ledger = ledger();
        for tag in 0..5 {
            ledger.settle(Tag(tag), Settlement::Restore);
            ledger.settle(Tag(tag + 10), Settlement::Ack);
        }
        let taken = |batch: &Batch| batch.settlements().iter().map(|(tag, _)| tag.0).collect::<Vec<_>>();
        let lost = ledger.try_take(2).unwrap();
        assert_eq!(taken(&lost), [10, 11, 4, 3]);
        drop(lost);
        for expected in [[10, 11, 4, 3].as_slice(), &[12, 13, 2, 1], &[14, 0]] {
            let batch = ledger.try_take(2).unwrap();
            assert_eq!(taken(&batch), expected);
            batch.done();
        }
        assert!(ledger.is_settled());
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
