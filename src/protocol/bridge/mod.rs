//! Between Rust types and [`Value`]s, through serde.
//!
//! The kinds that serde does not know (a `datetime`, a `Decimal`, …) pass through it as newtype structs with private
//! names: our own serializer and deserializer know the names, and others see text.

mod de;
mod impls;
mod keys;
mod ser;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Value;
use crate::{Error, ErrorKind, Result};

/// The names under which the kinds pass through serde.
mod names {
    pub(super) const VALUE: &str = "$celeriac::Value";
    pub(super) const BIG_INT: &str = "$celeriac::BigInt";
    pub(super) const DATE_TIME: &str = "$celeriac::DateTime";
    pub(super) const DATE: &str = "$celeriac::Date";
    pub(super) const TIME: &str = "$celeriac::Time";
    pub(super) const DECIMAL: &str = "$celeriac::Decimal";
    pub(super) const UUID: &str = "$celeriac::Uuid";
}

/// How deep a Rust value may be nested to be written. Serde's functions call one another at every level, and take more of
/// the stack than our own.
const MAX_WRITTEN: usize = 400;

/// How deep a value may be nested that becomes a Rust type, for the type's own functions take part; a [`Value`] in it, or
/// in place of it, may be nested as deep as any.
const MAX_READ: usize = 128;

/// What a Rust value is on the wire: structs and maps are `dict`s, sequences and tuples are `list`s, enums are as
/// serde_json has them, and [`DateTime`](super::DateTime), [`Decimal`](super::Decimal), [`Uuid`](super::Uuid) and
/// [`Bytes`](super::Bytes) arrive in Python as those types. An error, as of more than 400 levels of nesting, is of kind
/// [`ErrorKind::Encode`].
pub fn to_value<T: Serialize + ?Sized>(value: &T) -> Result<Value> {
    value.serialize(ser::ValueSerializer::new(MAX_WRITTEN)).map_err(|problem| Error::new(ErrorKind::Encode, problem.0))
}

/// A Rust value from what stood on the wire. An `int` is taken where a float is wanted and not the other way round; text
/// is taken for a `Decimal`, a `Uuid` and the like. A type may be nested in 128 levels, and a [`Value`] within it as deep as
/// it came. An error is of kind [`ErrorKind::Decode`].
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T> {
    T::deserialize(de::ValueDeserializer::new(value, MAX_READ))
        .map_err(|problem| Error::new(ErrorKind::Decode, problem.0))
}

/// What serde says is wrong.
#[derive(Debug)]
struct Problem(String);

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Problem {}

impl serde::ser::Error for Problem {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Problem(message.to_string())
    }
}

impl serde::de::Error for Problem {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Problem(message.to_string())
    }
}

#[cfg(test)]
mod tests;
