//! [`LimitedSet`]: of many ids, the newest are remembered.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// How many ids are remembered, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// 0: any number.
    pub(crate) max: usize,
    /// How long, once there are that many; zero: for as long as there is room.
    pub(crate) expires: Duration,
}

/// A set that forgets the oldest of its members when it is full, and then those whose time has passed too
/// (celery/utils/collections.py `LimitedSet`). While there is room it forgets nothing.
#[derive(Debug)]
pub(crate) struct LimitedSet {
    bounds: Bounds,
    /// When each member was inserted last, and its number.
    members: HashMap<Arc<str>, (Instant, u64), ahash::RandomState>,
    /// Oldest first. An entry whose number is not the member's is stale: the member was inserted again since.
    order: VecDeque<(u64, Arc<str>)>,
    sequence: u64,
}

impl LimitedSet {
    pub(crate) fn new(bounds: Bounds) -> Self {
        LimitedSet { bounds, members: HashMap::default(), order: VecDeque::new(), sequence: 0 }
    }

    /// Inserts a member, or makes it the newest.
    pub(crate) fn insert(&mut self, id: &str, now: Instant) {
        let id: Arc<str> = id.into();
        self.sequence += 1;
        self.members.insert(Arc::clone(&id), (now, self.sequence));
        self.order.push_back((self.sequence, id));
        if self.bounds.max > 0 && self.members.len() >= self.bounds.max {
            self.purge(now);
        }
        self.compact();
    }

    pub(crate) fn contains(&self, id: &str) -> bool {
        self.members.contains_key(id)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Forgets what is too much, and what is too old.
    pub(crate) fn purge(&mut self, now: Instant) {
        while let Some((sequence, id)) = self.order.front() {
            match self.members.get(id) {
                Some((inserted, current)) if current == sequence && !self.is_over(*inserted, now) => return,
                Some((_, current)) if current == sequence => drop(self.members.remove(&Arc::clone(id))),
                _ => {}
            }
            self.order.pop_front();
        }
    }

    /// The members, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        let current =
            |(sequence, id): &(u64, Arc<str>)| self.members.get(id).is_some_and(|member| member.1 == *sequence);
        self.order.iter().filter(move |entry| current(entry)).map(|(_, id)| &**id)
    }

    fn is_over(&self, inserted: Instant, now: Instant) -> bool {
        let Bounds { max, expires } = self.bounds;
        (max > 0 && self.members.len() > max) || (!expires.is_zero() && now.duration_since(inserted) >= expires)
    }

    /// Stale entries are never more than the members and a few.
    fn compact(&mut self) {
        if self.order.len() > 2 * self.members.len() + 64 {
            let members = &self.members;
            self.order.retain(|(sequence, id)| members.get(id).is_some_and(|member| member.1 == *sequence));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(max: usize, expires: u64) -> LimitedSet {
        LimitedSet::new(Bounds { max, expires: Duration::from_secs(expires) })
    }

    fn members(set: &LimitedSet) -> Vec<&str> {
        set.iter().collect()
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let (mut set, now) = (set(3, 0), Instant::now());
        for id in ["a", "b", "c", "a", "d"] {
            set.insert(id, now);
        }
        assert_eq!(members(&set), ["c", "a", "d"]);
        assert!(set.contains("a") && !set.contains("b"));
    }

    #[test]
    fn the_old_go_only_when_there_is_no_room() {
        let (mut set, now) = (set(4, 10), Instant::now());
        for (at, id) in [(0, "a"), (1, "b"), (20, "c")] {
            set.insert(id, now + Duration::from_secs(at));
        }
        assert_eq!(members(&set), ["a", "b", "c"]);
        set.insert("d", now + Duration::from_secs(21));
        assert_eq!(members(&set), ["c", "d"]);
        set.purge(now + Duration::from_secs(30));
        assert_eq!(members(&set), ["d"]);
    }

    #[test]
    fn the_same_id_over_and_over_takes_no_room() {
        let (mut set, now) = (set(50, 0), Instant::now());
        for _ in 0..10_000 {
            set.insert("a", now);
        }
        assert!(set.order.len() < 100);
        assert_eq!(members(&set), ["a"]);
    }
}
