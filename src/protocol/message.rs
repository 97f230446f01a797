//! [`Message`]: one message as a broker hands it over, its body not yet decoded.

use std::borrow::Cow;

use bytes::Bytes;

use super::{AcceptContent, Body, Compression, Map, Properties, Serializer, Value, json, serializer};
use crate::{ErrorKind, Result};

/// One message, whichever broker it came from. The body stays as the producer's bytes until somebody decodes it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Message {
    /// The headers, in the producer's order, unknown ones included.
    pub headers: Map,
    /// The properties beside the headers.
    pub properties: Properties,
    /// The MIME type that the body is decoded with; absent in malformed messages.
    pub content_type: Option<String>,
    /// `utf-8` or `binary`; absent in malformed messages.
    pub content_encoding: Option<String>,
    /// The serialised body, still compressed if the header `compression` says so.
    pub body: Bytes,
}

/// How many bytes a compressed body may become: as many as Redis takes in one value.
const MAX_BODY: usize = 512 << 20;

impl Message {
    /// Decompresses and decodes the body.
    ///
    /// Content that `accept` does not name, and pickled or signed content, is an error of kind
    /// [`ErrorKind::Refused`](crate::ErrorKind::Refused): a stock worker rejects the message. An unknown compression, more
    /// than 512 MiB of content and bytes that do not have the form of their type are errors of kind
    /// [`ErrorKind::Decode`](crate::ErrorKind::Decode): a stock worker acknowledges the message.
    pub fn payload(&self, accept: &AcceptContent) -> Result<Value> {
        let body = self.decompressed()?;
        serializer::deserialize(&body, self.content_type.as_deref(), self.content_encoding.as_deref(), accept)
    }

    /// What a message says beside values that cannot be read: as JSON, without the types that Kombu puts into it.
    ///
    /// # Errors
    /// Those of [`Message::payload`], if it is no JSON either.
    pub(crate) fn plain_payload(&self, accept: &AcceptContent) -> Result<Value> {
        match self.payload(accept) {
            Err(error)
                if error.kind() == ErrorKind::Decode && self.content_type.as_deref() == Some("application/json") =>
            {
                json::parse_plain(&self.decompressed()?)
            }
            payload => payload,
        }
    }

    /// Replaces a task's body, in the serializer and the compression that the message has.
    ///
    /// # Errors
    /// [`ErrorKind::Encode`](crate::ErrorKind::Encode) when a value has no form in that serializer; those of
    /// [`Message::payload`] when the message names what is not known.
    pub fn set_body(&mut self, body: &Body) -> Result<()> {
        let bytes = Serializer::from_name(self.content_type.as_deref().unwrap_or("json"))?.encode(&body.to_value())?;
        self.body = match self.headers.get("compression").and_then(Value::as_str) {
            Some(name) => Compression::of_header(name)?.compress(&bytes)?.into(),
            None => bytes.into(),
        };
        Ok(())
    }

    fn decompressed(&self) -> Result<Cow<'_, [u8]>> {
        match self.headers.get("compression").filter(|compression| compression.is_truthy()) {
            None => Ok(Cow::Borrowed(&self.body)),
            Some(Value::String(name)) => Compression::of_header(name)?.decompress(&self.body, MAX_BODY).map(Cow::Owned),
            Some(other) => {
                let message = format!("unknown compression of type {}", other.type_name());
                Err(crate::Error::new(crate::ErrorKind::Decode, message))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: &[u8], compression: impl Into<Value>) -> Message {
        Message {
            headers: Map::from([("compression", compression.into())]),
            content_type: Some("application/json".into()),
            body: Bytes::copy_from_slice(body),
            ..Message::default()
        }
    }

    #[test]
    fn bodies_are_replaced_as_they_were_written() {
        let body = Body { args: vec![1.into(), "é".into()], ..Body::default() };
        for compression in [Value::Null, "application/x-gzip".into(), "application/zstd".into()] {
            let mut message = message(b"", compression);
            message.set_body(&body).unwrap();
            assert_eq!(Body::read(message.payload(&AcceptContent::default()).unwrap()), Ok(body.clone()));
        }
    }

    #[test]
    fn payloads() {
        let accept = AcceptContent::default();
        let compressed = Compression::Zlib.compress(b"[1]").unwrap();
        assert_eq!(message(&compressed, "application/x-gzip").payload(&accept).unwrap(), [1].into());
        assert_eq!(message(b"[1]", Value::Null).payload(&accept).unwrap(), [1].into());
        let kind = |message: Message| message.payload(&accept).unwrap_err().kind();
        assert_eq!(kind(message(b"[1]", "rot13")), ErrorKind::Decode);
        assert_eq!(kind(message(b"[1]", 7)), ErrorKind::Decode);
        assert_eq!(kind(message(b"[1]", "zlib")), ErrorKind::Decode);
        assert_eq!(kind(Message { content_type: Some("x/y".into()), ..message(b"[1]", "") }), ErrorKind::Refused);
    }
}
