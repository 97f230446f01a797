//! [`ControlRequest`]: one message of the mailbox.

use super::{Result, matcher, raise};
use crate::protocol::{Map, Value, repr};

/// What a client asks of workers (kombu/pidbox.py `Mailbox._publish`). Keys that are not known are left out.
#[derive(Debug, Clone, PartialEq)]
pub struct ControlRequest {
    /// The command's name.
    pub method: String,
    /// Its arguments by name.
    pub arguments: Map,
    /// Where the answer is wanted, if it is.
    pub reply_to: Option<ReplyTo>,
    /// The client's mark, given back with the answer; null where there is none.
    pub ticket: Value,
}

/// Where an answer is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyTo {
    /// The exchange: `reply.celery.pidbox`.
    pub exchange: String,
    /// The key that the client's queue is bound with.
    pub routing_key: String,
}

impl ControlRequest {
    /// Reads a message's decoded body; `None` if it is meant for others.
    ///
    /// # Errors
    /// What Celery's worker would log and not answer: a body that is no map, a matcher that is not known, a request
    /// without a method or with an address that is none.
    pub fn read(body: Value, hostname: &str) -> Result<Option<Self>> {
        let Value::Map(mut body) = body else {
            return raise("AttributeError", format!("'{}' object has no attribute 'get'", body.type_name()));
        };
        let mut take = |name| body.remove(name).unwrap_or_default();
        let (destination, pattern, matcher) = (take("destination"), take("pattern"), take("matcher"));
        if !matcher::is_for(hostname, &destination, &pattern, &matcher)? {
            return Ok(None);
        }
        Ok(Some(ControlRequest {
            method: method(take("method"))?,
            arguments: arguments(take("arguments"))?,
            reply_to: reply_to(&take("reply_to"))?,
            ticket: take("ticket"),
        }))
    }

    /// The request as a call, for the log: `revoke(task_id='…')`.
    pub fn call(&self) -> String {
        let arguments = self.arguments.iter().map(|(name, value)| format!("{name}={}", repr::repr(value)));
        format!("{}({})", self.method, arguments.collect::<Vec<_>>().join(", "))
    }
}

fn method(method: Value) -> Result<String> {
    match method {
        Value::String(name) => Ok(name),
        Value::Null => raise("TypeError", "Node.dispatch() missing 1 required positional argument: 'method'"),
        other => raise("KeyError", repr::repr(&other)),
    }
}

fn arguments(arguments: Value) -> Result<Map> {
    match arguments {
        Value::Map(arguments) => Ok(arguments),
        other if !other.is_truthy() => Ok(Map::new()),
        other => raise("TypeError", format!("argument after ** must be a mapping, not {}", other.type_name())),
    }
}

fn reply_to(address: &Value) -> Result<Option<ReplyTo>> {
    if !address.is_truthy() {
        return Ok(None);
    }
    let text = |name| address.as_map().and_then(|address| address.get(name)).and_then(Value::as_str);
    match (text("exchange"), text("routing_key")) {
        (Some(exchange), Some(routing_key)) => {
            Ok(Some(ReplyTo { exchange: exchange.to_owned(), routing_key: routing_key.to_owned() }))
        }
        _ => raise("KeyError", "reply_to"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::json;

    fn read(text: &str) -> std::result::Result<Option<ControlRequest>, String> {
        ControlRequest::read(json::parse(text.as_bytes()).unwrap(), "w1@h").map_err(|error| error.exc_type)
    }

    #[test]
    fn a_recorded_request_is_read() {
        let request = read(
            r#"{"method": "revoke", "arguments": {"task_id": "a", "terminate": false, "signal": "SIGTERM"},
                "destination": null, "pattern": null, "matcher": null, "ticket": "t", "unknown": 1,
                "reply_to": {"exchange": "reply.celery.pidbox", "routing_key": "oid"}}"#,
        );
        let request = request.unwrap().unwrap();
        assert_eq!(request.call(), "revoke(task_id='a', terminate=False, signal='SIGTERM')");
        assert_eq!(request.ticket, "t".into());
        let reply_to = ReplyTo { exchange: "reply.celery.pidbox".into(), routing_key: "oid".into() };
        assert_eq!(request.reply_to, Some(reply_to));
    }

    #[test]
    fn what_is_missing_or_odd_has_an_answer() {
        let rows = [
            (r#"{"method": "ping"}"#, Ok(true)),
            (r#"{"method": "ping", "arguments": null, "reply_to": null}"#, Ok(true)),
            (r#"{"method": "ping", "destination": ["w2@h"]}"#, Ok(false)),
            (r#"{"destination": ["w2@h"]}"#, Ok(false)),
            ("{}", Err("TypeError")),
            ("[]", Err("AttributeError")),
            ("7", Err("AttributeError")),
            (r#"{"method": 7}"#, Err("KeyError")),
            (r#"{"method": "ping", "arguments": [1]}"#, Err("TypeError")),
            (r#"{"method": "ping", "reply_to": 7}"#, Err("KeyError")),
            (r#"{"method": "ping", "reply_to": {"exchange": "x"}}"#, Err("KeyError")),
        ];
        for (text, expected) in rows {
            assert_eq!(read(text).map(|request| request.is_some()), expected.map_err(str::to_owned), "{text}");
        }
    }
}
