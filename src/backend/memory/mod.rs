//! [`MemoryBackend`]: results in this process, for tests.

mod chords;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use self::chords::Chords;
use super::codec::Codec;
use super::gathering::Gathering;
use super::rules::overwrites;
use super::{BackendOptions, EncodedResult, NativeChords, ResultBackend, StoreRequest, Until};
use crate::Result;
use crate::protocol::{ResultTuple, State, TaskMeta};

/// Keeps encoded results in this process. Clones share what they keep.
#[derive(Clone)]
pub struct MemoryBackend {
    options: BackendOptions,
    codec: Codec,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    results: HashMap<String, Stored>,
    /// Who is woken when a task becomes ready.
    waiting: HashMap<String, Vec<oneshot::Sender<()>>>,
    /// At how many results the expired ones are next looked for: always twice what the last look left.
    next_purge: usize,
    /// Groups that were saved, by their ids.
    groups: HashMap<String, Stored>,
    chords: Chords,
}

struct Stored {
    state: State,
    payload: Bytes,
    expires_at: Option<Instant>,
}

impl MemoryBackend {
    /// An empty backend.
    ///
    /// # Errors
    /// `Configuration` or `Refused`: a serializer or compression that cannot be used.
    pub fn new(options: BackendOptions) -> Result<Self> {
        let codec = Codec::new(&options)?;
        Ok(MemoryBackend { options, codec, kept: Arc::default() })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn payload(&self, task_id: &str) -> Option<Bytes> {
        self.kept().alive(task_id, Instant::now()).map(|stored| stored.payload.clone())
    }

    fn keep_group(&self, group: &ResultTuple, expires: Option<Duration>) -> Result<()> {
        let payload = self.codec.encode_group(group)?.into();
        let expires_at = expires.and_then(|expires| Instant::now().checked_add(expires));
        let stored = Stored { state: State::Success, payload, expires_at };
        self.kept().groups.insert(group.id.clone(), stored);
        Ok(())
    }

    /// Takes metas as their tasks become ready.
    async fn gather(&self, gathering: &mut Gathering<'_>) -> Result<()> {
        let waits = gathering.missing().into_iter().map(|task_id| async move { (task_id, self.ready(task_id).await) });
        let mut waits: FuturesUnordered<_> = waits.collect();
        while !gathering.is_over()
            && let Some((task_id, meta)) = waits.next().await
        {
            gathering.take(task_id, meta?);
        }
        Ok(())
    }

    async fn ready(&self, task_id: &str) -> Result<TaskMeta> {
        loop {
            let woken = self.kept().watch(task_id);
            if let Some(meta) = self.fetch(task_id).await?.filter(|meta| meta.status.is_ready()) {
                return Ok(meta);
            }
            // The other end goes only by being woken: entries leave the map no other way.
            let _ = woken.await;
        }
    }
}

impl Kept {
    fn alive(&self, task_id: &str, now: Instant) -> Option<&Stored> {
        self.results.get(task_id).filter(|stored| stored.is_alive(now))
    }

    fn store(&mut self, result: &EncodedResult, now: Instant, expires: Option<Duration>) {
        let stored = self.alive(&result.task_id, now);
        if stored.is_some_and(|stored| !overwrites(&stored.state, &result.state)) {
            return;
        }
        let (state, payload) = (result.state.clone(), result.payload.clone());
        let expires_at = expires.and_then(|expires| now.checked_add(expires));
        self.results.insert(result.task_id.clone(), Stored { state, payload, expires_at });
        if result.state.is_ready() {
            self.wake(&result.task_id);
        }
    }

    fn watch(&mut self, task_id: &str) -> oneshot::Receiver<()> {
        let (wake, woken) = oneshot::channel();
        let waiting = self.waiting.entry(task_id.to_owned()).or_default();
        if waiting.len().is_power_of_two() {
            waiting.retain(|wake| !wake.is_closed());
        }
        waiting.push(wake);
        woken
    }

    fn wake(&mut self, task_id: &str) {
        for waiting in self.waiting.remove(task_id).unwrap_or_default() {
            let _ = waiting.send(());
        }
    }

    /// Looks for expired results when there are twice as many as the last look left: constant work for each stored one.
    fn purge(&mut self, now: Instant) {
        if self.results.len() < self.next_purge.max(1024) {
            return;
        }
        self.results.retain(|_, stored| stored.is_alive(now));
        self.groups.retain(|_, stored| stored.is_alive(now));
        self.waiting.retain(|_, waiting| waiting.iter().any(|wake| !wake.is_closed()));
        self.next_purge = self.results.len() * 2;
    }
}

impl Stored {
    fn is_alive(&self, now: Instant) -> bool {
        self.expires_at.is_none_or(|expires_at| now < expires_at)
    }
}

#[async_trait]
impl ResultBackend for MemoryBackend {
    fn uri(&self) -> String {
        "memory://".to_owned()
    }

    fn service(&self) -> &'static str {
        "memory"
    }

    fn encode(&self, request: &StoreRequest) -> Result<EncodedResult> {
        self.codec.encode(request)
    }

    async fn store_encoded(&self, batch: &[EncodedResult]) -> Result<()> {
        let now = Instant::now();
        let mut kept = self.kept();
        for result in batch {
            kept.store(result, now, self.options.expires(&result.state));
        }
        kept.purge(now);
        Ok(())
    }

    async fn fetch(&self, task_id: &str) -> Result<Option<TaskMeta>> {
        self.payload(task_id).map(|payload| self.codec.decode(&payload)).transpose()
    }

    async fn fetch_many(&self, task_ids: &[&str]) -> Result<Vec<Option<TaskMeta>>> {
        let payloads = task_ids.iter().map(|task_id| self.payload(task_id));
        payloads.map(|payload| payload.map(|payload| self.codec.decode(&payload)).transpose()).collect()
    }

    async fn wait(&self, task_id: &str, limit: Option<Duration>) -> Result<Option<TaskMeta>> {
        match limit {
            None => self.ready(task_id).await.map(Some),
            Some(limit) => timeout(limit, self.ready(task_id)).await.ok().transpose(),
        }
    }

    async fn wait_many(
        &self,
        task_ids: &[&str],
        until: Until,
        limit: Option<Duration>,
    ) -> Result<Vec<Option<TaskMeta>>> {
        let mut gathering = Gathering::new(task_ids, until);
        for task_id in gathering.missing() {
            self.fetch(task_id).await?.into_iter().for_each(|meta| gathering.take(task_id, meta));
        }
        match limit {
            None => self.gather(&mut gathering).await?,
            Some(limit) => timeout(limit, self.gather(&mut gathering)).await.unwrap_or(Ok(()))?,
        }
        Ok(gathering.finish())
    }

    async fn forget(&self, task_id: &str) -> Result<()> {
        self.kept().results.remove(task_id);
        Ok(())
    }

    async fn save_group(&self, group: &ResultTuple) -> Result<()> {
        self.keep_group(group, self.options.expires(&State::Success))
    }

    async fn restore_group(&self, group_id: &str) -> Result<Option<ResultTuple>> {
        let kept = self.kept();
        let stored = kept.groups.get(group_id).filter(|stored| stored.is_alive(Instant::now()));
        stored.map(|stored| self.codec.decode_group(&stored.payload)).transpose()
    }

    async fn forget_group(&self, group_id: &str) -> Result<()> {
        self.kept().groups.remove(group_id);
        Ok(())
    }

    fn native_chords(&self) -> Option<&dyn NativeChords> {
        Some(self)
    }
}

impl fmt::Debug for MemoryBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBackend").field("results", &self.kept().results.len()).finish_non_exhaustive()
    }
}
