//! Tasks: what a handler is, what it is given and what it may answer.
//!
//! Most users write `#[celeriac::task]` and never name [`Task`]; the macro implements it. Nothing here does I/O: what a
//! handler asks of the worker (to store a state) goes through [`StateSink`], which the worker implements.

mod context;
mod outcome;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

pub use context::{Request, StateSink, TaskContext};
pub use outcome::{Outcome, Interrupt, Retry};

use crate::protocol::{Map, Value};

/// A task that a worker can run.
pub trait Task: Send + Sync + 'static {
    /// The registered name.
    fn name(&self) -> &str;

    /// The options that the declaration gave.
    fn options(&self) -> &TaskOptions;

    /// Begins one run. Arguments that do not fit are an [`Outcome::Failure`] with `TypeError`, not a panic.
    fn run(&self, context: TaskContext, arguments: Arguments) -> Run;
}

/// One run of a task, not begun.
pub enum Run {
    /// A future for the runtime's own threads.
    Async(Pin<Box<dyn Future<Output = Outcome> + Send>>),
    /// A function for a thread that may block.
    Blocking(Box<dyn FnOnce() -> Outcome + Send>),
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Run::Async(_) => "Run::Async",
            Run::Blocking(_) => "Run::Blocking",
        })
    }
}

/// The arguments of a call, as the message's body holds them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Arguments {
    /// By position.
    pub args: Vec<Value>,
    /// By name.
    pub kwargs: Map,
}

/// A task's options, under Celery's names (celery/app/task.py `Task`). `None` leaves the worker's setting in force.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TaskOptions {
    /// Acknowledge after the run.
    pub acks_late: Option<bool>,
    /// How often `retry` may run the task again; the outer `None` is Celery's default of 3, `Some(None)` no limit.
    pub max_retries: Option<Option<u32>>,
    /// How long a retry waits that names no countdown; Celery's default is 180 s.
    pub default_retry_delay: Option<Duration>,
    /// Retry on any error, as Celery's `autoretry_for = (Exception,)`.
    pub autoretry: bool,
    /// The factor of exponential back-off, in seconds.
    pub retry_backoff: Option<Duration>,
    /// The longest back-off; Celery's default is 600 s.
    pub retry_backoff_max: Option<Duration>,
    /// Whether back-off is randomised; Celery's default is yes.
    pub retry_jitter: Option<bool>,
    /// The hard limit.
    pub time_limit: Option<Duration>,
    /// The soft limit.
    pub soft_time_limit: Option<Duration>,
    /// `"10/m"`.
    pub rate_limit: Option<String>,
    /// Store no result.
    pub ignore_result: Option<bool>,
    /// Store STARTED.
    pub track_started: Option<bool>,
    /// The serializer of what this task sends.
    pub serializer: Option<String>,
    /// Store errors although results are ignored.
    pub store_errors_even_if_ignored: Option<bool>,
    /// Requeue when the worker is lost.
    pub reject_on_worker_lost: Option<bool>,
    /// Acknowledge a late-acknowledged task that failed or timed out.
    pub acks_on_failure_or_timeout: Option<bool>,
}
