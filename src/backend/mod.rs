//! The seam to result backends, [`ResultBackend`], and [`ResultWriter`], through which a worker stores.
//!
//! A result is encoded where it came to be ([`ResultBackend::encode`]), gathered by the [`ResultWriter`], and stored in
//! batches ([`ResultBackend::store_encoded`]). A chord's members are counted where the results are ([`NativeChords`]), in
//! the same round trip; for backends that cannot count, [`poll_chord`] looks. Implementations are [`MemoryBackend`],
//! [`DisabledBackend`], [`RedisBackend`], [`RpcBackend`], [`MemcachedBackend`], [`FileBackend`],
//! [`DatabaseBackend`] and [`DjangoBackend`]; [`from_url`] chooses. All pass what of
//! `tests/backend_conformance.rs` their nature allows: `rpc://` keeps nothing, it sends.
//!
//! Nothing here runs tasks, reads the wall clock, or spends a round trip on Celery's state rules: a backend keeps them
//! where it stores.

mod choose;
mod chord;
mod codec;
mod database;
mod disabled;
mod django;
mod file;
mod gathering;
mod join;
mod memcached;
mod memory;
mod options;
mod polling;
mod redis;
mod rpc;
mod rules;
mod sql;
mod writer;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use crate::Result;
use crate::protocol::{ResultTuple, State, TaskMeta};

pub use choose::from_url;
pub use chord::{ChordClaim, ChordFailure, ChordOutcome, ChordPart, ChordProgress, EncodedPart, NativeChords};
pub use database::DatabaseBackend;
pub use disabled::DisabledBackend;
pub use django::DjangoBackend;
pub use file::FileBackend;
pub use join::{Joined, is_ready, join, poll_chord};
pub use memcached::MemcachedBackend;
pub use memory::MemoryBackend;
pub use options::{BackendOptions, CacheOptions, RpcOptions};
pub use redis::RedisBackend;
pub use rpc::RpcBackend;
pub use writer::{ResultWriter, WriterOptions};

/// Where results are kept.
#[async_trait]
pub trait ResultBackend: Send + Sync + fmt::Debug {
    /// The backend's address for people to read: passwords are written as `**`.
    fn uri(&self) -> String;

    /// What the backend talks to, as log lines name it: `Redis`.
    fn service(&self) -> &'static str;

    /// Whether anything is stored at all: `false` for `disabled`, and callers then need not encode results.
    fn is_enabled(&self) -> bool {
        true
    }

    /// Gets ready for requests: the first of them then waits for no connection. Nothing depends on it, and whatever keeps
    /// it from that is told to the request that meets it.
    async fn prepare(&self) {}

    /// The bytes that [`store_encoded`](Self::store_encoded) takes for a result. Pure: it may be called from any thread.
    ///
    /// # Errors
    /// [`ErrorKind::Encode`](crate::ErrorKind::Encode) when the serializer cannot write a value;
    /// [`ErrorKind::Backend`](crate::ErrorKind::Backend) when the result is larger than the backend takes.
    fn encode(&self, request: &StoreRequest) -> Result<EncodedResult>;

    /// Stores results in their order; `Ok` means that the backend has all of them, or kept what it had by these rules:
    /// SUCCESS is never overwritten (celery/backends/base.py `BaseKeyValueStoreBackend._store_result`), and PENDING,
    /// RECEIVED or STARTED that come late overwrite no READY state. Storing a batch twice is harmless. `rpc://` has no
    /// rules where it sends: whoever receives keeps them.
    ///
    /// # Errors
    /// [`Error::is_connection`](crate::Error::is_connection) when trying again can help: some of the batch may be stored.
    async fn store_encoded(&self, batch: &[EncodedResult]) -> Result<()>;

    /// Encodes and stores results: see [`encode`](Self::encode) and [`store_encoded`](Self::store_encoded).
    ///
    /// # Errors
    /// Those of both; nothing is stored when one of the results cannot be encoded.
    async fn store(&self, batch: &[StoreRequest]) -> Result<()> {
        let encoded = batch.iter().map(|request| self.encode(request)).collect::<Result<Vec<_>>>()?;
        self.store_encoded(&encoded).await
    }

    /// The stored meta; `None` for an id that is not known (Celery's PENDING).
    async fn fetch(&self, task_id: &str) -> Result<Option<TaskMeta>>;

