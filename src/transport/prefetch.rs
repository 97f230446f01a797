//! [`Prefetch`]: how many deliveries may be out at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// How many times the limit may wait for rate limits beside the window.
const BESIDE: usize = 10;
/// How many may at least.
const LEAST_BESIDE: usize = 1000;

/// How many deliveries may be out (received and not settled) at a time, and how many are.
///
/// The limit is Celery's prefetch count: 0 stands for no limit (celery/worker/consumer/consumer.py).
#[derive(Debug)]
pub struct Prefetch {
    /// 0: no limit.
    limit: AtomicUsize,
    /// What somebody has added to it, or taken away.
    told: AtomicIsize,
    /// What messages held for their ETA add to the limit (kombu's `QoS.increment_eventually`).
    growth: AtomicUsize,
    /// What messages that wait for a rate limit add.
    beside: AtomicUsize,
    /// How many of those that are out stand aside, and for how many of them at most the limit makes room.
    aside: AtomicUsize,
    most_aside: AtomicUsize,
    /// How many more may come at once that will probably stand aside.
    ahead: AtomicUsize,
    /// The window does not grow beyond this for ETAs (`worker_eta_task_limit`); `usize::MAX`: it does.
    ceiling: usize,
    out: AtomicUsize,
    changed: Notify,
}

impl Prefetch {
    /// A window of `limit` deliveries; 0 for no limit.
    pub fn new(limit: usize) -> Arc<Self> {
        Prefetch::bounded(limit, None)
    }

    /// The same, but messages held for their ETA widen the window to `ceiling` at most. One below `limit` keeps the window
    /// as it is; in stock Celery it would shrink with the first ETA.
    pub fn bounded(limit: usize, ceiling: Option<usize>) -> Arc<Self> {
        Arc::new(Prefetch {
            limit: AtomicUsize::new(limit),
            told: AtomicIsize::new(0),
            growth: AtomicUsize::new(0),
            beside: AtomicUsize::new(0),
            aside: AtomicUsize::new(0),
            most_aside: AtomicUsize::new(0),
            ahead: AtomicUsize::new(0),
            ceiling: ceiling.unwrap_or(usize::MAX),
            out: AtomicUsize::new(0),
            changed: Notify::new(),
        })
    }

    /// How many more deliveries may be handed out now; `usize::MAX` without a limit.
    pub fn available(&self) -> usize {
        match self.limit() {
            0 => usize::MAX,
            limit => limit.saturating_sub(self.out.load(Ordering::Acquire)),
        }
    }

    /// How many deliveries are out.
    pub fn out(&self) -> usize {
        self.out.load(Ordering::Acquire)
    }

    /// The whole window: the limit and what held messages add; 0 for no limit.
    pub fn limit(&self) -> usize {
        match self.base() {
            0 => 0,
            limit => {
                // The limit may be any number: clients tell how large a pool is.
                let grown = limit.saturating_add(self.growth.load(Ordering::Acquire)).min(self.ceiling.max(limit));
                let aside = self.aside.load(Ordering::Acquire).min(self.most_aside.load(Ordering::Acquire));
                let others = [self.beside.load(Ordering::Acquire), aside, self.ahead.load(Ordering::Acquire)];
                others.into_iter().fold(grown, usize::saturating_add)
            }
        }
    }

    /// The limit alone, without what held messages add; 0 for no limit.
    pub(super) fn base(&self) -> usize {
        match self.limit.load(Ordering::Acquire) {
            0 => 0,
            limit => limit.saturating_add_signed(self.told.load(Ordering::Acquire)).max(1),
        }
    }

    /// Another limit; what is out stays out.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Release);
        self.changed.notify_one();
    }

    /// Makes room for so many deliveries that stand aside, beside the limit, and for some more that may be among the next.
    pub fn set_aside(&self, most: usize, ahead: usize) {
        self.most_aside.store(most, Ordering::Release);
        if self.ahead.swap(ahead, Ordering::AcqRel) != ahead {
            self.changed.notify_one();
        }
    }

    /// Widens the window by so many, or narrows it, for good; it stays at least one wide, and no wider than ETAs may make it
    /// (kombu/common.py `QoS.increment_eventually`, `decrement_eventually`). Says how wide the whole of it is now.
    pub fn widen(&self, by: i64) -> usize {
        let (limit, base) = (self.limit.load(Ordering::Acquire), self.base());
        if limit > 0 {
            let by = isize::try_from(by).unwrap_or(if by < 0 { isize::MIN } else { isize::MAX });
            let wanted = base.saturating_add_signed(by).clamp(1, self.ceiling.max(base));
            // What it is wider now than the pool would have it.
            let told = isize::try_from(wanted).unwrap_or(isize::MAX) - isize::try_from(limit).unwrap_or(isize::MAX);
            self.told.store(told, Ordering::Release);
            self.changed.notify_one();
        }
        self.limit()
    }

    /// One unit for a delivery that is about to be handed out.
    pub fn take(self: &Arc<Self>) -> Credit {
        self.out.fetch_add(1, Ordering::AcqRel);
        Credit { prefetch: Arc::clone(self), is_aside: false }
    }

    /// Widens the window by one for as long as the guard lives: for a message that is held for its ETA.
    pub fn grow(self: &Arc<Self>) -> Growth {
        self.growth.fetch_add(1, Ordering::AcqRel);
        self.changed.notify_one();
        Growth { prefetch: Arc::clone(self), kind: Kind::Eta }
    }

    /// Widens the window by one for as long as the guard lives: for a message that waits for a rate limit. Without the
    /// room that this makes, such messages would fill the window, and tasks without a limit behind them in the queue would
    /// wait too. With it, a worker takes in more of them than it can start for a long time, which others might start
    /// sooner; so there is an end to it, ten times the limit and at least a thousand, beyond which they fill the window after all.
    pub fn grow_beside(self: &Arc<Self>) -> Option<Growth> {
        let bound = self.limit.load(Ordering::Acquire).saturating_mul(BESIDE).max(LEAST_BESIDE);
        let grown = self
            .beside
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |beside| (beside < bound).then_some(beside + 1));
        grown.ok()?;
        self.changed.notify_one();
        Some(Growth { prefetch: Arc::clone(self), kind: Kind::Beside })
    }

    /// Waits until the window has, or may have, changed since the last call. For the one consumer that serves it.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// One delivery's unit of the window; dropping it gives it back.
