//! [`Run`]: when an entry ran last, which is all that is kept of it; and what an [`Entry`] sends.

use std::collections::BTreeMap;

use jiff::Timestamp;

pub use crate::app::Entry;
use crate::protocol::{Map, Signature, Value};

/// The header that tells a worker that beat sent the message (Celery 5.7).
const HEADER: &str = "celery_beat_task";

/// When an entry ran last, and how often. A run counts from when it is decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// When. An entry that never ran counts as run when beat first saw it.
    pub last_run_at: Timestamp,
    /// How many times so far.
    pub total_run_count: u64,
}

/// The runs of all entries, by their names.
pub type Kept = BTreeMap<String, Run>;

impl Entry {
    /// What is sent, marked as beat's.
    pub(super) fn marked(&self) -> Signature {
        let mut signature = self.signature.clone();
        let headers = signature.options.get_or_insert_with("headers", || Value::Map(Map::new()));
        if let Value::Map(headers) = headers {
            headers.insert(HEADER, true);
        } else {
            *headers = Value::Map(Map::from([(HEADER, Value::from(true))]));
        }
        signature
    }
}

impl Run {
    /// An entry that is seen for the first time.
    pub(super) fn new(now: Timestamp) -> Self {
        Run { last_run_at: now, total_run_count: 0 }
    }

    /// The run of `now`.
    pub(super) fn next(self, now: Timestamp) -> Self {
        Run { last_run_at: now, total_run_count: self.total_run_count + 1 }
    }
}
