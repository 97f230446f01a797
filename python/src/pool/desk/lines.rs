//! [`Line`]: to a nursery, of which there may be another while the children of one that was replaced end.

use std::os::unix::net::UnixStream;
use std::sync::{Arc, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use super::super::nursery::{self, Ask};
use super::Desk;

/// A line to a nursery. Each child that it has forked has a copy, and when the last one is gone it ends.
#[derive(Debug, Clone)]
pub(super) struct Line {
    /// How many nurseries there were before.
    pub(super) generation: u32,
    pub(super) asks: mpsc::UnboundedSender<Ask>,
    /// As [`PreforkOptions::nursery`](super::PreforkOptions::nursery).
    pub(super) process: Option<i32>,
}

impl Desk {
    /// Has all children replaced by those of another nursery, each when it has ended what it has been given.
    pub(in super::super) fn renew(self: &Arc<Self>, nursery: UnixStream, process: Option<i32>) {
        let (asks, asked) = mpsc::unbounded_channel();
        let generation = {
            let mut line = self.line_to_nursery();
            *line = Line { generation: line.generation + 1, asks, process };
            line.generation
        };
        let desk = Arc::clone(self);
        self.spawn(async move { nursery::serve(desk, generation, nursery, asked).await });
        let mut state = self.state();
        state.children.values_mut().for_each(|child| child.is_retiring = true);
        state.dismiss();
    }

    /// To who forks now.
    pub(super) fn line_to_nursery(&self) -> MutexGuard<'_, Line> {
        self.nursery.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no other nursery has come after that one.
    pub(super) fn is_last(&self, generation: u32) -> bool {
        self.line_to_nursery().generation == generation
    }

    pub(super) fn ask(&self, ask: Ask) {
        self.ask_over(None, ask);
    }

    /// Asks a nursery, or that which forks now.
    pub(super) fn ask_over(&self, line: Option<Line>, ask: Ask) {
        let line = line.unwrap_or_else(|| self.line_to_nursery().clone());
        // Where the nursery is gone nobody can be asked.
        let _ = line.asks.send(ask);
    }
}
