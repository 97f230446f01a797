//! MessagePack as Kombu's serializer `msgpack` writes and reads it (kombu/serialization.py `register_msgpack`: the type
//! `bin` in use, text as UTF-8).

mod reader;
mod writer;

use super::Value;
use crate::Result;

/// How deep values may be nested: as deep as Python's packer writes (`DEFAULT_RECURSE_LIMIT` of msgpack/_packer.pyx).
const MAX_DEPTH: usize = 511;

/// Reads one value; what Python's `unpackb(.., raw=False)` refuses is an error of kind
/// [`ErrorKind::Decode`](crate::ErrorKind::Decode).
///
/// A map's keys are text, or bytes that are UTF-8 and become text; Python too refuses every other key. A timestamp
/// (extension −1), which Python shows as `msgpack.Timestamp`, is an aware `datetime` in UTC, cut to microseconds; another
/// extension is an error, for there is nothing that it could become. Nesting deeper than 511, trailing bytes and lengths
/// beyond the input are errors, and memory is taken as items arrive, never by what a length promises.
pub fn decode(bytes: &[u8]) -> Result<Value> {
    reader::read(bytes)
}

/// The MessagePack of a value, each number and length in its shortest form, as Python's `packb` writes it.
///
/// An aware `datetime` is a timestamp (extension −1). What Python's packer refuses under Kombu is an error of kind
/// [`ErrorKind::Encode`](crate::ErrorKind::Encode): a naive `datetime`, a date, a time of day, a decimal, a UUID and an
/// integer beyond 64 bits; so is nesting deeper than 511.
pub fn encode(value: &Value) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(128);
    writer::write(value, 0, &mut out)?;
    Ok(out)
}

#[cfg(test)]
mod tests;
