//! [`Announcer`]: sends to whoever listens, and asks for no confirmation.

use std::collections::HashSet;

use lapin::Channel;
use lapin::options::BasicPublishOptions;
use tokio::sync::Mutex;

use super::declare;
use crate::Result;
use crate::amqp_client::{AmqpConnection, is_refusal, properties, refusal, short};
use crate::routing::Declaration;
use crate::transport::Publication;

const ANNOUNCE: &str = "cannot announce at";

/// A channel without confirmations. What is awaited is that a message has left, which it does not while the server is low
/// on memory: no more than one batch gathers in the client.
#[derive(Default)]
pub(super) struct Announcer {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    channel: Option<Channel>,
    /// Exchanges that are there, or were when the channel was opened.
    exchanges: HashSet<String>,
}

impl Announcer {
    pub(super) async fn announce(&self, connection: &AmqpConnection, batch: &[Publication]) -> Result<()> {
        let mut state = self.state.lock().await;
        let channel = state.channel(connection).await?;
        for publication in batch {
            state.make(connection, &publication.exchange).await?;
            let Publication { exchange, routing_key, message } = publication;
            let properties = properties(message, connection.frame_max())?;
            let (exchange, key) = (short(exchange.as_str())?, short(routing_key.as_str())?);
            let sent = channel.basic_publish(exchange, key, BasicPublishOptions::default(), &message.body, properties);
            sent.await.map_err(|error| match is_refusal(&error) {
                true => refusal(ANNOUNCE, connection.place(), &error),
                false => connection.failed(ANNOUNCE, &error),
            })?;
        }
        Ok(())
    }
}

impl State {
    /// The channel. One that an exchange was missing for, which is heard of afterwards, is not used again.
    async fn channel(&mut self, connection: &AmqpConnection) -> Result<Channel> {
        if let Some(channel) = self.channel.as_ref().filter(|channel| channel.status().connected()) {
            return Ok(channel.clone());
        }
        self.exchanges.clear();
        Ok(self.channel.insert(connection.channel().await?).clone())
    }

    /// Makes the exchange as a stock worker does, durable and of topics; one that is there is used as it is
    /// (celery/events/event.py `get_exchange`).
    async fn make(&mut self, connection: &AmqpConnection, exchange: &str) -> Result<()> {
        if exchange.is_empty() || self.exchanges.contains(exchange) {
            return Ok(());
        }
        if !declare::exchange_exists(connection, exchange).await? {
            declare::arrange(connection, &[Declaration::Exchange(exchange.to_owned())]).await?;
        }
        self.exchanges.insert(exchange.to_owned());
        Ok(())
    }
}
