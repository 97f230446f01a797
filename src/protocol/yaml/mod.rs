//! YAML as Kombu's serializer `yaml` writes and reads it (kombu/serialization.py `register_yaml`: PyYAML's `safe_dump` and
//! `safe_load`).
//!
//! PyYAML resolves plain scalars by the rules of YAML 1.1, where `yes` is a truth value, `1:30` is 90 and `1e3` is text; so
//! the parser's events are read here, and not the values that it would make of them.

mod input;
mod node;
mod number;
mod reader;
mod scalar;
mod timestamp;
mod writer;

use super::Value;
use crate::Result;

/// Reads the single document that PyYAML's `safe_load` reads; an empty stream is `None`. What it refuses, tags of Python
/// objects above all, is an error of kind [`ErrorKind::Decode`](crate::ErrorKind::Decode).
///
/// Keys become text as JSON would write them (`1`, `true`, `null`); a key that is neither text, number, truth value nor null
/// is an error. A `!!set` is a list of its keys, `!!omap` and `!!pairs` are lists of pairs. Nesting deeper than 1000 (255 within
/// brackets), a node that contains itself, and aliases that would multiply the input to more than 64 MiB are errors.
pub fn decode(bytes: &[u8]) -> Result<Value> {
    reader::read(&input::text(bytes)?)
}

/// A YAML text that PyYAML's `safe_load` reads as the same value: one line, in brackets, ASCII alone.
///
/// What `safe_dump` refuses is an error of kind [`ErrorKind::Encode`](crate::ErrorKind::Encode): a time of day, a decimal and a
/// UUID; so are an offset that is no whole minute, which PyYAML writes but cannot read, and nesting deeper than 255.
pub fn encode(value: &Value) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(128);
    writer::write(value, 0, &mut out)?;
    Ok(out)
}

#[cfg(test)]
mod tests;
