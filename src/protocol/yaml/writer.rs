//! Values to YAML in brackets on one line, which every version of YAML reads alike.

use std::io::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::super::{DateTime, Map, Value, datetime, float};
use crate::{Error, ErrorKind, Result};

/// A longer key is written with a `?`: PyYAML looks no further than 1024 characters for the colon behind a key.
const LONGEST_KEY: usize = 1000;

/// How many brackets the parser of this crate takes within one another.
const MAX_BRACKETS: usize = 255;

/// Appends a value that stands `depth` levels deep.
pub(super) fn write(value: &Value, depth: usize, out: &mut Vec<u8>) -> Result<()> {
    match value {
        Value::List(items) => write_list(items, deeper(depth)?, out),
        Value::Map(map) => write_map(map, deeper(depth)?, out),
        scalar => write_scalar(scalar, out),
    }
}

fn write_list(items: &[Value], depth: usize, out: &mut Vec<u8>) -> Result<()> {
    out.push(b'[');
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.extend_from_slice(b", ");
        }
        write(item, depth, out)?;
    }
    out.push(b']');
    Ok(())
}

fn write_map(map: &Map, depth: usize, out: &mut Vec<u8>) -> Result<()> {
    out.push(b'{');
    for (at, (key, value)) in map.iter().enumerate() {
        if at > 0 {
            out.extend_from_slice(b", ");
        }
        write_key(key, out);
        write(value, depth, out)?;
    }
    out.push(b'}');
    Ok(())
}

fn write_key(key: &str, out: &mut Vec<u8>) {
    let start = out.len();
    write_text(key, out);
    if out.len() - start > LONGEST_KEY {
        out.splice(start..start, *b"? ");
        out.push(b' ');
    }
    out.extend_from_slice(b": ");
}

fn deeper(depth: usize) -> Result<usize> {
    if depth == MAX_BRACKETS {
        return Err(refused(&format!("values nested deeper than {MAX_BRACKETS}")));
    }
    Ok(depth + 1)
}

fn write_scalar(value: &Value, out: &mut Vec<u8>) -> Result<()> {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Int(number) => append(out, format_args!("{number}")),
        Value::BigInt(number) => append(out, format_args!("{number}")),
        Value::Float(number) => write_float(*number, out),
        Value::String(text) => write_text(text, out),
        Value::Bytes(bytes) => append(out, format_args!("!!binary \"{}\"", BASE64_STANDARD.encode(bytes))),
        Value::Date(date) if date.year() > 0 => {
            append(out, format_args!("!!timestamp \"{}\"", datetime::text_of(|out| datetime::write_date(out, *date))));
        }
        Value::DateTime(moment) if is_readable(moment) => append(out, format_args!("!!timestamp \"{moment}\"")),
        Value::DateTime(_) | Value::Date(_) => return Err(refused("this date")),
        other => return Err(refused(&format!("a {}", other.type_name()))),
    }
    Ok(())
}

/// Whether PyYAML's form of a timestamp can say it: no seconds in the offset, no years before Christ.
fn is_readable(moment: &DateTime) -> bool {
    moment.civil.year() > 0 && moment.offset.is_none_or(|offset| offset.seconds() % 60 == 0)
}

/// YAML 1.1 knows a float by its point, which Python's `repr` leaves out of `1e+16`.
fn write_float(number: f64, out: &mut Vec<u8>) {
    let text = datetime::text_of(|out| float::write_repr(out, number));
    match text.as_str() {
        "nan" => out.extend_from_slice(b".nan"),
        "inf" => out.extend_from_slice(b".inf"),
        "-inf" => out.extend_from_slice(b"-.inf"),
        text if text.contains('.') => out.extend_from_slice(text.as_bytes()),
        text => out.extend_from_slice(text.replace('e', ".0e").as_bytes()),
    }
}

/// Appends text in double quotes, where escapes can say everything.
fn write_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for character in text.chars() {
        let number = u32::from(character);
        match character {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            ' '..='~' => out.push(number as u8),
            '\0'..='\u{FF}' => append(out, format_args!("\\x{number:02X}")),
            '\u{100}'..='\u{FFFF}' => append(out, format_args!("\\u{number:04X}")),
            _ => append(out, format_args!("\\U{number:08X}")),
        }
    }
    out.push(b'"');
}

fn append(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a vector cannot fail.
    let _ = out.write_fmt(text);
}

fn refused(what: &str) -> Error {
    Error::new(ErrorKind::Encode, format!("cannot write {what} as YAML"))
}
