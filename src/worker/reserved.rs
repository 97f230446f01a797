//! [`Reserved`]: what waits for a place, apart for each lane, so that none waits for a place in another.

use std::collections::VecDeque;

use super::pools::{Lane, Pools};
use super::request::Work;

/// What waits for a place.
#[derive(Debug)]
pub(crate) struct Reserved {
    pools: Pools,
    lanes: Vec<VecDeque<Box<Work>>>,
    /// The lane that comes first the next time: each has its turn.
    turn: Lane,
}

impl Reserved {
    pub(crate) fn new(pools: Pools) -> Self {
        let lanes = (0..pools.lanes()).map(|_| VecDeque::new()).collect();
        Reserved { pools, lanes, turn: 0 }
    }

    /// It waits behind the others.
    pub(crate) fn push_back(&mut self, mut work: Box<Work>) {
        let lane = self.placed(&mut work);
        self.lanes[lane].push_back(work);
    }

    /// It waits before the others.
    pub(crate) fn push_front(&mut self, mut work: Box<Work>) {
        let lane = self.placed(&mut work);
        self.lanes[lane].push_front(work);
    }

    /// What is to begin next in a lane that has room.
    pub(crate) fn pop(&mut self, has_room: impl Fn(Lane) -> bool) -> Option<Box<Work>> {
        let count = self.lanes.len();
        let turns = (0..count).map(|step| (self.turn + step) % count);
        let lane = { turns }.find(|lane| !self.lanes[*lane].is_empty() && has_room(*lane))?;
        self.turn = (lane + 1) % count;
        self.lanes[lane].pop_front()
    }

    /// Where it is to run, which says whether it takes of the window.
    pub(crate) fn placed(&self, work: &mut Work) -> Lane {
        let lane = self.lane(work);
        if self.pools.stands_aside(lane) {
            work.stand_aside();
        }
        lane
    }

    /// Where it is to run.
    pub(crate) fn lane(&self, work: &Work) -> Lane {
        self.pools.lane(work.task.pool.as_ref())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Work> {
        self.lanes.iter().flatten().map(|work| &**work)
    }

    /// All of it, taken out.
    pub(crate) fn take(&mut self) -> VecDeque<Box<Work>> {
        self.lanes.iter_mut().flat_map(|lane| lane.drain(..)).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.lanes.iter().map(VecDeque::len).sum()
    }

    /// How many wait for a place in that lane.
    pub(crate) fn len_in(&self, lane: Lane) -> usize {
        self.lanes.get(lane).map_or(0, VecDeque::len)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lanes.iter().all(VecDeque::is_empty)
    }
}

impl Extend<Box<Work>> for Reserved {
    fn extend<I: IntoIterator<Item = Box<Work>>>(&mut self, works: I) {
        works.into_iter().for_each(|work| self.push_back(work));
    }
}
