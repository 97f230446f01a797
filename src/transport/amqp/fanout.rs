//! [`RabbitSubscription`]: what is broadcast, heard over a queue of one's own.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use lapin::options::BasicConsumeOptions;
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Consumer};
use tokio::time::timeout;

use super::connection::Link;
use super::declare::{BASIC_CONSUME, Failed, declare_on};
use crate::amqp_client::{lost, read, short};
use crate::transport::{Broadcast, Queue, Subscription, Undecodable};
use crate::{Error, Result};

/// How long the end of a connection may come after that of its channels.
const PATIENCE: Duration = Duration::from_millis(200);

/// A subscription on a channel of its own: its trouble is nobody else's.
pub(super) struct RabbitSubscription {
    link: Arc<Link>,
    /// Closed when the subscription drops.
    _channel: Channel,
    consumer: Consumer,
}

impl RabbitSubscription {
    /// Declares the queue, and hears what comes to it from then on.
    pub(super) async fn open(link: Arc<Link>, queue: &Queue) -> Result<Self> {
        let channel = link.main.channel().await?;
        declare_on(&link.main, &channel, queue).await?;
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let name = short(queue.name.as_str())?;
        let consumer = channel.basic_consume(name, ShortString::default(), options, FieldTable::default()).await;
        let consumer = consumer.map_err(|error| Failed::There(error).into_error(&link.main, BASIC_CONSUME))?;
        Ok(RabbitSubscription { link, _channel: channel, consumer })
    }

    /// Whose end it was: the subscription's own, or that of the connection, of which one hears a little later.
    async fn ended(&self) -> Error {
        match timeout(PATIENCE, self.link.main.lost()).await {
            Ok(lost) => lost,
            Err(_) => lost(self.link.main.place()),
        }
    }
}

#[async_trait]
impl Subscription for RabbitSubscription {
    async fn next(&mut self) -> Result<Broadcast> {
        tokio::select! {
            biased;
            () = self.link.lost().cancelled() => Err(self.link.main.is_lost()),
            heard = self.consumer.next() => match heard {
                Some(Ok(mut delivery)) => Ok(read(&mut delivery).map_err(|error| Undecodable {
                    reason: error.to_string(),
                    raw: std::mem::take(&mut delivery.data).into(),
                })),
                Some(Err(_)) | None => Err(self.ended().await),
            },
        }
    }
}
