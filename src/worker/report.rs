//! What the worker logs of a task, in Celery's words (celery/app/trace.py `LOG_SUCCESS` and its neighbours;
//! celery/worker/consumer/consumer.py `UNKNOWN_TASK_ERROR` and its neighbours).

use std::time::Duration;

use tracing::{Level, enabled, error, info, warn};

use super::request::Work;
use super::revoked::Reason;
use crate::Error;
use crate::protocol::{MetaResult, Value, repr};

/// One log line about a task.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Report {
    /// The task returned; at INFO, with its result's repr, which is made only for those who read it.
    Succeeded(Duration),
    /// Nothing: all was said before.
    Silent,
    /// At ERROR, what the process of a task has come to.
    Handler(String),
    /// At INFO.
    Info(String),
    /// At WARNING.
    Warning(String),
    /// At ERROR, with the traceback if there is one.
    Error(String, Option<String>),
}

/// A line that is made, and not yet said.
#[derive(Debug)]
pub(crate) struct Said(Option<(Level, String)>);

impl Report {
    /// Logs `Task name[id] …`.
    pub(crate) fn log(&self, work: &Work, result: &MetaResult) {
        self.said(work, result).say();
    }

    /// `Task name[id] …`, to be logged when the result is given away and it is known that this is true.
    pub(crate) fn said(&self, work: &Work, result: &MetaResult) -> Said {
        let (level, text) = match self {
            Report::Silent => return Said(None),
            Report::Handler(exception) => {
                return Said(Some((Level::ERROR, format!("Task handler raised error: {exception}"))));
            }
            // The most of all lines: not made where nobody reads them.
            Report::Succeeded(_) if !enabled!(Level::INFO) => return Said(None),
            Report::Succeeded(runtime) => {
                (Level::INFO, format!("succeeded in {}s: {}", float(*runtime), shown(result)))
            }
            Report::Info(text) => (Level::INFO, text.clone()),
            Report::Warning(text) => (Level::WARN, text.clone()),
            Report::Error(text, None) => (Level::ERROR, text.clone()),
            Report::Error(text, Some(traceback)) => (Level::ERROR, format!("{text}\n{traceback}")),
        };
        Said(Some((level, format!("Task {}[{}] {text}", work.name, work.request.id))))
    }
}

impl Said {
    pub(crate) fn say(self) {
        match self.0 {
            Some((Level::ERROR, text)) => error!("{text}"),
            Some((Level::WARN, text)) => warn!("{text}"),
            Some((_, text)) => info!("{text}"),
            None => {}
        }
    }
}

/// At most 1,024 characters of the result (celery/app/task.py `Task.resultrepr_maxsize`).
fn shown(result: &MetaResult) -> String {
    match result {
        MetaResult::Value(value) => repr::saferepr(value, repr::Limits::default()),
        MetaResult::Exception(exception) => exception.to_string(),
    }
}

/// Seconds as Python writes a float: `1.0`, `1.5`, `5.7e-05`.
fn float(duration: Duration) -> String {
    repr::repr(&Value::Float(duration.as_secs_f64()))
}

/// Seconds as Python writes them, whole ones as an integer: `1`, `1.5`, `5e-05`.
pub(crate) fn seconds(duration: Duration) -> String {
    if duration.subsec_nanos() == 0 { duration.as_secs().to_string() } else { float(duration) }
}

/// `Soft time limit (1s) exceeded for name[id]`, or `Hard`.
pub(crate) fn log_limit(which: &str, limit: Duration, work: &Work) {
    let text = format!("{which} time limit ({}s) exceeded for {}[{}]", seconds(limit), work.name, work.request.id);
    match which {
        "Soft" => warn!("{text}"),
        _ => error!("{text}"),
    }
}

/// `Discarding revoked task: name[id]`, for what expired too.
pub(crate) fn log_discarded(work: &Work, reason: Option<&Reason>) {
    let by = match reason {
        Some(Reason::Stamp(stamp)) => format!(" (revoked by header: {})", repr::repr(&stamp.clone().into())),
        Some(Reason::Id) | None => String::new(),
    };
    info!("Discarding revoked task: {}[{}]{by}", work.name, work.request.id);
}

/// What became of a message whose task has succeeded before.
pub(crate) fn log_duplicate(work: &Work) {
    info!("Task {}[{}] Task already completed successfully.", work.name, work.request.id);
}

/// What `terminate` did to a handler that blocks its thread.
pub(crate) fn log_stray(work: &Work) {
    warn!(
        "Task {}[{}] is terminated, but its thread cannot be: what it returns is thrown away, and it keeps its place in the \
         pool until it does",
        work.name, work.request.id
    );
}

/// The broker is away and the worker stops: what the task sends is not sent.
pub(crate) fn log_unsent(work: &Work, error: &Error) {
    let (name, id) = (&work.name, &work.request.id);
    if work.is_unsettled() {
        error!("Task {name}[{id}] cannot send what follows it, and is given back: {error}");
    } else {
        error!(
            "Task {name}[{id}] cannot send what follows it, which is lost, for its message is acknowledged: {error}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_written_as_python_writes_them() {
        let rows = [
            (57_000, "5.7e-05", "5.7e-05"),
            (100_000, "0.0001", "0.0001"),
            (1_234_567, "0.001234567", "0.001234567"),
            (1_500_000_000, "1.5", "1.5"),
            (60_000_000_000, "60.0", "60"),
            (0, "0.0", "0"),
        ];
        for (nanoseconds, runtime, limit) in rows {
            let duration = Duration::from_nanos(nanoseconds);
            assert_eq!((float(duration).as_str(), seconds(duration).as_str()), (runtime, limit));
        }
    }
}
