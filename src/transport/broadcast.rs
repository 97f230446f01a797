//! [`Subscription`]: what is broadcast to everybody who listens.

use async_trait::async_trait;

use super::Undecodable;
use crate::Result;
use crate::protocol::Message;

/// One broadcast, or why it is no message. There is nothing to settle: nobody keeps a broadcast.
pub type Broadcast = std::result::Result<Message, Undecodable>;

/// A running subscription. Dropping it ends it.
#[async_trait]
pub trait Subscription: Send {
    /// Waits for the next broadcast. Cancel safe: a cancelled call loses nothing.
    ///
    /// # Errors
    /// The subscription is lost, and what is broadcast until the next one is not heard. The connection that it was made
    /// over may well be alive, and consumers go on.
    async fn next(&mut self) -> Result<Broadcast>;

    /// Ends it, and has the broker forget the queue where it would not by itself.
    ///
    /// # Errors
    /// The connection's: there is no subscription any more even if this fails.
    async fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// Where a message to a fanout exchange is heard, as kombu names it (kombu/transport/redis.py
/// `Channel._get_publish_topic`).
pub(super) fn topic(exchange: &str, routing_key: &str, patterns: bool) -> String {
    match routing_key {
        "" => exchange.to_owned(),
        key if patterns => format!("{exchange}/{key}"),
        _ => exchange.to_owned(),
    }
}

/// The topics of a binding: `#` stands for anything, as `*` does (kombu/transport/redis.py `Channel._queue_bind`).
pub(super) fn pattern(exchange: &str, routing_key: &str, patterns: bool) -> String {
    topic(exchange, &routing_key.replace('#', "*"), patterns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_kombus() {
        let rows = [
            ("celery.pidbox", "", true, "celery.pidbox", "celery.pidbox"),
            ("celeryev", "worker.#", true, "celeryev/worker.#", "celeryev/worker.*"),
            ("celeryev", "task.multi", true, "celeryev/task.multi", "celeryev/task.multi"),
            ("celeryev", "#", false, "celeryev", "celeryev"),
        ];
        for (exchange, key, patterns, published, subscribed) in rows {
            assert_eq!(topic(exchange, key, patterns), published);
            assert_eq!(pattern(exchange, key, patterns), subscribed);
        }
    }
}
