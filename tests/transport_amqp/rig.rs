//! Transports to a RabbitMQ of the tests' own, and what they ask of it.

use std::sync::Arc;

use celeriac::amqp_client::{AmqpConnectOptions, AmqpUrls, Failover};
use celeriac::protocol::Map;
use celeriac::transport::{AmqpTransport, Connection, Consumer, Prefetch, Queue, Transport};

use crate::support::LONG;

pub(crate) fn transport(url: &str) -> Arc<dyn Transport> {
    transport_with(url, AmqpConnectOptions::default())
}

pub(crate) fn transport_with(url: &str, options: AmqpConnectOptions) -> Arc<dyn Transport> {
    let urls = AmqpUrls::parse(url, Failover::RoundRobin, fastrand::Rng::with_seed(1)).expect("our own URL");
    Arc::new(AmqpTransport::new(urls, options))
}

/// A queue as `task_default_queue_type` makes it.
pub(crate) fn quorum(name: &'static str) -> Queue {
    Queue { arguments: Map::from([("x-queue-type", "quorum")]), ..Queue::direct(name) }
}

/// A connection and a consumer of one queue, which is declared.
pub(crate) async fn consume(
    transport: &Arc<dyn Transport>,
    queue: &Queue,
    window: usize,
) -> (Arc<dyn Connection>, Box<dyn Consumer>, Arc<Prefetch>) {
    let connection = transport.connect().await.expect("the broker is up");
    connection.declare(std::slice::from_ref(queue)).await.expect("it can be declared");
    let prefetch = Prefetch::new(window);
    let consumer = connection.consume(std::slice::from_ref(queue), Arc::clone(&prefetch)).await;
    (connection, consumer.expect("it can be consumed"), prefetch)
}

/// Waits for the error that ends a consumer; what comes before is dropped.
pub(crate) async fn lost(consumer: &mut dyn Consumer) -> celeriac::Error {
    let waiting = async {
        loop {
            if let Err(error) = consumer.next().await {
                return error;
            }
        }
    };
    tokio::time::timeout(LONG, waiting).await.expect("the loss is noticed")
}
