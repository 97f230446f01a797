//! [`MemoryConsumer`]: takes messages from a [`Broker`].

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::broker::Broker;
use crate::Result;
use crate::transport::cycle::Cycle;
use crate::transport::{Consumer, Delivery, Prefetch, Queue, QueueName, QueueOrder};

/// The most that one call hands over, as on Redis.
const BATCH: usize = 1000;

pub(super) struct MemoryConsumer {
    broker: Arc<Broker>,
    cycle: Cycle,
    prefetch: Arc<Prefetch>,
    lost: CancellationToken,
}

impl MemoryConsumer {
    pub(super) fn new(
        broker: Arc<Broker>,
        queues: impl Iterator<Item = QueueName>,
        order: QueueOrder,
        prefetch: Arc<Prefetch>,
        lost: CancellationToken,
    ) -> Self {
        broker.consumers.fetch_add(1, Ordering::AcqRel);
        MemoryConsumer { broker, cycle: Cycle::new(queues, order), prefetch, lost }
    }

    fn take(&mut self) -> Vec<Delivery> {
        let wanted = self.prefetch.available().min(BATCH);
        let mut state = self.broker.state();
        let mut batch = Vec::new();
        while batch.len() < wanted {
            let Some((tag, queue, message)) = state.take(&mut self.cycle) else { break };
            batch.push(Delivery::new(Ok(message), queue, tag, self.broker.settler(), self.prefetch.take()));
        }
        batch
    }
}

impl Drop for MemoryConsumer {
    fn drop(&mut self) {
        self.broker.consumers.fetch_sub(1, Ordering::AcqRel);
    }
}

#[async_trait]
impl Consumer for MemoryConsumer {
    async fn next(&mut self) -> Result<Vec<Delivery>> {
        loop {
            let broker = Arc::clone(&self.broker);
            // Listening begins before the look at the queues, so that no arrival falls between the two.
            let arrival = broker.arrivals.notified();
            tokio::pin!(arrival);
            arrival.as_mut().enable();
            if self.lost.is_cancelled() {
                return Err(super::lost());
            }
            let batch = self.take();
            if !batch.is_empty() {
                return Ok(batch);
            }
            tokio::select! {
                () = arrival => {}
                () = self.prefetch.changed() => {}
                () = self.lost.cancelled() => {}
            }
        }
    }

    async fn consume_from(&mut self, queues: &[Queue]) -> Result<()> {
        if self.lost.is_cancelled() {
            return Err(super::lost());
        }
        self.cycle.change(queues.iter().map(|queue| queue.name.clone()));
        Ok(())
    }
}