    /// The stored metas of `task_ids`, in their order.
    async fn fetch_many(&self, task_ids: &[&str]) -> Result<Vec<Option<TaskMeta>>>;

    /// Waits until the task is ready and returns its meta; `None` when `timeout` has passed. Lost connections are made
    /// again meanwhile. Where nobody says that a result is there, it is looked for again and again.
    async fn wait(&self, task_id: &str, timeout: Option<Duration>) -> Result<Option<TaskMeta>> {
        polling::wait(self, task_id, timeout).await
    }

    /// Waits for many tasks at once, as [`wait`](Self::wait) does for one, and returns the metas of those that are ready,
    /// in the order of `task_ids`; an id that stands there twice has its meta twice.
    async fn wait_many(
        &self,
        task_ids: &[&str],
        until: Until,
        timeout: Option<Duration>,
    ) -> Result<Vec<Option<TaskMeta>>> {
        polling::wait_many(self, task_ids, until, timeout).await
    }

    /// Deletes the result.
    async fn forget(&self, task_id: &str) -> Result<()>;

    /// Keeps a group's structure for `result_expires`, so that [`restore_group`](Self::restore_group) finds it
    /// (celery/result.py `GroupResult.save`).
    ///
    /// # Errors
    /// `Backend`: the group has no id.
    async fn save_group(&self, group: &ResultTuple) -> Result<()>;

    /// The structure of a group that was saved (`GroupResult.restore`); `None` for an id that is not known.
    async fn restore_group(&self, group_id: &str) -> Result<Option<ResultTuple>>;

    /// Deletes what [`save_group`](Self::save_group) kept; the members' results stay (`GroupResult.delete`).
    async fn forget_group(&self, group_id: &str) -> Result<()>;

    /// Deletes what has expired by `now`, where nothing else does: what the task `celery.backend_cleanup` is for.
    async fn clean_up(&self, _now: Timestamp) -> Result<()> {
        Ok(())
    }

    /// The queue in which results for this process arrive, where they are messages to whoever sent the task: the
    /// `reply_to` of what is sent.
    fn reply_queue(&self) -> Option<&str> {
        None
    }

    /// Called before tasks are sent of which somebody here may want the results (celery/backends/rpc.py
    /// `RPCBackend.on_task_call`).
    ///
    /// # Errors
    /// The results could not arrive.
    async fn expect_results(&self) -> Result<()> {
        Ok(())
    }

    /// Whether `extended` of a meta is to hold `argsrepr`, `kwargsrepr`, `periodic_task_name` and `request_meta`, the headers
    /// of a message that only django-celery-results stores.
    fn stores_reprs(&self) -> bool {
        false
    }

    /// The same backend, if it counts the members of chords itself; `None`: the task `celery.chord_unlock` must poll.
    fn native_chords(&self) -> Option<&dyn NativeChords> {
        None
    }

    /// Whether chords can be sent at all (celery/backends/base.py `Backend.ensure_chords_allowed`).
    ///
    /// # Errors
    /// `Configuration`: this backend keeps no results to gather.
    fn ensure_chords_allowed(&self) -> Result<()> {
        Ok(())
    }
}

/// What [`ResultBackend::wait_many`] waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// All are ready.
    AllReady,
    /// All are ready, or one is in a state in which `AsyncResult.get()` raises.
    FirstFailure,
}

/// A result to store.
#[derive(Debug, Clone, PartialEq)]
pub struct StoreRequest {
    /// What to store, under its `task_id`.
    pub meta: TaskMeta,
    /// Where `rpc://` sends it; other backends do not look at it.
    pub reply_to: Option<ReplyTo>,
}

/// To whom a result is sent, as the request says (celery/backends/rpc.py `RPCBackend.destination_for`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyTo {
    /// The request's `reply_to`: a queue.
    pub queue: String,
    /// The request's `correlation_id`; `None`: the task's id.
    pub correlation_id: Option<String>,
}

/// A result as bytes, with what a backend must know of it to keep the state rules and choose the expiry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedResult {
    /// The task's id.
    pub task_id: String,
    /// The state that `payload` holds.
    pub state: State,
    /// The meta, serialized and perhaps compressed.
    pub payload: Bytes,
    /// Where `rpc://` sends it; other backends do not look at it.
    pub reply_to: Option<ReplyTo>,
}
