//! [`Outcome`]: how a run ends; retry, reject and ignore are outcomes and not errors.

use super::Retry;
use crate::protocol::{Exception, Signature, Value};

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
    /// It puts another task or canvas in its place (celery/app/task.py `Task.replace`).
    Replace(Box<Signature>),
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

impl Outcome {
    /// The failure that raises `exception`.
    pub fn failure(exception: impl Into<Exception>) -> Self {
        Outcome::Failure { exception: exception.into(), traceback: None }
    }
}

/// Why a handler ends early: the `Err` side of what handlers return.
///
/// `?` turns any [`std::error::Error`] (and `anyhow::Error`, boxed errors and text) into a `Failure`; see
/// [`Exception`]'s conversions for the class that a client then sees. An [`Exception`] names its class itself.
#[derive(Debug, Clone, PartialEq)]
pub enum Interrupt {
    /// The task fails.
    Failure {
        /// What `AsyncResult.get()` raises.
        exception: Exception,
        /// Where it was raised, as text.
        traceback: Option<String>,
    },
    /// The task asks to be run again.
    Retry(Box<Retry>),
    /// The task puts another task or canvas in its place: see [`TaskContext::replace`](super::TaskContext::replace).
    Replace(Box<Signature>),
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

impl Interrupt {
    /// Ends the task without a result (celery.exceptions.Ignore).
    pub fn ignore() -> Self {
        Interrupt::Ignore
    }

    /// Fails as a task does that its soft time limit stops; for handlers that watch the limit themselves.
    pub fn soft_time_limit_exceeded() -> Self {
        Exception::with_args::<Value>("SoftTimeLimitExceeded", "billiard.exceptions", []).into()
    }

    /// Refuses the message (celery.exceptions.Reject): back to the queue with `requeue`, or else thrown away.
    pub fn reject(reason: impl Into<String>, requeue: bool) -> Self {
        Interrupt::Reject { reason: reason.into(), requeue }
    }
}

impl From<Interrupt> for Outcome {
    fn from(interrupt: Interrupt) -> Self {
        match interrupt {
            Interrupt::Failure { exception, traceback } => Outcome::Failure { exception, traceback },
            Interrupt::Retry(retry) => Outcome::Retry(*retry),
            Interrupt::Replace(signature) => Outcome::Replace(signature),
            Interrupt::Ignore => Outcome::Ignore,
            Interrupt::Reject { reason, requeue } => Outcome::Reject { reason, requeue },
        }
    }
}

impl From<Retry> for Interrupt {
    fn from(retry: Retry) -> Self {
        Interrupt::Retry(Box::new(retry))
    }
}
