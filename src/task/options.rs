//! [`TaskOptions`]: what a declaration says of how its task is run.

use std::time::Duration;

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
    /// The factor of exponential back-off; at least one second.
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
