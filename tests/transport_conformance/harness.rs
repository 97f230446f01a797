//! [`Harness`]: a broker to ask promises of.

use std::sync::Arc;
use std::time::Duration;

use celeriac::amqp_client::{AmqpConnectOptions, AmqpUrls, Failover};
use celeriac::protocol::{Map, Message, Properties, Value};
use celeriac::redis_client::{RedisUrl, UrlPolicy};
use celeriac::time::Clock;
use celeriac::transport::{
    AmqpTransport, Connection, Consumer, Delivery, FilesystemOptions, FilesystemTransport, MemoryTransport, Prefetch,
    Publication, Queue, RedisOptions, RedisTransport, Transport, Waiting,
};

use crate::support::rabbitmq_server::{RabbitServer, VHost};
use crate::support::redis_server::RedisServer;
use crate::support::{LONG, eventually};

/// A broker of the test's own.
pub(crate) trait Harness: Sync {
    /// Another transport to the broker, as another worker has it.
    fn transport(&self) -> Arc<dyn Transport>;

    /// How many messages are reserved and not settled.
    fn unsettled(&self) -> impl Future<Output = usize> + Send;

    /// Makes the broker refuse messages for a queue like this, and says for which.
    fn refuse(&self, queue: &str) -> impl Future<Output = String> + Send;

    /// Cuts every connection that is open.
    fn cut(&self) -> impl Future<Output = ()> + Send;
}

pub(crate) struct Memory(MemoryTransport);

impl Memory {
    pub(crate) async fn start() -> Option<Self> {
        Some(Memory(MemoryTransport::new()))
    }
}

impl Harness for Memory {
    fn transport(&self) -> Arc<dyn Transport> {
        Arc::new(self.0.clone())
    }

    async fn unsettled(&self) -> usize {
        self.0.unsettled()
    }

    async fn refuse(&self, queue: &str) -> String {
        self.0.refuse_messages(queue, true);
        queue.to_owned()
    }

    async fn cut(&self) {
        self.0.disconnect();
    }
}

pub(crate) struct Redis {
    server: RedisServer,
    waiting: Waiting,
}

impl Redis {
    pub(crate) async fn start(waiting: Waiting) -> Option<Self> {
        Some(Redis { server: RedisServer::start().await?, waiting })
    }
}

impl Harness for Redis {
    fn transport(&self) -> Arc<dyn Transport> {
        let options = RedisOptions { waiting: self.waiting, ..RedisOptions::default() };
        let url = RedisUrl::parse(&self.server.url(0), UrlPolicy::Broker).expect("our own URL");
        Arc::new(RedisTransport::new(url, options, Clock::system(), fastrand::Rng::with_seed(1)))
    }

    async fn unsettled(&self) -> usize {
        let mut connection = self.server.connection().await;
        let (fields, times): (usize, usize) =
            redis::pipe().hlen("unacked").zcard("unacked_index").query_async(&mut connection).await.expect("it is up");
        assert_eq!(fields, times, "unacked and its index agree");
        fields
    }

    async fn refuse(&self, queue: &str) -> String {
        let mut connection = self.server.connection().await;
        let _: () = redis::cmd("SET").arg(queue).arg("no list").query_async(&mut connection).await.expect("it is up");
        queue.to_owned()
    }

    async fn cut(&self) {
        let mut connection = self.server.connection().await;
        let mut kill = redis::cmd("CLIENT");
        kill.arg("KILL").arg("TYPE").arg("normal").arg("SKIPME").arg("yes");
        let _: usize = kill.query_async(&mut connection).await.expect("it is up");
    }
}

pub(crate) struct Rabbit(VHost);

impl Rabbit {
    pub(crate) async fn start() -> Option<Self> {
        Some(Rabbit(RabbitServer::shared().await?.vhost()))
    }
}

impl Harness for Rabbit {
    fn transport(&self) -> Arc<dyn Transport> {
        let rng = fastrand::Rng::with_seed(1);
        let urls = AmqpUrls::parse(&self.0.url(), Failover::RoundRobin, rng).expect("our own URL");
        Arc::new(AmqpTransport::new(urls, AmqpConnectOptions::default()))
    }

    async fn unsettled(&self) -> usize {
        self.0.depths().iter().map(|depth| depth.unacknowledged).sum()
    }

    async fn refuse(&self, queue: &str) -> String {
        let connection = self.transport().connect().await.expect("it is up");
        let arguments = Map::from([("x-max-length", 0.into()), ("x-overflow", Value::from("reject-publish"))]);
        let full = Queue { arguments, ..Queue::direct(queue) };
        connection.declare(&[full]).await.expect("it is up");
        queue.to_owned()
    }

    async fn cut(&self) {
        assert!(self.0.cut() > 0, "somebody was connected");
    }
}

pub(crate) struct Filesystem(tempfile::TempDir);

impl Filesystem {
    pub(crate) async fn start() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder can be made");
        std::fs::create_dir(folder.path().join("data")).expect("a folder can be made");
        Some(Filesystem(folder))
    }
}

