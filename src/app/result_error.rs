//! [`ResultError`] and [`TaskError`]: why a result could not be had.

use std::fmt;
use std::time::Duration;

use crate::Error;
use crate::protocol::{Exception, State};

/// Why [`AsyncResult::get`](super::AsyncResult::get) has nothing to return.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResultError {
    /// The task raised, or was revoked.
    #[error(transparent)]
    Task(Box<TaskError>),
    /// It was not ready in time (celery.exceptions.TimeoutError).
    #[error("task {task_id} was not ready within {timeout:?}")]
    Timeout {
        /// The task, or the group.
        task_id: String,
        /// How long it was waited for.
        timeout: Duration,
    },
    /// It returned something else than was asked for.
    #[error("the result of task {task_id} is of another type: {reason}")]
    Type {
        /// The task, or the group.
        task_id: String,
        /// What does not fit.
        reason: String,
    },
    /// The backend could not say.
    #[error(transparent)]
    Backend(#[from] Error),
}

impl ResultError {
    /// What the task raised, if it did.
    pub fn task_error(&self) -> Option<&TaskError> {
        match self {
            ResultError::Task(error) => Some(error),
            _ => None,
        }
    }

    /// Whether the time was up.
    pub fn is_timeout(&self) -> bool {
        matches!(self, ResultError::Timeout { .. })
    }
}

/// What a task raised, wherever it ran: what `AsyncResult.get()` raises in Python.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskError {
    /// The task; in a group, the member.
    pub task_id: String,
    /// FAILURE or REVOKED.
    pub state: State,
    /// The exception, by the name of its class.
    pub exception: Exception,
    /// The traceback, as the worker wrote it.
    pub traceback: Option<String>,
}

impl TaskError {
    /// The name of the exception's class: `ValueError`.
    pub fn exc_type(&self) -> &str {
        &self.exception.exc_type
    }

    /// What Python's `str()` makes of the exception.
    pub fn message(&self) -> String {
        self.exception.message()
    }
}

impl From<TaskError> for ResultError {
    fn from(error: TaskError) -> Self {
        ResultError::Task(Box::new(error))
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {} ended as {}: {}", self.task_id, self.state, self.exception)
    }
}

impl std::error::Error for TaskError {}
