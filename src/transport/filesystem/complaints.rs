//! [`Complaints`]: what is wrong with the folder, said once and not each time that somebody looks.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// How many are remembered.
const MOST: usize = 1000;

#[derive(Debug, Default)]
pub(super) struct Complaints(Mutex<HashSet<String>>);

impl Complaints {
    /// Warns, unless that was said before.
    pub(super) fn warn(&self, complaint: String) {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if made.len() >= MOST {
            made.clear();
        }
        if !made.contains(&complaint) {
            tracing::warn!("{complaint}");
            made.insert(complaint);
        }
    }
}
