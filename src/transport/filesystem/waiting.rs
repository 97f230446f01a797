//! [`Waiting`]: the names of the messages that wait, kept up to date by what the system tells of the folder.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::names::FileName;
use crate::transport::QueueName;

/// What waits, as far as it is known. A name may be gone already, as others take messages too.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    names: Mutex<HashMap<String, BTreeSet<FileName>>>,
    /// Told when names were added.
    changes: watch::Sender<()>,
}

impl Waiting {
    fn names(&self) -> MutexGuard<'_, HashMap<String, BTreeSet<FileName>>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    pub(super) fn add(&self, found: impl IntoIterator<Item = FileName>) {
        let mut names = self.names();
        for name in found {
            names.entry(name.queue().to_owned()).or_default().insert(name);
        }
        drop(names);
        self.changes.send_replace(());
    }

    /// All that was found by looking through the folder, and nothing else.
    pub(super) fn replace(&self, found: impl IntoIterator<Item = FileName>) {
        self.names().clear();
        self.add(found);
    }

    /// Takes the first name of the first of these queues that has one.
    pub(super) fn next(&self, queues: &[QueueName]) -> Option<(QueueName, FileName)> {
        let mut names = self.names();
        let mut first = |queue: &QueueName| Some((queue.clone(), names.get_mut(queue.as_str())?.pop_first()?));
        queues.iter().find_map(&mut first)
    }

    /// Takes all names of a queue, in their order.
    pub(super) fn all_of(&self, queue: &str) -> BTreeSet<FileName> {
        self.names().remove(queue).unwrap_or_default()
    }
}
