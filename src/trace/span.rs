//! The span around a task's run.
//!
//! Names are those of OpenTelemetry's conventions for messaging, and where these have none those of its Celery
//! integration for Python, so that one query finds the runs of workers of both kinds.

use tracing::{Span, field};

use crate::protocol::Exception;

/// The target of the span. Whoever filters by target can leave it out, or ask for it alone.
pub(crate) const TARGET: &str = "celeriac::task";
/// The field that has the task's id.
pub(crate) const ID: &str = "messaging.message.id";
/// The field that has the task's name.
pub(crate) const NAME: &str = "celery.task_name";

/// What the span says of a run.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Run<'a> {
    pub(crate) name: &'a str,
    pub(crate) id: &'a str,
    pub(crate) root_id: Option<&'a str>,
    pub(crate) parent_id: Option<&'a str>,
    pub(crate) queue: &'a str,
    pub(crate) retries: u32,
    pub(crate) hostname: &'a str,
    pub(crate) correlation_id: Option<&'a str>,
}

impl Run<'_> {
    /// The span, not entered. Nothing is formatted where no subscriber wants it.
    ///
    /// Its level is ERROR, so that it is there for the errors that are logged in it, whatever else is not.
    pub(crate) fn span(&self) -> Span {
        tracing::error_span!(
            target: TARGET,
            parent: None,
            "task",
            otel.name = format_args!("run/{}", self.name),
            otel.kind = "consumer",
            otel.status_code = field::Empty,
            otel.status_description = field::Empty,
            messaging.system = "celery",
            messaging.operation.name = "run",
            "messaging.operation.type" = "process",
            messaging.destination.name = self.queue,
            messaging.message.id = self.id,
            messaging.message.conversation_id = self.correlation_id,
            celery.action = "run",
            celery.task_name = self.name,
            celery.root_id = self.root_id,
            celery.parent_id = self.parent_id,
            celery.retries = self.retries,
            celery.hostname = self.hostname,
            celery.state = field::Empty,
            "error.type" = field::Empty,
        )
    }
}

/// Notes in the present span how its run has ended.
pub(crate) fn ended(state: &str, exception: Option<&Exception>) {
    let span = Span::current();
    if span.is_disabled() {
        return;
    }
    span.record("celery.state", state);
    if let Some(exception) = exception.filter(|_| state == "FAILURE") {
        span.record("error.type", exception.exc_type.as_str());
        span.record("otel.status_code", "ERROR");
        span.record("otel.status_description", field::display(exception));
    }
}
