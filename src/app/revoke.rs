//! [`publication`]: the control command that revokes tasks.

use crate::Result;
use crate::protocol::{Map, Message, Properties, Serializer, Value};
use crate::transport::Publication;

/// What tells all workers to revoke tasks (celery/app/control.py `Control.revoke`, kombu/pidbox.py `Mailbox._publish`);
/// with a signal, to end those that run as well.
pub(crate) fn publication(
    control_exchange: &str,
    task_ids: Vec<String>,
    signal: Option<&str>,
    clock: u64,
) -> Result<Publication> {
    let arguments = Map::from([
        ("task_id", Value::from(task_ids)),
        ("terminate", signal.is_some().into()),
        ("signal", signal.unwrap_or("SIGTERM").into()),
    ]);
    let body = Map::from([
        ("method", Value::from("revoke")),
        ("arguments", arguments.into()),
        ("destination", Value::Null),
        ("pattern", Value::Null),
        ("matcher", Value::Null),
    ]);
    let exchange = format!("{control_exchange}.pidbox");
    let serializer = Serializer::default();
    let message = Message {
        headers: Map::from([("clock", Value::from(clock)), ("expires", 0.into())]),
        content_type: Some(serializer.content_type().to_owned()),
        content_encoding: Some(serializer.content_encoding().to_owned()),
        body: serializer.encode(&body.into())?.into(),
        properties: Properties {
            delivery_mode: Some(2),
            priority: Some(0),
            exchange: Some(exchange.clone()),
            routing_key: Some(String::new()),
            ..Properties::default()
        },
    };
    Ok(Publication { exchange, routing_key: String::new(), message })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from `app.control.revoke(['a'])` of Celery 5.7.
    #[test]
    fn the_body_is_celerys() {
        let publication = publication("celery", vec!["a".to_owned()], None, 1).unwrap();
        let expected = r#"{"method": "revoke", "arguments": {"task_id": ["a"], "terminate": false, "signal": "SIGTERM"}, "destination": null, "pattern": null, "matcher": null}"#;
        assert_eq!(publication.message.body, expected.as_bytes());
        assert_eq!(publication.exchange, "celery.pidbox");
    }
}
