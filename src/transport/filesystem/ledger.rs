//! [`Ledger`]: what this transport has claimed, and what is still to be settled. It outlives every connection.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use super::names::FileName;
use super::own::OwnFolder;
use super::{Shared, settle};
use crate::transport::until::until;
use crate::transport::{Settlement, Settler, Tag};

/// How long to wait before what could not be settled is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// How many settlements are carried out at a time.
const BATCH: usize = 500;

/// A claimed message.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) own: Arc<OwnFolder>,
    pub(super) name: FileName,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    state: Mutex<State>,
    /// Told when there is something to settle.
    work: Notify,
    /// Told when there may be nothing left to settle.
    idle: Notify,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    held: HashMap<u64, Held>,
    pending: VecDeque<(Tag, Settlement)>,
    /// How many settlements are being carried out.
    writing: usize,
}

impl Ledger {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn hold(&self, held: Held) -> Tag {
        let mut state = self.state();
        state.next += 1;
        let tag = state.next;
        state.held.insert(tag, held);
        Tag(tag)
    }

    pub(super) fn holds_nothing(&self) -> bool {
        self.state().held.is_empty()
    }

    /// Waits until everything is settled.
    pub(super) async fn settled(&self) {
        until(&self.idle, || {
            let state = self.state();
            state.pending.is_empty() && state.writing == 0
        })
        .await;
    }

    fn take(&self) -> Vec<(Tag, Settlement)> {
        let mut state = self.state();
        let count = state.pending.len().min(BATCH);
        state.writing += count;
        state.pending.drain(..count).collect()
    }

    /// Carries out settlements; says whether some have to be tried again.
    fn carry_out(&self, shared: &Shared, settlements: Vec<(Tag, Settlement)>) -> bool {
        let mut again = false;
        for (tag, settlement) in settlements {
            let held = self.state().held.get(&tag.0).cloned();
            let done = held.map_or(Ok(()), |held| settle::carry_out(shared, &held, &settlement));
            let mut state = self.state();
            state.writing -= 1;
            match done {
                Ok(()) => drop(state.held.remove(&tag.0)),
                Err(error) if error.can_pass() => {
                    tracing::warn!("{error}: trying again in {} second", PAUSE.as_secs());
                    again = true;
                    state.pending.push_back((tag, settlement));
                }
                // It stays claimed, and comes again when this process has ended.
                Err(error) => tracing::warn!("{error}: the message stays where it is"),
            }
        }
        self.idle.notify_waiters();
        again
    }
}

impl Settler for Ledger {
    fn settle(&self, tag: Tag, settlement: Settlement) {
        self.state().pending.push_back((tag, settlement));
        self.work.notify_one();
    }
}

/// Carries out what is settled, for as long as the transport lives.
pub(super) async fn run(ledger: Arc<Ledger>, shared: Weak<Shared>) {
    loop {
        ledger.work.notified().await;
        loop {
            let Some(shared) = shared.upgrade() else { return };
            let settlements = ledger.take();
            if settlements.is_empty() {
                break;
            }
            let own = Arc::clone(&ledger);
            let done = tokio::task::spawn_blocking(move || own.carry_out(&shared, settlements)).await;
            if done.unwrap_or(true) {
                sleep(PAUSE).await;
            }
        }
    }
}
