//! Values in frames: one byte for the kind, and what it takes. Whoever reads says what they become ([`Build`]): a child
//! makes Python's objects of them without a step between.

use std::fmt::Display;

use celeriac::protocol::{Map, Value};

use super::fields::{Cut, Reader, put};

/// Makes something of values.
pub trait Build {
    /// What values become.
    type Value;

    /// `None`.
    fn null(&self) -> Self::Value;
    /// `True` or `False`.
    fn bool(&self, value: bool) -> Self::Value;
    /// An `int` of 64 bits.
    fn int(&self, number: i64) -> Self::Value;
    /// A `float`.
    fn float(&self, number: f64) -> Self::Value;
    /// A `str`.
    fn text(&self, text: &str) -> Self::Value;
    /// `bytes`.
    fn bytes(&self, bytes: &[u8]) -> Self::Value;
    /// A `list`.
    ///
    /// # Errors
    /// It cannot be made.
    fn list(&self, items: Vec<Self::Value>) -> Result<Self::Value, Cut>;
    /// A `dict`.
    ///
    /// # Errors
    /// It cannot be made.
    fn map(&self, pairs: Vec<(&str, Self::Value)>) -> Result<Self::Value, Cut>;
    /// What is written as text: see [`Written`].
    ///
    /// # Errors
    /// It is not such a text.
    fn written(&self, kind: Written, text: &str) -> Result<Self::Value, Cut>;
}

/// Kinds that are told as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// An `int` beyond 64 bits, in decimal.
    BigInt,
    /// `datetime.datetime.isoformat()`.
    DateTime,
    /// `datetime.date.isoformat()`.
    Date,
    /// `datetime.time.isoformat()`.
    Time,
    /// `str(Decimal)`.
    Decimal,
    /// 32 hexadecimal digits, or more with dashes.
    Uuid,
}

const NULL: u8 = b'0';
const FALSE: u8 = b'f';
const TRUE: u8 = b't';
const INT: u8 = b'i';
const FLOAT: u8 = b'd';
const TEXT: u8 = b's';
const BYTES: u8 = b'b';
const LIST: u8 = b'l';
const MAP: u8 = b'm';

const WRITTEN: [(u8, Written); 6] = [
    (b'I', Written::BigInt),
    (b'D', Written::DateTime),
    (b'Y', Written::Date),
    (b'T', Written::Time),
    (b'C', Written::Decimal),
    (b'U', Written::Uuid),
];

/// As deep as Python's own recursion limit lets values be.
const DEEPEST: usize = 1000;

/// Appends a value.
pub fn write(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.push(NULL),
        Value::Bool(value) => out.push(if *value { TRUE } else { FALSE }),
        Value::Int(number) => tagged(INT, &number.to_le_bytes(), out),
        Value::Float(number) => tagged(FLOAT, &number.to_le_bytes(), out),
        Value::String(text) => sized(TEXT, text.as_bytes(), out),
        Value::Bytes(bytes) => sized(BYTES, bytes, out),
        Value::List(items) => {
            tagged(LIST, &count(items.len()), out);
            items.iter().for_each(|item| write(item, out));
        }
        Value::Map(map) => write_map(map, out),
        Value::BigInt(number) => written(Written::BigInt, number, out),
        Value::DateTime(moment) => written(Written::DateTime, moment, out),
        Value::Date(date) => written(Written::Date, date, out),
        Value::Time(time) => written(Written::Time, time, out),
        Value::Decimal(text) => written(Written::Decimal, text, out),
        Value::Uuid(uuid) => written(Written::Uuid, uuid, out),
    }
}

/// Appends a dict.
pub(super) fn write_map(map: &Map, out: &mut Vec<u8>) {
    tagged(MAP, &count(map.len()), out);
    for (key, value) in map.iter() {
        put(key.as_bytes(), out);
        write(value, out);
    }
}

fn tagged(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    out.extend_from_slice(bytes);
}

fn sized(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    put(bytes, out);
}

fn written(kind: Written, text: &impl Display, out: &mut Vec<u8>) {
    let tag = WRITTEN.iter().find(|(_, known)| *known == kind).map_or(NULL, |(tag, _)| *tag);
    sized(tag, text.to_string().as_bytes(), out);
}

fn count(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes()
}

/// Reads a value.
///
/// # Errors
/// It is none, or it is nested deeper than Python could hold it.
pub fn read<B: Build>(fields: &mut Reader<'_>, build: &B) -> Result<B::Value, Cut> {
    read_at(fields, build, 0)
}

