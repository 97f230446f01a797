//! [`TaskContext`]: what a handler can know and ask.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::{Interrupt, Request, Retry};
use crate::protocol::{Exception, Kind, Map, ResultTuple, Signature, State, Value};
use crate::{Error, ErrorKind, Result};

/// What a handler can know of its run and ask of its worker: Celery's `self` and `self.request`.
///
/// It is cheap to clone, and every clone speaks for the same run.
#[derive(Clone)]
pub struct TaskContext {
    request: Arc<Request>,
    states: Arc<dyn StateSink>,
    signatures: Arc<dyn SignatureSink>,
    soft_limit: CancellationToken,
    /// Set once the handler has asked for the soft limit: the worker then leaves it to the handler to end.
    watches_soft_limit: Arc<AtomicBool>,
    /// The runtime that the context was made on, so that a blocking handler can wait for the backend.
    runtime: Option<Handle>,
}

/// Where `update_state` goes.
#[async_trait]
pub trait StateSink: Send + Sync {
    /// Stores a state of the user's own for a running task; returns when the backend has it.
    async fn update_state(&self, request: &Request, state: State, meta: Value) -> Result<()>;
}

/// Where `send` and `add_to_chord` go: a worker implements it.
#[async_trait]
pub trait SignatureSink: Send + Sync {
    /// Sends a task or a canvas on behalf of the running task `request`: what is sent has the task for its parent and its
    /// root for its root, and is one of the children in the task's result (celery/app/base.py `Celery.send_task`).
    /// Returns when the broker has accepted all messages, and what its results can be found by.
    async fn send(&self, request: &Request, signature: Signature) -> Result<ResultTuple>;

    /// Sends `signature` as one more member of the chord that the running task `request` is a member of; an error if it
    /// is a member of none (celery/app/task.py `Task.add_to_chord`).
    async fn add_to_chord(&self, request: &Request, signature: Signature) -> Result<ResultTuple>;

    /// Makes something that the task has sent one of its children (celery/app/task.py `Task.add_trail`).
    fn add_child(&self, child: ResultTuple);
}

/// What a handler knows.
impl TaskContext {
    /// The request.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// The task's id.
    pub fn id(&self) -> &str {
        &self.request.id
    }

    /// The task's registered name.
    pub fn task(&self) -> &str {
        &self.request.task
    }

    /// How often the task was retried: 0 in the first run.
    pub fn retries(&self) -> u32 {
        self.request.retries
    }

    /// The id of the workflow's first task.
    pub fn root_id(&self) -> Option<&str> {
        self.request.root_id.as_deref()
    }

    /// The id of the task that sent this one.
    pub fn parent_id(&self) -> Option<&str> {
        self.request.parent_id.as_deref()
    }

    /// The id of the group that the task belongs to.
    pub fn group(&self) -> Option<&str> {
        self.request.group.as_deref()
    }

    /// The node name of the worker.
    pub fn hostname(&self) -> &str {
        &self.request.hostname
    }

    /// All headers of the message, those of the user included.
    pub fn headers(&self) -> &Map {
        &self.request.headers
    }
}

/// What a handler may ask.
impl TaskContext {
    /// Stores a state of the task's own, such as `PROGRESS`, with its meta (celery/app/task.py `Task.update_state`).
    ///
    /// # Errors
    /// Those of the result backend.
    pub async fn update_state(&self, state: impl Into<State>, meta: impl Into<Value>) -> Result<()> {
        self.states.update_state(&self.request, state.into(), meta.into()).await
    }

    /// [`TaskContext::update_state`] for handlers that are plain functions: waits until the backend has the state.
    ///
    /// # Errors
    /// Those of the result backend; or, if the context was not made on a runtime, that nothing can wait.
    ///
    /// # Panics
    /// In an `async fn`: a runtime's own thread must not block.
    pub fn update_state_blocking(&self, state: impl Into<State>, meta: impl Into<Value>) -> Result<()> {
        self.block_on("update the task's state", self.update_state(state, meta))
    }

    /// A wish to be run again, to be returned as an error; its methods say when, why and how often.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use celeriac::task::{Interrupt, TaskContext};
    /// async fn fetch(ctx: &TaskContext, url: &str) -> Result<String, Interrupt> {
    ///     std::fs::read_to_string(url).map_err(|error| ctx.retry().exception(error).countdown(Duration::from_secs(5)).into())
    /// }
    /// ```
    pub fn retry(&self) -> Retry {
        Retry::default()
    }

    /// Sends a task or a canvas (celery/canvas.py `Signature.apply_async` inside a task): the new task's parent is this
    /// one, and its result is one of this one's children. Returns, when the broker has accepted it, what its results can
    /// be found by.
    ///
    /// # Errors
    /// Those of the broker and of the signature; `Configuration` when the context belongs to no worker.
    pub async fn send(&self, signature: impl Into<Signature>) -> Result<ResultTuple> {
        self.signatures.send(&self.request, signature.into()).await
    }

    /// Makes what was sent one by one a child of the task as a whole.
    pub(crate) fn add_child(&self, child: ResultTuple) {
        self.signatures.add_child(child);
    }

    /// [`TaskContext::send`] for handlers that are plain functions.
    ///
    /// # Errors
    /// As [`TaskContext::send`]; or, if the context was not made on a runtime, that nothing can wait.
    ///
    /// # Panics
    /// In an `async fn`: a runtime's own thread must not block.
    pub fn send_blocking(&self, signature: impl Into<Signature>) -> Result<ResultTuple> {
        self.block_on("send a task", self.send(signature))
    }

