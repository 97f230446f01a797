//! [`RateLimits`]: how often tasks of one name start.
//!
//! Celery's token bucket (kombu/utils/limits.py `TokenBucket` with the capacity of one,
//! celery/worker/consumer/consumer.py `Consumer._schedule_bucket_request`): from one start to the next of the same task
//! passes at least 1/rate. What has to wait does so in the order in which it came, and in nobody's way.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::control::Rate;

/// The limits of one worker, and what waits because of them. Reads no clock.
#[derive(Debug)]
pub(crate) struct RateLimits<T> {
    buckets: HashMap<String, Bucket<T>, ahash::RandomState>,
    /// How many wait, over all buckets.
    waiting: usize,
    /// When the first of them may start; `None`: nothing waits.
    next: Option<Instant>,
}

#[derive(Debug)]
struct Bucket<T> {
    spacing: Duration,
    /// When the last one started.
    last: Option<Instant>,
    /// The bucket is full from here on.
    full: Instant,
    waiting: VecDeque<T>,
}

impl<T> RateLimits<T> {
    pub(crate) fn new(rates: impl IntoIterator<Item = (String, Rate)>, now: Instant) -> Self {
        let buckets = rates.into_iter().map(|(task, rate)| (task, Bucket::new(rate, now))).collect();
        RateLimits { buckets, waiting: 0, next: None }
    }

    /// Whether a task of this name may start now, and if so that it does.
    pub(crate) fn may_start(&mut self, task: &str, now: Instant) -> bool {
        if self.buckets.is_empty() {
            return true;
        }
        self.buckets.get_mut(task).is_none_or(|bucket| bucket.waiting.is_empty() && bucket.take(now))
    }

    /// Lets something wait that may not start now.
    pub(crate) fn hold(&mut self, task: &str, item: T) {
        if let Some(bucket) = self.buckets.get_mut(task) {
            bucket.waiting.push_back(item);
            self.waiting += 1;
            self.next = self.earliest();
        }
    }

    /// Takes out one that may start now.
    pub(crate) fn due(&mut self, now: Instant) -> Option<T> {
        if self.next? > now {
            return None;
        }
        let item = self.buckets.values_mut().find_map(|bucket| bucket.due(now));
        self.waiting -= usize::from(item.is_some());
        self.next = self.earliest();
        item
    }

    /// When the next one may start.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Changes the limit of one task. What waits goes on in its order at the new rate, or, without one, comes out.
    pub(crate) fn set(&mut self, task: &str, rate: Option<Rate>, now: Instant) -> Vec<T> {
        let Some(rate) = rate else {
            let freed = self.buckets.remove(task).map(|bucket| Vec::from(bucket.waiting)).unwrap_or_default();
            self.waiting -= freed.len();
            self.next = self.earliest();
            return freed;
        };
        self.buckets.entry(task.to_owned()).or_insert_with(|| Bucket::new(rate, now)).spacing = rate.spacing();
        self.next = self.earliest();
        Vec::new()
    }

    /// All that wait.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.buckets.values().flat_map(|bucket| &bucket.waiting)
    }

    /// Takes out those of whom `is_wanted`; the others keep their order.
    pub(crate) fn extract(&mut self, mut is_wanted: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut taken = Vec::new();
        for bucket in self.buckets.values_mut() {
            let (wanted, rest): (Vec<_>, Vec<_>) = bucket.waiting.drain(..).partition(&mut is_wanted);
            bucket.waiting = rest.into();
            taken.extend(wanted);
        }
        self.waiting -= taken.len();
        self.next = self.earliest();
        taken
    }

    fn earliest(&self) -> Option<Instant> {
        let waiting = self.buckets.values().filter(|bucket| !bucket.waiting.is_empty());
        waiting.map(Bucket::ready).min()
    }
}

impl<T> Bucket<T> {
    fn new(rate: Rate, now: Instant) -> Self {
        Bucket { spacing: rate.spacing(), last: None, full: now, waiting: VecDeque::new() }
    }

    /// When the next one may start.
    fn ready(&self) -> Instant {
        // No spacing is so long that the sum would overflow.
        self.last.map_or(self.full, |last| last.checked_add(self.spacing).unwrap_or(last))
    }

