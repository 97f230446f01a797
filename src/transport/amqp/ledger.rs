//! [`Ledger`]: what came over one channel, and what is still to be settled on it.
//!
//! A tag is a number of one channel, and means nothing on another; so each channel has a ledger of its own, and what is
//! settled in the ledger of a channel that is gone is never told to anybody: the broker has given the message back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::transport::until::until;
use crate::transport::{Publication, Refused, Settlement, Settler, Tag};

/// How long acknowledgements may gather while more than they are is still under way. Processes that work side by side finish
/// out of order: an acknowledgement for each costs the server more than handing out the message does, and a little later one
/// says it for many.
const GATHERS: Duration = Duration::from_millis(1);
/// After how many that go at once it is tried again whether more gather, at most. What is under way may be messages that are
/// held for long, while those who work wait for ours to be told.
const AT_ONCE: u32 = 64;

/// The account of one channel: each delivery is owed from its arrival until the broker was told what became of it.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    state: Mutex<State>,
    /// Told when there is something to settle.
    work: Notify,
    /// Told when there may be nothing left to settle.
    idle: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The highest tag that was seen.
    highest: u64,
    /// Lower ones that were not: other consumers' deliveries that are still on their way to us.
    unseen: BTreeSet<u64>,
    /// What the broker was not told of, and whose consumer is still owed for it.
    owed: BTreeMap<u64, Option<u32>>,
    /// How many deliveries each consumer is owed for, by its number.
    counts: Vec<usize>,
    pending: Vec<(Tag, Settlement)>,
    /// How many batches are being written, and how many dead letters published.
    writing: usize,
    /// How many wait for the broker to be told everything.
    hurrying: usize,
    /// How many more go at once, since nothing had gathered.
    at_once: u32,
    /// How many went at once the last time.
    in_vain: u32,
    /// The channel is gone.
    closed: bool,
}

/// What the broker is told.
#[derive(Debug, PartialEq)]
pub(super) enum Frame {
    Ack {
        tag: u64,
        multiple: bool,
    },
    /// Back to its queue, or away.
    Nack {
        tag: u64,
        requeue: bool,
    },
    /// To be published, and acknowledged when the broker has accepted it; `refused`: who is told that it has not, and
    /// has the message given back.
    Letter {
        tag: u64,
        letter: Box<Publication>,
        refused: Option<Refused>,
    },
}

impl Ledger {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for another consumer of the channel.
    pub(super) fn consumer(&self) -> u32 {
        let mut state = self.state();
        state.counts.push(0);
        u32::try_from(state.counts.len() - 1).unwrap_or(u32::MAX)
    }

    /// Deliveries of a consumer have arrived.
    pub(super) fn receive(&self, consumer: u32, tags: impl Iterator<Item = u64>) {
        let mut state = self.state();
        for tag in tags {
            state.receive(consumer, tag);
        }
    }

    /// How many deliveries of a consumer are not settled.
    pub(super) fn owed(&self, consumer: u32) -> usize {
        self.state().counts.get(consumer as usize).copied().unwrap_or(0)
    }

    /// Whether nothing that came over the channel is out any more, and the channel is there.
    pub(super) fn owes_nothing(&self) -> bool {
        let state = self.state();
        !state.closed && state.owed.is_empty() && state.pending.is_empty() && state.writing == 0
    }

    /// Waits until there is something to settle that need not wait for more, and takes all of it, as frames in the order in
    /// which they are to be sent.
    pub(super) async fn take(&self) -> Vec<Frame> {
        loop {
            while self.state().pending.is_empty() {
                self.work.notified().await;
            }
            if self.state().is_worth_waiting() {
                let before = self.state().pending.len();
                let gathered = tokio::time::timeout(GATHERS, until(&self.work, || self.state().is_due())).await;
                self.state().waited(before, gathered.is_err());
            }
            let frames = self.try_take();
            if !frames.is_empty() {
                return frames;
            }
        }
    }

    fn try_take(&self) -> Vec<Frame> {
        let mut state = self.state();
        let frames = state.plan();
        if !frames.is_empty() {
            let letters = frames.iter().filter(|frame| matches!(frame, Frame::Letter { .. })).count();
            state.writing += 1 + letters;
        }
        frames
    }

    /// The frames were written, but for the letters.
    pub(super) fn written(&self) {
        self.finish(|_| {});
    }

    /// What becomes of a message now that its letter was published, or refused; nothing: it stays as it is.
    pub(super) fn published(&self, tag: u64, settlement: Option<Settlement>) {
        self.finish(|state| state.pending.extend(settlement.map(|settlement| (Tag(tag), settlement))));
        self.work.notify_one();
    }

