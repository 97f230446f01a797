//! Broadcasts within the process, with the topics that the Redis transport has.

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::Result;
use crate::protocol::Message;
use crate::transport::broadcast::{pattern, topic};
use crate::transport::{Broadcast, Publication, Queue, Subscription};

/// Who listens, as the broker knows them.
#[derive(Default)]
pub(super) struct Listeners(Vec<Listener>);

struct Listener {
    /// With `*` for anything.
    pattern: String,
    messages: mpsc::UnboundedSender<Message>,
}

/// One who listens.
pub(super) struct MemorySubscription {
    messages: mpsc::UnboundedReceiver<Message>,
    lost: CancellationToken,
}

impl Listeners {
    pub(super) fn subscribe(&mut self, queue: &Queue, lost: CancellationToken) -> MemorySubscription {
        let (sender, messages) = mpsc::unbounded_channel();
        let pattern = pattern(&queue.exchange, &queue.routing_key, true);
        self.0.push(Listener { pattern, messages: sender });
        MemorySubscription { messages, lost }
    }

    pub(super) fn broadcast(&mut self, publication: Publication) {
        let Publication { exchange, routing_key, mut message } = publication;
        let topic = topic(&exchange, &routing_key, true);
        message.properties.exchange = Some(exchange);
        message.properties.routing_key = Some(routing_key);
        // Who has gone is forgotten.
        self.0.retain(|listener| match matches(&listener.pattern, &topic) {
            true => listener.messages.send(message.clone()).is_ok(),
            false => !listener.messages.is_closed(),
        });
    }
}

#[async_trait]
impl Subscription for MemorySubscription {
    async fn next(&mut self) -> Result<Broadcast> {
        tokio::select! {
            biased;
            () = self.lost.cancelled() => Err(super::lost()),
            message = self.messages.recv() => message.map(Ok).ok_or_else(super::lost),
        }
    }
}

/// Whether a pattern in which `*` stands for anything matches the whole topic.
fn matches(pattern: &str, topic: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = topic.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        let rows = [
            ("ev", "ev", true),
            ("ev", "ev/x", false),
            ("ev/*", "ev/worker.online", true),
            ("ev/worker.*", "ev/worker.online", true),
            ("ev/worker.*", "ev/task.multi", false),
            ("*a*a", "a", false),
            ("*a*a", "xaya", true),
        ];
        for (pattern, topic, expected) in rows {
            assert_eq!(matches(pattern, topic), expected, "{pattern} {topic}");
        }
    }
}
