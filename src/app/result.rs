//! [`AsyncResult`]: the result of what was sent.

use std::fmt;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::revoke::Revocation;
use super::{GroupResult, Producer, ResultError, TaskError};
use crate::backend::{self, Joined, Until};
use crate::protocol::{Exception, MetaResult, ResultTuple, State, TaskMeta, Value, from_value};
use crate::{Error, ErrorKind, Result};

/// Where the result of a task or a canvas will be found, and how to wait for it (celery/result.py `AsyncResult`).
///
/// It is cheap to clone. Dropping it changes nothing: the task runs, and its result is kept for `result_expires`.
#[derive(Clone)]
pub struct AsyncResult {
    tuple: ResultTuple,
    /// Nothing will be stored: the task ignores its result.
    ignored: bool,
    producer: Producer,
}

/// What is known without asking.
impl AsyncResult {
    pub(super) fn new(tuple: ResultTuple, ignored: bool, producer: Producer) -> Self {
        AsyncResult { tuple, ignored, producer }
    }

    /// The task's id; of a group, the group's.
    pub fn id(&self) -> &str {
        &self.tuple.id
    }

    /// The result of the step before it in a chain; of a chord's body, that of the header.
    pub fn parent(&self) -> Option<AsyncResult> {
        let parent = self.tuple.parent.as_deref()?;
        Some(AsyncResult::new(parent.clone(), false, self.producer.clone()))
    }

    /// The ids, as metas and replies carry them.
    pub fn as_tuple(&self) -> &ResultTuple {
        &self.tuple
    }

    /// The members, if what was sent is a group or ends in one.
    pub fn group(&self) -> Option<GroupResult> {
        self.tuple.children.is_some().then(|| GroupResult::new(self.tuple.clone(), self.producer.clone()))
    }

    fn backend(&self) -> &dyn backend::ResultBackend {
        self.producer.backend()
    }
}

/// Waiting.
impl AsyncResult {
    /// Waits until the task is ready and returns what it returned; `timeout` is a `Duration`, or `None` for ever. The
    /// backend tells when it is ready: nothing is polled. Of a group it is the list of its members' results. A task that
    /// ignores its result returns null at once, as in Celery.
    ///
    /// # Errors
    /// What the task raised, or what a step before it in the chain raised or a member of its chord's header, or that the time was up, or that it returned no `T`, or the backend's.
    pub async fn get<T: DeserializeOwned>(&self, timeout: impl Into<Option<Duration>>) -> Result<T, ResultError> {
        let value = self.value(timeout.into()).await?;
        from_value(value)
            .map_err(|error| ResultError::Type { task_id: self.id().to_owned(), reason: error.to_string() })
    }

    async fn value(&self, timeout: Option<Duration>) -> Result<Value, ResultError> {
        if self.ignored {
            return Ok(Value::Null);
        }
        if let Some(members) = &self.tuple.children {
            return Ok(Value::List(self.join(members, timeout).await?));
        }
        let meta = self.wait_with_parents(timeout).await?;
        if meta.status.is_propagated() {
            return Err(task_error(meta).into());
        }
        Ok(match meta.result {
            MetaResult::Value(value) => value,
            MetaResult::Exception(exception) => exception.to_map().into(),
        })
    }

    /// Waits until the task is ready and returns all that is stored of it, whether it succeeded or failed.
    ///
    /// # Errors
    /// That the time was up, or the backend's.
    pub async fn wait(&self, timeout: impl Into<Option<Duration>>) -> Result<TaskMeta, ResultError> {
        let timeout = timeout.into();
        let meta = self.backend().wait(self.id(), timeout).await?;
        meta.ok_or_else(|| self.timed_out(timeout))
    }

    /// [`AsyncResult::wait`], unless a step before it raises: then this one may never run
    /// (celery/result.py `AsyncResult._maybe_reraise_parent_error`).
    async fn wait_with_parents(&self, timeout: Option<Duration>) -> Result<TaskMeta, ResultError> {
        let parents = self.parents();
        if parents.is_empty() {
            return self.wait(timeout).await;
        }
        let ids: Vec<&str> = parents.iter().map(String::as_str).collect();
        raised(self.backend().fetch_many(&ids).await?)?;
        let own = self.wait(timeout);
        tokio::pin!(own);
        tokio::select! {
            biased;
            meta = &mut own => return meta,
            metas = self.backend().wait_many(&ids, Until::FirstFailure, timeout) => raised(metas?)?,
        }
        own.await
    }

    /// The tasks before this one, the first one first; of a group, its members.
    fn parents(&self) -> Vec<String> {
        let mut parents: Vec<AsyncResult> = Vec::new();
        while let Some(parent) = parents.last().unwrap_or(self).parent() {
            parents.push(parent);
        }
        parents.iter().rev().flat_map(AsyncResult::leaves).collect()
    }

    pub(super) async fn join(
        &self,
        members: &[ResultTuple],
        timeout: Option<Duration>,
    ) -> Result<Vec<Value>, ResultError> {
        match backend::join(self.backend(), members, timeout).await? {
            Joined::Values(values) => Ok(values),
            Joined::TimedOut => Err(self.timed_out(timeout)),
            Joined::Raised { task_id, exception } => {
                let meta = match &task_id {
                    Some(task_id) => self.backend().fetch(task_id).await?,
                    None => None,
                };
                let raised = TaskError {
                    task_id: task_id.unwrap_or_else(|| self.id().to_owned()),
                    state: State::Failure,
                    exception,
                    traceback: None,
                };
                let meta = meta.filter(|meta| meta.status.is_propagated());
                Err(meta.map_or(raised, task_error).into())
            }
        }
    }

