//! [`GroupResult`]: the results of a group's members.

use std::fmt;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::{AsyncResult, Producer, ResultError};
use crate::Result;
use crate::protocol::{ResultTuple, State, TaskMeta, Value, from_value};

/// The results of a group's members, in the group's order (celery/result.py `GroupResult`).
#[derive(Clone)]
pub struct GroupResult {
    tuple: ResultTuple,
    producer: Producer,
}

impl GroupResult {
    pub(super) fn new(tuple: ResultTuple, producer: Producer) -> Self {
        GroupResult { tuple, producer }
    }

    /// The group's id.
    pub fn id(&self) -> &str {
        &self.tuple.id
    }

    /// The result of the step before the group in a chain.
    pub fn parent(&self) -> Option<AsyncResult> {
        self.as_result().parent()
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.members().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.members().is_empty()
    }

    /// The members' results.
    pub fn results(&self) -> Vec<AsyncResult> {
        let result = |tuple: &ResultTuple| AsyncResult::new(tuple.clone(), false, self.producer.clone());
        self.members().iter().map(result).collect()
    }

    /// The same as one result: its [`AsyncResult::get`] is the list that [`GroupResult::join`] returns.
    pub fn as_result(&self) -> AsyncResult {
        AsyncResult::new(self.tuple.clone(), false, self.producer.clone())
    }

    /// The ids, as [`GroupResult::save`] stores them.
    pub fn as_tuple(&self) -> &ResultTuple {
        &self.tuple
    }

    fn members(&self) -> &[ResultTuple] {
        self.tuple.children.as_deref().unwrap_or_default()
    }
}

impl GroupResult {
    /// Waits for all members and returns what they returned, in order; no longer than until one has failed. `timeout` is
    /// a `Duration`, or `None` for ever. A member that is a group itself gives a list.
    ///
    /// # Errors
    /// What the first failed member raised, or that the time was up, or that a member returned no `T`, or the backend's.
    pub async fn join<T: DeserializeOwned>(&self, timeout: impl Into<Option<Duration>>) -> Result<Vec<T>, ResultError> {
        let values = self.as_result().join(self.members(), timeout.into()).await?;
        let read = |(value, member): (Value, &ResultTuple)| {
            from_value(value)
                .map_err(|error| ResultError::Type { task_id: member.id.clone(), reason: error.to_string() })
        };
        values.into_iter().zip(self.members()).map(read).collect()
    }

    /// How many members have returned.
    ///
    /// # Errors
    /// The backend's.
    pub async fn completed_count(&self) -> Result<usize> {
        Ok(self.count(|state| *state == State::Success).await?.0)
    }

    /// Whether all members are over.
    ///
    /// # Errors
    /// The backend's.
    pub async fn ready(&self) -> Result<bool> {
        self.count(State::is_ready).await.map(|(count, all)| count == all)
    }

    /// Whether all members have returned.
    ///
    /// # Errors
    /// The backend's.
    pub async fn successful(&self) -> Result<bool> {
        self.count(|state| *state == State::Success).await.map(|(count, all)| count == all)
    }

    /// Whether a member has raised.
    ///
    /// # Errors
    /// The backend's.
    pub async fn failed(&self) -> Result<bool> {
        Ok(self.count(|state| *state == State::Failure).await?.0 > 0)
    }

    /// Whether a member is not over yet.
    ///
    /// # Errors
    /// The backend's.
    pub async fn waiting(&self) -> Result<bool> {
        Ok(!self.ready().await?)
    }

    /// How many of all members, those of groups within the group counted one by one, are in such a state.
    async fn count(&self, wanted: impl Fn(&State) -> bool) -> Result<(usize, usize)> {
        let ids = self.as_result().leaves();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let metas = self.producer.backend().fetch_many(&ids).await?;
        let is_wanted = |meta: &&TaskMeta| wanted(&meta.status);
        Ok((metas.iter().flatten().filter(is_wanted).count(), ids.len()))
    }

    /// Keeps the group for `result_expires`, so that [`Producer::group_result`] finds it by its id.
    ///
    /// # Errors
    /// The backend's.
    pub async fn save(&self) -> Result<()> {
        self.producer.backend().save_group(&self.tuple).await
    }

    /// Deletes what [`GroupResult::save`] kept.
    ///
    /// # Errors
    /// The backend's.
    pub async fn delete(&self) -> Result<()> {
        self.producer.backend().forget_group(self.id()).await
    }

    /// Deletes the members' results.
    ///
    /// # Errors
    /// The backend's.
    pub async fn forget(&self) -> Result<()> {
        self.as_result().forget().await
    }

    /// Tells all workers to run none of the members.
    ///
    /// # Errors
    /// The broker's.
    pub async fn revoke(&self) -> Result<()> {
        self.as_result().revoke().await
    }
}

impl fmt::Debug for GroupResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GroupResult").field(&self.tuple).finish()
    }
}
