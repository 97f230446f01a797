//! [`Pools`]: where a worker's tasks are run that do not run here.

use std::sync::Arc;

use futures_util::future::select_all;

use crate::Error;
use crate::task::Pool;

/// The pools of a worker's tasks, each once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pools(Vec<Arc<dyn Pool>>);

impl Pools {
    pub(crate) fn new(pools: impl Iterator<Item = Arc<dyn Pool>>) -> Self {
        let mut known: Vec<Arc<dyn Pool>> = Vec::new();
        for pool in pools {
            if !known.iter().any(|other| std::ptr::addr_eq(Arc::as_ptr(other), Arc::as_ptr(&pool))) {
                known.push(pool);
            }
        }
        Pools(known)
    }

    pub(crate) fn start(&self, size: usize) {
        self.0.iter().for_each(|pool| pool.start(size));
    }

    pub(crate) fn resize(&self, size: usize) {
        self.0.iter().for_each(|pool| pool.resize(size));
    }

    /// How many runs begin at a time at this moment, where it would be `concurrency` without pools.
    pub(crate) fn places(&self, concurrency: usize) -> usize {
        self.0.iter().filter_map(|pool| pool.places()).fold(concurrency, usize::max)
    }

    /// How many calls each of `concurrency` places takes at this moment.
    pub(crate) fn depth(&self, concurrency: usize) -> usize {
        self.places(concurrency) / concurrency.max(1)
    }

    /// Resolves when one of them can run nothing any more.
    pub(crate) async fn failed(&self) -> Error {
        if self.0.is_empty() {
            return std::future::pending().await;
        }
        select_all(self.0.iter().map(|pool| pool.failed())).await.0
    }

    pub(crate) async fn stop(&self) {
        for pool in &self.0 {
            pool.stop().await;
        }
    }
}
