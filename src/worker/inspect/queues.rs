//! Queues as Kombu shows them (kombu/entity.py `Queue.as_dict`).

use crate::config::QueueDefinition;
use crate::protocol::{Map, Value, to_value};

/// All of a queue's attributes: what it does not have is null.
pub(super) fn as_dict(queue: &QueueDefinition) -> Value {
    let text = |value: &Option<String>| Value::from(value.as_deref());
    let exclusive = queue.exclusive.unwrap_or(false);
    let (durable, auto_delete) = (queue.durable.unwrap_or(true), queue.auto_delete);
    let exchange = Map::from([
        ("name", text(&queue.exchange)),
        ("type", text(&queue.exchange_type)),
        ("arguments", Value::Null),
        ("durable", true.into()),
        ("passive", false.into()),
        ("auto_delete", false.into()),
        ("delivery_mode", queue.delivery_mode.into()),
        ("no_declare", false.into()),
    ]);
    let none = ["expires", "message_ttl", "max_length", "max_length_bytes", "max_priority"];
    let mut map = Map::from([
        ("name", Value::from(queue.name.as_str())),
        ("exchange", exchange.into()),
        ("routing_key", text(&queue.routing_key)),
        ("queue_arguments", arguments(&queue.queue_arguments)),
        ("binding_arguments", arguments(&queue.binding_arguments)),
        ("consumer_arguments", arguments(&queue.consumer_arguments)),
        ("durable", durable.into()),
        ("exclusive", exclusive.into()),
        // What is one connection's alone goes with it.
        ("auto_delete", auto_delete.unwrap_or(exclusive).into()),
        ("no_ack", queue.no_ack.unwrap_or(false).into()),
        ("alias", Value::Null),
        ("bindings", Value::List(Vec::new())),
        ("no_declare", Value::Null),
    ]);
    for name in none {
        map.insert(name, Value::Null);
    }
    map.into()
}

fn arguments(table: &toml::Table) -> Value {
    match table.is_empty() {
        true => Value::Null,
        // A TOML table has a form as a value.
        false => to_value(table).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::protocol::json;

    /// Recorded from stock workers, 5.7.0.
    #[test]
    fn queues_are_shown_as_kombu_shows_them() {
        let shown = |toml: &str, name: &str| {
            let mut config = Config::default();
            config.merge_toml(toml, "test.toml").unwrap();
            let text = json::to_vec(&as_dict(&config.queue(name).unwrap())).unwrap();
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
