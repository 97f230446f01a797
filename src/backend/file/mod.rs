//! [`FileBackend`]: results in a folder, each in a file that bears Celery's key (celery/backends/filesystem.py).
//!
//! A file appears whole: it is written beside and put in its place. While one of ours decides what may take the place of
//! what, it holds the folder's lock; stock workers know no lock, and theirs is the risk that it is with each other.
//! Nothing counts chords here: the task `celery.chord_unlock` looks.

mod folder;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use self::folder::Folder;
use super::codec::Codec;
use super::{BackendOptions, EncodedResult, ResultBackend, StoreRequest};
use crate::protocol::{ResultTuple, State, TaskMeta};
use crate::{Error, ErrorKind, Result};

/// Keeps results in files.
pub struct FileBackend {
    folder: Arc<Folder>,
    codec: Codec,
    task_keyprefix: String,
    group_keyprefix: String,
    expires: Option<Duration>,
}

impl FileBackend {
    /// The backend of a URL: `file:///path` or `file://localhost/path`. The folder has to be there, and is not looked at yet.
    ///
    /// # Errors
    /// `Configuration` or `Refused`: a URL without a path, or a serializer or compression that cannot be used.
    pub fn new(url: &str, options: &BackendOptions) -> Result<Self> {
        let wrong =
            || Error::new(ErrorKind::Configuration, "result_backend: a folder is named as in file:///var/results");
        let local = url.strip_prefix("file://localhost").filter(|path| path.starts_with('/'));
        let path = local.or_else(|| url.strip_prefix("file://")).ok_or_else(wrong)?;
        if path.is_empty() {
            return Err(wrong());
        }
        Ok(FileBackend {
            folder: Arc::new(Folder::new(Path::new(path))),
            codec: Codec::new(options)?,
            task_keyprefix: options.task_keyprefix(),
            group_keyprefix: options.group_keyprefix(),
            expires: options.expires(&State::Success),
        })
    }

    fn name(&self, task_id: &str) -> String {
        format!("{}{task_id}", self.task_keyprefix)
    }

    fn group_name(&self, group_id: &str) -> String {
        format!("{}{group_id}", self.group_keyprefix)
    }

    /// Runs what touches the disk where it keeps no task waiting.
    async fn on_disk<T: Send + 'static>(&self, work: impl FnOnce(&Folder) -> Result<T> + Send + 'static) -> Result<T> {
        let folder = self.folder.clone();
        let done = tokio::task::spawn_blocking(move || work(&folder)).await;
        done.unwrap_or_else(|error| Err(Error::new(ErrorKind::Backend, format!("using a folder of results: {error}"))))
    }

    async fn read(&self, name: String) -> Result<Option<Vec<u8>>> {
        self.on_disk(move |folder| folder.read(&name)).await
    }
}

#[async_trait]
impl ResultBackend for FileBackend {
    fn uri(&self) -> String {
        self.folder.to_string()
    }

    fn service(&self) -> &'static str {
        "The folder of results"
    }

    async fn prepare(&self) {
        if let Err(error) = self.on_disk(|folder| folder.lock().map(drop)).await {
            tracing::warn!("Results wait until their folder takes them: {error}");
        }
    }

    fn encode(&self, request: &StoreRequest) -> Result<EncodedResult> {
        self.codec.encode(request)
    }

    async fn store_encoded(&self, batch: &[EncodedResult]) -> Result<()> {
        let named: Vec<(String, State, Bytes)> = batch
            .iter()
            .map(|result| (self.name(&result.task_id), result.state.clone(), result.payload.clone()))
            .collect();
        let codec = self.codec;
        self.on_disk(move |folder| {
            let _lock = folder.lock()?;
            named.iter().try_for_each(|(name, state, payload)| folder.store(name, state, payload, &codec))
        })
        .await
    }

    async fn fetch(&self, task_id: &str) -> Result<Option<TaskMeta>> {
        self.read(self.name(task_id)).await?.map(|payload| self.codec.decode(&payload)).transpose()
    }

    async fn fetch_many(&self, task_ids: &[&str]) -> Result<Vec<Option<TaskMeta>>> {
        let names: Vec<String> = task_ids.iter().map(|task_id| self.name(task_id)).collect();
        let read = move |folder: &Folder| names.iter().map(|name| folder.read(name)).collect::<Result<Vec<_>>>();
        let payloads = self.on_disk(read).await?;
        payloads.into_iter().map(|payload| payload.map(|payload| self.codec.decode(&payload)).transpose()).collect()
    }

    async fn forget(&self, task_id: &str) -> Result<()> {
        let name = self.name(task_id);
        self.on_disk(move |folder| folder.remove(&name)).await
    }

    async fn save_group(&self, group: &ResultTuple) -> Result<()> {
        let (name, payload) = (self.group_name(&group.id), self.codec.encode_group(group)?);
        self.on_disk(move |folder| folder.write(&name, &payload)).await
    }

    async fn restore_group(&self, group_id: &str) -> Result<Option<ResultTuple>> {
        self.read(self.group_name(group_id)).await?.map(|payload| self.codec.decode_group(&payload)).transpose()
    }

    async fn forget_group(&self, group_id: &str) -> Result<()> {
        let name = self.group_name(group_id);
        self.on_disk(move |folder| folder.remove(&name)).await
    }

    async fn clean_up(&self, now: Timestamp) -> Result<()> {
        let Some(before) = self.expires.and_then(|expires| now.checked_sub(expires).ok()) else { return Ok(()) };
        let prefixes = [self.task_keyprefix.clone(), self.group_keyprefix.clone()];
        self.on_disk(move |folder| folder.remove_older(&prefixes, before.into())).await
    }
}

impl fmt::Debug for FileBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileBackend").field("folder", &self.uri()).finish_non_exhaustive()
    }
}