    /// A letter that was refused is about to be published once more; `false`: there is nothing to put it in the place of.
    pub(super) fn publishes_again(&self, tag: u64) -> bool {
        let mut state = self.state();
        let is_owed = !state.closed && state.owed.contains_key(&tag);
        state.writing += usize::from(is_owed);
        is_owed
    }

    fn finish(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        state.writing = state.writing.saturating_sub(1);
        drop(state);
        self.idle.notify_waiters();
    }

    /// Waits until the broker was told everything.
    pub(super) async fn settled(&self) {
        let _hurry = Hurry::new(self);
        until(&self.idle, || self.is_settled()).await;
    }

    fn is_settled(&self) -> bool {
        let state = self.state();
        state.closed || (state.pending.is_empty() && state.writing == 0)
    }

    /// The channel is gone; what is settled from now on cannot be told.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        let untold = std::mem::take(&mut state.pending);
        drop(state);
        untold.into_iter().for_each(|(tag, settlement)| untellable(tag, &settlement));
        self.idle.notify_waiters();
    }
}

impl Settler for Ledger {
    fn settle(&self, tag: Tag, settlement: Settlement) {
        let mut state = self.state();
        if state.closed {
            drop(state);
            return untellable(tag, &settlement);
        }
        // Until what takes its place is accepted, the message is owed.
        if !matches!(settlement, Settlement::DeadLetter(_) | Settlement::Park(..)) {
            state.release(tag.0);
        }
        state.pending.push((tag, settlement));
        // Who gathers looks again when it is time.
        let is_told = state.pending.len() == 1 || state.is_due();
        drop(state);
        if is_told {
            self.work.notify_one();
        }
    }

    fn is_lost(&self) -> bool {
        self.state().closed
    }
}

/// While it is there, nothing gathers.
struct Hurry<'a>(&'a Ledger);

impl<'a> Hurry<'a> {
    fn new(ledger: &'a Ledger) -> Self {
        ledger.state().hurrying += 1;
        ledger.work.notify_one();
        Hurry(ledger)
    }
}

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        self.0.state().hurrying -= 1;
    }
}

/// Kombu says so too (kombu/message.py `Message.ack_log_error`).
fn untellable(tag: Tag, settlement: &Settlement) {
    if *settlement != Settlement::Restore {
        tracing::debug!("couldn't ack {}: its connection is lost, and the broker delivers it again", tag.0);
    }
}

impl State {
    fn receive(&mut self, consumer: u32, tag: u64) {
        if tag > self.highest {
            self.unseen.extend(self.highest + 1..tag);
            self.highest = tag;
        } else if !self.unseen.remove(&tag) {
            return;
        }
        self.owed.insert(tag, Some(consumer));
        if let Some(count) = self.counts.get_mut(consumer as usize) {
            *count += 1;
        }
    }

    /// Whether the broker is to be told now: somebody waits for that, a message goes elsewhere, or what is still under way is
    /// too little to keep those busy who work while more gathers.
    fn is_due(&self) -> bool {
        let under_way = self.owed.len().saturating_sub(self.pending.len());
        self.hurrying > 0
            || self.pending.len() >= under_way
            || self.pending.last().is_some_and(|(_, settlement)| *settlement != Settlement::Ack)
    }

    /// Whether more is likely to gather.
    fn is_worth_waiting(&mut self) -> bool {
        let is_worth = self.at_once == 0;
        self.at_once = self.at_once.saturating_sub(1);
        is_worth
    }

    /// It was waited for more than there was before, for the whole time or until it was due.
    fn waited(&mut self, before: usize, whole: bool) {
        if self.pending.len() > before {
            self.in_vain = 0;
        } else if whole {
            self.in_vain = (self.in_vain * 2).clamp(1, AT_ONCE);
            self.at_once = self.in_vain;
        }
    }

    /// Its consumer is no longer owed for it.
    fn release(&mut self, tag: u64) {
        if let Some(consumer) = self.owed.get_mut(&tag).and_then(Option::take)
            && let Some(count) = self.counts.get_mut(consumer as usize)
        {
            *count -= 1;
        }
    }

    /// The broker is about to be told; `false`: it was, and must not be told twice.
    fn tell(&mut self, tag: u64) -> bool {
        self.release(tag);
        self.owed.remove(&tag).is_some()
    }

