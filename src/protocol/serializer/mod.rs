//! Serializers by Kombu's names (kombu/serialization.py), and which of them a worker accepts.

mod accept;

pub use accept::AcceptContent;

use super::{Value, json, msgpack, yaml};
use crate::{Error, ErrorKind, Result};

/// A way to write values as bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Serializer {
    /// Kombu's JSON.
    #[default]
    Json,
    /// MessagePack, which has no times, decimals or UUIDs.
    Msgpack,
    /// YAML, the safe part of it.
    Yaml,
    /// Bytes or text as they are.
    Raw,
}

/// The MIME type of pickled bodies, which only Python can decode.
const PICKLE: &str = "application/x-python-serialize";

/// The MIME type of bytes that nobody serialized, and of those that `auth` signed.
const DATA: &str = "application/data";

/// Content that is decoded whatever a worker accepts (kombu/serialization.py `TRUSTED_CONTENT`).
const TRUSTED: [&str; 2] = [DATA, "application/text"];

/// Names and MIME types, as Kombu registers them.
const NAMES: [(&str, &str); 6] = [
    ("json", "application/json"),
    ("msgpack", "application/x-msgpack"),
    ("yaml", "application/x-yaml"),
    ("pickle", PICKLE),
    ("raw", DATA),
    ("auth", DATA),
];

impl Serializer {
    /// The serializer that a setting or an option names. `pickle` and `auth` are errors of kind [`ErrorKind::Refused`],
    /// an unknown name is one of kind [`ErrorKind::Configuration`].
    pub fn from_name(name: &str) -> Result<Self> {
        let refused =
            |reason| Err(Error::new(ErrorKind::Refused, format!("the serializer {name:?} is refused: {reason}")));
        match name {
            "json" | "application/json" => Ok(Serializer::Json),
            "msgpack" | "application/x-msgpack" => Ok(Serializer::Msgpack),
            "yaml" | "application/x-yaml" => Ok(Serializer::Yaml),
            "raw" | DATA => Ok(Serializer::Raw),
            "pickle" | PICKLE => refused(PICKLE_REASON),
            "auth" => refused(AUTH_REASON),
            _ => Err(Error::new(ErrorKind::Configuration, format!("no encoder/decoder installed for {name}"))),
        }
    }

    /// Its name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Serializer::Json => "json",
            Serializer::Msgpack => "msgpack",
            Serializer::Yaml => "yaml",
            Serializer::Raw => "raw",
        }
    }

    /// The MIME type of what it writes.
    pub fn content_type(self) -> &'static str {
        match self {
            Serializer::Json => "application/json",
            Serializer::Msgpack => "application/x-msgpack",
            Serializer::Yaml => "application/x-yaml",
            Serializer::Raw => DATA,
        }
    }

    /// `utf-8` or `binary`.
    pub fn content_encoding(self) -> &'static str {
        match self {
            Serializer::Json | Serializer::Yaml => "utf-8",
            Serializer::Msgpack | Serializer::Raw => "binary",
        }
    }

    /// Writes a value. One that the serializer has no form for is an error of kind [`ErrorKind::Encode`].
    pub fn encode(self, value: &Value) -> Result<Vec<u8>> {
        match (self, value) {
            (Serializer::Json, _) => json::to_vec(value),
            (Serializer::Msgpack, _) => msgpack::encode(value),
            (Serializer::Yaml, _) => yaml::encode(value),
            (Serializer::Raw, Value::Bytes(bytes)) => Ok(bytes.clone()),
            (Serializer::Raw, Value::String(text)) => Ok(text.clone().into_bytes()),
            (Serializer::Raw, other) => Err(Error::new(
                ErrorKind::Encode,
                format!("writing raw content: a {} has no raw form", other.type_name()),
            )),
        }
    }

    /// Reads a value. An error is of kind [`ErrorKind::Decode`].
    pub fn decode(self, bytes: &[u8]) -> Result<Value> {
        match self {
            Serializer::Json => json::parse(bytes),
            Serializer::Msgpack => msgpack::decode(bytes),
            Serializer::Yaml => yaml::decode(bytes),
            Serializer::Raw => Ok(Value::Bytes(bytes.to_vec())),
        }
    }
}

/// Why a pickled body is refused even where it is accepted.
const PICKLE_REASON: &str = "only Python can decode what a pickle holds, and doing so runs it";

/// Why a signed body is refused.
const AUTH_REASON: &str = "signed messages cannot be verified yet";

