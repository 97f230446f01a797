//! A broker within the process, for tests: the semantics of the Redis transport without Redis.
//!
//! [`MemoryTransport`] is the broker too: its clones share the queues, so that several workers of one test compete. It
//! can be asked what it holds, and told to fail: [`MemoryTransport::disconnect`], [`MemoryTransport::refuse`]. It never
//! waits for anything but messages, and keeps nothing beyond the process.

mod broker;
mod browse;
mod consumer;
mod fanout;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::{
    Browser, Capabilities, Connection, Consumer, Note, Prefetch, Publication, Queue, QueueName, QueueOrder,
    Subscription, Transport,
};
use crate::protocol::Message;
use crate::{Error, ErrorKind, Result};
use broker::Broker;
use browse::MemoryBrowser;
use consumer::MemoryConsumer;

/// A broker within the process; clones share it.
#[derive(Clone, Default)]
pub struct MemoryTransport {
    broker: Arc<Broker>,
    refusing: Arc<AtomicBool>,
}

impl MemoryTransport {
    /// An empty broker.
    pub fn new() -> Self {
        Self::default()
    }

    /// The messages that wait in a queue, the next to be consumed first.
    pub fn waiting(&self, queue: &str) -> Vec<Message> {
        self.broker.state().waiting(queue)
    }

    /// How many deliveries are out and not settled.
    pub fn unsettled(&self) -> usize {
        self.broker.state().unsettled()
    }

    /// How many consumers are subscribed.
    pub fn consumers(&self) -> usize {
        self.broker.consumers.load(Ordering::Acquire)
    }

    /// Cuts every connection: consumers get an error, and so does who publishes. Deliveries stay valid.
    pub fn disconnect(&self) {
        let lost = std::mem::take(&mut self.broker.state().connections);
        for connection in lost {
            connection.cancel();
        }
    }

    /// Whether messages for a queue are refused from now on, as Redis does when the queue's key is of another type.
    pub fn refuse_messages(&self, queue: &str, refusing: bool) {
        self.broker.state().refuse(queue, refusing);
    }

    /// Whether new connections are refused from now on.
    pub fn refuse(&self, refusing: bool) {
        self.refusing.store(refusing, Ordering::Release);
    }
}

#[async_trait]
impl Transport for MemoryTransport {
    fn uri(&self) -> String {
        "memory://localhost//".to_owned()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            heeds_priorities: true,
            lowest_priority_first: true,
            redelivers_by_timeout: false,
            settles_across_connections: true,
            keeps_place_of_origin: true,
            requeues_to_the_end: true,
            browses_in_place: true,
            sends_ahead: false,
            delays_natively: false,
            has_neighbours: false,
            retries_refused_logins: true,
        }
    }

    async fn connect(&self) -> Result<Arc<dyn Connection>> {
        if self.refusing.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Connection, "cannot connect to memory://: connection refused"));
        }
        let lost = CancellationToken::new();
        self.broker.state().connections.push(lost.clone());
        Ok(Arc::new(MemoryConnection { broker: Arc::clone(&self.broker), lost }))
    }
}

impl fmt::Debug for MemoryTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryTransport")
    }
}

struct MemoryConnection {
    broker: Arc<Broker>,
    /// Cancelled when the connection was cut or closed.
    lost: CancellationToken,
}

impl MemoryConnection {
    fn check(&self) -> Result<()> {
        if self.lost.is_cancelled() { Err(lost()) } else { Ok(()) }
    }
}

#[async_trait]
impl Connection for MemoryConnection {
    async fn declare(&self, queues: &[Queue]) -> Result<()> {
        self.check()?;
        let mut state = self.broker.state();
        queues.iter().for_each(|queue| state.bind(queue));
        Ok(())
    }

    async fn publish(&self, batch: Vec<Publication>) -> Result<Vec<Result<()>>> {
        self.check()?;
        Ok(self.broker.publish(batch))
    }

    async fn consume(&self, queues: &[Queue], prefetch: Arc<Prefetch>) -> Result<Box<dyn Consumer>> {
        self.check()?;
        let names = queues.iter().map(|queue| queue.name.clone());
        let lost = self.lost.clone();
        Ok(Box::new(MemoryConsumer::new(Arc::clone(&self.broker), names, QueueOrder::RoundRobin, prefetch, lost)))
    }

    async fn subscribe(&self, queue: &Queue) -> Result<Box<dyn Subscription>> {
        self.check()?;
        let lost = self.lost.clone();
        Ok(Box::new(self.broker.state().listeners.subscribe(queue, lost)))
    }

    async fn broadcast(&self, batch: Vec<Publication>) -> Result<()> {
        self.check()?;
        let mut state = self.broker.state();
        batch.into_iter().for_each(|publication| state.listeners.broadcast(publication));
        Ok(())
    }

    async fn answer(&self, answer: Publication) -> Result<()> {
        self.check()?;
        self.broker.answer(answer);
        Ok(())
    }

    async fn purge(&self, queues: &[Queue]) -> Result<u64> {
        self.check()?;
        let mut state = self.broker.state();
        Ok(queues.iter().map(|queue| state.purge(&queue.name)).sum())
    }

    async fn lost(&self) -> Error {
        self.lost.cancelled().await;
        lost()
    }

    async fn browse(&self, queue: &QueueName) -> Result<Box<dyn Browser>> {
        self.check()?;
        Ok(Box::new(MemoryBrowser::new(Arc::clone(&self.broker), queue.clone(), self.lost.clone())))
    }

    async fn notes(&self, names: &[String]) -> Result<Vec<Option<String>>> {
        self.check()?;
        let state = self.broker.state();
        Ok(names.iter().map(|name| state.notes.get(name).cloned()).collect())
    }

    async fn write_notes(&self, notes: Vec<Note>, _kept_for: Duration) -> Result<()> {
        self.check()?;
        let mut state = self.broker.state();
        for Note { name, text } in notes {
            match text {
                Some(text) => state.notes.insert(name, text),
                None => state.notes.remove(&name),
            };
        }
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        self.lost.cancel();
        Ok(())
    }
}

impl fmt::Debug for MemoryConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryConnection")
    }
}

fn lost() -> Error {
    Error::new(ErrorKind::Connection, "the connection to memory:// was lost")
}
