//! Scalars as Python's `repr` writes them.

use std::fmt::Write;

use jiff::{civil, tz::Offset};

use super::super::{Value, datetime, float};

/// Appends the `repr` of anything but a list or map.
pub(super) fn write(value: &Value, out: &mut String) {
    // Writing to a string cannot fail.
    let _ = match value {
        Value::Null => write!(out, "None"),
        Value::Bool(true) => write!(out, "True"),
        Value::Bool(false) => write!(out, "False"),
        Value::Int(number) => write!(out, "{number}"),
        Value::BigInt(number) => write!(out, "{number}"),
        Value::Float(number) => write!(out, "{}", datetime::text_of(|out| float::write_repr(out, *number))),
        Value::Decimal(text) => write!(out, "Decimal('{text}')"),
        Value::Uuid(uuid) => write!(out, "UUID('{uuid}')"),
        Value::String(text) => return write_text(text, out),
        Value::Bytes(bytes) => return write_bytes(bytes, out),
        Value::Date(date) => write!(out, "datetime.date({}, {}, {})", date.year(), date.month(), date.day()),
        Value::Time(time) => return write_time(time, out),
        Value::DateTime(moment) => return write_datetime(moment, out),
        Value::List(_) | Value::Map(_) => Ok(()),
    };
}

/// Python prefers single quotes, unless only double ones spare it an escape.
fn quote(has: impl Fn(char) -> bool) -> char {
    if has('\'') && !has('"') { '"' } else { '\'' }
}

/// Appends the `repr` of a `str`.
pub(super) fn write_text(text: &str, out: &mut String) {
    let quote = quote(|mark| text.contains(mark));
    out.push(quote);
    for character in text.chars() {
        match character {
            ' '..='~' if character != quote && character != '\\' => out.push(character),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if character == quote || character == '\\' => out.extend(['\\', character]),
            _ if is_printable(character) => out.push(character),
            _ => write_code_point(character, out),
        }
    }
    out.push(quote);
}

fn write_code_point(character: char, out: &mut String) {
    let number = u32::from(character);
    let _ = match number {
        0..=0xFF => write!(out, "\\x{number:02x}"),
        0x100..=0xFFFF => write!(out, "\\u{number:04x}"),
        _ => write!(out, "\\U{number:08x}"),
    };
}

/// Python's `str.isprintable`, by the standard library's own tables; behind another character a combining one counts as
/// printable in both.
fn is_printable(character: char) -> bool {
    let mut buffer = [b'a'; 5];
    let length = character.encode_utf8(&mut buffer[1..]).len();
    std::str::from_utf8(&buffer[..=length]).is_ok_and(|text| text.escape_debug().nth(1) == Some(character))
}

/// Appends the `repr` of `bytes`.
fn write_bytes(bytes: &[u8], out: &mut String) {
    let quote = quote(|mark| bytes.contains(&(mark as u8)));
    out.extend(['b', quote]);
    for byte in bytes {
        let character = char::from(*byte);
        match character {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if character == quote || character == '\\' => out.extend(['\\', character]),
            ' '..='~' => out.push(character),
            _ => drop(write!(out, "\\x{byte:02x}")),
        }
    }
    out.push(quote);
}

fn write_datetime(moment: &datetime::DateTime, out: &mut String) {
    let date = moment.civil.date();
    let _ = write!(out, "datetime.datetime({}, {}, {}, ", date.year(), date.month(), date.day());
    write_clock(moment.civil.time(), out);
    write_zone(moment.offset, out);
}

fn write_time(time: &datetime::Time, out: &mut String) {
    out.push_str("datetime.time(");
    write_clock(time.civil, out);
    write_zone(time.offset, out);
}

/// Appends hour and minute, and what follows up to the last part that is not zero.
fn write_clock(time: civil::Time, out: &mut String) {
    let microsecond = time.subsec_nanosecond() / 1000;
    let _ = write!(out, "{}, {}", time.hour(), time.minute());
    if time.second() != 0 || microsecond != 0 {
        let _ = write!(out, ", {}", time.second());
    }
    if microsecond != 0 {
        let _ = write!(out, ", {microsecond}");
    }
}

fn write_zone(offset: Option<Offset>, out: &mut String) {
    let _ = match offset.map(Offset::seconds) {
        None => Ok(()),
        Some(0) => write!(out, ", tzinfo=datetime.timezone.utc"),
        // Python's timedelta holds a negative offset as a day back and seconds forward.
        Some(seconds @ ..0) => {
            write!(out, ", tzinfo=datetime.timezone(datetime.timedelta(days=-1, seconds={}))", seconds + 86400)
        }
        Some(seconds) => write!(out, ", tzinfo=datetime.timezone(datetime.timedelta(seconds={seconds}))"),
    };
    out.push(')');
}
