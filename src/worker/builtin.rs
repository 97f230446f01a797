//! Celery's own tasks, for a worker that has no Python to run them (celery/app/builtins.py).

use std::sync::Arc;
use std::time::Duration;

use super::continuations::{Continuations, callback_error};
use super::request::parent_of;
use crate::backend::{ChordFailure, ChordOutcome, poll_chord};
use crate::canvas::{chord, group, starmap};
use crate::config::Config;
use crate::protocol::{Exception, Map, ResultTuple, Signature, Value};
use crate::task::{Arguments, Outcome, Retry, RetryPolicy, Run, Task, TaskContext, TaskOptions};
use crate::trace::Scope;
use crate::{Error, ErrorKind, Result};

/// What the built-in tasks need of their worker.
pub(crate) struct Builtins {
    continuations: Arc<Continuations>,
    /// `result_chord_retry_interval`.
    chord_retry_interval: Duration,
    /// `result_chord_join_timeout`.
    chord_join_timeout: Duration,
}

/// One of Celery's own tasks.
struct Builtin {
    which: Which,
    options: TaskOptions,
    of: Arc<Builtins>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Accumulate,
    BackendCleanup,
    Chain,
    Chord,
    ChordUnlock,
    Chunks,
    Group,
    Map,
    StarMap,
}

impl Which {
    const ALL: [Which; 9] = [
        Which::Accumulate,
        Which::BackendCleanup,
        Which::Chain,
        Which::Chord,
        Which::ChordUnlock,
        Which::Chunks,
        Which::Group,
        Which::Map,
        Which::StarMap,
    ];

    fn name(self) -> &'static str {
        match self {
            Which::Accumulate => "celery.accumulate",
            Which::BackendCleanup => "celery.backend_cleanup",
            Which::Chain => "celery.chain",
            Which::Chord => "celery.chord",
            Which::ChordUnlock => "celery.chord_unlock",
            Which::Chunks => "celery.chunks",
            Which::Group => "celery.group",
            Which::Map => "celery.map",
            Which::StarMap => "celery.starmap",
        }
    }
}

impl Which {
    /// The parameters of the declaration, in order.
    fn parameters(self) -> &'static [&'static str] {
        match self {
            Which::Accumulate | Which::BackendCleanup | Which::Chain => &[],
            Which::Chord => &["header", "body", "partial_args", "interval", "countdown", "max_retries", "eager"],
            Which::ChordUnlock => &["group_id", "callback", "interval", "max_retries", "result"],
            Which::Chunks => &["task", "it", "n"],
            Which::Group => &["tasks", "result", "group_id", "partial_args", "add_to_parent"],
            Which::Map | Which::StarMap => &["task", "it"],
        }
    }

    /// The arguments by name.
    ///
    /// # Errors
    /// `Decode`: more than there are parameters, or one twice.
    fn bind(self, arguments: Arguments) -> Result<Map> {
        let Arguments { args, mut kwargs } = arguments;
        let parameters = self.parameters();
        if args.len() > parameters.len() {
            let (most, given) = (parameters.len(), args.len());
            return Err(unfit(&format!("{}() takes {most} positional arguments but {given} were given", self.name())));
        }
        for (name, value) in parameters.iter().zip(args) {
            if kwargs.insert(*name, value).is_some() {
                return Err(unfit(&format!("{}() got multiple values for argument '{name}'", self.name())));
            }
        }
        Ok(kwargs)
    }
}

impl Builtins {
    pub(crate) fn new(continuations: Arc<Continuations>, config: &Config) -> Self {
        Builtins {
            continuations,
            chord_retry_interval: config.result_chord_retry_interval,
            chord_join_timeout: config.result_chord_join_timeout,
        }
    }

    /// The tasks, to be registered where the app has none of their names.
    pub(crate) fn tasks(self) -> Vec<Arc<dyn Task>> {
        let of = Arc::new(self);
        let unlock = TaskOptions {
            max_retries: Some(None),
            ignore_result: Some(true),
            default_retry_delay: Some(of.chord_retry_interval),
            ..TaskOptions::default()
        };
        let options = |which| if which == Which::ChordUnlock { unlock.clone() } else { TaskOptions::default() };
        let task = |which| Arc::new(Builtin { which, options: options(which), of: Arc::clone(&of) }) as Arc<dyn Task>;
        Which::ALL.into_iter().map(task).collect()
    }
}

impl Task for Builtin {
    fn name(&self) -> &str {
        self.which.name()
    }

    fn options(&self) -> &TaskOptions {
        &self.options
    }

    fn run(&self, context: TaskContext, arguments: Arguments) -> Run {
        let (which, of) = (self.which, Arc::clone(&self.of));
        Run::from_future(async move {
            let outcome = of.outcome(which, &context, arguments).await;
            outcome.unwrap_or_else(|error| failure(raised(&error)))
        })
    }
}

