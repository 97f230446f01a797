//! [`Pool`]: how many handlers may run at a time, and how wide the prefetch window is for that.
//!
//! Handlers on Tokio are no processes that somebody has to start: a place is a number. A pool that is told to be smaller
//! ends nothing; what runs keeps its place, and no other begins until there is one again.

use std::time::Duration;

use tokio::time::Instant;

use crate::control::Bounds;

/// How a pool grows and shrinks by itself (`--autoscale`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Autoscale {
    /// The most that run at a time.
    pub max: u32,
    /// The least that may.
    pub min: u32,
    /// How long the pool stays large after it grew, or a task came (`AUTOSCALE_KEEPALIVE`).
    pub keepalive: Duration,
}

impl Autoscale {
    /// celery/worker/autoscale.py `AUTOSCALE_KEEPALIVE`.
    pub const KEEPALIVE: Duration = Duration::from_secs(30);
}

/// The places that there are. Reads no clock, and starts nothing.
#[derive(Debug)]
pub(crate) struct Pool {
    size: usize,
    /// How many messages are reserved for each place; 0: no bound.
    multiplier: usize,
    /// How many calls a place takes at this moment.
    depth: usize,
    /// Take no message before there is room to run it.
    disable_prefetch: bool,
    scaler: Option<Scaler>,
}

/// celery/worker/autoscale.py `Autoscaler`.
#[derive(Debug)]
struct Scaler {
    max: usize,
    min: usize,
    keepalive: Duration,
    /// When the pool grew for its load, or a task came.
    last_active: Option<Instant>,
}

impl Pool {
    pub(crate) fn new(size: u32, multiplier: u32, disable_prefetch: bool, autoscale: Option<Autoscale>) -> Self {
        let scaler = autoscale.map(|Autoscale { max, min, keepalive }| Scaler {
            max: max as usize,
            min: min as usize,
            keepalive,
            last_active: None,
        });
        let size = scaler.as_ref().map_or(size as usize, |scaler| scaler.min);
        Pool { size, multiplier: multiplier as usize, depth: 1, disable_prefetch, scaler }
    }

    /// How many may run at a time now.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// How many may without anybody's word.
    pub(crate) fn most(&self) -> usize {
        self.scaler.as_ref().map_or(self.size, |scaler| scaler.max.max(self.size))
    }

    /// The window of what may be out at a time; 0 for no limit (celery/worker/consumer/tasks.py `Tasks.start`,
    /// celery/worker/components.py `Consumer.create`).
    pub(crate) fn window(&self) -> usize {
        let places = self.scaler.as_ref().map_or(self.size, |scaler| scaler.max).max(1);
        match places.saturating_mul(self.multiplier) {
            limit if !self.disable_prefetch => limit.saturating_mul(self.depth),
            0 => places,
            limit => limit.min(places),
        }
    }

    /// Each place takes so many calls from now on, and the window is as much wider, so that calls wait for places and not
    /// the other way round; but who asks for one message for each process gets no more. Says whether the window is another.
    pub(crate) fn deepen(&mut self, depth: usize) -> bool {
        let before = self.window();
        self.depth = if self.multiplier > 1 { depth.max(1) } else { 1 };
        self.window() != before
    }

    /// The most and the least that may run at a time; `None`: the pool does not grow by itself.
    pub(crate) fn bounds(&self) -> Option<(usize, usize)> {
        self.scaler.as_ref().map(|scaler| (scaler.max, scaler.min))
    }

    pub(crate) fn grow(&mut self, places: i64) {
        self.size = self.size.saturating_add(unsigned(places));
    }

    /// Unlike processes, places can be taken away while all of them are in use; but no pool is without any. Says whether it
    /// did.
    pub(crate) fn shrink(&mut self, places: i64) -> bool {
        let left = self.size.saturating_sub(unsigned(places));
        if left > 0 {
            self.size = left;
        }
        left > 0
    }

    /// Other bounds, and those that hold now; `None`: the pool does not grow by itself.
    pub(crate) fn bound(&mut self, bounds: Bounds) -> Option<(usize, usize)> {
        let scaler = self.scaler.as_mut()?;
        if let Some(max) = bounds.max.map(unsigned) {
            scaler.max = max;
            self.size = self.size.min(max);
        }
        if let Some(min) = bounds.min.map(unsigned) {
            scaler.min = min;
            self.size = self.size.max(min);
        }
        Some((scaler.max, scaler.min))
    }

    /// A task has come.
    pub(crate) fn received(&mut self, now: Instant) {
        if let Some(scaler) = &mut self.scaler {
            scaler.last_active = Some(now);
        }
    }

