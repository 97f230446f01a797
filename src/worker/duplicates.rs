//! [`Duplicates`]: messages that come again although their task has succeeded (`worker_deduplicate_successful_tasks`).

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;
use tracing::warn;

use super::limited_set::{Bounds, LimitedSet};
use super::request::Work;
use crate::backend::ResultBackend;
use crate::protocol::{State, TaskMeta, Value};

/// Knows of successes: the last ones of this worker, and all that the backend keeps (celery/app/trace.py `build_tracer`).
#[derive(Debug)]
pub(crate) struct Duplicates {
    /// `None`: nobody asks, or the backend keeps nothing that could be asked for.
    known: Option<(Mutex<LimitedSet>, Arc<dyn ResultBackend>)>,
}

/// Whether a message's task has succeeded before.
#[derive(Debug, PartialEq)]
pub(crate) enum Before {
    /// It has not, as far as anybody knows.
    No,
    /// It has, here, and all that follows a success was done.
    Here,
    /// It has, as its result says. Whether what was to follow was sent, its `children` say.
    Stored(Box<TaskMeta>),
}

impl Duplicates {
    pub(crate) fn new(is_enabled: bool, bounds: Bounds, backend: Arc<dyn ResultBackend>) -> Self {
        let is_enabled = is_enabled && backend.is_enabled();
        Duplicates { known: is_enabled.then(|| (Mutex::new(LimitedSet::new(bounds)), backend)) }
    }

    /// Whether it is worth looking: a late-acknowledged task's message was delivered before.
    pub(crate) fn may_know(&self, work: &Work) -> bool {
        self.known.is_some() && may_have_run(work)
    }

    /// Looks for a success of a late-acknowledged task whose message was delivered before.
    pub(crate) async fn before(&self, work: &Work) -> Before {
        let Some((successes, backend)) = self.known.as_ref().filter(|_| may_have_run(work)) else { return Before::No };
        let id = work.request.id.as_str();
        if successes.lock().unwrap_or_else(PoisonError::into_inner).contains(id) {
            return Before::Here;
        }
        match backend.fetch(id).await {
            Ok(Some(meta)) if meta.status == State::Success => Before::Stored(Box::new(meta)),
            Ok(_) => Before::No,
            Err(error) => {
                warn!("Task {}[{id}] may have succeeded before, and is run again: {error}", work.name);
                Before::No
            }
        }
    }

    /// Remembers a success.
    pub(crate) fn succeeded(&self, work: &Work) {
        if let Some((successes, _)) = &self.known {
            successes.lock().unwrap_or_else(PoisonError::into_inner).insert(&work.request.id, Instant::now());
        }
    }
}

fn may_have_run(work: &Work) -> bool {
    work.task.policy.acks_late && work.request.delivery_info.get("redelivered").is_some_and(Value::is_truthy)
}
