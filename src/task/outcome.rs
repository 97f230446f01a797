//! [`Outcome`]: how a run ends; retry, reject and ignore are outcomes and not errors.

use std::time::Duration;

use jiff::Timestamp;

use crate::protocol::{Exception, Value};

/// How one run of a task ends.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It returned.
    Success(Value),
    /// It raised.
    Failure {
        /// What `AsyncResult.get()` raises.
        exception: Exception,
        /// Where it was raised, as text.
        traceback: Option<String>,
    },
    /// It asks to be run again.
    Retry(Retry),
    /// It ends without a result (celery.exceptions.Ignore).
    Ignore,
    /// It refuses its message (celery.exceptions.Reject).
    Reject {
        /// Why.
        reason: String,
        /// Back to the queue, or thrown away.
        requeue: bool,
    },
}

/// Why a handler ends early: the `Err` side of what handlers return. Any [`std::error::Error`] becomes a `Failure`.
#[derive(Debug, Clone, PartialEq)]
pub enum Interrupt {
    /// The task fails with this exception.
    Failure(Exception),
    /// The task asks to be run again.
    Retry(Retry),
    /// The task ends without a result.
    Ignore,
    /// The task refuses its message.
    Reject {
        /// Why.
        reason: String,
        /// Back to the queue, or thrown away.
        requeue: bool,
    },
}

/// A wish to be run again (celery/app/task.py `Task.retry`).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Retry {
    /// What went wrong: stored as the RETRY state's result, and raised when no retries are left.
    pub exception: Option<Exception>,
    /// How long to wait; `None`: the task's back-off, or its default delay.
    pub countdown: Option<Duration>,
    /// When to run; wins over `countdown`.
    pub eta: Option<Timestamp>,
    /// Another limit than the task's; `Some(None)` is no limit.
    pub max_retries: Option<Option<u32>>,
    /// Other arguments than this run's.
    pub args: Option<Vec<Value>>,
    /// Other keyword arguments than this run's.
    pub kwargs: Option<crate::protocol::Map>,
}
