//! [`Pools`]: where a worker's tasks are run, and how much may run in each place.
//!
//! A lane is such a place: the first is this process, whose handlers run on Tokio, and each pool has one. No lane waits for
//! another: a handler begins though all processes of a pool are busy.

use std::sync::Arc;

use futures_util::future::select_all;

use super::DEFAULT_CONCURRENCY;
use crate::Error;
use crate::task::Pool;

/// The number of a lane; 0 is this process.
pub(crate) type Lane = usize;

/// The pools of a worker's tasks, each once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pools {
    pools: Vec<Arc<dyn Pool>>,
    /// How many handlers run at a time beside the pools; 0: there are none.
    handlers: usize,
}

impl Pools {
    /// `handlers`: how many of them run at a time, if there are any; `None`: as many as without pools.
    pub(crate) fn new(pools: impl Iterator<Item = Arc<dyn Pool>>, handlers: Option<Option<u32>>) -> Self {
        let mut known: Vec<Arc<dyn Pool>> = Vec::new();
        for pool in pools {
            if !known.iter().any(|other| is_same(other, &pool)) {
                known.push(pool);
            }
        }
        let handlers = handlers.map_or(0, |most| most.unwrap_or(DEFAULT_CONCURRENCY) as usize);
        Pools { pools: known, handlers }
    }

    pub(crate) fn start(&self, size: usize) {
        self.pools.iter().for_each(|pool| pool.start(size));
    }

    pub(crate) fn resize(&self, size: usize) {
        self.pools.iter().for_each(|pool| pool.resize(size));
    }

    /// How many lanes there are.
    pub(crate) fn lanes(&self) -> usize {
        1 + self.pools.len()
    }

    /// Those lanes whose runs `worker_concurrency` counts.
    pub(crate) fn counted(&self) -> std::ops::Range<Lane> {
        if self.pools.is_empty() { 0..1 } else { 1..self.lanes() }
    }

    /// Where the tasks of a pool are run; `None`: here.
    pub(crate) fn lane(&self, pool: Option<&Arc<dyn Pool>>) -> Lane {
        let known = pool.and_then(|pool| self.pools.iter().position(|other| is_same(other, pool)));
        known.map_or(0, |at| at + 1)
    }

    /// How many handlers run at a time beside the pools; 0: none, or there are no pools.
    pub(crate) fn handlers(&self) -> usize {
        if self.pools.is_empty() { 0 } else { self.handlers }
    }

    /// Whether what runs there takes nothing of the window that the pools have: handlers beside them.
    pub(crate) fn stands_aside(&self, lane: Lane) -> bool {
        lane == 0 && !self.pools.is_empty()
    }

    /// How many runs find a place in a lane at this moment, where it would be `concurrency` in a worker with that lane alone.
    pub(crate) fn places(&self, lane: Lane, concurrency: usize) -> usize {
        match lane.checked_sub(1).map(|at| self.pools.get(at)) {
            Some(pool) => pool.and_then(|pool| pool.places()).unwrap_or(concurrency),
            None if self.pools.is_empty() => concurrency,
            None => self.handlers,
        }
    }

    /// How many calls each of `concurrency` places takes at this moment.
    pub(crate) fn depth(&self, concurrency: usize) -> usize {
        match self.counted().last() {
            Some(lane) => self.places(lane, concurrency) / concurrency.max(1),
            None => 1,
        }
    }

    /// Resolves when one of them can run nothing any more.
    pub(crate) async fn failed(&self) -> Error {
        if self.pools.is_empty() {
            return std::future::pending().await;
        }
        select_all(self.pools.iter().map(|pool| pool.failed())).await.0
    }

    pub(crate) async fn stop(&self) {
        for pool in &self.pools {
            pool.stop().await;
        }
    }
}

fn is_same(one: &Arc<dyn Pool>, other: &Arc<dyn Pool>) -> bool {
    std::ptr::addr_eq(Arc::as_ptr(one), Arc::as_ptr(other))
}
