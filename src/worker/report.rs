//! What the worker logs of a task, in Celery's words (celery/app/trace.py `LOG_SUCCESS` and its neighbours;
//! celery/worker/consumer/consumer.py `UNKNOWN_TASK_ERROR` and its neighbours).

use std::time::Duration;

use tracing::{error, info, warn};

use super::request::Work;

/// One log line about a task.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Report {
    /// At INFO.
    Info(String),
    /// At WARNING.
    Warning(String),
    /// At ERROR, with the traceback if there is one.
    Error(String, Option<String>),
}

impl Report {
    /// Logs `Task name[id] …`.
    pub(crate) fn log(&self, work: &Work) {
        let (name, id) = (&work.name, &work.request.id);
        match self {
            Report::Info(text) => info!("Task {name}[{id}] {text}"),
            Report::Warning(text) => warn!("Task {name}[{id}] {text}"),
            Report::Error(text, None) => error!("Task {name}[{id}] {text}"),
            Report::Error(text, Some(traceback)) => error!("Task {name}[{id}] {text}\n{traceback}"),
        }
    }
}

/// Seconds as Python writes them: `1`, `1.5`.
pub(crate) fn seconds(duration: Duration) -> String {
    duration.as_secs_f64().to_string()
}

/// `Soft time limit (1s) exceeded for name[id]`, or `Hard`.
pub(crate) fn log_limit(which: &str, limit: Duration, work: &Work) {
    let text = format!("{which} time limit ({}s) exceeded for {}[{}]", seconds(limit), work.name, work.request.id);
    match which {
        "Soft" => warn!("{text}"),
        _ => error!("{text}"),
    }
}

/// `Discarding revoked task: name[id]`.
pub(crate) fn log_discarded(work: &Work) {
    info!("Discarding revoked task: {}[{}]", work.name, work.request.id);
}
