//! [`Value`]: what Python values are on the wire.

use indexmap::IndexMap;
use jiff::civil;
use num_bigint::BigInt;
use uuid::Uuid;

use super::DateTime;

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
    /// A `datetime.time`.
    Time(civil::Time),
    /// A `decimal.Decimal`, as its text.
    Decimal(String),
    /// A `uuid.UUID`.
    Uuid(Uuid),
}

/// A `dict` with string keys that keeps its order, as Python's does.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Map(IndexMap<String, Value, ahash::RandomState>);

impl Map {
    /// The value under `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// Sets `key`; a key that is there keeps its place.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<Value>) -> Option<Value> {
        self.0.insert(key.into(), value.into())
    }

    /// Takes `key` out, keeping the order of the others.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        self.0.shift_remove(key)
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `key` is there.
    pub fn contains_key(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Keys and values, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }
}

impl IntoIterator for Map {
    type Item = (String, Value);
    type IntoIter = indexmap::map::IntoIter<String, Value>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<K: Into<String>, V: Into<Value>> FromIterator<(K, V)> for Map {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Map(pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}
