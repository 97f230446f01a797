//! What becomes a [`Value`] by `into()`.

use jiff::{Timestamp, civil};
use num_bigint::BigInt;

use super::{Bytes, Date, Decimal, Map, Uuid, Value};
use crate::protocol::{DateTime, Time};

macro_rules! from_small_integers {
    ($($integer:ty)*) => {$(
        impl From<$integer> for Value {
            fn from(value: $integer) -> Self {
                Value::Int(value.into())
            }
        }
    )*};
}

macro_rules! from_large_integers {
    ($($integer:ty)*) => {$(
        impl From<$integer> for Value {
            fn from(value: $integer) -> Self {
                match i64::try_from(value) {
                    Ok(value) => Value::Int(value),
                    Err(_) => Value::BigInt(Box::new(value.into())),
                }
            }
        }
    )*};
}

macro_rules! from_kinds {
    ($($kind:ident($inner:ty))*) => {$(
        impl From<$inner> for Value {
            fn from(value: $inner) -> Self {
                Value::$kind(value)
            }
        }
    )*};
}

macro_rules! from_wrappers {
    ($($kind:ident($wrapper:ty))*) => {$(
        impl From<$wrapper> for Value {
            fn from(value: $wrapper) -> Self {
                Value::$kind(value.0)
            }
        }
    )*};
}

from_small_integers! { i8 i16 i32 i64 u8 u16 u32 }
from_large_integers! { u64 usize isize i128 u128 }
from_kinds! {
    Bool(bool) Float(f64) String(String) Map(Map) DateTime(DateTime) Date(civil::Date) Time(Time)
    Uuid(uuid::Uuid)
}
from_wrappers! { Bytes(Bytes) Date(Date) Decimal(Decimal) Uuid(Uuid) }

impl From<()> for Value {
    fn from((): ()) -> Self {
        Value::Null
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Value::String(value.to_owned())
    }
}

impl From<&[u8]> for Value {
    fn from(value: &[u8]) -> Self {
        Value::Bytes(value.to_vec())
    }
}

impl From<bytes::Bytes> for Value {
    fn from(value: bytes::Bytes) -> Self {
        Value::Bytes(value.into())
    }
}

/// An `int`; the 64-bit form wherever it fits.
impl From<BigInt> for Value {
    fn from(value: BigInt) -> Self {
        match i64::try_from(&value) {
            Ok(value) => Value::Int(value),
            Err(_) => Value::BigInt(Box::new(value)),
        }
    }
}

/// An aware `datetime` in UTC, cut to microseconds as Python's are.
impl From<Timestamp> for Value {
    fn from(value: Timestamp) -> Self {
        Value::DateTime(value.into())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

/// A list, of bytes too: `bytes` are [`Bytes`].
impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(values: Vec<T>) -> Self {
        values.into_iter().collect()
    }
}

impl<T: Into<Value>, const N: usize> From<[T; N]> for Value {
    fn from(values: [T; N]) -> Self {
        values.into_iter().collect()
    }
}

impl<T: Into<Value>> FromIterator<T> for Value {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        Value::List(values.into_iter().map(Into::into).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_take_the_smallest_kind() {
        assert_eq!(Value::from(u64::MAX), Value::BigInt(Box::new(u64::MAX.into())));
        assert_eq!(Value::from(7_u64), Value::Int(7));
        assert_eq!(Value::from(BigInt::from(-7)), Value::Int(-7));
        assert_eq!(Value::from(i128::from(i64::MIN)), Value::Int(i64::MIN));
    }

    #[test]
    fn lists_and_options() {
        assert_eq!(Value::from([1, 2]), Value::List(vec![Value::Int(1), Value::Int(2)]));
        assert_eq!(Value::from(None::<&str>), Value::Null);
        assert_eq!(Value::from(vec!["a"]), ["a"].into_iter().collect());
    }
}