    /// Puts another task or canvas in this one's place, under this one's id; to be returned as an error
    /// (celery/app/task.py `Task.replace`). Whoever waits for this task gets the other's result, and what was to follow
    /// this task follows the other.
    ///
    /// ```
    /// # use celeriac::protocol::Signature;
    /// # use celeriac::task::{Interrupt, TaskContext};
    /// async fn start(ctx: TaskContext) -> Result<(), Interrupt> {
    ///     Err(ctx.replace(Signature::new("shop.tasks.deliver")))
    /// }
    /// ```
    pub fn replace(&self, signature: impl Into<Signature>) -> Interrupt {
        let signature = signature.into();
        let is_empty = |name: &str| signature.kwargs.get(name).is_none_or(|tasks| !tasks.is_truthy());
        let mistake = if signature.options.contains_key("chord") {
            "A signature replacing a task must not be part of a chord"
        } else if signature.kind() == Kind::Chain && is_empty("tasks") {
            "Cannot replace with an empty chain"
        } else {
            return Interrupt::Replace(Box::new(signature));
        };
        Exception::celery("ImproperlyConfigured", mistake).into()
    }

    /// Sends a task or a canvas as one more member of the chord that this task is a member of: the chord's body waits
    /// for it, too (celery/app/task.py `Task.add_to_chord`).
    ///
    /// # Errors
    /// As [`TaskContext::send`]; `Configuration` when this task is a member of no chord.
    pub async fn add_to_chord(&self, signature: impl Into<Signature>) -> Result<ResultTuple> {
        self.signatures.add_to_chord(&self.request, signature.into()).await
    }

    /// [`TaskContext::add_to_chord`] for handlers that are plain functions.
    ///
    /// # Errors
    /// As [`TaskContext::add_to_chord`]; or, if the context was not made on a runtime, that nothing can wait.
    ///
    /// # Panics
    /// In an `async fn`: a runtime's own thread must not block.
    pub fn add_to_chord_blocking(&self, signature: impl Into<Signature>) -> Result<ResultTuple> {
        self.block_on("add a task to the chord", self.add_to_chord(signature))
    }

    /// Completes when the soft time limit has passed, and never if there is none.
    ///
    /// Asking tells the worker that the handler deals with the limit itself, up to the hard one. A handler that never
    /// asks is dropped when the soft limit passes, and fails with `SoftTimeLimitExceeded`.
    pub fn soft_time_limit(&self) -> impl Future<Output = ()> + Send + use<> {
        self.watch_soft_limit();
        self.soft_limit.clone().cancelled_owned()
    }

    /// Whether the soft time limit has passed, for handlers that are plain functions and look now and then. Asking has
    /// the effect that [`TaskContext::soft_time_limit`] has.
    pub fn soft_time_limit_exceeded(&self) -> bool {
        self.watch_soft_limit();
        self.soft_limit.is_cancelled()
    }

    fn block_on<T>(&self, tried: &str, future: impl Future<Output = Result<T>>) -> Result<T> {
        let runtime = self.runtime.as_ref().ok_or_else(|| {
            Error::new(ErrorKind::Configuration, format!("{tried}: the context was not made on a Tokio runtime"))
        })?;
        runtime.block_on(future)
    }

    fn watch_soft_limit(&self) {
        self.watches_soft_limit.store(true, Ordering::Release);
    }
}

/// For workers and tests.
impl TaskContext {
    /// A context for one run. `soft_limit` is cancelled when the soft time limit has passed.
    pub fn new(request: Arc<Request>, states: Arc<dyn StateSink>, soft_limit: CancellationToken) -> Self {
        let runtime = Handle::try_current().ok();
        let signatures = Arc::new(Nowhere);
        TaskContext { request, states, signatures, soft_limit, watches_soft_limit: Arc::default(), runtime }
    }

    /// A context for one run that can store states and send.
    pub fn with_sinks(
        request: Arc<Request>,
        states: Arc<dyn StateSink>,
        signatures: Arc<dyn SignatureSink>,
        soft_limit: CancellationToken,
    ) -> Self {
        let runtime = Handle::try_current().ok();
        TaskContext { request, states, signatures, soft_limit, watches_soft_limit: Arc::default(), runtime }
    }

    /// The same context with a place where what the handler sends goes to; without one, sending is an error.
    #[must_use]
    pub fn with_signatures(mut self, signatures: Arc<dyn SignatureSink>) -> Self {
        self.signatures = signatures;
        self
    }

    /// A context that belongs to no worker: states go nowhere and no limit passes. For calling a handler in a test.
    pub fn detached(request: Request) -> Self {
        TaskContext::new(Arc::new(request), Arc::new(Nowhere), CancellationToken::new())
    }

    /// Whether the handler has asked for the soft time limit, and so deals with it itself.
    pub fn handles_soft_limit(&self) -> bool {
        self.watches_soft_limit.load(Ordering::Acquire)
    }
}

impl fmt::Debug for TaskContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TaskContext").field(&self.request).finish()
    }
}

/// Where the states of a detached context go; nothing can be sent from there.
struct Nowhere;

#[async_trait]
impl SignatureSink for Nowhere {
    async fn send(&self, _: &Request, signature: Signature) -> Result<ResultTuple> {
        Err(cannot_send(&signature))
    }

    async fn add_to_chord(&self, _: &Request, signature: Signature) -> Result<ResultTuple> {
        Err(cannot_send(&signature))
    }

    fn add_child(&self, _: ResultTuple) {}
}

fn cannot_send(signature: &Signature) -> Error {
    let message = format!("send task '{}': the context belongs to no worker", signature.task);
    Error::new(ErrorKind::Configuration, message)
}

#[async_trait]
impl StateSink for Nowhere {
    async fn update_state(&self, _: &Request, _: State, _: Value) -> Result<()> {
        Ok(())
    }
}
