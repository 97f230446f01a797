//! [`Open`]: a connection with what has been declared over it.

use std::collections::HashSet;
use std::sync::Arc;

use super::Outgoing;
use crate::Result;
use crate::transport::{Connection, Queue, QueueName};

/// A connection with what has been declared over it: each queue once, before the first message to it.
#[derive(Debug)]
pub(crate) struct Open {
    connection: Arc<dyn Connection>,
    declared: HashSet<QueueName>,
}

impl Open {
    pub(crate) fn new(connection: Arc<dyn Connection>) -> Self {
        Open { connection, declared: HashSet::new() }
    }

    pub(crate) fn connection(&self) -> &Arc<dyn Connection> {
        &self.connection
    }

    /// Declares what is new, and publishes: the answers are [`Connection::publish`]'s.
    /// Who asks keeps the messages, which a lost connection has sent again.
    pub(crate) async fn publish(&mut self, chunk: &[Outgoing]) -> Result<Vec<Result<()>>> {
        self.declare(chunk.iter().filter_map(|outgoing| outgoing.queue.as_ref())).await?;
        self.connection.publish(chunk.iter().map(|outgoing| outgoing.publication.clone()).collect()).await
    }

    async fn declare(&mut self, queues: impl Iterator<Item = &Queue>) -> Result<()> {
        let mut new: Vec<Queue> = Vec::new();
        for queue in queues {
            if !self.declared.contains(&queue.name) && !new.iter().any(|other| other.name == queue.name) {
                new.push(queue.clone());
            }
        }
        if !new.is_empty() {
            self.connection.declare(&new).await?;
            self.declared.extend(new.into_iter().map(|queue| queue.name));
        }
        Ok(())
    }
}
