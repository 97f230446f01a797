//! [`TaskMeta`]: what a result backend stores for a task.

use super::{DateTime, Exception, Map, State, Value};

/// What a result backend stores for a task (celery/backends/base.py `Backend._get_result_meta`).
#[derive(Debug, Clone, PartialEq)]
pub struct TaskMeta {
    /// The task's id.
    pub task_id: String,
    /// The state.
    pub status: State,
    /// The return value, the `update_state` meta, or what an exception encodes to.
    pub result: MetaResult,
    /// A Python traceback's text, or whatever stands in for one.
    pub traceback: Option<String>,
    /// The result tuples of tasks that were sent in this run; `None` where there was no request.
    pub children: Option<Vec<Value>>,
    /// When the task became ready.
    pub date_done: Option<DateTime>,
    /// The group's id, if the request has one.
    pub group_id: Option<String>,
    /// The parent's id, if the request has one.
    pub parent_id: Option<String>,
    /// What `result_extended` adds, and keys that we do not know: in their order, before `task_id`.
    pub extended: Map,
}

/// The `result` of a [`TaskMeta`].
#[derive(Debug, Clone, PartialEq)]
pub enum MetaResult {
    /// A value.
    Value(Value),
    /// An exception.
    Exception(Exception),
}
