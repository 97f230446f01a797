//! What follows when a task has ended: callbacks, the next step of a chain, errbacks, what is failed with it, and the
//! body of a chord (celery/app/trace.py, celery/backends/base.py, celery/app/task.py).

mod chord;
mod errbacks;
mod fail;
mod replace;
mod success;
mod types;

pub use fail::failed_members;
pub use types::{Added, BodyFailure, ChordFailure, Errbacks, FailedMember, Replaced};
