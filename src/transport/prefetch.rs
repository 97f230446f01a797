//! [`Prefetch`]: how many deliveries may be out at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// How many deliveries may be out (received and not settled) at a time, and how many are.
///
/// The limit is Celery's prefetch count: 0 stands for no limit (celery/worker/consumer/consumer.py).
#[derive(Debug)]
pub struct Prefetch {
    /// 0: no limit.
    limit: AtomicUsize,
    /// What messages held for their ETA add to the limit (kombu's `QoS.increment_eventually`).
    growth: AtomicUsize,
    out: AtomicUsize,
    changed: Notify,
}

impl Prefetch {
    /// A window of `limit` deliveries; 0 for no limit.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Prefetch {
            limit: AtomicUsize::new(limit),
            growth: AtomicUsize::new(0),
            out: AtomicUsize::new(0),
            changed: Notify::new(),
        })
    }

    /// How many more deliveries may be handed out now; `usize::MAX` without a limit.
    pub fn available(&self) -> usize {
        match self.limit.load(Ordering::Acquire) {
            0 => usize::MAX,
            limit => (limit + self.growth.load(Ordering::Acquire)).saturating_sub(self.out.load(Ordering::Acquire)),
        }
    }

    /// How many deliveries are out.
    pub fn out(&self) -> usize {
        self.out.load(Ordering::Acquire)
    }

    /// The whole window: the limit and what held messages add; 0 for no limit.
    pub fn limit(&self) -> usize {
        match self.limit.load(Ordering::Acquire) {
            0 => 0,
            limit => limit + self.growth.load(Ordering::Acquire),
        }
    }

    /// The limit alone, without what held messages add; 0 for no limit.
    pub(super) fn base(&self) -> usize {
        self.limit.load(Ordering::Acquire)
    }

    /// Another limit; what is out stays out.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Release);
        self.changed.notify_one();
    }

    /// One unit for a delivery that is about to be handed out.
    pub fn take(self: &Arc<Self>) -> Credit {
        self.out.fetch_add(1, Ordering::AcqRel);
        Credit(Arc::clone(self))
    }

    /// Widens the window by one for as long as the guard lives: for a message that is held for its ETA.
    pub fn grow(self: &Arc<Self>) -> Growth {
        self.growth.fetch_add(1, Ordering::AcqRel);
        self.changed.notify_one();
        Growth(Arc::clone(self))
    }

    /// Waits until the window has, or may have, changed since the last call. For the one consumer that serves it.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// One delivery's unit of the window; dropping it gives it back.
#[derive(Debug)]
pub struct Credit(Arc<Prefetch>);

impl Drop for Credit {
    fn drop(&mut self) {
        self.0.out.fetch_sub(1, Ordering::AcqRel);
        self.0.changed.notify_one();
    }
}

/// A wider window for as long as this lives.
#[derive(Debug)]
pub struct Growth(Arc<Prefetch>);

impl Drop for Growth {
    fn drop(&mut self) {
        self.0.growth.fetch_sub(1, Ordering::AcqRel);
    }
}
