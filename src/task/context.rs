//! [`TaskContext`]: what a handler can know and ask.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::Result;
use crate::protocol::{Map, State, Value};

/// What a handler can know of its run and ask of its worker: Celery's `self` and `self.request`.
#[derive(Clone)]
pub struct TaskContext {
    request: Arc<Request>,
    states: Arc<dyn StateSink>,
    soft_limit: CancellationToken,
}

/// The request of a run (celery/app/task.py `Context`).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Request {
    /// The task's id.
    pub id: String,
    /// The task's registered name.
    pub task: String,
    /// How often it was retried: 0 in the first run.
    pub retries: u32,
    /// The id of the workflow's first task.
    pub root_id: Option<String>,
    /// The id of the task that sent this one.
    pub parent_id: Option<String>,
    /// The group's id.
    pub group: Option<String>,
    /// The position in the group.
    pub group_index: Option<i64>,
    /// When it was to run at the earliest.
    pub eta: Option<Timestamp>,
    /// When it is no longer to run.
    pub expires: Option<Timestamp>,
    /// The node name of the worker.
    pub hostname: String,
    /// All headers of the message, those of the user included.
    pub headers: Map,
    /// `exchange`, `routing_key`, `priority` and `redelivered`.
    pub delivery_info: Map,
    /// Where an `rpc://` producer listens.
    pub reply_to: Option<String>,
    /// The message's correlation id.
    pub correlation_id: Option<String>,
}

/// Where `update_state` goes.
#[async_trait]
pub trait StateSink: Send + Sync {
    /// Stores a state of the user's own for a running task; returns when the backend has it.
    async fn update_state(&self, request: &Request, state: State, meta: Value) -> Result<()>;
}

impl TaskContext {
    /// A context for one run; for workers and tests. `soft_limit` is cancelled when the soft time limit has passed.
    pub fn new(request: Arc<Request>, states: Arc<dyn StateSink>, soft_limit: CancellationToken) -> Self {
        TaskContext { request, states, soft_limit }
    }

    /// The request.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// Stores a state of the task's own, such as `PROGRESS`, with its meta.
    pub async fn update_state(&self, state: impl Into<State>, meta: impl Into<Value>) -> Result<()> {
        self.states.update_state(&self.request, state.into(), meta.into()).await
    }
}

impl fmt::Debug for TaskContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TaskContext").field(&self.request).finish()
    }
}
