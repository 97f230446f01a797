//! Broadcasts: a fanout exchange is a channel of Redis (kombu/transport/redis.py `Channel._put_fanout`, `_subscribe`).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use redis::aio::{PubSubSink, PubSubStream};
use redis::{Msg, Pipeline, RedisError, Value};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::connection::Link;
use super::flush::run;
use crate::protocol::envelope;
use crate::redis_client::{SharedConnection, failure, lost};
use crate::transport::{Broadcast, Publication, Queue, Subscription, Undecodable};
use crate::{Error, Result};

/// Publishes on channels: who is not subscribed at this moment does not hear it.
pub(super) async fn broadcast(link: &Link, batch: &[Publication]) -> Result<()> {
    let refused = |error| link.refused("cannot broadcast at", error);
    let answers = run(&mut link.connection.clone(), &publishes(link, batch)?).await.map_err(refused)?;
    answers.into_iter().try_for_each(|answer| answer.extract_error().map(drop)).map_err(refused)
}

fn publishes(link: &Link, batch: &[Publication]) -> Result<Pipeline> {
    let mut pipeline = Pipeline::with_capacity(batch.len());
    for publication in batch {
        let channel = link.shared.keys.channel(&publication.exchange, &publication.routing_key);
        pipeline.cmd("PUBLISH").arg(channel).arg(link.shared.envelope(publication)?);
    }
    Ok(pipeline)
}

/// Publishes on channels over a connection of its own, opened for the first announcement: however many there are, nothing
/// else waits behind them, and an answer that does not come costs nothing else its connection.
#[derive(Default)]
pub(super) struct Announcer(Mutex<Option<SharedConnection>>);

impl Announcer {
    pub(super) async fn announce(&self, link: &Link, batch: &[Publication]) -> Result<()> {
        let (pipeline, shared) = (publishes(link, batch)?, &link.shared);
        let mut open = self.0.lock().await;
        let mut connection = match open.take() {
            Some(connection) => connection,
            None => shared.url.connect(&shared.connect_options()).await?.connection,
        };
        let failed = |error| failure("cannot announce at", &shared.url, error);
        let answers = tokio::select! {
            biased;
            () = link.lost.cancelled() => return Err(link.is_lost()),
            answers = run(&mut connection, &pipeline) => answers.map_err(failed)?,
        };
        // One that failed is not used again.
        *open = Some(connection);
        answers.into_iter().try_for_each(|answer| answer.extract_error().map(drop)).map_err(failed)
    }
}

/// A subscription on a connection of its own: a server that cuts off slow listeners, or forbids listening, cuts nothing
/// else off.
pub(super) struct RedisSubscription {
    link: Arc<Link>,
    sink: PubSubSink,
    stream: PubSubStream,
    /// A broadcast that was as quick as the answer to the subscription.
    first: Option<Msg>,
    /// After so long a silence the server is asked whether it is there.
    health_check: Option<Duration>,
}

impl RedisSubscription {
    pub(super) async fn open(link: Arc<Link>, queue: &Queue) -> Result<Self> {
        let shared = &link.shared;
        let pubsub = shared.url.connect_pubsub(&shared.connect_options()).await?;
        let (mut sink, mut stream) = pubsub.split();
        let pattern = shared.keys.channel_pattern(&queue.exchange, &queue.routing_key);
        let first = tokio::select! {
            biased;
            subscribed = answered(shared.options.socket_timeout, sink.psubscribe(&pattern)) => {
                subscribed.map_err(|error| failure("cannot subscribe at", &shared.url, error))?;
                None
            }
            // Where the connection ends in this instant, there may be no answer: see `SharedConnection`.
            first = stream.next() => Some(first.ok_or_else(|| lost(&shared.url))?),
        };
        let health_check = Some(shared.options.health_check_interval).filter(|interval| !interval.is_zero());
        Ok(RedisSubscription { link, sink, stream, first, health_check })
    }

    /// The next broadcast; `None` after a silence. An error is the end.
    async fn heard(&mut self) -> Result<Option<Msg>> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        tokio::select! {
            biased;
            () = self.link.lost.cancelled() => Err(self.link.is_lost()),
            heard = silent(self.health_check, self.stream.next()) => match heard {
                Some(message) => message.map(Some).ok_or_else(|| self.lost()),
                None => Ok(None),
            },
        }
    }

    /// Asks whether the connection still carries anything. A broadcast that comes meanwhile shows that it does.
    async fn prove(&mut self) -> Result<Option<Msg>> {
        let limit = self.link.shared.options.socket_timeout;
        tokio::select! {
            biased;
            answer = answered(limit, self.sink.ping::<Value>()) => match answer {
                Ok(_) => Ok(None),
                Err(error) => Err(failure("nothing is heard from", &self.link.shared.url, error)),
            },
            heard = self.stream.next() => heard.map(Some).ok_or_else(|| self.lost()),
        }
    }

    fn lost(&self) -> Error {
        lost(&self.link.shared.url)
    }
}

#[async_trait]
impl Subscription for RedisSubscription {
    async fn next(&mut self) -> Result<Broadcast> {
        loop {
            let heard = match self.heard().await? {
                None => self.prove().await?,
                heard => heard,
            };
            if let Some(message) = heard {
                return Ok(read(message.get_payload_bytes()));
            }
        }
    }
}

pub(super) fn read(payload: &[u8]) -> Broadcast {
    envelope::parse(payload)
        .map_err(|error| Undecodable { reason: error.to_string(), raw: Bytes::copy_from_slice(payload) })
}

/// `None` if nothing came within `limit`.
async fn silent<T>(limit: Option<Duration>, heard: impl Future<Output = T>) -> Option<T> {
    match limit {
        Some(limit) => timeout(limit, heard).await.ok(),
        None => Some(heard.await),
    }
}

async fn answered<T>(
    limit: Duration,
    request: impl Future<Output = std::result::Result<T, RedisError>>,
) -> std::result::Result<T, RedisError> {
    let timed_out = |_| std::io::Error::from(std::io::ErrorKind::TimedOut).into();
    timeout(limit, request).await.unwrap_or_else(|elapsed| Err(timed_out(elapsed)))
}
