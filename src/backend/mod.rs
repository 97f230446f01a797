//! The seam to result backends: [`ResultBackend`].
//!
//! Results are stored in batches. All implementations pass `tests/backend_conformance.rs`.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::Result;
use crate::protocol::TaskMeta;

/// Where results are kept.
#[async_trait]
pub trait ResultBackend: Send + Sync + fmt::Debug {
    /// The backend's address for people to read: passwords are written as `**`.
    fn uri(&self) -> String;

    /// Whether anything is stored at all: `false` for `disabled`, and callers then need not encode results.
    fn is_enabled(&self) -> bool {
        true
    }

    /// Stores results; `Ok` means that the backend has all of them. A state that is final stays: SUCCESS is never
    /// overwritten (celery/backends/base.py `BaseKeyValueStoreBackend._store_result`), and STARTED or PENDING that
    /// come late overwrite no READY state.
    async fn store(&self, batch: &[StoreRequest]) -> Result<()>;

    /// The stored meta; `None` for an id that is not known (Celery's PENDING).
    async fn fetch(&self, task_id: &str) -> Result<Option<TaskMeta>>;

    /// Waits until the task is ready and returns its meta; `None` when `timeout` has passed.
    async fn wait(&self, task_id: &str, timeout: Option<Duration>) -> Result<Option<TaskMeta>>;

    /// Deletes the result.
    async fn forget(&self, task_id: &str) -> Result<()>;
}

/// A result to store.
#[derive(Debug, Clone, PartialEq)]
pub struct StoreRequest {
    /// What to store, under its `task_id`.
    pub meta: TaskMeta,
    /// The request's `reply_to`: where `rpc://` sends it.
    pub reply_to: Option<String>,
}
