//! What stands in `unacked`: `[envelope, exchange, routing_key]` (kombu/transport/redis.py `QoS.append`).

use bytes::Bytes;

use crate::protocol::{Value, envelope, json};
use crate::{Error, ErrorKind, Result};

/// An entry of `unacked`, taken apart.
#[derive(Debug, PartialEq)]
pub(super) struct Entry {
    /// The message as it came, or bytes that are none.
    pub(super) raw: Vec<u8>,
    pub(super) exchange: String,
    pub(super) routing_key: String,
}

/// The text after the envelope in the entry of a message that was taken from `queue`: any worker's restore then brings
/// it back to that queue, because the exchange `""` needs no binding.
pub(super) fn suffix(queue: &str) -> Result<Vec<u8>> {
    let mut text = b", \"\", ".to_vec();
    text.extend(json::to_vec(&Value::from(queue))?);
    text.push(b']');
    Ok(text)
}

/// The entry of a message that was taken from `queue`: JSON that any worker can restore, whatever the message is.
pub(super) fn entry(raw: &[u8], queue: &str) -> Result<Vec<u8>> {
    let suffix = suffix(queue)?;
    if looks_like_an_object(raw) && is_restorable(raw) {
        return Ok([b"[", raw, &suffix].concat());
    }
    let mut entry = [b"[", WRAPPER.0].concat();
    entry.reserve(2 * raw.len() + WRAPPER.1.len() + suffix.len());
    for byte in raw {
        entry.extend([byte >> 4, byte & 15].map(|digit| HEX[usize::from(digit)]));
    }
    entry.extend([WRAPPER.1, &suffix].concat());
    Ok(entry)
}

/// Whether `reserve.lua`, which writes all messages as they are, has made an entry of these bytes that a stock worker
/// cannot restore.
pub(super) fn is_written_in_vain(raw: &[u8]) -> bool {
    !(looks_like_an_object(raw) && is_restorable(raw))
}

fn looks_like_an_object(raw: &[u8]) -> bool {
    raw.first() == Some(&b'{') && raw.last() == Some(&b'}')
}

/// Whether a stock worker puts these bytes back. It fails at each sweep over what is no JSON, and throws away what it
/// cannot mark as redelivered (kombu/transport/redis.py `QoS.restore_by_tag`, `Channel._do_restore_message`).
fn is_restorable(raw: &[u8]) -> bool {
    let Ok(Value::Map(message)) = json::parse(raw) else { return false };
    let is_object = |value: Option<&Value>| value.is_none_or(|value| value.as_map().is_some());
    let properties = message.get("properties");
    let delivery_info = properties.and_then(Value::as_map).and_then(|properties| properties.get("delivery_info"));
    is_object(message.get("headers")) && is_object(properties) && is_object(delivery_info)
}

/// The bytes that were meant, if these are what a stock worker has made of our wrapper.
pub(super) fn unwrapped(raw: Bytes) -> Bytes {
    if raw.starts_with(WRAPPER.0) { unwrap(&raw).map(Bytes::from).unwrap_or(raw) } else { raw }
}

impl Entry {
    /// Reads an entry, ours or another worker's. The envelope's bytes stay as they are where the entry is written as
    /// Python and we write it.
    pub(super) fn parse(text: &[u8]) -> Result<Self> {
        match Self::split(text) {
            Some(entry) => Ok(entry),
            None => Self::decode(text),
        }
    }

    /// Cuts the two names off the end. Inside a JSON string a quote is escaped, so `, "` begins one.
    fn split(text: &[u8]) -> Option<Self> {
        let text = text.strip_prefix(b"[")?.strip_suffix(b"]")?;
        let (text, routing_key) = rsplit(text)?;
        let (raw, exchange) = rsplit(text)?;
        Some(Entry { raw: unwrap(raw).unwrap_or_else(|| raw.to_vec()), exchange, routing_key })
    }

    fn decode(text: &[u8]) -> Result<Self> {
        let wrong = || Error::new(ErrorKind::Decode, "an entry of unacked is not [envelope, exchange, routing key]");
        let Value::List(parts) = json::parse(text)? else { return Err(wrong()) };
        let [message, exchange, routing_key] = <[Value; 3]>::try_from(parts).map_err(|_| wrong())?;
        let name = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(Entry { raw: json::to_vec(&message)?, exchange: name(&exchange), routing_key: name(&routing_key) })
    }

