//! [`Counter`], [`Gauge`] and [`Histogram`]: numbers that many threads change.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// The upper bounds, in seconds, that Python's `prometheus_client` takes where none are named, and so celery-exporter.
pub(crate) const DEFAULT_BUCKETS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub(crate) fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// What was counted.
    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many there are at this moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gauge(Arc<AtomicI64>);

/// One of those that a [`Gauge`] counts; it is counted for as long as this lives.
#[derive(Debug)]
pub(crate) struct Counted(Gauge);

impl Gauge {
    /// One more, until the guard is dropped.
    pub(crate) fn count(&self) -> Counted {
        self.0.fetch_add(1, Ordering::Relaxed);
        Counted(self.clone())
    }

    /// How many there are.
    pub(crate) fn value(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How often something took how long.
#[derive(Debug)]
pub(crate) struct Histogram {
    bounds: &'static [f64],
    /// One for each bound, and one for what is longer than all of them. Each observation is in one only: the text adds up.
    counts: Box<[AtomicU64]>,
    nanoseconds: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram::new(DEFAULT_BUCKETS)
    }
}

impl Histogram {
    /// With these upper bounds in seconds, which ascend.
    pub(crate) fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram { bounds, counts, nanoseconds: AtomicU64::new(0) }
    }

    /// It took this long.
    pub(crate) fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let place = self.bounds.partition_point(|bound| *bound < seconds);
        if let Some(count) = self.counts.get(place) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// Each bound with how many were not longer; the last is infinity, with the count of all.
    pub(crate) fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        let mut sum = 0;
        let add = |(bound, count): (f64, &AtomicU64)| {
            sum += count.load(Ordering::Relaxed);
            (bound, sum)
        };
        bounds.zip(&self.counts).map(add).collect()
    }

    /// How many were observed.
    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// What both observed; they have the same bounds.
    pub(crate) fn add(&self, other: &Self) {
        self.counts.iter().zip(&other.counts).for_each(|(ours, theirs)| {
            ours.fetch_add(theirs.load(Ordering::Relaxed), Ordering::Relaxed);
        });
        self.nanoseconds.fetch_add(other.nanoseconds.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// How long all took together.
    pub(crate) fn sum(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_as_long_as_a_bound_is_within_it_and_buckets_add_up() {
        let histogram = Histogram::new(&[0.5, 1.0]);
        for milliseconds in [500, 501, 1000, 1001, 90_000] {
            histogram.observe(Duration::from_millis(milliseconds));
        }
        assert_eq!(histogram.buckets(), [(0.5, 1), (1.0, 3), (f64::INFINITY, 5)]);
        assert_eq!((histogram.count(), histogram.sum()), (5, Duration::from_millis(93_002)));
        let both = Histogram::new(&[0.5, 1.0]);
        [&histogram, &histogram].into_iter().for_each(|each| both.add(each));
        assert_eq!(both.buckets(), [(0.5, 2), (1.0, 6), (f64::INFINITY, 10)]);
        assert_eq!((both.count(), both.sum()), (10, Duration::from_millis(186_004)));
    }

    #[test]
    fn a_gauge_counts_what_is_there() {
        let gauge = Gauge::default();
        let (one, two) = (gauge.count(), gauge.count());
        assert_eq!(gauge.value(), 2);
        drop(one);
        assert_eq!(gauge.value(), 1);
        drop(two);
        assert_eq!(gauge.value(), 0);
    }
}
