//! [`Asked`]: a schedule that somebody else knows, such as an object in Python.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use super::Due;
use crate::error::Result;

/// Who knows when something is due. It has a clock of its own.
pub trait Ask: Send + Sync {
    /// `is_due`, when it ran at `last_run_at`.
    ///
    /// # Errors
    ///
    /// It cannot be said.
    fn is_due(&self, last_run_at: Timestamp) -> Result<Due>;

    /// What it is called.
    fn name(&self) -> String;
}

/// A schedule that is asked at each look, and about which nothing is known before. It is the same as itself alone.
#[derive(Clone)]
pub struct Asked(pub Arc<dyn Ask>);

impl PartialEq for Asked {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Asked({})", self.0.name())
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.name())
    }
}
