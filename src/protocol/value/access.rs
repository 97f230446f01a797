//! Looking into a [`Value`].

use jiff::civil;
use num_bigint::BigInt;

use super::{Map, Value};
use crate::protocol::DateTime;

impl Value {
    /// Whether it is `None`.
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// Whether Python takes it for true: not `None`, `False`, zero or empty.
    pub fn is_truthy(&self) -> bool {
        match self {
            Value::Null => false,
            Value::Bool(value) => *value,
            Value::Int(value) => *value != 0,
            Value::BigInt(value) => **value != BigInt::ZERO,
            Value::Float(value) => *value != 0.0,
            Value::String(value) => !value.is_empty(),
            Value::Bytes(value) => !value.is_empty(),
            Value::List(value) => !value.is_empty(),
            Value::Map(value) => !value.is_empty(),
            Value::Decimal(value) => {
                value.bytes().take_while(|byte| !b"eE".contains(byte)).any(|byte| !b"+-.0".contains(&byte))
            }
            Value::DateTime(_) | Value::Date(_) | Value::Time(_) | Value::Uuid(_) => true,
        }
    }

    /// The truth value of a `bool`.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The number of an `int` that fits.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Value::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// The number of an `int` that fits and is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Value::Int(value) => u64::try_from(*value).ok(),
            Value::BigInt(value) => u64::try_from(&**value).ok(),
            _ => None,
        }
    }

    /// The number of a `float` or an `int`, as near as a float comes.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Float(value) => Some(*value),
            Value::Int(value) => Some(*value as f64),
            Value::BigInt(value) => value.to_string().parse().ok(),
            _ => None,
        }
    }

    /// The text of a `str`.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(value) => Some(value),
            _ => None,
        }
    }

    /// The octets of `bytes`.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Value::Bytes(value) => Some(value),
            _ => None,
        }
    }

    /// The items of a `list` or `tuple`.
    pub fn as_list(&self) -> Option<&[Value]> {
        match self {
            Value::List(value) => Some(value),
            _ => None,
        }
    }

    /// The items of a `list` or `tuple`, to be changed.
    pub fn as_list_mut(&mut self) -> Option<&mut Vec<Value>> {
        match self {
            Value::List(value) => Some(value),
            _ => None,
        }
    }

    /// The `dict`.
    pub fn as_map(&self) -> Option<&Map> {
        match self {
            Value::Map(value) => Some(value),
            _ => None,
        }
    }

    /// The `dict`, to be changed.
    pub fn as_map_mut(&mut self) -> Option<&mut Map> {
        match self {
            Value::Map(value) => Some(value),
            _ => None,
        }
    }

    /// The moment of a `datetime`.
    pub fn as_datetime(&self) -> Option<&DateTime> {
        match self {
            Value::DateTime(value) => Some(value),
            _ => None,
        }
    }

    /// The day of a `date`.
    pub fn as_date(&self) -> Option<civil::Date> {
        match self {
            Value::Date(value) => Some(*value),
            _ => None,
        }
    }

    /// The `UUID`.
    pub fn as_uuid(&self) -> Option<uuid::Uuid> {
        match self {
            Value::Uuid(value) => Some(*value),
            _ => None,
        }
    }

    /// The text of a `str`, taken out.
    pub fn into_string(self) -> Option<String> {
        match self {
            Value::String(value) => Some(value),
            _ => None,
        }
    }

    /// The items of a `list` or `tuple`, taken out.
    pub fn into_list(self) -> Option<Vec<Value>> {
        match self {
            Value::List(value) => Some(value),
            _ => None,
        }
    }

    /// The `dict`, taken out.
    pub fn into_map(self) -> Option<Map> {
        match self {
            Value::Map(value) => Some(value),
            _ => None,
        }
    }

    /// What Python calls the type: `int`, `NoneType`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Null => "NoneType",
            Value::Bool(_) => "bool",
            Value::Int(_) | Value::BigInt(_) => "int",
            Value::Float(_) => "float",
            Value::String(_) => "str",
            Value::Bytes(_) => "bytes",
            Value::List(_) => "list",
            Value::Map(_) => "dict",
            Value::DateTime(_) => "datetime",
            Value::Date(_) => "date",
            Value::Time(_) => "time",
            Value::Decimal(_) => "Decimal",
            Value::Uuid(_) => "UUID",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truth_is_pythons() {
        let falsy = [
            Value::Null,
            false.into(),
            0.into(),
            0.0.into(),
            "".into(),
            Value::List(vec![]),
            Map::new().into(),
            Value::Decimal("-0.00E+5".into()),
        ];
        assert!(falsy.iter().all(|value| !value.is_truthy()));
        let truthy =
            [true.into(), 1.into(), f64::NAN.into(), "0".into(), Value::from([0]), Value::Decimal("0.01".into())];
        assert!(truthy.iter().all(Value::is_truthy));
    }
}
