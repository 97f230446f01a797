//! [`DisabledBackend`]: no results are kept.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{EncodedResult, ResultBackend, StoreRequest, Until};
use crate::protocol::{ResultTuple, TaskMeta};
use crate::{Error, ErrorKind, Result};

/// Keeps no results, and says so to whoever asks for one (celery/backends/base.py `DisabledBackend`).
#[derive(Debug, Clone, Copy, Default)]
pub struct DisabledBackend;

#[async_trait]
impl ResultBackend for DisabledBackend {
    fn uri(&self) -> String {
        "disabled://".to_owned()
    }

    fn service(&self) -> &'static str {
        "no result backend"
    }

    fn is_enabled(&self) -> bool {
        false
    }

    fn encode(&self, request: &StoreRequest) -> Result<EncodedResult> {
        let StoreRequest { meta, reply_to } = request;
        let (task_id, state) = (meta.task_id.clone(), meta.status.clone());
        Ok(EncodedResult { task_id, state, payload: Bytes::new(), reply_to: reply_to.clone() })
    }

    async fn store_encoded(&self, _batch: &[EncodedResult]) -> Result<()> {
        Ok(())
    }

    async fn fetch(&self, _task_id: &str) -> Result<Option<TaskMeta>> {
        Err(is_disabled())
    }

    async fn fetch_many(&self, _task_ids: &[&str]) -> Result<Vec<Option<TaskMeta>>> {
        Err(is_disabled())
    }

    async fn wait(&self, _task_id: &str, _timeout: Option<Duration>) -> Result<Option<TaskMeta>> {
        Err(is_disabled())
    }

    async fn wait_many(&self, _: &[&str], _: Until, _: Option<Duration>) -> Result<Vec<Option<TaskMeta>>> {
        Err(is_disabled())
    }

    async fn forget(&self, _task_id: &str) -> Result<()> {
        Ok(())
    }

    async fn save_group(&self, _group: &ResultTuple) -> Result<()> {
        Err(is_disabled())
    }

    async fn restore_group(&self, _group_id: &str) -> Result<Option<ResultTuple>> {
        Err(is_disabled())
    }

    async fn forget_group(&self, _group_id: &str) -> Result<()> {
        Err(is_disabled())
    }

    /// In the sense of celery/backends/base.py `E_CHORD_NO_BACKEND`.
    fn ensure_chords_allowed(&self) -> Result<()> {
        let message = "starting chords requires a result backend: set result_backend (a group chained with a task is \
                       a chord too)";
        Err(Error::new(ErrorKind::Configuration, message))
    }
}

fn is_disabled() -> Error {
    Error::new(ErrorKind::Configuration, "no result backend is configured: set result_backend to keep results")
}
