//! [`Reply`]: a worker's answer.

use bytes::Bytes;

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
        let content = (serializer.content_type().to_owned(), serializer.content_encoding().to_owned());
        Ok(answering(self.ticket, self.clock, content, body.into()))
    }
}

/// The message of an answer that is written already: content of such a type and encoding.
pub fn answering(ticket: Value, clock: u64, content: (String, String), body: Bytes) -> Message {
    Message {
        headers: Map::from([("ticket", ticket), ("clock", clock.into())]),
        properties: Properties { delivery_mode: Some(1), priority: Some(0), ..Properties::default() },
        content_type: Some(content.0),
        content_encoding: Some(content.1),
        body,
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