fn read_at<B: Build>(fields: &mut Reader<'_>, build: &B, depth: usize) -> Result<B::Value, Cut> {
    if depth > DEEPEST {
        return Err(Cut);
    }
    Ok(match fields.byte()? {
        NULL => build.null(),
        TRUE => build.bool(true),
        FALSE => build.bool(false),
        INT => build.int(i64::from_le_bytes(fields.array()?)),
        FLOAT => build.float(f64::from_le_bytes(fields.array()?)),
        TEXT => build.text(fields.text()?),
        BYTES => build.bytes(fields.bytes()?),
        LIST => {
            let mut items = with_capacity(fields)?;
            for _ in 0..items.0 {
                items.1.push(read_at(fields, build, depth + 1)?);
            }
            build.list(items.1)?
        }
        MAP => {
            let mut pairs = with_capacity(fields)?;
            for _ in 0..pairs.0 {
                pairs.1.push((fields.text()?, read_at(fields, build, depth + 1)?));
            }
            build.map(pairs.1)?
        }
        tag => {
            let (_, kind) = WRITTEN.iter().find(|(known, _)| *known == tag).ok_or(Cut)?;
            build.written(*kind, fields.text()?)?
        }
    })
}

/// How many there are, and room for them, as far as there can be so many in what is left.
fn with_capacity<T>(fields: &mut Reader<'_>) -> Result<(u32, Vec<T>), Cut> {
    let length = u32::from_le_bytes(fields.array()?);
    Ok((length, Vec::with_capacity(fields.left().min(length as usize))))
}

/// Makes values of values.
#[derive(Debug, Clone, Copy)]
pub struct Plain;

impl Build for Plain {
    type Value = Value;

    fn null(&self) -> Value {
        Value::Null
    }

    fn bool(&self, value: bool) -> Value {
        Value::Bool(value)
    }

    fn int(&self, number: i64) -> Value {
        Value::Int(number)
    }

    fn float(&self, number: f64) -> Value {
        Value::Float(number)
    }

    fn text(&self, text: &str) -> Value {
        Value::from(text)
    }

    fn bytes(&self, bytes: &[u8]) -> Value {
        Value::Bytes(bytes.to_vec())
    }

    fn list(&self, items: Vec<Value>) -> Result<Value, Cut> {
        Ok(Value::List(items))
    }

    fn map(&self, pairs: Vec<(&str, Value)>) -> Result<Value, Cut> {
        let mut map = Map::with_capacity(pairs.len());
        for (key, value) in pairs {
            map.insert(key, value);
        }
        Ok(Value::Map(map))
    }

    fn written(&self, kind: Written, text: &str) -> Result<Value, Cut> {
        let value = match kind {
            Written::BigInt => celeriac::protocol::json::parse(text.as_bytes()).ok(),
            Written::DateTime => text.parse().ok().map(Value::DateTime),
            Written::Date => text.parse().ok().map(Value::Date),
            Written::Time => text.parse().ok().map(Value::Time),
            Written::Decimal => Some(Value::Decimal(text.to_owned())),
            Written::Uuid => text.parse().ok().map(Value::Uuid),
        };
        value.ok_or(Cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(value: &Value) -> Result<Value, Cut> {
        let mut out = vec![b'?'];
        write(value, &mut out);
        let (_, mut fields) = Reader::new(&out)?;
        let read = read(&mut fields, &Plain)?;
        assert_eq!(fields.left(), 0, "{value:?}");
        Ok(read)
    }

    #[test]
    fn every_kind_of_value_is_read_as_it_was_written() {
        let big = celeriac::protocol::json::parse(b"-123456789012345678901234567890").unwrap();
        assert!(matches!(big, Value::BigInt(_)));
        let rows = [
            Value::Null,
            true.into(),
            false.into(),
            i64::MIN.into(),
            big,
            Value::Float(-0.0),
            "é\u{1F600}".into(),
            Value::Bytes(vec![0, 255]),
            Value::List(vec![1.into(), Value::List(vec![]), Map::new().into()]),
            Value::Map(Map::from([("z", Value::from(1)), ("a", "x".into())])),
            Value::DateTime("2026-11-22T16:07:42.089562+01:00".parse().unwrap()),
            Value::DateTime("2026-11-22T16:07:42".parse().unwrap()),
            Value::Date("2026-11-22".parse().unwrap()),
            Value::Time("16:07:42.5".parse().unwrap()),
            Value::Decimal("1.10".into()),
            Value::Uuid(uuid::Uuid::from_u128(7)),
        ];
        for value in rows {
            assert_eq!(round_trip(&value), Ok(value));
        }
    }

    #[test]
    fn what_is_deeper_than_python_holds_is_no_value() {
        let nested = |depth| (0..depth).fold(Value::Null, |inner, _| Value::List(vec![inner]));
        assert_eq!(round_trip(&nested(DEEPEST)), Ok(nested(DEEPEST)));
        let mut deep = [b"?".as_slice(), &[LIST, 1, 0, 0, 0].repeat(DEEPEST + 1)].concat();
        deep.push(NULL);
        let (_, mut fields) = Reader::new(&deep).unwrap();
        assert_eq!(read(&mut fields, &Plain), Err(Cut));
    }

    #[test]
    fn a_length_that_lies_takes_no_memory() {
        for bytes in [[b'?', LIST, 255, 255, 255, 255].as_slice(), &[b'?', MAP, 255, 255, 255, 255], b"?!"] {
            let (_, mut fields) = Reader::new(bytes).unwrap();
            assert_eq!(read(&mut fields, &Plain), Err(Cut));
        }
    }
}
