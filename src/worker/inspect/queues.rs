//! Queues as Kombu shows them (kombu/entity.py `Queue.as_dict`).

use crate::protocol::{Map, Value};
use crate::transport::Queue;
use crate::worker::consumer::Consumer;

impl Consumer {
    /// What is consumed now.
    pub(super) fn active_queues(&self) -> Value {
        let mode = |queue: &Queue| {
            let defined = self.about.queues.iter().find(|defined| defined.name == queue.name.as_str());
            defined.and_then(|defined| defined.delivery_mode)
        };
        self.queues.consumed().iter().map(|queue| as_dict(queue, mode(queue))).collect()
    }
}

/// All of a queue's attributes: what it does not have is null. The mode is that of what is sent to its exchange.
fn as_dict(queue: &Queue, delivery_mode: Option<u8>) -> Value {
    let exchange = Map::from([
        ("name", Value::from(queue.exchange.as_str())),
        ("type", queue.exchange_type.name().into()),
        ("arguments", arguments(&queue.exchange_arguments)),
        ("durable", queue.exchange_durable.into()),
        ("passive", false.into()),
        ("auto_delete", queue.exchange_auto_delete.into()),
        ("delivery_mode", delivery_mode.into()),
        ("no_declare", false.into()),
    ]);
    let none = ["expires", "message_ttl", "max_length", "max_length_bytes", "max_priority"];
    let mut map = Map::from([
        ("name", Value::from(queue.name.as_str())),
        ("exchange", exchange.into()),
        ("routing_key", queue.routing_key.as_str().into()),
        ("queue_arguments", arguments(&queue.arguments)),
        ("binding_arguments", arguments(&queue.binding_arguments)),
        ("consumer_arguments", arguments(&queue.consumer_arguments)),
        ("durable", queue.durable.into()),
        ("exclusive", queue.exclusive.into()),
        ("auto_delete", queue.auto_delete.into()),
        ("no_ack", queue.no_ack.into()),
        ("alias", Value::Null),
        ("bindings", Value::List(Vec::new())),
        ("no_declare", Value::Null),
    ]);
    for name in none {
        map.insert(name, Value::Null);
    }
    map.into()
}

fn arguments(arguments: &Map) -> Value {
    match arguments.is_empty() {
        true => Value::Null,
        false => arguments.clone().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::parts;
    use crate::config::Config;
    use crate::protocol::json;

    /// Recorded from stock workers, 5.7.0.
    #[test]
    fn queues_are_shown_as_kombu_shows_them() {
        let shown = |toml: &str, name: &str| {
            let mut config = Config::default();
            config.merge_toml(toml, "test.toml").unwrap();
            let text = json::to_vec(&as_dict(&parts::queue(&config.queue(name).unwrap()), None)).unwrap();
            String::from_utf8(text).unwrap()
        };
        let expected = r#"{"name": "one", "exchange": {"name": "one", "type": "direct", "arguments": null, "durable": true, "passive": false, "auto_delete": false, "delivery_mode": null, "no_declare": false}, "routing_key": "one", "queue_arguments": null, "binding_arguments": null, "consumer_arguments": null, "durable": true, "exclusive": false, "auto_delete": false, "no_ack": false, "alias": null, "bindings": [], "no_declare": null, "expires": null, "message_ttl": null, "max_length": null, "max_length_bytes": null, "max_priority": null}"#;
        assert_eq!(shown("", "one"), expected);
        assert!(
            shown("task_create_missing_queue_type = 'quorum'", "one")
                .contains(r#""queue_arguments": {"x-queue-type": "quorum"}"#)
        );
    }
}