#[derive(Debug)]
pub struct Credit {
    prefetch: Arc<Prefetch>,
    is_aside: bool,
}

impl Credit {
    /// From now on it takes nothing of the limit, as far as there is room beside that ([`Prefetch::set_aside`]).
    pub fn stand_aside(&mut self) {
        if !self.is_aside {
            self.is_aside = true;
            self.prefetch.aside.fetch_add(1, Ordering::AcqRel);
            self.prefetch.changed.notify_one();
        }
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        if self.is_aside {
            self.prefetch.aside.fetch_sub(1, Ordering::AcqRel);
        }
        self.prefetch.out.fetch_sub(1, Ordering::AcqRel);
        self.prefetch.changed.notify_one();
    }
}

/// A wider window for as long as this lives.
#[derive(Debug)]
pub struct Growth {
    prefetch: Arc<Prefetch>,
    kind: Kind,
}

/// For what the window is wider.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Eta,
    Beside,
}

impl Drop for Growth {
    fn drop(&mut self) {
        let grown = match self.kind {
            Kind::Eta => &self.prefetch.growth,
            Kind::Beside => &self.prefetch.beside,
        };
        grown.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_aside_takes_nothing_of_the_limit_as_far_as_there_is_room() {
        let prefetch = Prefetch::new(4);
        let mut out: Vec<_> = (0..4).map(|_| prefetch.take()).collect();
        out.iter_mut().take(3).for_each(Credit::stand_aside);
        assert_eq!(prefetch.available(), 0, "no room is made for them yet");
        prefetch.set_aside(2, 0);
        assert_eq!((prefetch.limit(), prefetch.available()), (6, 2));
        prefetch.set_aside(10, 5);
        assert_eq!((prefetch.limit(), prefetch.available()), (12, 8));
        out.iter_mut().for_each(Credit::stand_aside);
        assert_eq!((prefetch.limit(), prefetch.available()), (13, 9));
        drop(out);
        assert_eq!((prefetch.out(), prefetch.limit(), prefetch.available()), (0, 9, 9));
        let endless = Prefetch::new(0);
        endless.set_aside(10, 5);
        assert_eq!((endless.limit(), endless.available()), (0, usize::MAX));
    }

    #[test]
    fn somebody_may_widen_the_window_and_narrow_it_to_one() {
        let prefetch = Prefetch::bounded(8, Some(20));
        assert_eq!([prefetch.widen(3), prefetch.widen(0), prefetch.widen(-5)], [11, 11, 6]);
        prefetch.set_limit(16);
        assert_eq!(prefetch.limit(), 14, "what was told stays when the pool is another");
        assert_eq!([prefetch.widen(i64::MIN), prefetch.widen(1), prefetch.widen(i64::MAX)], [1, 2, 20]);
        let _held = prefetch.grow();
        assert_eq!(prefetch.limit(), 20);
        let endless = Prefetch::new(0);
        assert_eq!([endless.widen(3), endless.widen(-3)], [0, 0]);
    }

    #[test]
    fn the_window_grows_for_what_waits_and_not_without_end() {
        let prefetch = Prefetch::bounded(10, Some(12));
        let held: Vec<_> = (0..5).map(|_| prefetch.grow()).collect();
        assert_eq!(prefetch.limit(), 12);
        let limited: Vec<_> = (0..2000).filter_map(|_| prefetch.grow_beside()).collect();
        assert_eq!((limited.len(), prefetch.limit()), (LEAST_BESIDE, 12 + LEAST_BESIDE));
        drop((held, limited));
        assert_eq!((prefetch.limit(), prefetch.available()), (10, 10));
        let narrow = Prefetch::bounded(10, Some(3));
        let _held = narrow.grow();
        assert_eq!(narrow.limit(), 10);
        let endless = Prefetch::bounded(0, Some(3));
        let _held = (endless.grow(), endless.grow_beside());
        assert_eq!((endless.limit(), endless.available()), (0, usize::MAX));
        let huge = Prefetch::new(usize::MAX);
        let _held = (huge.grow(), huge.grow_beside());
        assert_eq!((huge.limit(), huge.available()), (usize::MAX, usize::MAX));
    }
}
