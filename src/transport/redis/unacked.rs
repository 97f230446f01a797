//! What stands in `unacked`: `[envelope, exchange, routing_key]` (kombu/transport/redis.py `QoS.append`).

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

/// The entry of a message that was taken from `queue`, as `reserve.lua` writes it.
pub(super) fn entry(raw: &[u8], queue: &str) -> Result<Vec<u8>> {
    let suffix = suffix(queue)?;
    if raw.first() == Some(&b'{') && raw.last() == Some(&b'}') {
        return Ok([b"[", raw, &suffix].concat());
    }
    let digits: String = raw.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok([b"[", WRAPPER.0, digits.as_bytes(), WRAPPER.1, &suffix].concat())
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

/// What `reserve.lua` makes of bytes that are no object.
const WRAPPER: (&[u8], &[u8]) = (b"{\"celeriac-raw\": \"", b"\"}");

/// The bytes that were wrapped, if they were.
fn unwrap(object: &[u8]) -> Option<Vec<u8>> {
    let digits = object.strip_prefix(WRAPPER.0)?.strip_suffix(WRAPPER.1)?;
    let digits = str::from_utf8(digits).ok().filter(|digits| digits.is_ascii() && digits.len() % 2 == 0)?;
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
            for raw in [b"{\"headers\": broken}".as_slice(), b"", b"\x00\xff, \"", b"[]"] {
                let parsed = Entry::parse(&entry(raw, queue).unwrap()).unwrap();
                assert_eq!((parsed.raw.as_slice(), parsed.routing_key.as_str()), (raw, queue));
                assert_eq!(parsed.redelivery(), (raw.to_vec(), 0));
            }
        }
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        for text in ["", "[", "[]", "{}", "[1, 2]", "nonsense", "[1, \"\", "] {
            assert!(Entry::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
