//! [`Request`]: what a message says of one run.

use jiff::Timestamp;

use crate::protocol::Map;

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
