//! [`ControlCall`]: a command as a client sends it, and [`answer`]: what comes back.

use super::ReplyTo;
use crate::Result;
use crate::protocol::{AcceptContent, Map, Message, Properties, Serializer, Value};

/// A command to workers (kombu/pidbox.py `Mailbox._publish`): the other side of a
/// [`ControlRequest`](super::ControlRequest).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ControlCall {
    /// The command's name.
    pub method: String,
    /// Its arguments by name.
    pub arguments: Map,
    /// The nodes that it is for; none: all.
    pub destination: Vec<String>,
    /// Which nodes it is for, by their names, and what `glob` or `pcre` makes of the pattern.
    pub pattern: Option<(String, String)>,
}

/// Where the answers are wanted, and which mark they are to bear.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Where.
    pub reply_to: ReplyTo,
    /// The mark.
    pub ticket: String,
    /// When nobody waits for them any more, in seconds since the epoch; none: never.
    pub expires: Option<f64>,
}

impl ControlCall {
    /// The command's message.
    ///
    /// # Errors
    /// `Encode`: an argument that the serializer has no form for.
    pub fn into_message(self, serializer: Serializer, clock: u64, wanted: Option<Wanted>) -> Result<Message> {
        let (pattern, matcher) = self.pattern.unzip();
        let destination = Some(self.destination).filter(|nodes| !nodes.is_empty());
        let mut body = Map::from([
            ("method", Value::from(self.method)),
            ("arguments", self.arguments.into()),
            ("destination", destination.into()),
            ("pattern", pattern.into()),
            ("matcher", matcher.into()),
        ]);
        let expires = wanted.as_ref().and_then(|wanted| wanted.expires);
        if let Some(Wanted { reply_to, ticket, .. }) = wanted {
            body.insert("ticket", ticket);
            let address = [("exchange", reply_to.exchange), ("routing_key", reply_to.routing_key)];
            body.insert("reply_to", Map::from(address));
        }
        Ok(Message {
            headers: Map::from([("clock", Value::from(clock)), ("expires", expires.map_or(0.into(), Value::from))]),
            content_type: Some(serializer.content_type().to_owned()),
            content_encoding: Some(serializer.content_encoding().to_owned()),
            body: serializer.encode(&body.into())?.into(),
            properties: Properties { delivery_mode: Some(2), priority: Some(0), ..Properties::default() },
        })
    }
}

/// What a message answers to the question with this ticket, by node; `None`: it answers another, or comes too late
/// (kombu/pidbox.py `Mailbox._collect`).
///
/// # Errors
/// Those of [`Message::payload`].
pub fn answer(message: &Message, accept: &AcceptContent, ticket: &str, now: f64) -> Result<Option<Map>> {
    let header = |name| message.headers.get(name);
    let late = header("expires").and_then(Value::as_f64).is_some_and(|expires| expires > 0.0 && now > expires);
    if late || header("ticket").is_some_and(|other| other.as_str() != Some(ticket)) {
        return Ok(None);
    }
    Ok(message.payload(accept)?.into_map())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Reply, ok};

    fn ping() -> ControlCall {
        ControlCall { method: "ping".to_owned(), ..ControlCall::default() }
    }

    /// Recorded from `app.control.ping(destination=['w1@h'])` of Celery 5.7.
    #[test]
    fn a_question_is_celerys() {
        let wanted = Wanted {
            reply_to: ReplyTo { exchange: "reply.celery.pidbox".to_owned(), routing_key: "oid".to_owned() },
            ticket: "t".to_owned(),
            expires: Some(7.5),
        };
        let call = ControlCall { destination: vec!["w1@h".to_owned()], ..ping() };
        let message = call.into_message(Serializer::Json, 3, Some(wanted)).unwrap();
        let expected = r#"{"method": "ping", "arguments": {}, "destination": ["w1@h"], "pattern": null, "matcher": null, "ticket": "t", "reply_to": {"exchange": "reply.celery.pidbox", "routing_key": "oid"}}"#;
        assert_eq!(str::from_utf8(&message.body).unwrap(), expected);
        assert_eq!(message.headers, Map::from([("clock", Value::from(3)), ("expires", 7.5.into())]));
        let cast = ping().into_message(Serializer::Json, 1, None).unwrap();
        assert!(!str::from_utf8(&cast.body).unwrap().contains("ticket"));
        assert_eq!(cast.headers.get("expires"), Some(&0.into()));
    }

    #[test]
    fn answers_to_others_and_late_ones_are_none() {
        let reply = Reply { hostname: "w1@h", value: ok("pong"), ticket: "t".into(), clock: 7 };
        let mut message = reply.into_message(Serializer::Json).unwrap();
        let accept = AcceptContent::default();
        let heard = |message: &Message, ticket| answer(message, &accept, ticket, 10.0).unwrap();
        assert_eq!(heard(&message, "t"), Some(Map::from([("w1@h", ok("pong"))])));
        assert_eq!(heard(&message, "other"), None);
        message.headers.insert("expires", 9.0);
        assert_eq!(heard(&message, "t"), None);
        message.headers = Map::new();
        assert!(heard(&message, "t").is_some(), "an old worker writes no ticket");
        message.body = b"7".as_slice().into();
        assert_eq!(heard(&message, "t"), None);
    }
}
