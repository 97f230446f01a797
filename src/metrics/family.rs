//! [`Family`]: one metric for each combination of labels, of which there are so many at most.

use std::sync::OnceLock;

use ahash::RandomState;

/// Stands for the labels of all combinations that came when there was no more room.
pub(super) const OTHER: &str = "other";

/// So many places are looked at for one combination: a search is short in a full room, too.
const PROBES: usize = 64;

/// No label is longer; AMQP has no longer names.
const LONGEST: usize = 255;

/// Metrics of one name, told apart by `N` labels.
///
/// The labels' values may come from messages (a task's name, an exception's), so who sends must not decide how much memory
/// is taken: what comes when the room is full, or is too long, is counted under [`OTHER`].
#[derive(Debug)]
pub(crate) struct Family<T, const N: usize> {
    /// Open addressing; a place that is taken is never left, so a reader needs no lock.
    places: Box<[OnceLock<Box<Entry<T, N>>>]>,
    other: OnceLock<T>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Entry<T, const N: usize> {
    labels: [Box<str>; N],
    metric: T,
}

impl<T: Default, const N: usize> Family<T, N> {
    /// With room for so many combinations.
    pub(crate) fn new(room: usize) -> Self {
        let places = (0..room).map(|_| OnceLock::new()).collect();
        Family { places, other: OnceLock::new(), hasher: RandomState::new() }
    }

    /// The metric of these labels.
    pub(crate) fn of(&self, labels: [&str; N]) -> &T {
        let probes = if labels.iter().all(|label| label.len() <= LONGEST) { PROBES } else { 0 };
        let metric = self.probe(labels).take(probes).find_map(|place| {
            let entry = place.get_or_init(|| Box::new(Entry { labels: labels.map(Box::from), metric: T::default() }));
            entry.is_of(labels).then_some(&entry.metric)
        });
        metric.unwrap_or_else(|| self.other.get_or_init(T::default))
    }

    /// All that were asked for, in the order of their labels; [`OTHER`] comes last.
    pub(crate) fn all(&self) -> Vec<([&str; N], &T)> {
        let entries = self.places.iter().filter_map(OnceLock::get);
        let mut all: Vec<_> =
            entries.map(|entry| (entry.labels.each_ref().map(AsRef::as_ref), &entry.metric)).collect();
        all.sort_unstable_by_key(|(labels, _)| *labels);
        all.extend(self.other.get().map(|metric| ([OTHER; N], metric)));
        all
    }

    /// Every place, beginning with the one that these labels should have.
    fn probe(&self, labels: [&str; N]) -> impl Iterator<Item = &OnceLock<Box<Entry<T, N>>>> {
        let room = self.places.len().max(1) as u64;
        let first = usize::try_from(self.hasher.hash_one(labels) % room).unwrap_or(0);
        let (before, after) = self.places.split_at(first);
        after.iter().chain(before)
    }
}

impl<T, const N: usize> Entry<T, N> {
    fn is_of(&self, labels: [&str; N]) -> bool {
        self.labels.iter().zip(labels).all(|(ours, theirs)| **ours == *theirs)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Counter;
    use super::*;

    fn counted(family: &Family<Counter, 2>) -> Vec<([&str; 2], u64)> {
        family.all().into_iter().map(|(labels, counter)| (labels, counter.value())).collect()
    }

    #[test]
    fn each_combination_is_counted_by_itself() {
        let family: Family<Counter, 2> = Family::new(8);
        for labels in [["b", "x"], ["a", "y"], ["b", "x"], ["a", "x"]] {
            family.of(labels).increment();
        }
        assert_eq!(counted(&family), [(["a", "x"], 1), (["a", "y"], 1), (["b", "x"], 2)]);
    }

    #[test]
    fn what_finds_no_room_is_counted_together_and_what_had_room_keeps_it() {
        let family: Family<Counter, 2> = Family::new(2);
        for name in ["a", "b", "c", "d", "c", "a"] {
            family.of([name, ""]).increment();
        }
        assert_eq!(counted(&family), [(["a", ""], 2), (["b", ""], 1), ([OTHER, OTHER], 3)]);
        let none: Family<Counter, 2> = Family::new(0);
        none.of(["a", ""]).increment();
        assert_eq!(counted(&none), [([OTHER, OTHER], 1)]);
        let long: Family<Counter, 2> = Family::new(8);
        long.of(["a", &"x".repeat(LONGEST + 1)]).increment();
        assert_eq!(counted(&long), [([OTHER, OTHER], 1)]);
    }

    #[test]
    fn nothing_is_lost_when_threads_count_at_once() {
        let family: Family<Counter, 2> = Family::new(64);
        let names: Vec<String> = (0..40).map(|number| number.to_string()).collect();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..25).for_each(|_| names.iter().for_each(|name| family.of([name, ""]).increment())));
            }
        });
        assert_eq!(family.all().len(), 40);
        assert!(counted(&family).iter().all(|(_, count)| *count == 200), "{:?}", counted(&family));
    }
}
