//! Errbacks of the new style, which are called where the task failed, with the request, the exception and the traceback
//! (celery/backends/base.py `Backend._call_task_errbacks`).

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::error;

use super::results::Results;
use super::sender::Sender;
use super::sink::Sink;
use crate::protocol::{Embed, Exception, Map, Signature, Value};
use crate::task::{Arguments, Outcome, Registry, Request, Run, Task, TaskContext};

/// Whether an errback takes more than the failed task's id; one that this worker does not know is sent.
pub(crate) fn is_inline(errback: &Signature, tasks: &Registry) -> bool {
    // What is run elsewhere cannot be called here.
    let Some(task) = tasks.task(&errback.task).filter(|task| task.pool().is_none()) else { return false };
    let Some(signature) = task.signature() else { return true };
    let given = if errback.immutable { 0 } else { errback.args.len() + errback.kwargs.len() };
    signature.takes_all_positions() || signature.positional().len().saturating_sub(given) > 1
}

/// Calls an errback; what it raises is logged and changes nothing.
pub(crate) async fn call(
    errback: Signature,
    tasks: &Registry,
    sender: &Arc<Sender>,
    results: &Arc<Results>,
    failed: &Request,
    exception: &Exception,
    traceback: Option<&str>,
) {
    let Some(task) = tasks.task(&errback.task) else { return };
    let given = vec![shown(failed), Value::Map(exception.to_map()), traceback.into()];
    let errback = errback.with_arguments(given, Map::new(), Map::new());
    let request = Request {
        id: uuid::Uuid::new_v4().hyphenated().to_string(),
        task: errback.task.clone(),
        root_id: failed.root_id.clone().or_else(|| Some(failed.id.clone())),
        parent_id: Some(failed.id.clone()),
        hostname: failed.hostname.clone(),
        ..Request::default()
    };
    let sink = Sink::new(Arc::clone(results), Map::new(), Arc::clone(sender), Arc::new(Embed::default()));
    let context = TaskContext::new(Arc::new(request), sink.clone(), CancellationToken::new()).with_signatures(sink);
    let arguments = Arguments { args: errback.args, kwargs: errback.kwargs };
    if let Outcome::Failure { exception, .. } = run(&**task, context, arguments).await {
        error!("Errback '{}' raised an exception: {exception}", errback.task);
    }
}

async fn run(task: &dyn Task, context: TaskContext, arguments: Arguments) -> Outcome {
    match task.run(context, arguments).guarded() {
        Run::Async(run) => run.await,
        Run::Blocking(run) => tokio::task::spawn_blocking(run).await.unwrap_or(Outcome::Ignore),
    }
}

/// The failed task's request as an argument (celery/app/task.py `Context`).
fn shown(request: &Request) -> Value {
    Value::Map(Map::from([
        ("id", Value::from(request.id.as_str())),
        ("task", request.task.as_str().into()),
        ("root_id", request.root_id.as_deref().into()),
        ("parent_id", request.parent_id.as_deref().into()),
        ("group", request.group.as_deref().into()),
        ("group_index", request.group_index.into()),
        ("retries", request.retries.into()),
        ("hostname", request.hostname.as_str().into()),
        ("argsrepr", request.headers.get("argsrepr").cloned().unwrap_or_default()),
        ("kwargsrepr", request.headers.get("kwargsrepr").cloned().unwrap_or_default()),
        ("headers", Value::Map(request.headers.clone())),
        ("delivery_info", Value::Map(request.delivery_info.clone())),
        ("correlation_id", request.correlation_id.as_deref().into()),
        ("reply_to", request.reply_to.as_deref().into()),
    ]))
}
