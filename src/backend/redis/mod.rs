//! [`RedisBackend`]: results in Redis, under the keys and in the form of celery/backends/redis.py.
//!
//! [`store`] writes batches with the state rules kept in Lua, [`link`] holds the one connection that is shared by all
//! requests, [`consumer`] the one that waits for published results. Nothing here encodes results, or retries for long:
//! that is the writer's.

mod chords;
mod consumer;
mod link;
mod store;

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use redis::{Pipeline, Value};
use tokio::time::timeout;

use self::chords::expiring;
use self::consumer::{Consumer, Notice};
use self::link::Link;
use super::codec::Codec;
use super::gathering::Gathering;
use super::{BackendOptions, EncodedResult, NativeChords, ResultBackend, StoreRequest, Until};
use crate::protocol::{ResultTuple, State, TaskMeta};
use crate::redis_client::{ConnectOptions, RedisUrl, UrlPolicy};
use crate::{Error, ErrorKind, Result};

/// Keeps results in Redis, so that stock Celery's `AsyncResult` reads them, and reads what stock workers stored.
///
/// It connects when it is first used, or told to prepare, and again after the connection is lost.
#[derive(Debug)]
pub struct RedisBackend {
    options: BackendOptions,
    keyprefix: String,
    group_keyprefix: String,
    codec: Codec,
    link: Link,
    consumer: Consumer,
}

impl RedisBackend {
    /// A backend at `url`. Nothing is connected to yet.
    ///
    /// # Errors
    /// `Configuration`: the URL or an option is wrong; `rediss://` must say `ssl_cert_reqs`. `Refused`: pickled results.
    pub fn new(url: &str, options: &BackendOptions) -> Result<Self> {
        let url = RedisUrl::parse(url, UrlPolicy::Backend)?;
        let connect = ConnectOptions {
            connect_timeout: options.socket_connect_timeout,
            response_timeout: options.socket_timeout,
            client_name: options.client_name.clone(),
            ..ConnectOptions::default()
        };
        Ok(RedisBackend {
            keyprefix: options.task_keyprefix(),
            group_keyprefix: options.group_keyprefix(),
            codec: Codec::new(options)?,
            consumer: Consumer::new(url.clone(), connect.clone(), options.health_check_interval),
            link: Link::new(url, connect),
            options: options.clone(),
        })
    }

    fn key(&self, task_id: &str) -> String {
        [&self.keyprefix, task_id].concat()
    }

    /// A group's key, or with a suffix one of its chord's.
    fn group_key(&self, group_id: &str, suffix: &str) -> String {
        [&self.group_keyprefix, group_id, suffix].concat()
    }

    async fn fetch_chunk(&self, task_ids: &[&str]) -> Result<Vec<Option<TaskMeta>>> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("MGET");
        task_ids.iter().for_each(|task_id| _ = pipeline.arg(self.key(task_id)));
        let Some(Value::Array(stored)) = self.link.query(&pipeline).await?.pop() else {
            return Err(self.link.unexpected());
        };
        stored.into_iter().map(|stored| self.decode(stored)).collect()
    }

    /// An empty string stands for nothing, as in celery/backends/base.py `BaseKeyValueStoreBackend._get_task_meta_for`.
    fn decode(&self, stored: Value) -> Result<Option<TaskMeta>> {
        match stored {
            Value::BulkString(payload) if !payload.is_empty() => self.codec.decode(&payload).map(Some),
            _ => Ok(None),
        }
    }

    /// Takes what is stored of the tasks that are missing.
    async fn gather_stored(&self, gathering: &mut Gathering<'_>) -> Result<()> {
        for chunk in gathering.missing().chunks(1000) {
            for (task_id, meta) in chunk.iter().zip(self.fetch_chunk(chunk).await?) {
                meta.into_iter().for_each(|meta| gathering.take(task_id, meta));
            }
        }
        Ok(())
    }

    /// Takes metas as they are published.
    async fn gather(&self, gathering: &mut Gathering<'_>) -> Result<()> {
        let channels: HashMap<String, &str> =
            gathering.missing().into_iter().map(|task_id| (self.key(task_id), task_id)).collect();
        if gathering.is_over() {
            return Ok(());
        }
        let mut subscription = self.consumer.subscribe(channels.keys().cloned().collect());
        while !gathering.is_over() {
            let mut to_look = Vec::new();
            for notice in subscription.next_many().await? {
                let task_id = |channel: &str| channels.get(channel).copied();
                match notice {
                    Notice::Look(channel) => to_look.extend(task_id(&channel)),
                    Notice::Published(channel, payload) => {
                        let Some(task_id) = task_id(&channel).filter(|id| gathering.is_missing(id)) else { continue };
                        gathering.take(task_id, self.codec.decode(&payload)?);
                    }
                }
            }
            to_look.retain(|task_id| gathering.is_missing(task_id));
            for (task_id, meta) in to_look.iter().zip(self.look(&to_look).await?) {
                meta.into_iter().for_each(|meta| gathering.take(task_id, meta));
            }
        }
        Ok(())
    }

    /// Fetches while the connection comes and goes: what was published before this look is not published again.
    async fn look(&self, task_ids: &[&str]) -> Result<Vec<Option<TaskMeta>>> {
        if task_ids.is_empty() {
            return Ok(Vec::new());
        }
        loop {
            match self.fetch_many(task_ids).await {
                Err(error) if error.can_pass() => tokio::time::sleep(consumer::PAUSE).await,
                outcome => return outcome,
            }
        }
    }
}

