//! The Redis envelope: the JSON object that Kombu's virtual transports put around a message
//! (kombu/transport/virtual/base.py `Channel.prepare_message`, `Message`).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::json::{self, ObjectWriter, Parser};
use super::{Map, Message, Properties, Value};
use crate::{Error, ErrorKind, Result};

/// Reads an envelope.
///
/// The delivery tag and the body's encoding belong to the envelope and not to the message: they are not kept, and
/// neither are keys beside those that Kombu writes. An error is of kind [`ErrorKind::Decode`].
pub fn parse(envelope: &[u8]) -> Result<Message> {
    let mut parser = Parser::new(envelope)?;
    let mut parts = Parts::default();
    parser.expect(b'{', "an object")?;
    if !parser.take(b'}') {
        loop {
            let key = parser.key()?;
            parts.read(&key, &mut parser)?;
            if !parser.take(b',') {
                break;
            }
        }
        parser.expect(b'}', "a comma or the end of the object")?;
    }
    parser.end()?;
    parts.into_message()
}

/// Appends the envelope of a message as Kombu writes it, its body in base64. `delivery_tag` is any text that no other
/// message bears; Kombu takes a UUID. A header that is nested too deeply is an error of kind [`ErrorKind::Encode`].
pub fn write(message: &Message, delivery_tag: &str, out: &mut Vec<u8>) -> Result<()> {
    out.reserve(message.body.len() * 4 / 3 + 1024);
    let mut envelope = ObjectWriter::begin(out);
    write_body(&message.body, envelope.key("body"))?;
    envelope.text_or_null("content-encoding", message.content_encoding.as_deref());
    envelope.text_or_null("content-type", message.content_type.as_deref());
    envelope.map("headers", &message.headers)?;
    message.properties.write(delivery_tag, envelope.key("properties"))?;
    envelope.end();
    Ok(())
}

fn write_body(body: &[u8], out: &mut Vec<u8>) -> Result<()> {
    out.push(b'"');
    let start = out.len();
    out.resize(start + body.len().div_ceil(3) * 4, 0);
    if STANDARD.encode_slice(body, &mut out[start..]).is_err() {
        return Err(Error::new(ErrorKind::Encode, "writing a message: its body does not fit in memory"));
    }
    out.push(b'"');
    Ok(())
}

/// An envelope that goes back to its queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redelivery {
    /// The envelope, marked as redelivered.
    pub envelope: Vec<u8>,
    /// Its priority, 0 to 9.
    pub priority: u8,
}

/// Marks an envelope as redelivered in its headers and in its delivery info, as whoever restores it does
/// (kombu/transport/redis.py `Channel._do_restore_message`); all else in it stays. An error is of kind
/// [`ErrorKind::Decode`].
pub fn redeliver(envelope: &[u8]) -> Result<Redelivery> {
    let mut value = json::parse(envelope)?;
    let missing = || Error::new(ErrorKind::Decode, "marking an envelope as redelivered: it is not an object");
    let object = value.as_map_mut().ok_or_else(missing)?;
    let mark = |parent: Option<&mut Value>| {
        if let Some(Value::Map(parent)) = parent {
            parent.insert("redelivered", true);
        }
    };
    mark(object.get_mut("headers"));
    let properties = object.get_mut("properties").and_then(Value::as_map_mut);
    let priority = properties.as_ref().and_then(|properties| properties.get("priority")).and_then(number);
    mark(properties.and_then(|properties| properties.get_mut("delivery_info")));
    let priority = u8::try_from(priority.unwrap_or(0).clamp(0, 9)).unwrap_or(0);
    Ok(Redelivery { envelope: json::to_vec(&value)?, priority })
}

/// A number as Python's `int()` reads it where Kombu looks for a priority.
fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        Value::Bool(truth) => Some(i64::from(*truth)),
        Value::Float(number) if number.is_finite() => Some(*number as i64),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// What is read of an envelope.
#[derive(Default)]
struct Parts<'a> {
    body: Option<std::borrow::Cow<'a, str>>,
    message: Message,
    body_encoding: Option<String>,
}

impl<'a> Parts<'a> {
    fn read(&mut self, key: &str, parser: &mut Parser<'a>) -> Result<()> {
        match key {
            "body" => match parser.string_or_value()? {
                Ok(text) => self.body = Some(text),
                Err(Value::Null) => self.body = None,
                Err(other) => return Err(wrong("body", "text", &other)),
            },
            "content-type" => self.message.content_type = text_or_null(parser)?,
            "content-encoding" => self.message.content_encoding = text_or_null(parser)?,
            "headers" => self.message.headers = map_or_null("headers", parser.value()?)?,
            "properties" => {
                let mut properties = map_or_null("properties", parser.value()?)?;
                self.body_encoding = properties.remove("body_encoding").and_then(Value::into_string);
                properties.remove("delivery_tag");
                self.message.properties = Properties::from_map(properties);
            }
            _ => drop(parser.value()?),
        }
        Ok(())
    }

    fn into_message(mut self) -> Result<Message> {
        if let Some(body) = self.body {
            self.message.body = decode_body(&body, self.body_encoding.as_deref())?;
        }
        Ok(self.message)
    }
}