impl Builtins {
    async fn outcome(&self, which: Which, context: &TaskContext, arguments: Arguments) -> Result<Outcome> {
        if which == Which::Accumulate {
            return Ok(accumulate(arguments));
        }
        let arguments = &mut which.bind(arguments)?;
        match which {
            Which::Accumulate => Ok(Outcome::Success(Value::Null)),
            Which::BackendCleanup => self.clean_up().await,
            Which::Chain => Ok(failure(Exception::new("NotImplementedError", "chain is not a real task"))),
            Which::Chord => old_chord(context, arguments).await,
            Which::ChordUnlock => self.unlock_chord(context, arguments).await,
            Which::Chunks => chunks(context, arguments).await,
            Which::Group => old_group(context, arguments).await,
            Which::Map => self.map(context, arguments, false).await,
            Which::StarMap => self.map(context, arguments, true).await,
        }
    }
}

fn failure(exception: Exception) -> Outcome {
    Outcome::Failure { exception, traceback: None }
}

/// What Python would raise for arguments that do not fit, or for what cannot be sent.
fn raised(error: &Error) -> Exception {
    let class = if error.kind() == ErrorKind::Decode { "TypeError" } else { "RuntimeError" };
    Exception::new(class, error.to_string())
}

/// `args[index]`, or `args`.
fn accumulate(arguments: Arguments) -> Outcome {
    let Arguments { mut args, kwargs } = arguments;
    let Some(index) = kwargs.get("index").filter(|index| !index.is_null()) else {
        return Outcome::Success(Value::List(args));
    };
    let from_the_end = |index: i64| if index < 0 { index + args.len() as i64 } else { index };
    let place = index.as_i64().map(from_the_end).and_then(|index| usize::try_from(index).ok());
    match place.filter(|place| *place < args.len()) {
        Some(place) => Outcome::Success(args.swap_remove(place)),
        None => failure(Exception::new("IndexError", "tuple index out of range")),
    }
}

/// Each chunk is one message; the result names their group (celery/canvas.py `chunks.apply_chunks`).
async fn chunks(context: &TaskContext, arguments: &mut Map) -> Result<Outcome> {
    let task: Signature = required(arguments, "task")?.try_into()?;
    let items = list(required(arguments, "it")?, "it")?;
    let size = required(arguments, "n")?.as_i64().and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0);
    let size = size.ok_or_else(|| unfit("n must be a positive number"))?;
    let parts = items.chunks(size).map(|part| starmap(task.clone(), part.to_vec()));
    let sent = context.send(group(parts)).await?;
    Ok(Outcome::Success(sent.into()))
}

/// Sends the members of a group that an old client has frozen.
async fn old_group(context: &TaskContext, arguments: &mut Map) -> Result<Outcome> {
    let tasks = list(required(arguments, "tasks")?, "tasks")?;
    let result = required(arguments, "result")?;
    let group_id = required(arguments, "group_id")?;
    let partial = list(required(arguments, "partial_args")?, "partial_args")?;
    let is_child = arguments.remove("add_to_parent").is_none_or(|add| add.is_truthy());
    let group = ResultTuple::try_from(&result)?;
    for task in tasks {
        let task: Signature = task.try_into()?;
        // The group is the child, not each of its members.
        let options = Map::from([("group_id", group_id.clone()), ("add_to_parent", false.into())]);
        context.send(task.with_arguments(partial.clone(), Map::new(), options)).await?;
    }
    if is_child {
        context.add_child(group);
    }
    Ok(Outcome::Success(result))
}

/// Sends a chord that an old client has frozen.
async fn old_chord(context: &TaskContext, arguments: &mut Map) -> Result<Outcome> {
    let header = match required(arguments, "header")? {
        Value::List(tasks) => tasks,
        group => Signature::try_from(group)?.kwargs.remove("tasks").and_then(Value::into_list).unwrap_or_default(),
    };
    let body: Signature = required(arguments, "body")?.try_into()?;
    let partial = match optional(arguments, "partial_args") {
        Some(partial) => list(partial, "partial_args")?,
        None => Vec::new(),
    };
    let header = header.into_iter().map(Signature::try_from).collect::<Result<Vec<_>>>()?;
    let sent = context.send(chord(header, body).with_arguments(partial, Map::new(), Map::new())).await?;
    Ok(Outcome::Success(sent.into()))
}

impl Builtins {
    /// Runs a task of this worker for each item, one after the other.
    async fn map(&self, context: &TaskContext, arguments: &mut Map, spread: bool) -> Result<Outcome> {
        let task: Signature = required(arguments, "task")?.try_into()?;
        let items = list(required(arguments, "it")?, "it")?;
        let Some(task) = self.continuations.tasks.task(&task.task) else {
            return Ok(failure(Exception::celery("NotRegistered", task.task)));
        };
        let mut values = Vec::with_capacity(items.len());
        for item in items {
            let args = if spread { list(item, "each item")? } else { vec![item] };
            match call(&**task, context, args).await {
                Outcome::Success(value) => values.push(value),
                other => return Ok(other),
            }
        }
        Ok(Outcome::Success(Value::List(values)))
    }

