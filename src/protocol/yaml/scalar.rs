//! Scalars to values: what PyYAML's resolver and its safe constructor make of them.

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use yaml_rust2::parser::Tag;
use yaml_rust2::scanner::TScalarStyle;

use super::super::Value;
use super::reader::malformed;
use super::{number, timestamp};
use crate::Result;

/// The prefix of the tags that YAML itself defines.
const YAML: &str = "tag:yaml.org,2002:";

/// What a scalar means.
pub(super) enum Scalar {
    Value(Value),
    /// `<<`: a key whose value is merged into the mapping.
    Merge,
    /// `=`: text as a key, and nothing anywhere else.
    Equals,
}

/// The name of a tag that YAML defines, `None` where there is no tag; another tag is an error.
pub(super) fn tag_name(tag: Option<&Tag>) -> Result<Option<&str>> {
    let Some(tag) = tag else { return Ok(None) };
    if is_non_specific(tag) {
        return Ok(None);
    }
    // A verbatim tag stands in the suffix alone.
    let name = if tag.handle == YAML { Some(tag.suffix.as_str()) } else { tag.suffix.strip_prefix(YAML) };
    name.map(Some).ok_or_else(|| malformed(&format!("the tag {}{} is not one of YAML's own", tag.handle, tag.suffix)))
}

/// Whether the tag is `!`, which to PyYAML asks for what a plain scalar means.
fn is_non_specific(tag: &Tag) -> bool {
    matches!((tag.handle.as_str(), tag.suffix.as_str()), ("", "!") | ("!", ""))
}

/// What a scalar of this text, style and tag means.
pub(super) fn scalar(text: String, style: TScalarStyle, tag: Option<&Tag>) -> Result<Scalar> {
    match tag_name(tag)? {
        None if style == TScalarStyle::Plain || tag.is_some() => resolved(text),
        None | Some("str") => Ok(Scalar::Value(Value::String(text))),
        Some("null") => Ok(Scalar::Value(Value::Null)),
        Some(tag) => constructed(tag, &text).map(Scalar::Value).ok_or_else(|| refused(tag, &text)),
    }
}

/// What a plain scalar means (yaml/resolver.py).
fn resolved(text: String) -> Result<Scalar> {
    let tag = match text.as_bytes() {
        [] | b"~" | b"null" | b"Null" | b"NULL" => return Ok(Scalar::Value(Value::Null)),
        b"<<" => return Ok(Scalar::Merge),
        b"=" => return Ok(Scalar::Equals),
        [b'y' | b'Y' | b'n' | b'N' | b't' | b'T' | b'f' | b'F' | b'o' | b'O', ..] if is_bool(&text) => "bool",
        [b'-' | b'+' | b'.' | b'0'..=b'9', ..] if number::is_float(&text) => "float",
        [b'-' | b'+' | b'0'..=b'9', ..] if number::is_int(&text) => "int",
        [b'0'..=b'9', ..] if timestamp::is_timestamp(&text) => "timestamp",
        _ => return Ok(Scalar::Value(Value::String(text))),
    };
    constructed(tag, &text).map(Scalar::Value).ok_or_else(|| refused(tag, &text))
}

/// Whether it is one of the words, all in lower case, all in upper case or with a capital.
fn is_bool(text: &str) -> bool {
    let cased = |word: &str| {
        let rest = &text[1..];
        text.eq_ignore_ascii_case(word) && (rest == &word[1..] || text.bytes().all(|byte| byte.is_ascii_uppercase()))
    };
    ["yes", "no", "true", "false", "on", "off"].into_iter().any(cased)
}

/// What a tag makes of a text (yaml/constructor.py `SafeConstructor`); `None` if nothing.
fn constructed(tag: &str, text: &str) -> Option<Value> {
    match tag {
        "bool" => boolean(text),
        "int" => number::int(text),
        "float" => number::float(text),
        "timestamp" => timestamp::timestamp(text),
        "binary" => binary(text).map(Value::Bytes),
        _ => None,
    }
}

fn boolean(text: &str) -> Option<Value> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" | "on" => Some(Value::Bool(true)),
        "no" | "false" | "off" => Some(Value::Bool(false)),
        _ => None,
    }
}

/// Reads base64 as Python's `decodebytes` does: what is not of the alphabet is skipped, the padding must be there and ends it.
fn binary(text: &str) -> Option<Vec<u8>> {
    let (digits, padding) = text.split_at(text.find('=').unwrap_or(text.len()));
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let digits: Vec<u8> = digits.bytes().filter(is_digit).collect();
    let padded = digits.len().is_multiple_of(4)
        || digits.len() + padding.matches('=').count() >= digits.len().next_multiple_of(4);
    let config = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let engine = GeneralPurpose::new(&base64::alphabet::STANDARD, config);
    if padded && text.is_ascii() { engine.decode(digits).ok() } else { None }
}

fn refused(tag: &str, text: &str) -> crate::Error {
    let shown: String = text.chars().take(64).collect();
    malformed(&format!("{shown:?} is no {tag}"))
}
