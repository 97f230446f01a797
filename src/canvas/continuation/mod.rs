//! What follows when a task has ended: callbacks, the next step of a chain, errbacks, what is failed with it, and the
//! body of a chord (celery/app/trace.py, celery/backends/base.py, celery/app/task.py).

mod types;

pub use types::{BodyFailure, ChordFailure, Errbacks, FailedMember, Replaced};
