//! [`MemoryBrowser`]: looks into a queue of a [`Broker`].

use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::broker::Broker;
use crate::Result;
use crate::protocol::{Message, envelope};
use crate::transport::{Browsed, Browser, Content, Place, QueueName, Replacement};

/// How many messages one look brings.
const PAGE: usize = 200;

pub(super) struct MemoryBrowser {
    broker: Arc<Broker>,
    queue: QueueName,
    lost: CancellationToken,
    /// The list that is being read, and from where on.
    next: (usize, u64),
}

impl MemoryBrowser {
    pub(super) fn new(broker: Arc<Broker>, queue: QueueName, lost: CancellationToken) -> Self {
        MemoryBrowser { broker, queue, lost, next: (0, 0) }
    }

    fn check(&self) -> Result<()> {
        if self.lost.is_cancelled() { Err(super::lost()) } else { Ok(()) }
    }
}

#[async_trait]
impl Browser for MemoryBrowser {
    async fn next(&mut self) -> Result<Vec<Browsed>> {
        self.check()?;
        loop {
            let (list, from) = self.next;
            let Some(page) = self.broker.state().page(list, &self.queue, from, PAGE) else { return Ok(Vec::new()) };
            match page.last() {
                Some((last, _)) => self.next.1 = last + 1,
                None => self.next = (list + 1, 0),
            }
            if !page.is_empty() {
                return page.into_iter().map(|(place, message)| browsed(message, list, place)).collect();
            }
        }
    }

    async fn take(&mut self, messages: Vec<(Browsed, Option<Replacement>)>) -> Result<Vec<bool>> {
        self.check()?;
        let mut state = self.broker.state();
        let taken = messages.into_iter().map(|(browsed, replacement)| {
            let replacement = replacement.map(|Replacement { queue, content }| (queue, message(content)));
            state.replace(browsed.place.list, &self.queue, browsed.place.position, replacement)
        });
        Ok(taken.collect())
    }
}

fn browsed(message: Message, list: usize, position: u64) -> Result<Browsed> {
    let mut raw = Vec::new();
    envelope::write(&message, &position.to_string(), &mut raw)?;
    Ok(Browsed { message: Ok(message), raw: raw.into(), place: Place { list, position } })
}

/// This broker has messages only.
fn message(content: Content) -> Message {
    match content {
        Content::Message(message) => *message,
        Content::Raw(body) => Message { body, ..Message::default() },
    }
}
