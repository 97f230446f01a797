//! [`Broker`]: the application's broker, over which results travel.

use std::fmt::Display;

use lapin::Channel;

use crate::amqp_client::{AmqpConnectOptions, AmqpConnection, AmqpUrls, is_refusal, refusal};
use crate::backend::RpcOptions;
use crate::{Error, ErrorKind, Result};

/// The application's broker: where to connect, and how.
#[derive(Debug)]
pub(super) struct Broker {
    urls: AmqpUrls,
    options: AmqpConnectOptions,
}

/// A connection with the one channel that is used.
pub(super) struct Connected {
    connection: AmqpConnection,
    pub(super) channel: Channel,
}

impl Broker {
    pub(super) fn new(options: &RpcOptions) -> Result<Self> {
        let urls =
            AmqpUrls::parse(&options.broker_url, options.failover, fastrand::Rng::new()).map_err(not_rabbitmq)?;
        let urls = match &options.tls {
            Some(tls) => urls.with_tls(tls),
            None => urls,
        };
        Ok(Broker { urls, options: options.connect.clone() })
    }

    /// One try, at the next of the servers.
    pub(super) async fn connect(&self) -> Result<Connected> {
        let connection = self.urls.next().connect(&self.options).await?;
        let channel = connection.channel().await?;
        Ok(Connected { connection, channel })
    }
}

fn not_rabbitmq(error: Error) -> Error {
    let message = format!("rpc:// sends results over the application's own broker, which has to be RabbitMQ: {error}");
    Error::new(ErrorKind::Configuration, message)
}

impl Connected {
    /// Waits for the server's answer, as long as the connection lasts. A refusal costs the channel, and so all of this.
    pub(super) async fn answered<T>(&self, doing: &str, request: impl Future<Output = lapin::Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            answer = request => answer.map_err(|error| self.failed(doing, &error)),
            error = self.connection.lost() => Err(error),
        }
    }

    pub(super) fn failed(&self, doing: &str, error: &lapin::Error) -> Error {
        match is_refusal(error) {
            true => refusal(doing, self.connection.place(), error),
            false => self.connection.failed(doing, error),
        }
    }

    /// An error of something that happened over this connection.
    pub(super) fn error(&self, kind: ErrorKind, what: impl Display) -> Error {
        Error::new(kind, format!("{}: {what}", self.connection.place()))
    }

    /// Waits until the connection is lost, and says why.
    pub(super) async fn lost(&self) -> Error {
        self.connection.lost().await
    }
}
