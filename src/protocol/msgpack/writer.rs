//! Values to bytes.

use rmp::encode;

use super::super::{DateTime, Map, Value};
use super::MAX_DEPTH;
use crate::{Error, ErrorKind, Result};

/// The extension type of timestamps.
const TIMESTAMP: i8 = -1;

/// Appends a value that stands `depth` levels deep.
pub(super) fn write(value: &Value, depth: usize, out: &mut Vec<u8>) -> Result<()> {
    match value {
        Value::List(items) => write_list(items, depth, out),
        Value::Map(map) => write_map(map, depth, out),
        scalar => write_scalar(scalar, out),
    }
}

fn write_list(items: &[Value], depth: usize, out: &mut Vec<u8>) -> Result<()> {
    checked(encode::write_array_len(out, length(items.len())?))?;
    let depth = deeper(depth)?;
    for item in items {
        write(item, depth, out)?;
    }
    Ok(())
}

fn write_map(map: &Map, depth: usize, out: &mut Vec<u8>) -> Result<()> {
    checked(encode::write_map_len(out, length(map.len())?))?;
    let depth = deeper(depth)?;
    for (key, value) in map.iter() {
        write_text(key, out)?;
        write(value, depth, out)?;
    }
    Ok(())
}

fn deeper(depth: usize) -> Result<usize> {
    if depth == MAX_DEPTH {
        return Err(refused(&format!("values nested deeper than {MAX_DEPTH}")));
    }
    Ok(depth + 1)
}

fn write_scalar(value: &Value, out: &mut Vec<u8>) -> Result<()> {
    match value {
        Value::Null => checked(encode::write_nil(out)),
        Value::Bool(value) => checked(encode::write_bool(out, *value)),
        Value::Int(number) => checked(encode::write_sint(out, *number)),
        Value::BigInt(number) => match u64::try_from(&**number) {
            Ok(number) => checked(encode::write_uint(out, number)),
            Err(_) => Err(refused("an integer beyond 64 bits")),
        },
        Value::Float(number) => checked(encode::write_f64(out, *number)),
        Value::String(text) => write_text(text, out),
        Value::Bytes(bytes) => write_bytes(bytes, out),
        Value::DateTime(moment) if moment.offset.is_some() => write_timestamp(moment, out),
        Value::DateTime(_) => Err(refused("a naive datetime")),
        other => Err(refused(&format!("a {}", other.type_name()))),
    }
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) -> Result<()> {
    checked(encode::write_bin_len(out, length(bytes.len())?))?;
    out.extend_from_slice(bytes);
    Ok(())
}

fn write_text(text: &str, out: &mut Vec<u8>) -> Result<()> {
    checked(encode::write_str_len(out, length(text.len())?))?;
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

/// Appends a moment in the shortest of the three forms (msgpack/ext.py `Timestamp.to_bytes`).
fn write_timestamp(moment: &DateTime, out: &mut Vec<u8>) -> Result<()> {
    let moment = moment.timestamp()?;
    // Both parts count forward, also before 1970.
    let seconds = moment.as_nanosecond().div_euclid(1_000_000_000) as i64;
    let nanoseconds = moment.as_nanosecond().rem_euclid(1_000_000_000) as u32;
    match u64::try_from(seconds) {
        Ok(seconds) if seconds <= u64::from(u32::MAX) && nanoseconds == 0 => {
            checked(encode::write_ext_meta(out, 4, TIMESTAMP))?;
            out.extend_from_slice(&(seconds as u32).to_be_bytes());
        }
        Ok(seconds) if seconds >> 34 == 0 => {
            checked(encode::write_ext_meta(out, 8, TIMESTAMP))?;
            out.extend_from_slice(&(u64::from(nanoseconds) << 34 | seconds).to_be_bytes());
        }
        _ => {
            checked(encode::write_ext_meta(out, 12, TIMESTAMP))?;
            out.extend_from_slice(&nanoseconds.to_be_bytes());
            out.extend_from_slice(&seconds.to_be_bytes());
        }
    }
    Ok(())
}

fn length(length: usize) -> Result<u32> {
    u32::try_from(length).map_err(|_| refused("a value of 4 GiB or more"))
}

/// Writing to a vector does not fail; the crate's signature says that it may.
fn checked<T, E: std::error::Error + Send + Sync + 'static>(written: Result<T, E>) -> Result<()> {
    written.map(drop).map_err(|cause| refused("a value").with_source(cause))
}

fn refused(what: &str) -> Error {
    Error::new(ErrorKind::Encode, format!("cannot write {what} as MessagePack"))
}
