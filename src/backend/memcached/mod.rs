//! [`MemcachedBackend`]: results in a memcached, as Celery's own backend finds them there (celery/backends/cache.py).
//!
//! A batch is one write: each result is added ([`store`]), and only what is there already takes another round trip. Chords are
//! counted in the number that stock workers count in ([`chords`]). One server; which of several has a key is decided by
//! Celery's client library alone.

mod address;
mod chords;
mod counting;
mod link;
mod memory;
mod store;
mod wire;

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use self::address::Address;
pub(in crate::backend) use self::address::SCHEMES;
use self::link::{Link, Patience};
use self::memory::Memory;
use self::wire::{Answer, Item, Request, expiry, is_key};
use super::codec::Codec;
use super::{BackendOptions, EncodedResult, NativeChords, ResultBackend, StoreRequest};
use crate::protocol::{ResultTuple, State, TaskMeta};
use crate::time::Clock;
use crate::{Error, ErrorKind, Result};

/// Keeps results in a memcached.
pub struct MemcachedBackend {
    link: Link,
    codec: Codec,
    task_keyprefix: String,
    group_keyprefix: String,
    chord_keyprefix: String,
    options: BackendOptions,
    /// What this process knows of the chords that it counts; one batch of parts is counted at a time.
    counting: tokio::sync::Mutex<Memory>,
}

impl MemcachedBackend {
    /// The backend of what follows `cache+` in a URL: `memcached://host:port/`, `memcached:///path/of.sock`. Nothing is
    /// connected to yet.
    ///
    /// # Errors
    /// `Configuration` or `Refused`: no server or several, or a serializer or compression that cannot be used.
    pub fn new(url: &str, options: &BackendOptions) -> Result<Self> {
        let patience = Patience { connect: options.cache.connect_timeout, answer: options.cache.timeout };
        Ok(MemcachedBackend {
            link: Link::new(Address::parse(url)?, patience),
            codec: Codec::new(options)?,
            task_keyprefix: options.task_keyprefix(),
            group_keyprefix: options.group_keyprefix(),
            chord_keyprefix: options.chord_keyprefix(),
            options: options.clone(),
            counting: tokio::sync::Mutex::default(),
        })
    }

    fn task_key(&self, task_id: &str) -> String {
        [&self.task_keyprefix, task_id].concat()
    }

    /// The key of a group's structure.
    ///
    /// # Errors
    /// `Backend`: memcached takes no such key.
    fn group_key(&self, group_id: &str) -> Result<String> {
        self.checked([&self.group_keyprefix, group_id].concat())
    }

    /// A task's id is whatever a client has sent: it must not become another command.
    fn checked(&self, key: String) -> Result<String> {
        if is_key(&key) {
            return Ok(key);
        }
        let rule = "a key has 250 characters at most, all of them visible ASCII ones";
        Err(Error::new(ErrorKind::Backend, format!("memcached takes no key such as {key:?}: {rule}")))
    }

    /// Results are kept as long as `result_expires` says, whatever their state (celery/backends/cache.py
    /// `CacheBackend.set`).
    fn kept_for(&self) -> u32 {
        told(self.options.expires(&State::Success))
    }

    /// An error for what the server would not do. How much it takes it says only then: a result that is too large is one
    /// that cannot be written, and its task is a failure.
    fn refused(&self, what: &str, words: &str) -> Error {
        let kind = match words {
            _ if words.starts_with("object too large") => ErrorKind::Encode,
            // It is full, or what stands before it has lost it.
            _ => ErrorKind::Unready,
        };
        Error::new(kind, format!("{} refused {what}: {words}", self.link))
    }

    /// An answer that is none to what was asked.
    fn unexpected(&self) -> Error {
        Error::new(ErrorKind::Backend, format!("{} answered something else than was asked", self.link))
    }