    fn timed_out(&self, timeout: Option<Duration>) -> ResultError {
        ResultError::Timeout { task_id: self.id().to_owned(), timeout: timeout.unwrap_or_default() }
    }
}

/// Asking.
impl AsyncResult {
    /// All that is stored of the task; PENDING with null for an id that is not known.
    ///
    /// # Errors
    /// The backend's.
    pub async fn meta(&self) -> Result<TaskMeta> {
        let meta = self.backend().fetch(self.id()).await?;
        Ok(meta.unwrap_or_else(|| TaskMeta::new(self.id(), State::Pending, Value::Null)))
    }

    /// The task's state. A group has none of its own: ask its members.
    ///
    /// # Errors
    /// The backend's.
    pub async fn state(&self) -> Result<State> {
        Ok(self.meta().await?.status)
    }

    /// Whether the task is over; of a group, whether all members are.
    ///
    /// # Errors
    /// The backend's.
    pub async fn ready(&self) -> Result<bool> {
        match self.group() {
            Some(group) => group.ready().await,
            None => Ok(self.state().await?.is_ready()),
        }
    }

    /// Whether the task returned; of a group, whether all members did.
    ///
    /// # Errors
    /// The backend's.
    pub async fn successful(&self) -> Result<bool> {
        match self.group() {
            Some(group) => group.successful().await,
            None => Ok(self.state().await? == State::Success),
        }
    }

    /// Whether the task raised; of a group, whether a member did.
    ///
    /// # Errors
    /// The backend's.
    pub async fn failed(&self) -> Result<bool> {
        match self.group() {
            Some(group) => group.failed().await,
            None => Ok(self.state().await? == State::Failure),
        }
    }

    /// The results of what the task sent while it ran and of what followed it: callbacks, the next step of a chain. Of a
    /// group, its members.
    ///
    /// # Errors
    /// The backend's; `Decode`: what is stored is no result.
    pub async fn children(&self) -> Result<Vec<AsyncResult>> {
        let tuples = match &self.tuple.children {
            Some(members) => members.clone(),
            None => {
                let stored = self.meta().await?.children.unwrap_or_default();
                stored.iter().map(ResultTuple::try_from).collect::<Result<_>>()?
            }
        };
        Ok(tuples.into_iter().map(|tuple| AsyncResult::new(tuple, false, self.producer.clone())).collect())
    }

    /// Deletes the result, and those of the steps before it.
    ///
    /// # Errors
    /// The backend's.
    pub async fn forget(&self) -> Result<()> {
        let mut tuples = vec![&self.tuple];
        while let Some(tuple) = tuples.pop() {
            tuples.extend(tuple.parent.as_deref());
            match &tuple.children {
                Some(members) => tuples.extend(members),
                None => self.backend().forget(&tuple.id).await?,
            }
        }
        Ok(())
    }

    /// Tells all workers not to run the task; of a group, none of its members (celery/result.py `AsyncResult.revoke`). A
    /// worker that is not there now does not hear of it.
    ///
    /// # Errors
    /// The broker's.
    pub async fn revoke(&self) -> Result<()> {
        self.tell(None).await
    }

    /// [`AsyncResult::revoke`], and ends the task if it runs; `signal` is what a worker in Python does it with: `SIGTERM`.
    ///
    /// # Errors
    /// The broker's.
    pub async fn terminate(&self, signal: &str) -> Result<()> {
        self.tell(Some(signal)).await
    }

    async fn tell(&self, signal: Option<&str>) -> Result<()> {
        let task_id = match self.tuple.children {
            Some(_) => self.leaves().into(),
            None => self.tuple.id.as_str().into(),
        };
        self.producer.tell(Revocation::of_result(task_id, signal)).await
    }

    pub(super) fn leaves(&self) -> Vec<String> {
        let (mut ids, mut tuples) = (Vec::new(), vec![&self.tuple]);
        while let Some(tuple) = tuples.pop() {
            match &tuple.children {
                Some(members) => tuples.extend(members.iter().rev()),
                None => ids.push(tuple.id.clone()),
            }
        }
        ids
    }
}

impl fmt::Debug for AsyncResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AsyncResult").field(&self.tuple).finish()
    }
}

impl TryFrom<AsyncResult> for GroupResult {
    type Error = Error;

    /// The group, if what was sent is one or ends in one; `Configuration` if not.
    fn try_from(result: AsyncResult) -> Result<Self> {
        result.group().ok_or_else(|| {
            Error::new(
                ErrorKind::Configuration,
                format!("the result {} is that of one task, not of a group", result.id()),
            )
        })
    }
}

/// What the first of these raised that raised.
fn raised(metas: Vec<Option<TaskMeta>>) -> Result<(), ResultError> {
    match metas.into_iter().flatten().find(|meta| meta.status.is_propagated()) {
        Some(meta) => Err(task_error(meta).into()),
        None => Ok(()),
    }
}

/// What a meta in a state that is raised stands for.
fn task_error(meta: TaskMeta) -> TaskError {
    let exception = match meta.result {
        MetaResult::Exception(exception) => exception,
        MetaResult::Value(value) => Exception::new("Exception", value),
    };
    TaskError { task_id: meta.task_id, state: meta.status, exception, traceback: meta.traceback }
}
