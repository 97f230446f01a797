//! [`RedisBackend`]: results in Redis, under the keys and in the form of celery/backends/redis.py.
//!
//! [`store`] writes batches with the state rules kept in Lua, [`link`] holds the one connection that is shared by all
//! requests, [`consumer`] the one that waits for published results. Nothing here encodes results, or retries for long:
//! that is the writer's.

mod consumer;
mod link;
mod store;

use std::time::Duration;

use async_trait::async_trait;
use redis::{Pipeline, Value};
use tokio::time::timeout;

use self::consumer::{Consumer, Notice};
use self::link::Link;
use super::codec::Codec;
use super::{BackendOptions, EncodedResult, ResultBackend, StoreRequest};
use crate::protocol::TaskMeta;
use crate::redis_client::{ConnectOptions, RedisUrl, UrlPolicy};
use crate::{Error, ErrorKind, Result};

/// Keeps results in Redis, so that stock Celery's `AsyncResult` reads them, and reads what stock workers stored.
///
/// It connects when it is first used, and again after the connection is lost.
#[derive(Debug)]
pub struct RedisBackend {
    options: BackendOptions,
    keyprefix: String,
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
            codec: Codec::new(options)?,
            consumer: Consumer::new(url.clone(), connect.clone(), options.health_check_interval),
            link: Link::new(url, connect),
            options: options.clone(),
        })
    }

    fn key(&self, task_id: &str) -> String {
        [&self.keyprefix, task_id].concat()
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

    async fn ready(&self, task_id: &str) -> Result<TaskMeta> {
        let mut subscription = self.consumer.subscribe(self.key(task_id));
        loop {
            let meta = match subscription.next().await? {
                Notice::Look => self.look(task_id).await?,
                Notice::Published(payload) => Some(self.codec.decode(&payload)?),
            };
            if let Some(meta) = meta.filter(|meta| meta.status.is_ready()) {
                return Ok(meta);
            }
        }
    }

    /// Fetches while the connection comes and goes: what was published before this look is not published again.
    async fn look(&self, task_id: &str) -> Result<Option<TaskMeta>> {
        loop {
            match self.fetch(task_id).await {
                Err(error) if error.is_connection() => tokio::time::sleep(consumer::PAUSE).await,
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
        match limit {
            None => self.ready(task_id).await.map(Some),
            Some(limit) => timeout(limit, self.ready(task_id)).await.ok().transpose(),
        }
    }

    async fn forget(&self, task_id: &str) -> Result<()> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("DEL").arg(self.key(task_id));
        self.link.query(&pipeline).await.map(|_| ())
    }
}

impl Link {
    fn unexpected(&self) -> Error {
        Error::new(ErrorKind::Backend, format!("{self} answered what was not asked for"))
    }
}
