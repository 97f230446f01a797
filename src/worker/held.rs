//! [`Held`]: what waits for its ETA.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use jiff::Timestamp;

/// Things that wait for a moment, the earliest first; those of one moment in the order in which they came.
#[derive(Debug)]
pub(crate) struct Held<T> {
    heap: BinaryHeap<Reverse<Entry<T>>>,
    /// Numbers the entries, so that equal ETAs keep their order.
    sequence: u64,
}

#[derive(Debug)]
struct Entry<T> {
    eta: Timestamp,
    sequence: u64,
    item: T,
}

impl<T> Held<T> {
    pub(crate) fn new() -> Self {
        Held { heap: BinaryHeap::new(), sequence: 0 }
    }

    /// Holds `item` until `eta`.
    pub(crate) fn hold(&mut self, eta: Timestamp, item: T) {
        self.sequence += 1;
        self.heap.push(Reverse(Entry { eta, sequence: self.sequence, item }));
    }

    /// Takes out one thing whose time has come at `now`.
    pub(crate) fn due(&mut self, now: Timestamp) -> Option<T> {
        if self.next_eta()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry.item)
    }

    /// The earliest moment that something waits for.
    pub(crate) fn next_eta(&self) -> Option<Timestamp> {
        self.heap.peek().map(|Reverse(entry)| entry.eta)
    }

    /// How many things wait.
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    /// Takes out those that are wanted, with their ETAs.
    pub(crate) fn extract(&mut self, is_wanted: impl Fn(&T) -> bool) -> Vec<(Timestamp, T)> {
        // Usually none is, and then nothing is moved.
        if !self.heap.iter().any(|Reverse(entry)| is_wanted(&entry.item)) {
            return Vec::new();
        }
        let entries = std::mem::take(&mut self.heap).into_vec().into_iter();
        let (wanted, rest): (Vec<_>, Vec<_>) = entries.partition(|Reverse(entry)| is_wanted(&entry.item));
        self.heap = rest.into();
        wanted.into_iter().map(|Reverse(entry)| (entry.eta, entry.item)).collect()
    }

    /// Takes out everything, the earliest first.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> {
        std::iter::from_fn(|| self.heap.pop().map(|Reverse(entry)| entry.item))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.eta, self.sequence).cmp(&(other.eta, other.sequence))
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Entry<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("small seconds are in range")
    }

    #[test]
    fn the_earliest_comes_first_and_equals_keep_their_order() {
        let mut held = Held::new();
        for (eta, name) in [(3, "c"), (1, "a"), (3, "d"), (2, "b")] {
            held.hold(second(eta), name);
        }
        assert_eq!(held.due(second(0)), None);
        assert_eq!(held.next_eta(), Some(second(1)));
        assert_eq!(held.due(second(1)), Some("a"));
        assert_eq!(held.due(second(1)), None);
        held.hold(second(2), "unwanted");
        assert_eq!(held.extract(|name| *name == "nobody"), []);
        let unwanted = held.extract(|name| *name == "unwanted");
        assert_eq!(unwanted.iter().map(|(_, name)| *name).collect::<Vec<_>>(), ["unwanted"]);
        assert_eq!(held.drain().collect::<Vec<_>>(), ["b", "c", "d"]);
        assert_eq!(held.len(), 0);
    }
}
