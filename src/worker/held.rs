//! [`Held`]: what waits for its ETA.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap, HashSet};

use jiff::Timestamp;

/// Things that wait for a moment, the earliest first; those of one moment in the order in which they came.
#[derive(Debug)]
pub(crate) struct Held<T> {
    heap: BinaryHeap<Reverse<Entry<T>>>,
    /// Numbers the entries, so that equal ETAs keep their order.
    sequence: u64,
    ids: Ids,
}

#[derive(Debug)]
struct Entry<T> {
    eta: Timestamp,
    sequence: u64,
    /// The hash of its id.
    id: u64,
    item: T,
}

/// The hashes of the ids of all that wait, so that nothing that asks for one looks at everything.
#[derive(Debug, Default)]
struct Ids {
    all: HashSet<u64, ahash::RandomState>,
    /// How many more there are of an id: a message may be delivered twice.
    more: HashMap<u64, usize>,
}

impl<T> Held<T> {
    pub(crate) fn new() -> Self {
        Held { heap: BinaryHeap::new(), sequence: 0, ids: Ids::default() }
    }

    /// Holds `item`, whose id has this hash, until `eta`.
    pub(crate) fn hold(&mut self, eta: Timestamp, id: u64, item: T) {
        self.sequence += 1;
        self.ids.insert(id);
        self.heap.push(Reverse(Entry { eta, sequence: self.sequence, id, item }));
    }

    /// Takes out one thing whose time has come at `now`.
    pub(crate) fn due(&mut self, now: Timestamp) -> Option<T> {
        if self.next_eta()? > now {
            return None;
        }
        self.pop()
    }

    fn pop(&mut self) -> Option<T> {
        let Reverse(entry) = self.heap.pop()?;
        self.ids.remove(entry.id);
        Some(entry.item)
    }

    /// The earliest moment that something waits for.
    pub(crate) fn next_eta(&self) -> Option<Timestamp> {
        self.heap.peek().map(|Reverse(entry)| entry.eta)
    }

    /// The earliest, `most` of them, in their order.
    pub(crate) fn earliest(&self, most: usize) -> Vec<(Timestamp, &T)> {
        // In a heap nothing is earlier than what stands at half its place, so that only few are looked at.
        let all = self.heap.as_slice();
        let mut next: BinaryHeap<_> = all.first().map(|first| (first, 0)).into_iter().collect();
        let mut earliest = Vec::with_capacity(most.min(all.len()));
        while earliest.len() < most
            && let Some((Reverse(entry), at)) = next.pop()
        {
            earliest.push((entry.eta, &entry.item));
            next.extend([2 * at + 1, 2 * at + 2].into_iter().filter_map(|child| Some((all.get(child)?, child))));
        }
        earliest
    }

    /// Those whose ids have these hashes.
    pub(crate) fn named(&self, ids: &HashSet<u64>) -> impl Iterator<Item = (Timestamp, &T)> {
        let named = self.heap.iter().filter(|Reverse(entry)| ids.contains(&entry.id));
        named.map(|Reverse(entry)| (entry.eta, &entry.item))
    }

    /// How many things wait.
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether something waits whose id has this hash.
    pub(crate) fn contains(&self, id: u64) -> bool {
        self.ids.all.contains(&id)
    }

    /// Takes out those that are wanted, by the hash of their id or for another reason, with their ETAs.
    pub(crate) fn extract(&mut self, is_wanted: impl Fn(u64, &T) -> bool) -> Vec<(Timestamp, T)> {
        let is_wanted = |Reverse(entry): &Reverse<Entry<T>>| is_wanted(entry.id, &entry.item);
        // Usually none is, and then nothing is moved.
        if !self.heap.iter().any(is_wanted) {
            return Vec::new();
        }
        let entries = std::mem::take(&mut self.heap).into_vec().into_iter();
        let (wanted, rest): (Vec<_>, Vec<_>) = entries.partition(is_wanted);
        self.heap = rest.into();
        wanted.iter().for_each(|Reverse(entry)| self.ids.remove(entry.id));
        wanted.into_iter().map(|Reverse(entry)| (entry.eta, entry.item)).collect()
    }

    /// Takes out everything, the earliest first.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> {
        std::iter::from_fn(|| self.pop())
    }
}

impl Ids {
    fn insert(&mut self, id: u64) {
        if !self.all.insert(id) {
            *self.more.entry(id).or_default() += 1;
        }
    }

    fn remove(&mut self, id: u64) {
        match self.more.get_mut(&id) {
            Some(1) => drop(self.more.remove(&id)),
            Some(count) => *count -= 1,
            None => drop(self.all.remove(&id)),
        }
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
            held.hold(second(eta), 7, name);
        }
        assert_eq!(held.due(second(0)), None);
        assert_eq!(held.next_eta(), Some(second(1)));
        assert_eq!(held.due(second(1)), Some("a"));
        assert_eq!(held.due(second(1)), None);
        held.hold(second(2), 8, "unwanted");
        assert_eq!(held.extract(|_, name| *name == "nobody"), []);
        let unwanted = held.extract(|id, _| id == 8);
        assert_eq!(unwanted.iter().map(|(_, name)| *name).collect::<Vec<_>>(), ["unwanted"]);
        assert_eq!(held.drain().collect::<Vec<_>>(), ["b", "c", "d"]);
        assert_eq!(held.len(), 0);
    }

    #[test]
    fn the_earliest_are_found_whatever_came_first() {
        let mut held = Held::new();
        for place in 0..1000 {
            let eta = place * 7919 % 1000;
            held.hold(second(eta), eta.unsigned_abs(), eta);
        }
        let earliest: Vec<_> = held.earliest(300).into_iter().map(|(eta, item)| (eta.as_second(), *item)).collect();
        assert_eq!(earliest, (0..300).map(|eta| (eta, eta)).collect::<Vec<_>>());
        assert_eq!((held.earliest(5000).len(), held.len()), (1000, 1000));
        assert_eq!(held.named(&HashSet::from([7, 5000])).map(|(_, item)| *item).collect::<Vec<_>>(), [7]);
        assert_eq!(Held::<u8>::new().earliest(5), []);
    }

    #[test]
    fn what_waits_is_known_by_its_id_until_the_last_copy_is_gone() {
        let mut held = Held::new();
        for (eta, id) in [(1, 7), (2, 7), (3, 7), (4, 8), (5, 9)] {
            held.hold(second(eta), id, eta);
        }
        let known = |held: &Held<i64>| [7, 8, 9, 10].map(|id| held.contains(id));
        assert_eq!(known(&held), [true, true, true, false]);
        assert_eq!((held.due(second(9)), held.extract(|_, eta| *eta == 4).len()), (Some(1), 1));
        assert_eq!(known(&held), [true, false, true, false]);
        assert_eq!(held.extract(|id, _| id == 7).len(), 2);
        assert_eq!(known(&held), [false, false, true, false]);
        assert_eq!(held.drain().count(), 1);
        assert_eq!(known(&held), [false; 4]);
    }
}