    /// Grows to what the load needs, or shrinks when it has needed less for long enough; says whether it did.
    pub(crate) fn scale(&mut self, load: usize, now: Instant) -> bool {
        let Some(scaler) = &mut self.scaler else { return false };
        let wanted = load.min(scaler.max);
        if wanted > self.size {
            scaler.last_active = Some(now);
            self.size = wanted;
            return true;
        }
        let is_over = self.shrinks_at(load).is_some_and(|moment| moment < now);
        if is_over {
            self.size = self.least(load);
        }
        is_over
    }

    /// After which moment the pool shrinks, unless something comes before.
    pub(crate) fn shrinks_at(&self, load: usize) -> Option<Instant> {
        let scaler = self.scaler.as_ref()?;
        let last = scaler.last_active.filter(|_| self.least(load) < self.size)?;
        last.checked_add(scaler.keepalive)
    }

    fn least(&self, load: usize) -> usize {
        self.scaler.as_ref().map_or(self.size, |scaler| load.max(scaler.min).min(self.size))
    }

    /// Whether it grows and shrinks by itself.
    pub(crate) fn is_autoscaled(&self) -> bool {
        self.scaler.is_some()
    }
}

/// Less than nothing is nothing, as to Python's `range`.
fn unsigned(places: i64) -> usize {
    usize::try_from(places).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scaled(max: u32, min: u32) -> Pool {
        Pool::new(7, 4, false, Some(Autoscale { max, min, keepalive: Autoscale::KEEPALIVE }))
    }

    #[test]
    fn places_that_take_more_calls_widen_the_window_unless_one_for_each_was_asked_for() {
        let mut pool = Pool::new(2, 4, false, None);
        assert_eq!((pool.deepen(4), pool.window()), (true, 32));
        assert_eq!((pool.deepen(4), pool.window()), (false, 32));
        assert_eq!((pool.deepen(1), pool.window()), (true, 8));
        for mut pool in [Pool::new(2, 1, false, None), Pool::new(2, 4, true, None), Pool::new(2, 0, false, None)] {
            let before = pool.window();
            assert_eq!((pool.deepen(4), pool.window()), (false, before));
        }
    }

    #[test]
    fn the_window_follows_the_pool() {
        let rows = [((10, 4, false), 40), ((10, 0, false), 0), ((10, 4, true), 10), ((10, 0, true), 10)];
        for ((size, multiplier, disable), expected) in rows {
            assert_eq!(Pool::new(size, multiplier, disable, None).window(), expected, "{size} {multiplier} {disable}");
        }
        let mut pool = Pool::new(2, 4, false, None);
        pool.grow(3);
        assert_eq!((pool.size(), pool.window()), (5, 20));
        assert_eq!((pool.shrink(4), pool.size(), pool.window()), (true, 1, 4));
        pool.grow(-1);
        assert_eq!((pool.shrink(-1), pool.size()), (true, 1));
        assert_eq!((pool.shrink(1), pool.size()), (false, 1));
        assert_eq!(pool.bound(Bounds::default()), None);
        assert!(!pool.scale(100, Instant::now()), "nobody asked it to");
    }

    #[test]
    fn it_grows_at_once_and_shrinks_when_nothing_came_for_long() {
        let (mut pool, began) = (scaled(10, 2), Instant::now());
        let after = |seconds| began + Duration::from_secs(seconds);
        assert_eq!((pool.size(), pool.most(), pool.window()), (2, 10, 40));
        assert!(!pool.scale(2, began) && pool.shrinks_at(0).is_none());
        assert!(pool.scale(50, began));
        assert_eq!(pool.size(), 10);
        assert_eq!((pool.shrinks_at(10), pool.shrinks_at(3)), (None, Some(after(30))));
        pool.received(after(20));
        assert!(!pool.scale(3, after(50)), "nothing has come for just as long");
        assert!(pool.scale(3, after(51)));
        assert_eq!(pool.size(), 3, "as many as are needed");
        assert!(pool.scale(0, after(52)) && !pool.scale(0, after(53)));
        assert_eq!((pool.size(), pool.shrinks_at(0)), (2, None));
    }

    #[test]
    fn bounds_hold_at_once() {
        let mut pool = scaled(10, 2);
        assert_eq!((pool.bound(Bounds { max: None, min: Some(4) }), pool.size()), (Some((10, 4)), 4));
        assert_eq!((pool.bound(Bounds { max: Some(3), min: None }), pool.size()), (Some((3, 4)), 3));
        assert_eq!(pool.window(), 12);
        assert_eq!(pool.bound(Bounds { max: Some(-1), min: Some(0) }), Some((0, 0)));
        assert_eq!((pool.size(), pool.window()), (0, 4), "none run, and the window is no wider for that");
    }
}
