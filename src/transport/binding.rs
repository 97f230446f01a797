//! [`Binding`]: which queues an exchange's message goes to, where the transport itself has to know.

use regex::Regex;

use super::{ExchangeType, Queue};

/// One row of an exchange's table (kombu/transport/virtual/exchange.py `ExchangeType.prepare_bind`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Binding {
    pub(super) routing_key: String,
    /// A regular expression for a topic exchange, else empty.
    pub(super) pattern: String,
    pub(super) queue: String,
}

impl Binding {
    pub(super) fn of(queue: &Queue) -> Self {
        let pattern = match queue.exchange_type {
            ExchangeType::Topic => key_to_pattern(&queue.routing_key),
            ExchangeType::Direct | ExchangeType::Fanout => String::new(),
        };
        Binding { routing_key: queue.routing_key.clone(), pattern, queue: queue.name.to_string() }
    }

    /// Whether a message with this key goes to the queue. The exchange's type is not stored anywhere, so a binding with
    /// a pattern is matched by it and any other by its key.
    pub(super) fn matches(&self, routing_key: &str) -> bool {
        if self.pattern.is_empty() {
            return self.routing_key == routing_key;
        }
        Regex::new(&self.pattern).is_ok_and(|pattern| pattern.is_match(routing_key))
    }
}

/// The queues of those bindings that match, each once; where none does, the queue that the key names, so that nothing
/// is dropped (kombu drops the message without a word, `Channel._lookup`).
pub(super) fn destinations(bindings: &[Binding], exchange: &str, routing_key: &str) -> Vec<String> {
    let mut queues = bound(bindings, routing_key);
    if queues.is_empty() {
        tracing::warn!(exchange, routing_key, "no queue is bound for the message: it goes to the queue of that key");
        queues.push(routing_key.to_owned());
    }
    queues
}

/// The queues of those bindings that match, each once, or none.
pub(super) fn bound(bindings: &[Binding], routing_key: &str) -> Vec<String> {
    let matching = bindings.iter().filter(|binding| binding.matches(routing_key));
    let mut queues: Vec<String> = matching.map(|binding| binding.queue.clone()).collect();
    queues.sort();
    queues.dedup();
    queues
}

/// kombu/transport/virtual/exchange.py `TopicExchange.key_to_pattern`; others read what we store, so it is exactly this.
fn key_to_pattern(routing_key: &str) -> String {
    let words = routing_key.split('.').map(|word| match word {
        "*" => r"[^\.]+".to_owned(),
        "#" => ".*?".to_owned(),
        word => escape(word),
    });
    format!("^{}$", words.collect::<Vec<_>>().join(r"\."))
}

/// kombu/utils/text.py `escape_regex` with `.#*` left alone.
fn escape(word: &str) -> String {
    let mut escaped = String::with_capacity(word.len());
    for letter in word.chars() {
        match letter {
            '\0' => escaped.push_str("\\000"),
            letter if letter.is_alphanumeric() || "#*".contains(letter) => escaped.push(letter),
            letter => escaped.extend(['\\', letter]),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_kombus() {
        let rows = [
            ("a.*.#", r"^a\.[^\.]+\..*?$"),
            ("video", "^video$"),
            ("a-b_c.#", r"^a\-b\_c\..*?$"),
            ("#", "^.*?$"),
            ("", "^$"),
        ];
        for (key, expected) in rows {
            assert_eq!(key_to_pattern(key), expected);
        }
    }

    #[test]
    fn messages_go_where_their_keys_match() {
        let binding = |key: &str, exchange_type, queue: &'static str| {
            Binding::of(&Queue { routing_key: key.into(), exchange_type, ..Queue::direct(queue) })
        };
        let bindings = [
            binding("video", ExchangeType::Direct, "direct"),
            binding("a.*.#", ExchangeType::Topic, "topic"),
            binding("a.#", ExchangeType::Topic, "hash"),
            Binding { routing_key: String::new(), pattern: "(".into(), queue: "broken".into() },
        ];
        let rows: [(&str, &[&str]); 5] = [
            ("video", &["direct"]),
            ("a.b.c", &["hash", "topic"]),
            ("a.b", &["hash"]),
            ("a", &["a"]),
            ("other", &["other"]),
        ];
        for (key, expected) in rows {
            assert_eq!(destinations(&bindings, "ex", key), expected, "{key}");
        }
    }
}
