//! [`TaskOptions`]: what a declaration says of how its task is run and sent.

use std::time::Duration;

use crate::config::{Annotation, TaskAttributes};

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
    /// Send events about it, if any are sent; Celery's default is yes.
    pub send_events: Option<bool>,
    /// Requeue when the worker is lost.
    pub reject_on_worker_lost: Option<bool>,
    /// Run again as a retry, after `default_retry_delay` and as often as `max_retries` says, when the process that ran it
    /// is lost; before `reject_on_worker_lost`. Celery has it from 5.7 on. It is for what a pool runs, of Celery's or of
    /// ours: a worker that runs a handler itself is lost with it, and nobody is left to send the message again.
    pub retry_on_worker_lost: Option<bool>,
    /// Acknowledge a late-acknowledged task that failed or timed out.
    pub acks_on_failure_or_timeout: Option<bool>,
    /// Acknowledge a late-acknowledged task that failed; before `acks_on_failure_or_timeout`.
    pub acks_on_failure: Option<bool>,
    /// Acknowledge a late-acknowledged task that timed out; before `acks_on_failure_or_timeout`.
    pub acks_on_timeout: Option<bool>,
    /// The queue that a producer sends it to; wins over `task_routes`.
    pub queue: Option<String>,
    /// The priority that a producer gives it.
    pub priority: Option<u8>,
    /// After how long a message that was not run is no longer to run.
    pub expires: Option<Duration>,
}

/// Puts each of these fields of the attributes, if it is set, over that of the options.
macro_rules! override_with {
    ($options:ident, $attributes:ident: $($field:ident)*) => {
        $( if let Some(value) = &$attributes.$field { $options.$field = Some(value.clone()); } )*
    };
}

impl TaskOptions {
    /// The options of the task `name` with what `task_annotations` say of it: an annotation wins over the declaration,
    /// and the first for all tasks (`*`) over the first for this one (celery/app/annotations.py `resolve_all`).
    #[must_use]
    pub fn annotated(&self, name: &str, annotations: &[Annotation]) -> Self {
        let mut options = self.clone();
        for wanted in [name, "*"] {
            if let Some(annotation) = annotations.iter().find(|annotation| annotation.task == wanted) {
                options.annotate(&annotation.attributes);
            }
        }
        options
    }

    fn annotate(&mut self, attributes: &TaskAttributes) {
        override_with!(self, attributes:
            acks_late acks_on_failure acks_on_timeout acks_on_failure_or_timeout default_retry_delay ignore_result
            max_retries priority queue rate_limit reject_on_worker_lost retry_on_worker_lost send_events serializer
            soft_time_limit store_errors_even_if_ignored time_limit track_started
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_win_and_those_for_all_tasks_win_over_those_for_one() {
        let annotation = |task: &str, rate_limit: Option<&str>, acks_late| Annotation {
            task: task.to_owned(),
            attributes: TaskAttributes {
                rate_limit: rate_limit.map(str::to_owned),
                acks_late,
                ..TaskAttributes::default()
            },
        };
        let annotations = [
            annotation("t", Some("1/s"), Some(true)),
            annotation("*", Some("2/s"), None),
            annotation("*", None, Some(false)),
        ];
        let declared = TaskOptions { acks_late: Some(false), track_started: Some(true), ..TaskOptions::default() };
        let limited = |rate: &str| TaskOptions { rate_limit: Some(rate.to_owned()), ..declared.clone() };
        assert_eq!(declared.annotated("t", &annotations), TaskOptions { acks_late: Some(true), ..limited("2/s") });
        assert_eq!(declared.annotated("u", &annotations), limited("2/s"));
        assert_eq!(declared.annotated("t", &[]), declared);
    }
}
