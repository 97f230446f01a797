//! [`TaskContext`]: what a handler can know and ask.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::{Request, Retry};
use crate::protocol::{Map, State, Value};
use crate::{Error, ErrorKind, Result};

/// What a handler can know of its run and ask of its worker: Celery's `self` and `self.request`.
///
/// It is cheap to clone, and every clone speaks for the same run.
#[derive(Clone)]
pub struct TaskContext {
    request: Arc<Request>,
    states: Arc<dyn StateSink>,
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
        let runtime = self.runtime.as_ref().ok_or_else(|| {
            Error::new(ErrorKind::Backend, "update the task's state: the context was not made on a Tokio runtime")
        })?;
        runtime.block_on(self.update_state(state, meta))
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

    fn watch_soft_limit(&self) {
        self.watches_soft_limit.store(true, Ordering::Release);
    }
}

/// For workers and tests.
impl TaskContext {
    /// A context for one run. `soft_limit` is cancelled when the soft time limit has passed.
    pub fn new(request: Arc<Request>, states: Arc<dyn StateSink>, soft_limit: CancellationToken) -> Self {
        let runtime = Handle::try_current().ok();
        TaskContext { request, states, soft_limit, watches_soft_limit: Arc::default(), runtime }
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

/// Where the states of a detached context go.
struct Nowhere;

#[async_trait]
impl StateSink for Nowhere {
    async fn update_state(&self, _: &Request, _: State, _: Value) -> Result<()> {
        Ok(())
    }
}
