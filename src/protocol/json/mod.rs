//! JSON as Kombu writes and reads it (kombu/utils/json.py): Python's dialect, with `NaN`, the infinities and integers of
//! any size, and `__type__` envelopes for what JSON lacks.
//!
//! Kombu reads and writes the Redis envelope with the same functions as bodies and results, so there is one dialect.

mod object;
mod parser;
mod scan;
mod string;
mod typed;
mod writer;

pub(crate) use object::ObjectWriter;
pub(in crate::protocol) use parser::Parser;
pub use writer::write;
pub(in crate::protocol) use writer::write_list;

use super::Value;
use crate::Result;

/// Reads one JSON text (kombu/utils/json.py `loads`).
///
/// Of a repeated key the last value wins. A lone surrogate (`"\ud800"`), which Python's text can hold and Rust's cannot,
/// becomes U+FFFD. Nesting deeper than 1000, integers of more than 4300 digits (Python's own limit) and an unknown
/// `__type__` are errors of kind [`ErrorKind::Decode`](crate::ErrorKind::Decode).
pub fn parse(bytes: &[u8]) -> Result<Value> {
    let mut parser = Parser::new(bytes)?;
    let value = parser.value()?;
    parser.end()?;
    Ok(value)
}

/// The same, with every envelope left as the map that it is: for what else a text says whose envelopes cannot be read.
pub fn parse_plain(bytes: &[u8]) -> Result<Value> {
    let mut parser = Parser::new(bytes)?;
    parser.is_plain = true;
    let value = parser.value()?;
    parser.end()?;
    Ok(value)
}

/// The JSON text of a value, byte for byte as Python writes it (kombu/utils/json.py `dumps`). A value that is nested
/// deeper than 1000 is an error of kind [`ErrorKind::Encode`](crate::ErrorKind::Encode).
pub fn to_vec(value: &Value) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(128);
    write(value, &mut out)?;
    Ok(out)
}

#[cfg(test)]
mod tests;
