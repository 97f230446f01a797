//! [`RpcBackend`]: results as messages to whoever sent the task, as celery/backends/rpc.py sends and receives them.
//!
//! A worker publishes each state of a task to the queue that the request names, over the [`link`]; it declares nothing
//! and asks nothing. A producer names a queue of its own in what it sends; [`replies`] consumes it as soon as somebody
//! asks for a result, and [`inbox`] holds what has come. Nothing is kept at the broker: a result that was received is
//! known to that process alone.

mod broker;
mod inbox;
mod link;
mod replies;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lapin::BasicProperties;
use tokio::time::timeout;
use uuid::Uuid;

use self::broker::Broker;
use self::inbox::Inbox;
use self::link::{Link, Outgoing};
use self::replies::{Replies, ReplyQueue};
use super::codec::Codec;
use super::gathering::Gathering;
use super::{BackendOptions, EncodedResult, ReplyTo, ResultBackend, StoreRequest, Until};
use crate::amqp_client::short;
use crate::protocol::{ResultTuple, Serializer, TaskMeta};
use crate::{Error, ErrorKind, Result};

/// What Celery says of chords (celery/backends/rpc.py `E_NO_CHORD_SUPPORT`), word for word: programs look for it.
const NO_CHORDS: &str = "\
The \"rpc\" result backend does not support chords!

Note that a group chained with a task is also upgraded to be a chord,
as this pattern requires synchronization.

Result backends that supports chords: Redis, Database, Memcached, and more.";

/// Sends results to the queues that requests name, and receives those of what this process sends. RabbitMQ only.
///
/// It connects when it is first used, and again after the connection is lost.
pub struct RpcBackend {
    codec: Codec,
    serializer: Serializer,
    /// 2 with `result_persistent`, else 1.
    delivery_mode: u8,
    /// The name of the queue in which results for this process arrive.
    queue: String,
    broker: Arc<Broker>,
    link: Link,
    inbox: Arc<Inbox>,
    replies: Replies,
}

impl RpcBackend {
    /// A backend at the broker that `options.rpc` names, with a reply queue of its own. Nothing is connected to yet.
    ///
    /// # Errors
    /// `Configuration`: the broker is not RabbitMQ, or an option is wrong; `Refused`: pickled results.
    pub fn new(options: &BackendOptions) -> Result<Self> {
        // Celery compresses no messages of this kind.
        let codec = Codec::new(&BackendOptions { compression: None, ..options.clone() })?;
        let broker = Arc::new(Broker::new(&options.rpc)?);
        let (queue, inbox) = (Uuid::new_v4().to_string(), Arc::<Inbox>::default());
        let reply_queue = ReplyQueue { name: queue.clone(), expires: options.queue_expires() };
        Ok(RpcBackend {
            serializer: codec.serializer(),
            codec,
            delivery_mode: if options.rpc.persistent { 2 } else { 1 },
            queue,
            link: Link::new(Arc::clone(&broker)),
            replies: Replies::new(Arc::clone(&broker), reply_queue, Arc::clone(&inbox)),
            broker,
            inbox,
        })
    }

    /// As Kombu's producer writes it; `None`: nobody asked for it.
    fn outgoing<'a>(&self, result: &'a EncodedResult) -> Result<Option<Outgoing<'a>>> {
        let Some(ReplyTo { queue, correlation_id }) = &result.reply_to else { return Ok(None) };
        let properties = BasicProperties::default()
            .with_content_type(short(self.serializer.content_type())?)
            .with_content_encoding(short(self.serializer.content_encoding())?)
            .with_headers(Default::default())
            .with_delivery_mode(self.delivery_mode)
            .with_priority(0)
            .with_correlation_id(short(correlation_id.as_ref().unwrap_or(&result.task_id))?);
        Ok(Some(Outgoing { queue: short(queue)?, payload: &result.payload, properties }))
    }

    async fn gather(&self, gathering: &mut Gathering<'_>) -> Result<()> {
        let mut watch = self.inbox.watch(gathering.missing());
        if !gathering.is_over() {
            self.replies.listen();
        }
        while !gathering.is_over() {
            let meta = watch.next().await?;
            gathering.take(&meta.task_id.clone(), meta);
        }
        Ok(())
    }
}

