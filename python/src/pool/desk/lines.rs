//! [`Line`]: to a nursery, of which there may be another while the children of one that was replaced end; and what becomes of
//! the pool when the last one is gone.

use std::os::unix::net::UnixStream;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::error;

use super::super::nursery::{self, Ask};
use super::{Desk, PARTING};

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

    /// A nursery is gone, and its children with it: they are killed when it dies.
    pub(in super::super) fn orphaned(self: &Arc<Self>, generation: u32) {
        let is_last = self.is_last(generation);
        let was_closing = !is_last || self.close();
        let state = self.state();
        let children = state.children.values().filter(|child| child.nursery.generation == generation);
        children.for_each(|child| child.gone.tell("signal 9 (SIGKILL)".to_owned()));
        drop(state);
        if was_closing {
            return;
        }
        error!("the process that forks the others is gone, and those that it has forked");
        let desk = Arc::clone(self);
        self.spawn(async move {
            // What ran is lost, and known to be, before anything else is said.
            let _ = timeout(PARTING, desk.all_left()).await;
            desk.fail("the process that forks the others is gone");
        });
    }

    /// A nursery has not answered for so long. Its children go on: what runs may end. One that was replaced is not needed.
    pub(in super::super) fn stuck(&self, generation: u32, waited: Duration) {
        if !self.is_last(generation) {
            return;
        }
        self.state().is_stuck = true;
        if !self.close() {
            error!("the process that forks the others has not answered for {} s", waited.as_secs_f64());
            self.fail("the process that forks the others does not answer");
        }
    }

    fn fail(&self, why: &str) {
        self.failed.send_if_modified(|known| known.is_none() && known.replace(why.to_owned()).is_none());
    }

    /// Resolves when nothing can be run any more.
    pub(in super::super) async fn failed(&self) -> String {
        let mut told = self.failed.subscribe();
        // The sender is `self`, so that the channel is not closed while this waits.
        let known = told.wait_for(Option::is_some).await;
        known.ok().and_then(|why| why.clone()).unwrap_or_default()
    }
}
