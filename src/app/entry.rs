//! [`Entry`]: a periodic task, as `beat_schedule` has it.

use crate::protocol::Signature;
use crate::schedule::Schedule;

/// A periodic task: Celery's `ScheduleEntry`, but for what changes while beat runs. Two are the same if they send the same
/// at the same times (`editable_fields_equal`).
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its key in `beat_schedule`.
    pub name: String,
    /// When it is due.
    pub schedule: Schedule,
    /// What is sent then: the task, its arguments and the options of `apply_async`.
    pub signature: Signature,
}

impl Entry {
    /// An entry of that name.
    pub fn new(name: impl Into<String>, schedule: impl Into<Schedule>, signature: impl Into<Signature>) -> Self {
        Entry { name: name.into(), schedule: schedule.into(), signature: signature.into() }
    }
}