    /// What is pending, as frames. Those that are not acknowledged come first, so that an acknowledgement of many that
    /// goes beyond them does not mean them.
    fn plan(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        let mut acked = Vec::with_capacity(self.pending.len());
        for (Tag(tag), settlement) in std::mem::take(&mut self.pending) {
            let is_owed = match settlement {
                Settlement::DeadLetter(_) | Settlement::Park(..) => self.owed.contains_key(&tag),
                _ => self.tell(tag),
            };
            if !is_owed {
                continue;
            }
            match settlement {
                Settlement::Ack => acked.push(tag),
                Settlement::Reject => frames.push(Frame::Nack { tag, requeue: false }),
                Settlement::Requeue | Settlement::Restore => frames.push(Frame::Nack { tag, requeue: true }),
                Settlement::DeadLetter(letter) => frames.push(Frame::Letter { tag, letter, refused: None }),
                Settlement::Park(letter, refused) => frames.push(Frame::Letter { tag, letter, refused: Some(refused) }),
            }
        }
        self.acknowledge(acked, &mut frames);
        frames
    }

    /// One acknowledgement for all that stand before the first that is owed, and one for each of the others.
    fn acknowledge(&self, mut acked: Vec<u64>, frames: &mut Vec<Frame>) {
        let first = [self.owed.first_key_value().map(|(tag, _)| *tag), self.unseen.first().copied()];
        let first = first.into_iter().flatten().min().unwrap_or(u64::MAX);
        let before = acked.iter().filter(|tag| **tag < first);
        if let Some(tag) = before.clone().max() {
            frames.push(Frame::Ack { tag: *tag, multiple: before.count() > 1 });
        }
        acked.retain(|tag| *tag > first);
        frames.extend(acked.into_iter().map(|tag| Frame::Ack { tag, multiple: false }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(deliveries: u64) -> Ledger {
        let ledger = Ledger::default();
        let consumer = ledger.consumer();
        ledger.receive(consumer, 1..=deliveries);
        ledger
    }

    fn settle(ledger: &Ledger, tags: &[u64], settlement: &Settlement) {
        tags.iter().for_each(|tag| ledger.settle(Tag(*tag), settlement.clone()));
    }

    fn ack(tag: u64) -> Frame {
        Frame::Ack { tag, multiple: false }
    }

    fn acks(tag: u64) -> Frame {
        Frame::Ack { tag, multiple: true }
    }

    #[test]
    fn many_are_acknowledged_at_once_where_all_before_them_are() {
        let ledger = ledger(9);
        settle(&ledger, &[2, 1, 3, 5], &Settlement::Ack);
        assert_eq!(ledger.try_take(), [acks(3), ack(5)]);
        assert_eq!(ledger.owed(0), 5);
        settle(&ledger, &[6], &Settlement::Ack);
        assert_eq!(ledger.try_take(), [ack(6)]);
        settle(&ledger, &[4], &Settlement::Ack);
        assert_eq!(ledger.try_take(), [ack(4)]);
        settle(&ledger, &[9, 8, 7], &Settlement::Ack);
        assert_eq!(ledger.try_take(), [acks(9)]);
        assert_eq!(ledger.owed(0), 0);
    }

    #[test]
    fn what_is_given_back_is_told_before_others_are_acknowledged_beyond_it() {
        let ledger = ledger(4);
        settle(&ledger, &[1, 3, 4], &Settlement::Ack);
        settle(&ledger, &[2], &Settlement::Requeue);
        assert_eq!(ledger.try_take(), [Frame::Nack { tag: 2, requeue: true }, acks(4)]);
    }

    #[test]
    fn a_delivery_that_nobody_has_seen_is_not_acknowledged_with_others() {
        let ledger = Ledger::default();
        let (one, other) = (ledger.consumer(), ledger.consumer());
        ledger.receive(one, [1, 3].into_iter());
        settle(&ledger, &[1, 3], &Settlement::Ack);
        assert_eq!(ledger.try_take(), [ack(1), ack(3)]);
        ledger.receive(other, [2].into_iter());
        assert_eq!((ledger.owed(one), ledger.owed(other)), (0, 1));
        settle(&ledger, &[2], &Settlement::Reject);
        assert_eq!(ledger.try_take(), [Frame::Nack { tag: 2, requeue: false }]);
    }

    #[test]
    fn a_dead_letter_is_accepted_before_its_message_is_acknowledged() {
        let ledger = ledger(2);
        let letter = Box::new(Publication::to_queue("dead", crate::protocol::Message::default()));
        settle(&ledger, &[1], &Settlement::DeadLetter(letter.clone()));
        settle(&ledger, &[2], &Settlement::Ack);
        assert_eq!(ledger.try_take(), [Frame::Letter { tag: 1, letter: letter.clone(), refused: None }, ack(2)]);
        ledger.written();
        assert!(!ledger.is_settled());
        ledger.published(1, None);
        assert!(ledger.is_settled() && ledger.try_take().is_empty(), "it stays as it is");
        assert!(ledger.publishes_again(1) && !ledger.is_settled());
        ledger.published(1, Some(Settlement::Ack));
        assert_eq!(ledger.try_take(), [ack(1)]);
        assert!(!ledger.publishes_again(1), "nothing is left to be replaced");
    }

    #[test]
    fn a_message_whose_copy_is_refused_goes_back() {
        let ledger = ledger(1);
        let (copy, refused) =
            (Box::new(Publication::to_queue("levels", crate::protocol::Message::default())), Refused::default());
        settle(&ledger, &[1], &Settlement::Park(copy.clone(), refused.clone()));
        assert_eq!(ledger.try_take(), [Frame::Letter { tag: 1, letter: copy, refused: Some(refused) }]);
        assert_eq!(ledger.owed(0), 1);
        ledger.published(1, Some(Settlement::Restore));
        assert_eq!(ledger.try_take(), [Frame::Nack { tag: 1, requeue: true }]);
        assert_eq!(ledger.owed(0), 0);
    }

    #[test]
    fn one_that_is_held_for_long_costs_no_memory_for_those_after_it() {
        let ledger = ledger(10_000);
        for tag in 2..=10_000 {
            settle(&ledger, &[tag], &Settlement::Ack);
        }
        assert_eq!(ledger.try_take().len(), 9_999);
        let state = ledger.state();
        assert_eq!((state.owed.len(), state.unseen.len()), (1, 0));
    }

    #[test]
    fn nothing_is_told_on_another_channel_or_twice() {
        let ledger = ledger(2);
        settle(&ledger, &[1, 1], &Settlement::Ack);
        assert_eq!(ledger.try_take(), [ack(1)]);
        settle(&ledger, &[1, 7], &Settlement::Ack);
        assert!(ledger.try_take().is_empty());
        settle(&ledger, &[2], &Settlement::Ack);
        ledger.close();
        settle(&ledger, &[2], &Settlement::Ack);
        assert!(ledger.try_take().is_empty() && Settler::is_lost(&ledger));
    }

    #[tokio::test(start_paused = true)]
    async fn acknowledgements_gather_while_more_is_under_way() {
        let ledger = ledger(9);
        let began = tokio::time::Instant::now();
        settle(&ledger, &[1, 3], &Settlement::Ack);
        let (frames, ()) = tokio::join!(ledger.take(), async {
            tokio::time::sleep(GATHERS / 2).await;
            settle(&ledger, &[2], &Settlement::Ack);
        });
        assert_eq!(frames, [acks(3)]);
        assert_eq!(began.elapsed(), GATHERS);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_gathers_where_somebody_would_wait_for_it() {
        let began = tokio::time::Instant::now();
        let alone = ledger(1);
        settle(&alone, &[1], &Settlement::Ack);
        assert_eq!(alone.take().await, [ack(1)], "nothing is under way that it could wait for");

        let half = ledger(4);
        settle(&half, &[1, 2], &Settlement::Ack);
        assert_eq!(half.take().await, [acks(2)], "too little is under way");

        let back = ledger(9);
        settle(&back, &[4], &Settlement::Ack);
        settle(&back, &[5], &Settlement::Requeue);
        assert_eq!(back.take().await, [Frame::Nack { tag: 5, requeue: true }, ack(4)], "another worker can run it");

        let closing = ledger(9);
        settle(&closing, &[1], &Settlement::Ack);
        let take = async {
            let frames = closing.take().await;
            closing.written();
            frames
        };
        assert_eq!(tokio::join!(take, closing.settled()), (vec![ack(1)], ()), "who closes the connection waits for it");
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_gathers_for_long_where_nothing_has_gathered() {
        let (ledger, began) = (ledger(2000), tokio::time::Instant::now());
        for tag in 1..=1000 {
            settle(&ledger, &[tag], &Settlement::Ack);
            assert_eq!(ledger.take().await, [ack(tag)]);
        }
        let waited = began.elapsed();
        assert!(waited >= GATHERS && waited < 25 * GATHERS, "{waited:?} for a thousand");
        // Where more gathers again, that is found out.
        ledger.receive(0, 2001..=5000);
        for tag in 1001..=1064 {
            settle(&ledger, &[tag], &Settlement::Ack);
            tokio::join!(ledger.take(), async { settle(&ledger, &[tag + 1000], &Settlement::Ack) });
        }
        assert_eq!(ledger.state().in_vain, 0);
    }
}