    /// Deletes results that have expired (celery/app/builtins.py `add_backend_cleanup_task`).
    async fn clean_up(&self) -> Result<Outcome> {
        let now = self.continuations.results.metas.clock.now();
        self.continuations.sender.backend.clean_up(now).await?;
        Ok(Outcome::Success(Value::Null))
    }

    /// Looks whether a chord's header is done, and calls its body or looks again later.
    async fn unlock_chord(&self, context: &TaskContext, arguments: &mut Map) -> Result<Outcome> {
        let again = arguments.clone();
        let group_id =
            required(arguments, "group_id")?.into_string().ok_or_else(|| unfit("group_id must be a text"))?;
        let callback = required(arguments, "callback")?;
        let interval = optional(arguments, "interval").and_then(|seconds| seconds.as_f64());
        let limit = optional(arguments, "max_retries").and_then(|limit| limit.as_i64());
        let members = list(optional(arguments, "result").unwrap_or_default(), "result")?;
        let members = members.iter().map(ResultTuple::try_from).collect::<Result<Vec<_>>>()?;
        let backend = &*self.continuations.sender.backend;
        let failure = match poll_chord(backend, &members, Some(self.chord_join_timeout)).await {
            Ok(None) => return self.look_again(context, callback, self.later(interval, limit, again)).await,
            Err(error) => {
                let retry = self.later(interval, limit, again).exception(raised(&error));
                return self.look_again(context, callback, retry).await;
            }
            Ok(Some(ChordOutcome::Failed(failure))) => failure,
            Ok(Some(ChordOutcome::Results(values))) => match call_back(context, callback.clone(), values).await {
                Ok(()) => return Ok(Outcome::Success(Value::Null)),
                Err(error) => callback_error(&error.to_string()),
            },
        };
        tracing::error!("Chord '{group_id}' raised: {}", failure.exception());
        self.continuations.fail_body(&parent_of(context.request()), callback, &failure).await?;
        Ok(Outcome::Success(Value::Null))
    }

    /// Looks once more, later. When it may not, nobody will ever look again, and the chord has failed.
    async fn look_again(&self, context: &TaskContext, callback: Value, retry: Retry) -> Result<Outcome> {
        let limit = retry.max_retries.flatten();
        if limit.is_some_and(|limit| context.retries() >= limit) {
            let arguments = Arguments { args: Vec::new(), kwargs: retry.kwargs.clone().unwrap_or_default() };
            let cause = RetryPolicy::exhausted(retry.clone(), context.request(), &arguments);
            let message = format!("chord_unlock could not be retried: {cause}");
            let failure = ChordFailure { message, cause: Some(cause) };
            self.continuations.fail_body(&parent_of(context.request()), callback, &failure).await?;
        }
        Ok(Outcome::Retry(retry))
    }

    fn later(&self, interval: Option<f64>, limit: Option<i64>, arguments: Map) -> Retry {
        let interval = interval.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let retry = Retry::default()
            .countdown(interval.unwrap_or(self.chord_retry_interval))
            .args(Vec::<Value>::new())
            .kwargs(arguments);
        match limit.and_then(|limit| u32::try_from(limit).ok()) {
            Some(limit) => retry.max_retries(limit),
            None => retry,
        }
    }
}

/// Calls a chord's body.
async fn call_back(context: &TaskContext, callback: Value, values: Vec<Value>) -> Result<()> {
    let callback: Signature = callback.try_into()?;
    context.send(callback.with_arguments(vec![values.into()], Map::new(), Map::new())).await.map(drop)
}

async fn call(task: &dyn Task, context: &TaskContext, args: Vec<Value>) -> Outcome {
    let scope = Scope::here();
    match task.run(context.clone(), Arguments { args, kwargs: Map::new() }).guarded() {
        Run::Async(run) => run.await,
        Run::Blocking(run) => tokio::task::spawn_blocking(move || scope.call(run)).await.unwrap_or_else(|_| {
            Outcome::Reject { reason: "the worker stopped before the task began".into(), requeue: true }
        }),
    }
}

/// An argument that its declaration gives no default.
fn required(arguments: &mut Map, name: &str) -> Result<Value> {
    arguments.remove(name).ok_or_else(|| unfit(&format!("missing 1 required positional argument: '{name}'")))
}

/// An argument that may be left out.
fn optional(arguments: &mut Map, name: &str) -> Option<Value> {
    arguments.remove(name).filter(|value| !value.is_null())
}

fn list(value: Value, name: &str) -> Result<Vec<Value>> {
    value.into_list().ok_or_else(|| unfit(&format!("{name} must be a list")))
}

fn unfit(why: &str) -> Error {
    Error::new(ErrorKind::Decode, why)
}