#[async_trait]
impl ResultBackend for RpcBackend {
    fn uri(&self) -> String {
        "rpc://".to_owned()
    }

    fn service(&self) -> &'static str {
        "RabbitMQ"
    }

    fn reply_queue(&self) -> Option<&str> {
        Some(&self.queue)
    }

    async fn expect_results(&self) -> Result<()> {
        self.replies.declare().await
    }

    /// What nobody asked for is not even serialized.
    fn encode(&self, request: &StoreRequest) -> Result<EncodedResult> {
        let encoded = match request.reply_to {
            Some(_) => self.codec.encode(request)?,
            None => EncodedResult {
                task_id: request.meta.task_id.clone(),
                state: request.meta.status.clone(),
                payload: Bytes::new(),
                reply_to: None,
            },
        };
        self.outgoing(&encoded)?;
        Ok(encoded)
    }

    /// A queue that is gone takes nothing, and the broker says that it has the message all the same.
    async fn store_encoded(&self, batch: &[EncodedResult]) -> Result<()> {
        let outgoing =
            batch.iter().filter_map(|result| self.outgoing(result).transpose()).collect::<Result<Vec<_>>>()?;
        match outgoing.is_empty() {
            true => Ok(()),
            false => self.link.publish(&outgoing).await,
        }
    }

    /// What has come so far: before the first task is sent there is nothing to look for.
    async fn fetch(&self, task_id: &str) -> Result<Option<TaskMeta>> {
        self.replies.look().await?;
        self.inbox.meta(task_id)
    }

    async fn fetch_many(&self, task_ids: &[&str]) -> Result<Vec<Option<TaskMeta>>> {
        self.replies.look().await?;
        task_ids.iter().map(|task_id| self.inbox.meta(task_id)).collect()
    }

    async fn wait(&self, task_id: &str, limit: Option<Duration>) -> Result<Option<TaskMeta>> {
        Ok(self.wait_many(&[task_id], Until::AllReady, limit).await?.pop().flatten())
    }

    async fn wait_many(
        &self,
        task_ids: &[&str],
        until: Until,
        limit: Option<Duration>,
    ) -> Result<Vec<Option<TaskMeta>>> {
        let mut gathering = Gathering::new(task_ids, until);
        match self.replies.look().await {
            // Whoever waits goes on waiting through an outage.
            Err(error) if error.is_connection() => {}
            looked => looked?,
        }
        // What is there already is not weighed against a failure among it.
        for task_id in gathering.missing() {
            self.inbox.meta(task_id)?.into_iter().for_each(|meta| gathering.take(task_id, meta));
        }
        match limit {
            None => self.gather(&mut gathering).await?,
            Some(limit) => timeout(limit, self.gather(&mut gathering)).await.unwrap_or(Ok(()))?,
        }
        Ok(gathering.finish())
    }

    async fn forget(&self, task_id: &str) -> Result<()> {
        self.replies.look().await?;
        self.inbox.forget(task_id);
        Ok(())
    }

    async fn save_group(&self, _group: &ResultTuple) -> Result<()> {
        Err(unsupported("save_group"))
    }

    async fn restore_group(&self, _group_id: &str) -> Result<Option<ResultTuple>> {
        Err(unsupported("restore_group"))
    }

    async fn forget_group(&self, _group_id: &str) -> Result<()> {
        Err(unsupported("delete_group"))
    }

    fn ensure_chords_allowed(&self) -> Result<()> {
        Err(Error::new(ErrorKind::Configuration, NO_CHORDS))
    }
}

/// In Celery's words, under Celery's names.
fn unsupported(method: &str) -> Error {
    Error::new(ErrorKind::Configuration, format!("{method} is not supported by this backend."))
}

impl fmt::Debug for RpcBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RpcBackend").field("broker", &self.broker).field("queue", &self.queue).finish_non_exhaustive()
    }
}
