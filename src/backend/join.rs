//! [`join`]: the values of a group's members, and what they make of a chord.

use std::time::Duration;

use super::chord::{ChordFailure, ChordOutcome};
use super::{ResultBackend, Until};
use crate::Result;
use crate::protocol::{Exception, MetaResult, ResultTuple, TaskMeta, Value};

/// What joining a group came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Joined {
    /// The members' results in their order; a group among them has a list.
    Values(Vec<Value>),
    /// A member failed: the first of those that have, in the group's order.
    Raised {
        /// The member; `None` when it stands in a group within the group.
        task_id: Option<String>,
        /// What it raised.
        exception: Exception,
    },
    /// Not all were ready in time, and none that was had failed.
    TimedOut,
}

/// Waits for the members of a group and gathers their results (celery/result.py `ResultSet.join_native`), for no longer
/// than until one fails.
///
/// # Errors
/// Those of [`ResultBackend::wait_many`].
pub async fn join(
    backend: &(impl ResultBackend + ?Sized),
    members: &[ResultTuple],
    timeout: Option<Duration>,
) -> Result<Joined> {
    let ids = leaves(members);
    let metas = backend.wait_many(&ids, Until::FirstFailure, timeout).await?;
    if let Some(failed) = metas.iter().flatten().find(|meta| meta.status.is_propagated()) {
        let is_direct = members.iter().any(|member| member.children.is_none() && member.id == failed.task_id);
        let task_id = is_direct.then(|| failed.task_id.clone());
        return Ok(Joined::Raised { task_id, exception: raised(failed) });
    }
    let values: Option<Vec<Value>> = metas.into_iter().map(|meta| meta.map(value_of)).collect();
    Ok(match values {
        Some(values) => Joined::Values(gathered(members, &mut values.into_iter())),
        None => Joined::TimedOut,
    })
}

/// Whether all members are ready (`ResultSet.ready`), members of groups within the group as well.
///
/// # Errors
/// Those of [`ResultBackend::fetch_many`].
pub async fn is_ready(backend: &(impl ResultBackend + ?Sized), members: &[ResultTuple]) -> Result<bool> {
    let metas = backend.fetch_many(&leaves(members)).await?;
    Ok(metas.iter().all(|meta| meta.as_ref().is_some_and(|meta| meta.status.is_ready())))
}

/// One poll of the task `celery.chord_unlock` (celery/app/builtins.py `unlock_chord`), for backends without
/// [`NativeChords`](super::NativeChords): `None` while a member of the header is not ready.
///
/// # Errors
/// Those of reading from the backend: Celery polls again after them as if the header were not ready.
pub async fn poll_chord(
    backend: &(impl ResultBackend + ?Sized),
    header: &[ResultTuple],
    join_timeout: Option<Duration>,
) -> Result<Option<ChordOutcome>> {
    if !is_ready(backend, header).await? {
        return Ok(None);
    }
    Ok(Some(outcome(join(backend, header, join_timeout).await?)))
}

/// What a chord comes to whose members were joined (celery/app/builtins.py `unlock_chord`, celery/backends/base.py
/// `BaseKeyValueStoreBackend.on_chord_part_return`).
pub(super) fn outcome(joined: Joined) -> ChordOutcome {
    match joined {
        Joined::Values(values) => ChordOutcome::Results(values),
        Joined::Raised { task_id: Some(task_id), exception } => {
            ChordOutcome::Failed(ChordFailure::dependency(&task_id, Some(exception)))
        }
        Joined::Raised { task_id: None, exception } => {
            ChordOutcome::Failed(ChordFailure { message: exception.to_string(), cause: Some(exception) })
        }
        Joined::TimedOut => {
            let exception = timed_out();
            ChordOutcome::Failed(ChordFailure { message: exception.to_string(), cause: Some(exception) })
        }
    }
}

/// The outcome of a claimed chord whose header was saved (celery/backends/redis.py `on_chord_part_return`).
pub(super) async fn join_header(
    backend: &(impl ResultBackend + ?Sized),
    header: &ResultTuple,
    timeout: Option<Duration>,
) -> Result<ChordOutcome> {
    let members = header.children.as_deref().unwrap_or_default();
    Ok(match join(backend, members, timeout).await? {
        Joined::Values(values) => ChordOutcome::Results(values),
        Joined::Raised { exception, .. } => ChordOutcome::Failed(ChordFailure::join(&exception)),
        Joined::TimedOut => ChordOutcome::Failed(ChordFailure::join(&timed_out())),
    })
}

fn timed_out() -> Exception {
    Exception::celery("TimeoutError", "The operation timed out.")
}

/// The ids of the tasks that groups within groups come to.
pub(super) fn leaves(members: &[ResultTuple]) -> Vec<&str> {
    fn gather<'a>(members: &'a [ResultTuple], ids: &mut Vec<&'a str>) {
        for member in members {
            match &member.children {
                Some(children) => gather(children, ids),
                None => ids.push(&member.id),
            }
        }
    }
    let mut ids = Vec::with_capacity(members.len());
    gather(members, &mut ids);
    ids
}

/// Gives the leaves' values the shape of the group.
fn gathered(members: &[ResultTuple], values: &mut dyn Iterator<Item = Value>) -> Vec<Value> {
    let shape = members.iter().map(|member| match &member.children {
        Some(children) => Value::List(gathered(children, values)),
        None => values.next().unwrap_or_default(),
    });
    shape.collect()
}

fn value_of(meta: TaskMeta) -> Value {
    match meta.result {
        MetaResult::Value(value) => value,
        MetaResult::Exception(exception) => exception.to_map().into(),
    }
}

/// What Python raises for a failed member's meta.
fn raised(meta: &TaskMeta) -> Exception {
    match exception_of(&meta.result) {
        Ok(Some(exception)) | Err(exception) => exception,
        Ok(None) => Exception::new("TypeError", "exceptions must derive from BaseException"),
    }
}

/// What `Backend.exception_to_python` (celery/backends/base.py) makes of a stored exception: nothing of nothing, and an
/// exception of its own of what is none.
pub(super) fn exception_of(result: &MetaResult) -> Result<Option<Exception>, Exception> {
    match result {
        MetaResult::Exception(exception) => Ok(Some(exception.clone())),
        MetaResult::Value(value) if !value.is_truthy() => Ok(None),
        MetaResult::Value(Value::Map(_)) => {
            Err(Exception::new("ValueError", "Exception information must include the exception type"))
        }
        MetaResult::Value(_) => Err(Exception::new("TypeError", "the stored exception is not a dictionary")),
    }
}
