//! [`Open`]: a connection with what has been declared over it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::Outgoing;
use crate::transport::{Claim, Connection, Queue, QueueName};
use crate::{Error, ErrorKind, Result};

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

    /// Declares what is new, and publishes: the answers are [`Connection::publish`]'s. What is for a queue that cannot
    /// be declared is not published, and is no obstacle to the rest. Who asks keeps the messages, which a lost
    /// connection has sent again.
    pub(crate) async fn publish(&mut self, chunk: &[Outgoing]) -> Result<Vec<Result<()>>> {
        let refused = self.declare(chunk.iter().filter_map(|outgoing| outgoing.queue.as_ref())).await?;
        let refusal = |outgoing: &&Outgoing| refused.get(&outgoing.queue.as_ref()?.name);
        let ready = chunk.iter().filter(|outgoing| refusal(outgoing).is_none());
        let ready = ready.map(|outgoing| outgoing.publication.clone()).collect();
        let mut accepted = self.connection.publish(ready).await?.into_iter();
        let answers = chunk.iter().map(|outgoing| match refusal(&outgoing) {
            Some(error) => Err(Error::new(error.kind(), error.to_string())),
            None => accepted.next().unwrap_or(Ok(())),
        });
        Ok(answers.collect())
    }

    /// Declares what is new, and publishes against a claim: [`Connection::publish_claimed`].
    pub(crate) async fn publish_claimed(&mut self, outgoing: &Outgoing, claim: &Claim) -> Result<bool> {
        let refused = self.declare(outgoing.queue.iter()).await?;
        match refused.into_values().next() {
            Some(error) => Err(error),
            None => self.connection.publish_claimed(outgoing.publication.clone(), claim).await,
        }
    }

    /// Declares what is new; says which queues the broker refuses to declare, and why.
    async fn declare(&mut self, queues: impl Iterator<Item = &Queue>) -> Result<HashMap<QueueName, Error>> {
        let mut new: Vec<Queue> = Vec::new();
        for queue in queues {
            if !self.declared.contains(&queue.name) && !new.iter().any(|other| other.name == queue.name) {
                new.push(queue.clone());
            }
        }
        let mut refused = HashMap::new();
        if new.is_empty() {
            return Ok(refused);
        }
        match self.connection.declare(&new).await {
            Ok(()) => self.declared.extend(new.into_iter().map(|queue| queue.name)),
            Err(error) if error.is_connection() => return Err(error),
            // One by one, as only some of them are refused.
            Err(_) => {
                for queue in new {
                    match self.connection.declare(std::slice::from_ref(&queue)).await {
                        Ok(()) => drop(self.declared.insert(queue.name)),
                        Err(error) if error.is_connection() => return Err(error),
                        Err(error) => drop(refused.insert(queue.name, without_waiting(error))),
                    }
                }
            }
        }
        Ok(refused)
    }
}

/// Who only sends does not wait until somebody else's queue is free: Kombu asks for it a few times without a pause, and
/// then fails the call (kombu/connection.py `Connection.ensure`).
fn without_waiting(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Locked => Error::new(ErrorKind::Broker, error.to_string()),
        _ => error,
    }
}
