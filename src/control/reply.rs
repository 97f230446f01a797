//! [`Reply`]: a worker's answer.

use crate::Result;
use crate::protocol::{Map, Message, Properties, Serializer, Value};

/// A worker's answer to one request.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply<'a> {
    /// The node that answers.
    pub hostname: &'a str,
    /// What it answers; null is an answer too.
    pub value: Value,
    /// The mark of the request.
    pub ticket: Value,
    /// The node's logical clock.
    pub clock: u64,
}

/// `{"ok": …}`.
pub fn ok(text: impl Into<Value>) -> Value {
    Value::Map(Map::from([("ok", text.into())]))
}

/// `{"error": …}`.
pub fn error(text: impl Into<Value>) -> Value {
    Value::Map(Map::from([("error", text.into())]))
}

impl Reply<'_> {
    /// The answer's message (kombu/pidbox.py `Mailbox._publish_reply`): transient, as nobody waits for it for long.
    ///
    /// # Errors
    /// `Encode`: the serializer has no form for the value.
    pub fn into_message(self, serializer: Serializer) -> Result<Message> {
        let body = serializer.encode(&Value::Map(Map::from([(self.hostname, self.value)])))?;
        Ok(Message {
            headers: Map::from([("ticket", self.ticket), ("clock", self.clock.into())]),
            properties: Properties { delivery_mode: Some(1), priority: Some(0), ..Properties::default() },
            content_type: Some(serializer.content_type().to_owned()),
            content_encoding: Some(serializer.content_encoding().to_owned()),
            body: body.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_kombus() {
        let reply = Reply { hostname: "w1@h", value: ok("pong"), ticket: "t".into(), clock: 7 };
        let message = reply.into_message(Serializer::Json).unwrap();
        assert_eq!(message.body, br#"{"w1@h": {"ok": "pong"}}"#.as_slice());
        assert_eq!(message.headers, Map::from([("ticket", Value::from("t")), ("clock", 7.into())]));
        assert_eq!(
            (message.content_type.as_deref(), message.properties.delivery_mode),
            (Some("application/json"), Some(1))
        );
    }
}