    fn take(&mut self, now: Instant) -> bool {
        let may = self.ready() <= now;
        if may {
            self.last = Some(now);
        }
        may
    }

    fn due(&mut self, now: Instant) -> Option<T> {
        if self.waiting.is_empty() || !self.take(now) {
            return None;
        }
        self.waiting.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Limits, and the moment at which they were made.
    fn limits(rates: &[(&str, &str)]) -> (RateLimits<u32>, Instant) {
        let now = Instant::now();
        let rate = |text: &str| Rate::parse(text).unwrap().unwrap();
        (RateLimits::new(rates.iter().map(|(task, text)| ((*task).to_owned(), rate(text))), now), now)
    }

    /// Hands in an item at each of the times in milliseconds, and tells when each started: virtual time.
    fn starts(rate: &str, arrivals: &[u64]) -> Vec<u64> {
        let (mut limits, begin) = limits(&[("t", rate)]);
        let mut started = Vec::new();
        let mut arrivals = arrivals.iter().copied().peekable();
        for at in 0..20_000 {
            let now = begin + Duration::from_millis(at);
            while limits.due(now).is_some() {
                started.push(at);
            }
            while arrivals.next_if_eq(&at).is_some() {
                match limits.may_start("t", now) {
                    true => started.push(at),
                    false => limits.hold("t", 0),
                }
            }
        }
        assert_eq!((limits.waiting(), limits.next()), (0, None));
        started
    }

    #[test]
    fn starts_are_spaced() {
        let rows: [(&str, &[u64], &[u64]); 6] = [
            ("10/s", &[0, 0, 0, 0], &[0, 100, 200, 300]),
            ("10/s", &[0, 50, 250], &[0, 100, 250]),
            // What was not used is not saved up.
            ("10/s", &[5000, 5000, 5000], &[5000, 5100, 5200]),
            ("30/m", &[0, 1, 2], &[0, 2000, 4000]),
            ("0.5/s", &[0, 1], &[0, 2000]),
            ("1000/s", &[7, 7, 7], &[7, 8, 9]),
        ];
        for (rate, arrivals, expected) in rows {
            assert_eq!(starts(rate, arrivals), expected, "{rate} {arrivals:?}");
        }
    }

    #[test]
    fn one_task_waits_in_its_order_and_in_nobodys_way() {
        let (mut limits, now) = limits(&[("slow", "1/s"), ("quick", "10/s")]);
        assert!(limits.may_start("slow", now));
        for item in [1, 2] {
            assert!(!limits.may_start("slow", now));
            limits.hold("slow", item);
        }
        assert!(limits.may_start("quick", now) && limits.may_start("free", now) && limits.may_start("free", now));
        assert_eq!(limits.next(), Some(now + Duration::from_secs(1)));
        assert_eq!(limits.due(now), None);
        let later = now + Duration::from_secs(1);
        // Whoever comes now comes after those who wait.
        assert!(!limits.may_start("slow", later));
        limits.hold("slow", 3);
        assert_eq!((limits.due(later), limits.due(later)), (Some(1), None));
        assert_eq!(limits.due(later + Duration::from_secs(1)), Some(2));
    }

    #[test]
    fn a_limit_changes_while_tasks_wait() {
        let (mut limits, now) = limits(&[("t", "1/h")]);
        assert!(limits.may_start("t", now));
        (1..=4).for_each(|item| limits.hold("t", item));
        let quick = Rate::parse("2/s").unwrap().unwrap();
        assert!(limits.set("t", Some(quick), now).is_empty());
        assert_eq!(limits.next(), Some(now + Duration::from_millis(500)));
        assert_eq!(limits.due(now + Duration::from_millis(500)), Some(1));
        assert_eq!(limits.extract(|item| *item == 3), [3]);
        assert_eq!(limits.set("t", None, now), [2, 4]);
        assert_eq!((limits.waiting(), limits.next()), (0, None));
        assert!(limits.may_start("t", now) && limits.may_start("t", now));
        limits.set("new", Some(quick), now);
        assert!(limits.may_start("new", now) && !limits.may_start("new", now));
    }
}