    /// The values of keys, as far as they are there.
    async fn read(&self, keys: &[String]) -> Result<HashMap<String, Item>> {
        let mut request = Request::default();
        request.get(keys);
        let mut found = HashMap::with_capacity(keys.len());
        for answer in self.link.exchange(&request).await? {
            match answer {
                Answer::Values(values) => found.extend(values),
                Answer::Refused(words) => return Err(self.refused("to look for results", &words)),
                _ => return Err(self.unexpected()),
            }
        }
        Ok(found)
    }

    /// Sends commands of which none may be refused.
    async fn done(&self, what: &str, request: &Request) -> Result<Vec<Answer>> {
        let answers = self.link.exchange(request).await?;
        match answers.iter().find_map(|answer| if let Answer::Refused(words) = answer { Some(words) } else { None }) {
            Some(words) => Err(self.refused(what, words)),
            None => Ok(answers),
        }
    }

    /// An empty value stands for nothing, as in celery/backends/base.py `BaseKeyValueStoreBackend._get_task_meta_for`.
    fn decode(&self, item: Option<&Item>) -> Result<Option<TaskMeta>> {
        item.filter(|item| !item.payload.is_empty()).map(|item| self.codec.decode(&item.payload)).transpose()
    }
}

/// What memcached is told of a time that begins now.
fn told(kept: Option<Duration>) -> u32 {
    expiry(kept, Clock::system().now().as_second())
}

#[async_trait]
impl ResultBackend for MemcachedBackend {
    fn uri(&self) -> String {
        self.link.to_string()
    }

    fn service(&self) -> &'static str {
        "memcached"
    }

    async fn prepare(&self) {
        self.link.prepare().await;
    }

    fn encode(&self, request: &StoreRequest) -> Result<EncodedResult> {
        let encoded = self.codec.encode(request)?;
        self.checked(self.task_key(&encoded.task_id))?;
        Ok(encoded)
    }

    async fn store_encoded(&self, batch: &[EncodedResult]) -> Result<()> {
        self.store_batch(batch, &mut Vec::new()).await
    }

    async fn fetch(&self, task_id: &str) -> Result<Option<TaskMeta>> {
        Ok(self.fetch_many(&[task_id]).await?.pop().flatten())
    }

    async fn fetch_many(&self, task_ids: &[&str]) -> Result<Vec<Option<TaskMeta>>> {
        let keys: Vec<String> = task_ids.iter().map(|task_id| self.task_key(task_id)).collect();
        // Under a key that cannot be there is nothing.
        let possible: Vec<String> = keys.iter().filter(|key| is_key(key)).cloned().collect();
        let found = self.read(&possible).await?;
        keys.iter().map(|key| self.decode(found.get(key))).collect()
    }

    async fn forget(&self, task_id: &str) -> Result<()> {
        let key = self.task_key(task_id);
        let mut request = Request::default();
        if is_key(&key) {
            request.delete(&key);
        }
        self.done("to forget a result", &request).await.map(|_| ())
    }

    async fn save_group(&self, group: &ResultTuple) -> Result<()> {
        let payload = self.codec.encode_group(group)?;
        let mut request = Request::default();
        request.set(&self.group_key(&group.id)?, self.kept_for(), &payload);
        self.done(&format!("the group {}", group.id), &request).await.map(|_| ())
    }

    async fn restore_group(&self, group_id: &str) -> Result<Option<ResultTuple>> {
        let Ok(key) = self.group_key(group_id) else { return Ok(None) };
        let found = self.read(std::slice::from_ref(&key)).await?;
        found.get(&key).map(|item| self.codec.decode_group(&item.payload)).transpose()
    }

    async fn forget_group(&self, group_id: &str) -> Result<()> {
        let mut request = Request::default();
        if let Ok(key) = self.group_key(group_id) {
            request.delete(&key);
        }
        self.done("to forget a group", &request).await.map(|_| ())
    }

    fn native_chords(&self) -> Option<&dyn NativeChords> {
        Some(self)
    }
}

impl fmt::Debug for MemcachedBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemcachedBackend").field("link", &self.link).finish_non_exhaustive()
    }
}