fn decode_body(body: &str, encoding: Option<&str>) -> Result<Bytes> {
    match encoding {
        None | Some("") => Ok(Bytes::copy_from_slice(body.as_bytes())),
        Some(encoding) if encoding.eq_ignore_ascii_case("utf-8") => Ok(Bytes::copy_from_slice(body.as_bytes())),
        Some("base64") => decode_base64(body),
        Some(other) => {
            Err(Error::new(ErrorKind::Decode, format!("reading an envelope: unknown body_encoding {other:?}")))
        }
    }
}

/// Python's `b64decode` steps over characters that are not in the alphabet; nobody writes them, so that is tried last.
fn decode_base64(body: &str) -> Result<Bytes> {
    if let Ok(decoded) = STANDARD.decode(body) {
        return Ok(decoded.into());
    }
    let known = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
    let filtered: Vec<u8> = body.bytes().filter(known).collect();
    match STANDARD.decode(filtered) {
        Ok(decoded) => Ok(decoded.into()),
        Err(cause) => {
            Err(Error::new(ErrorKind::Decode, "reading an envelope: the body is not base64").with_source(cause))
        }
    }
}

fn text_or_null(parser: &mut Parser<'_>) -> Result<Option<String>> {
    Ok(parser.string_or_value()?.ok().map(std::borrow::Cow::into_owned))
}

fn map_or_null(what: &str, value: Value) -> Result<Map> {
    match value {
        Value::Map(map) => Ok(map),
        Value::Null => Ok(Map::new()),
        other => Err(wrong(what, "an object", &other)),
    }
}

fn wrong(what: &str, expected: &str, found: &Value) -> Error {
    let found = found.type_name();
    Error::new(ErrorKind::Decode, format!("reading an envelope: the {what} must be {expected}, not {found}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sent by Celery 5.7 with `countdown`, `expires`, `priority`, a link and a header of the user's.
    const RECORDED: &str = include_str!("testdata/envelope.json");

    #[test]
    fn a_recorded_envelope_is_read() {
        let message = parse(RECORDED.trim().as_bytes()).unwrap();
        assert_eq!(message.headers.get("task"), Some(&"proj.add".into()));
        assert_eq!(message.content_type.as_deref(), Some("application/json"));
        assert_eq!(message.properties.priority, Some(3));
        assert_eq!(message.properties.expiration.as_deref(), Some("60000"));
        assert_eq!(message.properties.routing_key.as_deref(), Some("celery"));
        assert!(!message.properties.redelivered);
        assert!(message.properties.other.is_empty(), "{:?}", message.properties.other);
        assert!(message.body.starts_with(b"[[2, 3], "));
    }

    #[test]
    fn a_recorded_envelope_is_written_byte_for_byte() {
        let message = parse(RECORDED.trim().as_bytes()).unwrap();
        let mut out = Vec::new();
        write(&message, "d3675ddb-f13a-48f7-b0d3-f1ececefed02", &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), RECORDED.trim());
    }

    #[test]
    fn what_is_unknown_survives() {
        let envelope = br#"{"headers": null, "properties": {"app_id": 7, "priority": "high", "delivery_info": {"exchange": 5, "x": 1}},
            "more": [1], "body": "caf\u00e9"}"#;
        let message = parse(envelope).unwrap();
        assert_eq!(&message.body[..], "café".as_bytes());
        let mut out = Vec::new();
        write(&message, "tag", &mut out).unwrap();
        let again = parse(&out).unwrap();
        assert_eq!(again, message);
        assert_eq!(again.properties.other.get("app_id"), Some(&7.into()));
        assert_eq!(again.properties.other.get("priority"), Some(&"high".into()));
    }

    #[test]
    fn refused() {
        for envelope in [
            "",
            "[]",
            "{",
            "{\"body\"}",
            "{} {}",
            r#"{"headers": []}"#,
            r#"{"properties": 1}"#,
            r#"{"body": 1}"#,
            r#"{"body": "x", "properties": {"body_encoding": "rot13"}}"#,
            r#"{"body": "x", "properties": {"body_encoding": "base64"}}"#,
        ] {
            assert_eq!(parse(envelope.as_bytes()).unwrap_err().kind(), ErrorKind::Decode, "{envelope}");
        }
    }

    #[test]
    fn redelivery_marks_both_places() {
        let redelivery = redeliver(RECORDED.trim().as_bytes()).unwrap();
        assert_eq!(redelivery.priority, 3);
        let message = parse(&redelivery.envelope).unwrap();
        assert!(message.properties.redelivered);
        assert_eq!(message.headers.get("redelivered"), Some(&true.into()));
        let check = |envelope: &str, priority| assert_eq!(redeliver(envelope.as_bytes()).unwrap().priority, priority);
        check("{}", 0);
        check(r#"{"properties": {"priority": "7"}}"#, 7);
        check(r#"{"properties": {"priority": 99}}"#, 9);
        check(r#"{"properties": {"priority": null}}"#, 0);
        assert!(redeliver(b"[]").is_err());
    }
}
