//! Kombu's envelopes: objects of exactly `__type__` and `__value__` (kombu/utils/json.py `object_hook`).

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::super::value::is_decimal;
use super::super::{DateTime, Map, Value};
use crate::{Error, ErrorKind, Result};

const TYPE: &str = "__type__";
const VALUE: &str = "__value__";

/// Python's `b64decode` does not look at bits that a shorter text would not have.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// What an object stands for: itself, unless it is an envelope.
pub(super) fn unwrap(mut object: Map) -> Result<Value> {
    if object.len() != 2 || !object.contains_key(TYPE) || !object.contains_key(VALUE) {
        return Ok(Value::Map(object));
    }
    let marker = object.remove(TYPE).unwrap_or_default();
    let value = object.remove(VALUE).unwrap_or_default();
    let Value::String(marker) = marker else {
        return Err(Error::new(
            ErrorKind::Decode,
            format!("reading JSON: a __type__ that is a {}", marker.type_name()),
        ));
    };
    content(&marker, value)
}

fn content(marker: &str, value: Value) -> Result<Value> {
    let wrong = || Error::new(ErrorKind::Decode, format!("reading JSON: a {marker} that cannot be read"));
    if marker == "uuid" {
        let hex = value.as_map().and_then(|fields| fields.get("hex")).and_then(Value::as_str);
        return hex.and_then(|hex| hex.parse().ok()).map(Value::Uuid).ok_or_else(wrong);
    }
    let text = match value {
        Value::String(text) => text,
        Value::Int(number) if marker == "decimal" => number.to_string(),
        _ => return Err(if KNOWN.contains(&marker) { wrong() } else { unknown(marker) }),
    };
    Ok(match marker {
        "datetime" => Value::DateTime(text.parse()?),
        "date" => Value::Date(text.parse::<DateTime>()?.civil.date()),
        "time" => Value::Time(text.parse()?),
        "decimal" if is_decimal(&text) => Value::Decimal(text),
        "decimal" => return Err(wrong()),
        "bytes" => Value::Bytes(text.into_bytes()),
        "base64" => Value::Bytes(BASE64.decode(text).map_err(|cause| wrong().with_source(cause))?),
        _ => return Err(unknown(marker)),
    })
}

const KNOWN: [&str; 6] = ["datetime", "date", "time", "decimal", "bytes", "base64"];

fn unknown(marker: &str) -> Error {
    let shown: String = marker.chars().take(64).collect();
    Error::new(ErrorKind::Decode, format!("reading JSON: the __type__ {shown:?} is not known"))
}
