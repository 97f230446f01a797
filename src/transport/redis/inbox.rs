//! [`RedisInbox`]: answers to one's own questions, popped from a list that is bound for them (kombu/pidbox.py
//! `Mailbox.reply_queue`).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use redis::RedisError;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::bindings;
use super::connection::Link;
use super::fanout::read;
use super::flush::run;
use crate::redis_client::{ConnectOptions, SharedConnection, failure, lost};
use crate::transport::binding::Binding;
use crate::transport::{Broadcast, Queue, Subscription};
use crate::{Error, Result};

/// How long `BRPOP` blocks, as Kombu's does.
const BLOCK: Duration = Duration::from_secs(1);

/// A list that is popped over a connection of its own.
pub(super) struct RedisInbox {
    link: Arc<Link>,
    queue: Queue,
    heard: mpsc::UnboundedReceiver<Result<Broadcast>>,
    reader: AbortOnDropHandle<()>,
}

impl RedisInbox {
    /// Binds the queue, and hears what comes to it from then on.
    pub(super) async fn open(link: Arc<Link>, queue: &Queue) -> Result<Self> {
        let shared = &link.shared;
        let bound = bindings::declare(shared, &mut link.connection.clone(), std::slice::from_ref(queue)).await;
        bound.map_err(|error| link.refused("cannot declare queues at", error))?;
        let own = shared.connect_options();
        let options = ConnectOptions { response_timeout: own.response_timeout.map(|limit| limit + BLOCK), ..own };
        let connection = shared.url.connect(&options).await?.connection;
        let (sender, heard) = mpsc::unbounded_channel();
        let list = shared.keys.list(queue.name.as_str(), 0);
        let reader = tokio::spawn(pop_all(Arc::clone(&link), connection, list, sender));
        Ok(RedisInbox { link, queue: queue.clone(), heard, reader: AbortOnDropHandle::new(reader) })
    }
}

#[async_trait]
impl Subscription for RedisInbox {
    async fn next(&mut self) -> Result<Broadcast> {
        tokio::select! {
            biased;
            () = self.link.lost.cancelled() => Err(self.link.is_lost()),
            heard = self.heard.recv() => heard.unwrap_or_else(|| Err(lost(&self.link.shared.url))),
        }
    }

    /// Unbinds and deletes the list (kombu/transport/redis.py `Channel._delete`): nothing else would.
    async fn close(self: Box<Self>) -> Result<()> {
        self.reader.abort();
        let shared = &self.link.shared;
        let Binding { routing_key, pattern, queue } = Binding::of(&self.queue);
        let member = shared.keys.member([&routing_key, &pattern, &queue]);
        let mut pipeline = redis::Pipeline::new();
        for table in [shared.keys.binding(&self.queue.exchange), shared.keys.binding_permanent(&self.queue.exchange)] {
            pipeline.cmd("SREM").arg(table).arg(&member);
        }
        pipeline.cmd("DEL").arg(shared.keys.list(&queue, 0));
        let refused = |error| self.link.refused("cannot delete queues at", error);
        let answers = run(&mut self.link.connection.clone(), &pipeline).await.map_err(refused)?;
        answers.into_iter().try_for_each(|answer| answer.extract_error().map(drop)).map_err(refused)
    }
}

/// Pops until nobody listens any more, or until an error, which is told. It is a task of its own so that who waits may
/// stop waiting in any moment without losing what was just popped.
async fn pop_all(
    link: Arc<Link>,
    mut connection: SharedConnection,
    list: String,
    heard: mpsc::UnboundedSender<Result<Broadcast>>,
) {
    loop {
        let error: Error = match pop(&mut connection, &list).await {
            Ok(None) => continue,
            Ok(Some(payload)) => match heard.send(Ok(read(&payload))) {
                Ok(()) => continue,
                Err(_) => return,
            },
            Err(error) => failure("cannot hear answers at", &link.shared.url, error),
        };
        // Nobody listens: nobody is to be told.
        let _ = heard.send(Err(error));
        return;
    }
}

async fn pop(connection: &mut SharedConnection, list: &str) -> Result<Option<Vec<u8>>, RedisError> {
    let mut pop = redis::cmd("BRPOP");
    let popped: Option<(Vec<u8>, Vec<u8>)> = pop.arg(list).arg(BLOCK.as_secs()).query_async(connection).await?;
    Ok(popped.map(|(_, payload)| payload))
}