    /// What to push when the message goes back, marked as redelivered, and its priority. What is no envelope goes back
    /// as it is.
    pub(super) fn redelivery(self) -> (Vec<u8>, i64) {
        match envelope::redeliver(&self.raw) {
            Ok(redelivery) => (redelivery.envelope, redelivery.priority.into()),
            Err(_) => (self.raw, 0),
        }
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";
/// What is made of bytes that are no message.
const WRAPPER: (&[u8], &[u8]) = (b"{\"celeriac-raw\": \"", b"\"}");

/// The bytes that were wrapped, if they were.
fn unwrap(object: &[u8]) -> Option<Vec<u8>> {
    let digits = object.strip_prefix(WRAPPER.0)?.strip_suffix(WRAPPER.1)?;
    let digits = str::from_utf8(digits).ok().filter(|digits| digits.len() % 2 == 0)?;
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).ok()).collect()
}

/// The JSON string at the end of `text`, and what stands before its comma.
fn rsplit(text: &[u8]) -> Option<(&[u8], String)> {
    let at = text.windows(3).rposition(|three| three == b", \"")?;
    let name = json::parse(&text[at + 2..]).ok()?;
    Some((&text[..at], name.as_str()?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_whoever_wrote_them() {
        let rows: [(&str, &str, &str, &str); 5] = [
            (r#"[{"a": [1, "b"]}, "", "celery"]"#, r#"{"a": [1, "b"]}"#, "", "celery"),
            (r#"[{"n": NaN, "big": 1e400}, "ex", "a.b"]"#, r#"{"n": NaN, "big": 1e400}"#, "ex", "a.b"),
            (r#"[{"a":1},"ex","key"]"#, r#"{"a": 1}"#, "ex", "key"),
            (r#"[{"celeriac-raw": "6e6f"}, "", "q"]"#, "no", "", "q"),
            (r#"[{}, "", "odd, \"name\" \u00e9"]"#, "{}", "", "odd, \"name\" é"),
        ];
        for (text, raw, exchange, routing_key) in rows {
            let entry = Entry::parse(text.as_bytes()).expect(text);
            assert_eq!(String::from_utf8_lossy(&entry.raw), raw);
            assert_eq!((entry.exchange.as_str(), entry.routing_key.as_str()), (exchange, routing_key), "{text}");
        }
    }

    #[test]
    fn our_own_entries_are_read_back_even_if_the_envelope_is_broken() {
        for queue in ["celery", "odd, \"name\"", "\u{6}\u{16}", "é→"] {
            for raw in [b"{\"headers\": broken}".as_slice(), b"", b"\x00\xff, \"", b"[]", b"{\"a\": \"\xff\"}"] {
                let written = entry(raw, queue).unwrap();
                assert!(json::parse(&written).is_ok(), "{written:?}");
                let parsed = Entry::parse(&written).unwrap();
                assert_eq!((parsed.raw.as_slice(), parsed.routing_key.as_str()), (raw, queue));
                assert_eq!(parsed.redelivery(), (raw.to_vec(), 0));
            }
        }
    }

    #[test]
    fn what_a_stock_worker_cannot_restore_is_wrapped() {
        let rows = [
            (r#"{"body": "%", "headers": {}, "properties": {"delivery_info": {}}}"#, false),
            (r#"{"body": 1}"#, false),
            (r#"{"headers": tru}"#, true),
            (r#"{"a": 1}{}"#, true),
            (r#"{"headers": []}"#, true),
            (r#"{"headers": {}, "properties": null}"#, true),
            (r#"{"headers": {}, "properties": {"delivery_info": "x"}}"#, true),
            ("no object", true),
        ];
        for (raw, expected) in rows {
            assert_eq!(is_written_in_vain(raw.as_bytes()), expected, "{raw}");
        }
    }

    #[test]
    fn a_wrapper_that_a_stock_worker_has_put_back_is_taken_off() {
        let rows = [
            (r#"{"celeriac-raw": "7b00ff"}"#, "{\0\u{ff}"),
            (r#"{"celeriac-raw": "7b0"}"#, r#"{"celeriac-raw": "7b0"}"#),
            (r#"{"celeriac-raw": "+f"}"#, r#"{"celeriac-raw": "+f"}"#),
            ("{}", "{}"),
        ];
        for (raw, expected) in rows {
            let latin: Vec<u8> = expected.chars().map(|letter| letter as u8).collect();
            assert_eq!(unwrapped(Bytes::from_static(raw.as_bytes())), latin, "{raw}");
        }
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        for text in ["", "[", "[]", "{}", "[1, 2]", "nonsense", "[1, \"\", "] {
            assert!(Entry::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
