//! [`Gathering`]: metas that arrive one by one, put in the order in which they were asked for.

use std::collections::HashMap;

use super::Until;
use crate::protocol::TaskMeta;

/// The metas that [`wait_many`](super::ResultBackend::wait_many) has so far.
pub(super) struct Gathering<'a> {
    metas: Vec<Option<TaskMeta>>,
    /// Where the meta of each task that is not ready yet belongs.
    missing: HashMap<&'a str, Vec<usize>>,
    until: Until,
    has_failure: bool,
}

impl<'a> Gathering<'a> {
    pub(super) fn new(task_ids: &[&'a str], until: Until) -> Self {
        let mut missing: HashMap<&str, Vec<usize>> = HashMap::with_capacity(task_ids.len());
        for (place, task_id) in task_ids.iter().enumerate() {
            missing.entry(task_id).or_default().push(place);
        }
        Gathering { metas: vec![None; task_ids.len()], missing, until, has_failure: false }
    }

    /// The tasks of which nothing is known yet, each once.
    pub(super) fn missing(&self) -> Vec<&'a str> {
        self.missing.keys().copied().collect()
    }

    /// Whether this task is still waited for.
    pub(super) fn is_missing(&self, task_id: &str) -> bool {
        self.missing.contains_key(task_id)
    }

    /// Takes a meta if it is a ready task's.
    pub(super) fn take(&mut self, task_id: &str, meta: TaskMeta) {
        if !meta.status.is_ready() {
            return;
        }
        let places = self.missing.remove(task_id).unwrap_or_default();
        self.has_failure |= meta.status.is_propagated();
        let Some((last, others)) = places.split_last() else { return };
        for place in others {
            self.metas[*place] = Some(meta.clone());
        }
        self.metas[*last] = Some(meta);
    }

    /// Whether there is nothing more to wait for.
    pub(super) fn is_over(&self) -> bool {
        self.missing.is_empty() || (self.has_failure && self.until == Until::FirstFailure)
    }

    pub(super) fn finish(self) -> Vec<Option<TaskMeta>> {
        self.metas
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{State, Value};

    #[test]
    fn metas_stand_where_they_were_asked_for_and_a_failure_may_end_it() {
        let meta = |task_id: &str, state| TaskMeta::new(task_id, state, Value::Null);
        for (until, over) in [(Until::AllReady, false), (Until::FirstFailure, true)] {
            let mut gathering = Gathering::new(&["a", "b", "a", "c"], until);
            gathering.take("a", meta("a", State::Started));
            assert!(gathering.is_missing("a"));
            gathering.take("a", meta("a", State::Success));
            gathering.take("unasked", meta("unasked", State::Success));
            assert!(!gathering.is_over() && !gathering.is_missing("a"));
            gathering.take("c", meta("c", State::Failure));
            assert_eq!((gathering.is_over(), gathering.missing()), (over, vec!["b"]));
            let ids: Vec<_> = gathering.finish().into_iter().map(|meta| meta.map(|meta| meta.task_id)).collect();
            assert_eq!(ids, [Some("a".to_owned()), None, Some("a".to_owned()), Some("c".to_owned())]);
        }
    }
}
