//! [`Mailbox`]: a queue of results, and what is in it as it stands on the wire.

use async_rs::Runtime;
use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer};
use regex::Regex;

use crate::support::rabbitmq_server::VHost;

pub(crate) struct Mailbox {
    _connection: Connection,
    channel: Channel,
    consumer: Consumer,
}

impl Mailbox {
    /// Declares the queue and consumes it.
    pub(crate) async fn open(vhost: &VHost, name: &str) -> Self {
        let (connection, channel) = channel(vhost).await;
        declare(&channel, name).await;
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let consumer = channel.basic_consume(name.into(), "".into(), options, Default::default()).await.unwrap();
        Mailbox { _connection: connection, channel, consumer }
    }

    /// The next result.
    pub(crate) async fn next(&mut self) -> Delivery {
        self.consumer.next().await.unwrap().unwrap()
    }

    /// The next result in words: all of it but when, where and on what line it came to be. What a retry says of its line
    /// is null here.
    pub(crate) async fn shown(&mut self) -> String {
        let delivery = self.next().await;
        let mut body = String::from_utf8(delivery.data.clone()).unwrap();
        for varying in [r#""date_done": "[^"]+""#, r#""pid": \d+"#, r#""traceback": (?:null|"(?:[^"\\]|\\.)+")"#] {
            body = Regex::new(varying).unwrap().replace(&body, "…").into_owned();
        }
        format!("{:?} {:?} {body}", delivery.exchange, delivery.properties)
    }

    /// Puts a message into any queue.
    pub(crate) async fn put(&self, queue: &str, correlation_id: &str, content_type: &str, body: &[u8]) {
        let properties = BasicProperties::default()
            .with_correlation_id(correlation_id.into())
            .with_content_type(content_type.into());
        let options = BasicPublishOptions::default();
        self.channel.basic_publish("".into(), queue.into(), options, body, properties).await.unwrap();
    }
}

async fn channel(vhost: &VHost) -> (Connection, Channel) {
    let (properties, runtime) = (ConnectionProperties::default(), Runtime::tokio_current());
    let connection = Connection::connect_with_runtime(&vhost.url(), properties, runtime).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

async fn declare(channel: &Channel, name: &str) {
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(name.into(), options, Default::default()).await.unwrap();
}

/// A queue that survives what happens to the node.
pub(crate) async fn durable_queue(vhost: &VHost, name: &str) {
    let (connection, channel) = channel(vhost).await;
    declare(&channel, name).await;
    connection.close(200, "bye".into()).await.unwrap();
}