#[async_trait]
impl ResultBackend for RedisBackend {
    fn uri(&self) -> String {
        self.link.to_string()
    }

    fn service(&self) -> &'static str {
        "Redis"
    }

    async fn prepare(&self) {
        self.link.prepare().await;
    }

    fn encode(&self, request: &StoreRequest) -> Result<EncodedResult> {
        self.codec.encode(request)
    }

    async fn store_encoded(&self, batch: &[EncodedResult]) -> Result<()> {
        self.store_batch(batch).await
    }

    async fn fetch(&self, task_id: &str) -> Result<Option<TaskMeta>> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("GET").arg(self.key(task_id));
        let stored = self.link.query(&pipeline).await?.pop();
        self.decode(stored.unwrap_or(Value::Nil))
    }

    async fn fetch_many(&self, task_ids: &[&str]) -> Result<Vec<Option<TaskMeta>>> {
        let mut metas = Vec::with_capacity(task_ids.len());
        for chunk in task_ids.chunks(1000) {
            metas.extend(self.fetch_chunk(chunk).await?);
        }
        Ok(metas)
    }

    async fn wait(&self, task_id: &str, limit: Option<Duration>) -> Result<Option<TaskMeta>> {
        let mut gathering = Gathering::new(&[task_id], Until::AllReady);
        match limit {
            None => self.gather(&mut gathering).await?,
            Some(limit) => timeout(limit, self.gather(&mut gathering)).await.unwrap_or(Ok(()))?,
        }
        Ok(gathering.finish().pop().flatten())
    }

    async fn forget(&self, task_id: &str) -> Result<()> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("DEL").arg(self.key(task_id));
        self.link.query(&pipeline).await.map(|_| ())
    }

    async fn wait_many(
        &self,
        task_ids: &[&str],
        until: Until,
        limit: Option<Duration>,
    ) -> Result<Vec<Option<TaskMeta>>> {
        let mut gathering = Gathering::new(task_ids, until);
        match self.gather_stored(&mut gathering).await {
            // Whoever waits goes on waiting through an outage.
            Err(error) if error.can_pass() => {}
            outcome => outcome?,
        }
        match limit {
            None => self.gather(&mut gathering).await?,
            Some(limit) => timeout(limit, self.gather(&mut gathering)).await.unwrap_or(Ok(()))?,
        }
        Ok(gathering.finish())
    }

    async fn save_group(&self, group: &ResultTuple) -> Result<()> {
        let (key, payload) = (self.group_key(&group.id, ""), self.codec.encode_group(group)?);
        let mut pipeline = Pipeline::new();
        pipeline.cmd("SET").arg(&key).arg(&payload);
        expiring(&mut pipeline, self.options.expires(&State::Success));
        pipeline.cmd("PUBLISH").arg(&key).arg(&payload);
        self.link.query(&pipeline).await.map(|_| ())
    }

    async fn restore_group(&self, group_id: &str) -> Result<Option<ResultTuple>> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("GET").arg(self.group_key(group_id, ""));
        match self.link.query(&pipeline).await?.pop() {
            Some(Value::BulkString(payload)) if !payload.is_empty() => self.codec.decode_group(&payload).map(Some),
            _ => Ok(None),
        }
    }

    async fn forget_group(&self, group_id: &str) -> Result<()> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("DEL").arg(self.group_key(group_id, ""));
        self.link.query(&pipeline).await.map(|_| ())
    }

    fn native_chords(&self) -> Option<&dyn NativeChords> {
        Some(self)
    }
}

impl Link {
    fn unexpected(&self) -> Error {
        Error::new(ErrorKind::Backend, format!("{self} answered what was not asked for"))
    }
}
