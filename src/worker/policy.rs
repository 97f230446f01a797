//! [`Policy`]: what a task's options and the worker's settings come to, worked out once when the worker starts.

use std::time::Duration;

use crate::config::Config;
use crate::task::TaskOptions;

use super::execute::Limits;

/// How one task is run, acknowledged and stored (celery/app/task.py `Task.from_config`: an option of the task's own wins
/// over the setting).
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Policy {
    /// Acknowledge after the run.
    pub(crate) acks_late: bool,
    /// A late-acknowledged task that failed is done with; otherwise it becomes a dead letter.
    pub(crate) acks_on_failure: bool,
    /// A late-acknowledged task that ran into its hard limit is done with; otherwise it goes back to its queue.
    pub(crate) acks_on_timeout: bool,
    /// A late-acknowledged task whose process is gone goes back to its queue.
    pub(crate) reject_on_worker_lost: bool,
    /// A task whose process is gone is run again while it has retries left, before anything else is done about it.
    pub(crate) retry_on_worker_lost: bool,
    /// Store no result, unless the message says otherwise.
    pub(crate) ignore_result: bool,
    /// Store errors although the result is ignored.
    pub(crate) store_errors_even_if_ignored: bool,
    /// Store STARTED.
    pub(crate) track_started: bool,
    /// The limits, unless the message has its own.
    pub(crate) limits: Limits,
    /// Events of it are sent, if any are (celery/app/task.py `Task.send_events`).
    pub(crate) send_events: bool,
    /// How often it starts, as text: `"10/s"`.
    pub(crate) rate_limit: Option<String>,
}

impl Policy {
    /// Works out the policy of a task.
    pub(crate) fn new(options: &TaskOptions, config: &Config) -> Self {
        let on_failure_or_timeout =
            options.acks_on_failure_or_timeout.unwrap_or(config.task_acks_on_failure_or_timeout);
        Policy {
            acks_late: options.acks_late.unwrap_or(config.task_acks_late),
            acks_on_failure: options.acks_on_failure.or(config.task_acks_on_failure).unwrap_or(on_failure_or_timeout),
            acks_on_timeout: options.acks_on_timeout.or(config.task_acks_on_timeout).unwrap_or(on_failure_or_timeout),
            reject_on_worker_lost: options.reject_on_worker_lost.or(config.task_reject_on_worker_lost).unwrap_or(false),
            retry_on_worker_lost: options.retry_on_worker_lost.unwrap_or(config.task_retry_on_worker_lost),
            ignore_result: options.ignore_result.unwrap_or(config.task_ignore_result),
            store_errors_even_if_ignored: options
                .store_errors_even_if_ignored
                .unwrap_or(config.task_store_errors_even_if_ignored),
            track_started: options.track_started.unwrap_or(config.task_track_started),
            limits: Limits {
                hard: options.time_limit.or(config.task_time_limit),
                soft: options.soft_time_limit.or(config.task_soft_time_limit),
            },
            send_events: options.send_events.unwrap_or(true),
            rate_limit: options.rate_limit.clone().or_else(|| config.task_default_rate_limit.clone()),
        }
    }

    /// Whether the message goes back whose process is gone; one that was acknowledged early cannot
    /// (celery/worker/request.py `Request.on_failure`).
    pub(crate) fn requeues_lost(&self) -> bool {
        self.acks_late && self.reject_on_worker_lost
    }

    /// The limits of one run: the message's where it has them; a null or 0 there falls back to the task's
    /// (celery/worker/request.py `Request.execute_using_pool`).
    pub(crate) fn limits_with(&self, hard: Option<Duration>, soft: Option<Duration>) -> Limits {
        Limits { hard: hard.or(self.limits.hard), soft: soft.or(self.limits.soft) }
    }
}
