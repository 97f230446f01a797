//! [`Value`]: what Python values are on the wire, and the types that its kinds hold.

mod access;
mod convert;
mod map;
mod names;
mod wrappers;

use jiff::civil;
use num_bigint::BigInt;

pub use map::{IntoIter, Map};
pub(in crate::protocol) use map::{Key, MapBuilder};
pub(in crate::protocol) use names::known;
pub(in crate::protocol) use wrappers::is_decimal;
pub use wrappers::{Bytes, Date, Decimal, Uuid};

use super::{DateTime, Time};

/// A value as Python producers send it: JSON's kinds and those that Kombu adds with its `__type__` envelopes
/// (kombu/utils/json.py).
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value {
    /// `None`.
    #[default]
    Null,
    /// `True` or `False`.
    Bool(bool),
    /// An `int` that fits 64 bits.
    Int(i64),
    /// Any other `int`.
    BigInt(Box<BigInt>),
    /// A `float`, with `nan` and the infinities.
    Float(f64),
    /// A `str`.
    String(String),
    /// `bytes`.
    Bytes(Vec<u8>),
    /// A `list` or `tuple`.
    List(Vec<Value>),
    /// A `dict` with string keys, in its order.
    Map(Map),
    /// A `datetime.datetime`, naive or aware.
    DateTime(DateTime),
    /// A `datetime.date`.
    Date(civil::Date),
    /// A `datetime.time`, naive or aware.
    Time(Time),
    /// A `decimal.Decimal`, as its text.
    Decimal(String),
    /// A `uuid.UUID`.
    Uuid(uuid::Uuid),
}
