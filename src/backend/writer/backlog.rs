//! [`Backlog`]: what waits to be stored, and which of it may be stored next.

use std::collections::{HashMap, HashSet, VecDeque};

use ahash::RandomState;

use super::Waiting;
use crate::backend::{EncodedPart, EncodedResult};

/// Results that wait, in the order in which they came.
///
/// Batches may be under way side by side, so a task whose result is in one of them is *busy*, and what comes for it
/// waits until that batch is stored: results of one task reach the backend in order.
#[derive(Default)]
pub(super) struct Backlog {
    ready: VecDeque<Waiting>,
    /// What waits for a batch under way, by the hash of its task's id. Two ids of one hash wait for each other.
    busy: HashMap<u64, VecDeque<Waiting>, RandomState>,
    hasher: RandomState,
}

/// Results that are stored together.
pub(super) struct Batch {
    /// In the order in which they came.
    pub(super) results: Vec<EncodedResult>,
    /// In the same order, of those tasks that have one.
    pub(super) parts: Vec<EncodedPart>,
    /// Who is told, in the same order.
    pub(super) callers: Vec<Asked>,
    busy: Vec<u64>,
}

/// What one caller asked for.
pub(super) struct Asked {
    pub(super) caller: super::Caller,
    pub(super) has_result: bool,
    pub(super) has_part: bool,
}

impl Backlog {
    pub(super) fn push(&mut self, waiting: Waiting) {
        self.ready.push_back(waiting);
    }

    /// How many results could go into a batch, were no task busy.
    pub(super) fn len(&self) -> usize {
        self.ready.len()
    }

    /// Whether nothing waits: also nothing that waits for a batch under way.
    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.busy.is_empty()
    }

    /// The next batch of up to `items` results and `bytes` bytes, at least one of them; `None`: nothing can be stored now.
    pub(super) fn next_batch(&mut self, items: usize, bytes: usize) -> Option<Batch> {
        let mut batch = Batch { results: Vec::new(), parts: Vec::new(), callers: Vec::new(), busy: Vec::new() };
        let (mut ours, mut size) = (HashSet::with_hasher(self.hasher.clone()), 0);
        while batch.callers.len() < items && size < bytes {
            let Some(waiting) = self.ready.pop_front() else { break };
            let task = self.hasher.hash_one(waiting.task_id());
            if let Some(queue) = self.busy.get_mut(&task) {
                queue.push_back(waiting);
                continue;
            }
            size += waiting.size();
            ours.insert(task);
            let (has_result, has_part) = (waiting.result.is_some(), waiting.part.is_some());
            batch.callers.push(Asked { caller: waiting.caller, has_result, has_part });
            batch.results.extend(waiting.result);
            batch.parts.extend(waiting.part);
        }
        batch.busy.extend(ours);
        self.busy.extend(batch.busy.iter().map(|task| (*task, VecDeque::new())));
        (!batch.callers.is_empty()).then_some(batch)
    }

    /// `batch` is stored, or failed for good: what waited for it comes next.
    pub(super) fn finished(&mut self, batch: &Batch) {
        for task in &batch.busy {
            let waited = self.busy.remove(task).unwrap_or_default();
            for waiting in waited.into_iter().rev() {
                self.ready.push_front(waiting);
            }
        }
    }
}

impl Waiting {
    fn task_id(&self) -> &str {
        let of_part = || self.part.as_ref().map(|part| part.task_id.as_str());
        self.result.as_ref().map(|result| result.task_id.as_str()).or_else(of_part).unwrap_or_default()
    }

    fn size(&self) -> usize {
        let of_part = self.part.as_ref().map_or(0, |part| part.payload.len());
        self.result.as_ref().map_or(0, |result| result.payload.len()) + of_part
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::sync::oneshot;

    use super::*;
    use crate::protocol::State;

    fn backlog(tasks: &str) -> Backlog {
        let mut backlog = Backlog::default();
        tasks.split_whitespace().for_each(|item| backlog.push(waiting(item)));
        backlog
    }

    /// `a1` is the result `1` of task `a`.
    fn waiting(item: &str) -> Waiting {
        let (task, payload) = item.split_at(1);
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        let result = EncodedResult { task_id: task.into(), state: State::Started, payload, reply_to: None };
        Waiting { result: Some(result), part: None, caller: oneshot::channel().0 }
    }

    fn items(batch: &Option<Batch>) -> String {
        let results = batch.iter().flat_map(|batch| &batch.results);
        results.map(|result| format!("{}{} ", result.task_id, String::from_utf8_lossy(&result.payload))).collect()
    }

    #[test]
    fn batches_are_bounded_by_items_and_by_bytes() {
        let rows = [
            ("a1 b1 c1 d1", 2, 100, "a1 b1 "),
            ("a1 b1 c1", 10, 100, "a1 b1 c1 "),
            ("a1111 b1 c1", 10, 4, "a1111 "),
            ("a11 b11 c1", 10, 4, "a11 b11 "),
            ("a1 a2 b1 a3", 10, 100, "a1 a2 b1 a3 "),
            ("", 10, 100, ""),
        ];
        for (tasks, count, bytes, expected) in rows {
            assert_eq!(items(&backlog(tasks).next_batch(count, bytes)), expected, "{tasks}");
        }
    }

    #[test]
    fn a_busy_tasks_results_wait_in_order_and_others_pass_them() {
        let mut backlog = backlog("a1 b1 a2 a3 c1 b2 d1");
        let first = backlog.next_batch(2, 100);
        let second = backlog.next_batch(10, 100);
        assert_eq!((items(&first).as_str(), items(&second).as_str()), ("a1 b1 ", "c1 d1 "));
        backlog.push(waiting("a4"));
        assert!(backlog.next_batch(10, 100).is_none(), "a is busy");
        backlog.finished(&second.unwrap());
        assert!(!backlog.is_empty());
        backlog.finished(&first.unwrap());
        let mut order: Vec<_> = items(&backlog.next_batch(10, 100)).split_whitespace().map(str::to_owned).collect();
        order.sort_by(|one, other| one[..1].cmp(&other[..1]));
        assert_eq!(order, ["a2", "a3", "a4", "b2"]);
    }

    #[test]
    fn it_is_empty_only_when_no_batch_is_under_way() {
        let mut backlog = backlog("a1");
        let batch = backlog.next_batch(10, 100).unwrap();
        assert_eq!((backlog.len(), backlog.is_empty()), (0, false));
        backlog.finished(&batch);
        assert!(backlog.is_empty());
    }
}
