//! RabbitMQ as the broker, declared and used as kombu/transport/pyamqp.py does, so that stock workers, producers and tools
//! share the queues with us.
//!
//! A connection of this transport is one to the server for consuming, and a second one for publishing once it consumes:
//! a server that is low on memory stops reading from who publishes, and acknowledgements must go on. Consumers and
//! subscriptions have a channel each, and what may be refused is asked on a channel that nobody else uses.
//!
//! A delivery belongs to the channel that it came over: each has a `Ledger` of its own, from which a *flusher* tells the
//! server what became of the deliveries. When the connection is lost, the server delivers again what it was not told.
//! Nothing here decides when to connect again; that is for the caller, with [`Backoff`](super::Backoff).

mod announce;
mod browse;
mod connection;
mod consumer;
mod declare;
mod fanout;
mod flush;
mod ledger;
mod notes;
mod publish;
mod source;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use super::{Capabilities, Connection, Transport};
use crate::Result;
use crate::amqp_client::{AmqpConnectOptions, AmqpUrls};
use connection::RabbitConnection;

/// RabbitMQ as the broker.
pub struct AmqpTransport {
    urls: AmqpUrls,
    options: AmqpConnectOptions,
}

impl AmqpTransport {
    /// A transport to the servers of `urls`; each connection is sought at the next of them.
    pub fn new(urls: AmqpUrls, options: AmqpConnectOptions) -> Self {
        AmqpTransport { urls, options }
    }
}

#[async_trait]
impl Transport for AmqpTransport {
    fn uri(&self) -> String {
        self.urls.to_string()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            heeds_priorities: true,
            lowest_priority_first: false,
            redelivers_by_timeout: false,
            settles_across_connections: false,
            keeps_place_of_origin: false,
            requeues_to_the_end: false,
            browses_in_place: false,
            sends_ahead: true,
            delays_natively: true,
            has_neighbours: true,
            retries_refused_logins: false,
        }
    }

    async fn connect(&self) -> Result<Arc<dyn Connection>> {
        Ok(Arc::new(RabbitConnection::open(self.urls.next().clone(), self.options.clone()).await?))
    }
}

impl fmt::Debug for AmqpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AmqpTransport({})", self.urls)
    }
}