impl Harness for Filesystem {
    fn transport(&self) -> Arc<dyn Transport> {
        let folder = |name: &str| self.0.path().join(name);
        let options = FilesystemOptions {
            data_folder_in: folder("data"),
            data_folder_out: folder("data"),
            processed_folder: folder("processed"),
            control_folder: folder("control"),
            // What nobody tells of is to fail a test.
            polling_interval: Duration::from_secs(60),
            ..FilesystemOptions::default()
        };
        Arc::new(FilesystemTransport::new(options, Clock::system()))
    }

    async fn unsettled(&self) -> usize {
        let Ok(own) = std::fs::read_dir(self.0.path().join("data/.celeriac")) else { return 0 };
        let folders = own.filter_map(|entry| std::fs::read_dir(entry.ok()?.path()).ok());
        let names = folders.flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.filter(|name| name.ends_with(".msg")).count()
    }

    async fn refuse(&self, queue: &str) -> String {
        format!("{queue}/no-part-of-a-name")
    }

    async fn cut(&self) {
        let folder = self.0.path().join("data");
        // Who looks through the folder may leave something there meanwhile.
        eventually("the folder is gone", || async {
            let removed = std::fs::remove_dir_all(&folder);
            removed
                .inspect_err(|error| assert_eq!(error.kind(), std::io::ErrorKind::DirectoryNotEmpty, "{error}"))
                .is_ok()
        })
        .await;
        std::fs::create_dir(&folder).expect("a folder can be made");
    }
}

/// A message that can be told from others.
pub(crate) fn message(name: &str) -> Message {
    Message {
        headers: Map::from([("task", "proj.add"), ("id", name)]),
        properties: Properties {
            correlation_id: Some(name.to_owned()),
            delivery_mode: Some(2),
            ..Properties::default()
        },
        content_type: Some("application/json".to_owned()),
        content_encoding: Some("utf-8".to_owned()),
        body: format!("[[\"{name}\"], {{}}, {{}}]").into_bytes().into(),
    }
}

/// Sends messages to a queue, in this order.
pub(crate) async fn send(connection: &Arc<dyn Connection>, queue: &str, names: &[&str]) {
    connection.declare(&[Queue::direct(queue)]).await.expect("the broker is up");
    publish(connection, names.iter().map(|name| Publication::to_queue(queue, message(name))).collect()).await;
}

/// Sends messages, all of which are to be accepted.
pub(crate) async fn publish(connection: &Arc<dyn Connection>, batch: Vec<Publication>) {
    let accepted = connection.publish(batch).await.expect("the broker is up");
    accepted.into_iter().for_each(|accepted| accepted.expect("the broker accepts it"));
}

/// A connection and a consumer of queues, with a window.
pub(crate) async fn consume(
    transport: &Arc<dyn Transport>,
    queues: &[&str],
    window: usize,
) -> (Arc<dyn Connection>, Box<dyn Consumer>, Arc<Prefetch>) {
    let queues: Vec<_> = queues.iter().map(|name| Queue::direct(*name)).collect();
    let connection = transport.connect().await.expect("the broker is up");
    connection.declare(&queues).await.expect("the broker is up");
    let prefetch = Prefetch::new(window);
    let consumer = connection.consume(&queues, Arc::clone(&prefetch)).await.expect("the broker is up");
    (connection, consumer, prefetch)
}

/// Waits for this many deliveries.
pub(crate) async fn take(consumer: &mut dyn Consumer, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let next = tokio::time::timeout(LONG, consumer.next()).await;
        taken.extend(next.unwrap_or_else(|_| panic!("{} of {count} came", taken.len())).expect("the connection is up"));
    }
    assert_eq!(taken.len(), count, "no more than the window");
    taken
}

/// The names of the messages, in order.
pub(crate) fn names(deliveries: &[Delivery]) -> Vec<String> {
    let name =
        |delivery: &Delivery| delivery.message().ok().and_then(|message| message.properties.correlation_id.clone());
    deliveries.iter().map(|delivery| name(delivery).unwrap_or_default()).collect()
}

/// Whether each message is marked as redelivered, in both places.
pub(crate) fn redelivered(deliveries: &[Delivery]) -> Vec<bool> {
    let marked = |delivery: &Delivery| {
        let message = delivery.message().expect("a message");
        let header = message.headers.get("redelivered") == Some(&true.into());
        assert_eq!(header, message.properties.redelivered, "both marks agree");
        header
    };
    deliveries.iter().map(marked).collect()
}

/// The same where the message itself may bear no mark.
pub(crate) fn marked(harness: &impl Harness, deliveries: &[Delivery]) -> Vec<bool> {
    if harness.transport().capabilities().keeps_place_of_origin {
        return redelivered(deliveries);
    }
    let marked = |delivery: &Delivery| delivery.message().expect("a message").properties.redelivered;
    deliveries.iter().map(marked).collect()
}

/// Waits until the broker knows of no reserved message.
pub(crate) async fn all_settled(harness: &impl Harness) {
    eventually("every message is settled", || async { harness.unsettled().await == 0 }).await;
}