/// Decodes content that came with a message (kombu/serialization.py `SerializerRegistry.loads`), if it is accepted.
///
/// Content of a type that is not accepted is an error of kind [`ErrorKind::Refused`], in Kombu's words; so is pickled or
/// signed content, which is never decoded here. Bytes that do not have the form of their type are an error of kind
/// [`ErrorKind::Decode`]. Without a type, or with one that has no serializer, content is text or bytes.
pub fn deserialize(
    bytes: &[u8],
    content_type: Option<&str>,
    content_encoding: Option<&str>,
    accept: &AcceptContent,
) -> Result<Value> {
    let content_type = content_type.filter(|content_type| !content_type.is_empty()).unwrap_or(DATA);
    accept.check(content_type)?;
    match content_type {
        _ if bytes.is_empty() => Ok(Value::Bytes(Vec::new())),
        "application/json" => json::parse(bytes),
        "application/x-msgpack" => msgpack::decode(bytes),
        "application/x-yaml" => yaml::decode(bytes),
        _ => text_or_bytes(bytes, content_encoding),
    }
}

/// Content that no serializer made, by its `content_encoding`: one of those names that Python's codecs have for UTF-8,
/// ASCII and Latin-1, or that of no text at all.
fn text_or_bytes(bytes: &[u8], content_encoding: Option<&str>) -> Result<Value> {
    let encoding = content_encoding.filter(|encoding| !encoding.is_empty()).unwrap_or("utf-8").to_ascii_lowercase();
    let undecodable = || Error::new(ErrorKind::Decode, format!("the content is not text in {encoding:?}"));
    match encoding.replace('_', "-").as_str() {
        "binary" | "ascii-8bit" => Ok(Value::Bytes(bytes.to_vec())),
        "utf-8" | "utf8" => {
            std::str::from_utf8(bytes).map(Value::from).map_err(|cause| undecodable().with_source(cause))
        }
        "us-ascii" | "ascii" if bytes.is_ascii() => Ok(String::from_utf8_lossy(bytes).as_ref().into()),
        "latin-1" | "latin1" | "iso-8859-1" => Ok(Value::String(bytes.iter().copied().map(char::from).collect())),
        _ => Err(undecodable()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_types() {
        for serializer in [Serializer::Json, Serializer::Msgpack, Serializer::Yaml, Serializer::Raw] {
            assert_eq!(Serializer::from_name(serializer.name()).unwrap(), serializer);
            assert_eq!(Serializer::from_name(serializer.content_type()).unwrap(), serializer);
        }
        let kind = |name| Serializer::from_name(name).unwrap_err().kind();
        assert_eq!(
            (kind("pickle"), kind("auth"), kind("xml")),
            (ErrorKind::Refused, ErrorKind::Refused, ErrorKind::Configuration)
        );
    }

    #[test]
    fn content_without_a_serializer() {
        let accept = AcceptContent::new(["json", "text/plain", "x/y"]).unwrap();
        let check = |bytes: &[u8], content_type, encoding, expected: Option<Value>| {
            assert_eq!(
                deserialize(bytes, content_type, encoding, &accept).ok(),
                expected,
                "{content_type:?} {encoding:?}"
            );
        };
        check(b"[1]", Some("application/json"), None, Some([1].into()));
        check(b"", Some("application/json"), None, Some(Value::Bytes(vec![])));
        check(b"[1]", None, None, Some("[1]".into()));
        check(b"\xff", None, Some("binary"), Some(Value::Bytes(vec![255])));
        check(b"\xff", None, None, None);
        check(b"\xff", Some("text/plain"), Some("Latin-1"), Some("ÿ".into()));
        check(b"a", Some("application/text"), Some("us-ascii"), Some("a".into()));
        check(b"\xff", Some("x/y"), Some("us-ascii"), None);
        check(b"a", Some("x/y"), Some("ebcdic"), None);
        check(b"[1", Some("application/json"), None, None);
        check(b"[1]", Some("application/x-yaml"), None, None);
    }

    #[test]
    fn every_serializer_reads_what_it_writes() {
        let value = Value::from(vec![Value::from([1, 2]), "é".into(), Value::Null, Value::Bytes(vec![0, 255])]);
        for serializer in [Serializer::Json, Serializer::Msgpack, Serializer::Yaml] {
            let accept = AcceptContent::new([serializer.name()]).unwrap();
            let written = serializer.encode(&value).unwrap();
            let (content_type, encoding) = (Some(serializer.content_type()), Some(serializer.content_encoding()));
            assert_eq!(deserialize(&written, content_type, encoding, &accept).unwrap(), value, "{serializer:?}");
        }
    }
}
