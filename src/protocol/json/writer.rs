//! The writer: byte for byte what Python's `json.dumps` writes with its defaults, since peers compare texts.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::super::{MAX_DEPTH, Map, Value, datetime, digits, float};
use super::scan;
use crate::{Error, ErrorKind, Result};

/// Appends the JSON text of a value (kombu/utils/json.py `dumps`). On an error `out` holds a part of it.
pub fn write(value: &Value, out: &mut Vec<u8>) -> Result<()> {
    write_nested(value, out, MAX_DEPTH)
}

fn write_nested(value: &Value, out: &mut Vec<u8>, depth: usize) -> Result<()> {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Int(number) => write_integer(*number, out),
        Value::Float(number) => float::write_json(out, *number),
        Value::String(text) => write_string(text, out),
        Value::List(items) => return write_items(items, out, deeper(depth)?),
        Value::Map(map) => return write_pairs(map, out, deeper(depth)?),
        other => write_typed(other, out),
    }
    Ok(())
}

fn deeper(depth: usize) -> Result<usize> {
    depth.checked_sub(1).ok_or_else(|| Error::new(ErrorKind::Encode, "writing JSON: the value is nested too deeply"))
}

/// Appends the JSON text of a list.
pub(in crate::protocol) fn write_list(items: &[Value], out: &mut Vec<u8>) -> Result<()> {
    write_items(items, out, MAX_DEPTH - 1)
}

fn write_items(items: &[Value], out: &mut Vec<u8>, depth: usize) -> Result<()> {
    out.push(b'[');
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.extend_from_slice(b", ");
        }
        write_nested(item, out, depth)?;
    }
    out.push(b']');
    Ok(())
}

/// Appends the JSON text of a map.
pub(super) fn write_map(map: &Map, out: &mut Vec<u8>) -> Result<()> {
    write_pairs(map, out, MAX_DEPTH - 1)
}

fn write_pairs(map: &Map, out: &mut Vec<u8>, depth: usize) -> Result<()> {
    out.push(b'{');
    for (at, (key, value)) in map.iter().enumerate() {
        if at > 0 {
            out.extend_from_slice(b", ");
        }
        write_string(key, out);
        out.extend_from_slice(b": ");
        write_nested(value, out, depth)?;
    }
    out.push(b'}');
    Ok(())
}

fn write_integer(number: i64, out: &mut Vec<u8>) {
    if number < 0 {
        out.push(b'-');
    }
    digits::write(number.unsigned_abs(), 1, out);
}

/// Appends what JSON itself has no form for.
fn write_typed(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::BigInt(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Value::DateTime(moment) => write_envelope("datetime", out, |out| moment.write(out)),
        Value::Date(date) => write_envelope("date", out, |out| datetime::write_date(out, *date)),
        Value::Time(time) => write_envelope("time", out, |out| time.write(out)),
        Value::Uuid(uuid) => {
            let mut hex = uuid::Uuid::encode_buffer();
            let hex = uuid.simple().encode_lower(&mut hex);
            out.extend_from_slice(br#"{"__type__": "uuid", "__value__": {"hex": ""#);
            out.extend_from_slice(hex.as_bytes());
            out.extend_from_slice(br#""}}"#);
        }
        Value::Decimal(text) => write_text_envelope("decimal", text, out),
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => write_text_envelope("bytes", text, out),
            Err(_) => write_text_envelope("base64", &STANDARD.encode(bytes), out),
        },
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Float(_)
        | Value::String(_)
        | Value::List(_)
        | Value::Map(_) => {}
    }
}

/// Appends an envelope around text that needs no escapes.
fn write_envelope(marker: &str, out: &mut Vec<u8>, content: impl FnOnce(&mut Vec<u8>)) {
    begin_envelope(marker, out);
    out.push(b'"');
    content(out);
    out.extend_from_slice(br#""}"#);
}

fn write_text_envelope(marker: &str, text: &str, out: &mut Vec<u8>) {
    begin_envelope(marker, out);
    write_string(text, out);
    out.push(b'}');
}

fn begin_envelope(marker: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"__type__": ""#);
    out.extend_from_slice(marker.as_bytes());
    out.extend_from_slice(br#"", "__value__": "#);
}

/// Appends a string with its quotes: all that is not printable ASCII is escaped.
pub(super) fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text;
    loop {
        let plain = scan::printable(rest.as_bytes());
        let (before, after) = rest.split_at(plain);
        out.extend_from_slice(before.as_bytes());
        let mut characters = after.chars();
        match characters.next() {
            Some(character) => write_escape(character, out),
            None => break,
        }
        rest = characters.as_str();
    }
    out.push(b'"');
}

fn write_escape(character: char, out: &mut Vec<u8>) {
    let short = match character {
        '"' => b'"',
        '\\' => b'\\',
        '\n' => b'n',
        '\r' => b'r',
        '\t' => b't',
        '\u{c}' => b'f',
        '\u{8}' => b'b',
        _ => return write_code_units(character, out),
    };
    out.extend_from_slice(&[b'\\', short]);
}

fn write_code_units(character: char, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for unit in character.encode_utf16(&mut [0; 2]) {
        let digit = |shift: u16| HEX[usize::from(*unit >> shift & 15)];
        out.extend_from_slice(&[b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
    }
}
