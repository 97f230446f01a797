//! Field tables: what headers and arguments are on the wire (py-amqp's amqp/serialization.py `_write_item`, `_read_item`).

use jiff::SignedDuration;
use jiff::civil::{self, date};
use jiff::tz::Offset;
use lapin::types::{AMQPValue, DecimalValue, FieldArray, FieldTable, LongString};

use super::short;
use crate::protocol::{DateTime, Map, Value, repr};
use crate::{Error, ErrorKind, Result};

/// How deep tables may be nested: far more than any producer does, and far less than a stack holds.
const MAX_DEPTH: usize = 32;

const EPOCH: civil::DateTime = date(1970, 1, 1).at(0, 0, 0, 0);

/// A map as a field table.
///
/// # Errors
/// `Encode`: a key of more than 255 bytes, a value that has no form in it (an integer of more than 64 bits, a UUID), or
/// more than 32 levels.
pub(crate) fn table(map: &Map) -> Result<FieldTable> {
    nested_table(map, MAX_DEPTH)
}

/// A field table as a map. What is text by its type, and no UTF-8, is bytes.
///
/// # Errors
/// `Decode`: more than 32 levels, or a time that no clock can show.
pub(crate) fn map(table: &FieldTable) -> Result<Map> {
    nested_map(table, MAX_DEPTH)
}

/// How many bytes a field table has on the wire.
pub(crate) fn size(table: &FieldTable) -> usize {
    4 + table.inner().iter().map(|(name, value)| 1 + name.as_str().len() + size_of_value(value)).sum::<usize>()
}

fn nested_table(map: &Map, depth: usize) -> Result<FieldTable> {
    let mut table = FieldTable::default();
    for (name, value) in map.iter() {
        table.insert(short(name)?, write(value, depth)?);
    }
    Ok(table)
}

fn write(value: &Value, depth: usize) -> Result<AMQPValue> {
    let Some(deeper) = depth.checked_sub(1) else {
        return Err(Error::new(ErrorKind::Encode, "a header is nested too deeply"));
    };
    Ok(match value {
        Value::Null => AMQPValue::Void,
        Value::Bool(truth) => AMQPValue::Boolean(*truth),
        // py-amqp writes -2147483648 as a long one; it is the same to a reader.
        Value::Int(number) => i32::try_from(*number).map_or(AMQPValue::LongLongInt(*number), AMQPValue::LongInt),
        // RabbitMQ ends the connection for it.
        Value::Float(number) if !number.is_finite() => return Err(unwritable(value)("RabbitMQ takes no such number")),
        Value::Float(number) => AMQPValue::Double(*number),
        Value::String(text) => AMQPValue::LongString(LongString::from(text.as_bytes())),
        Value::Bytes(bytes) => AMQPValue::LongString(LongString::from(bytes.as_slice())),
        Value::List(items) => {
            let items: Result<Vec<_>> = items.iter().map(|item| write(item, deeper)).collect();
            AMQPValue::FieldArray(items?.into())
        }
        Value::Map(map) => AMQPValue::FieldTable(nested_table(map, deeper)?),
        Value::DateTime(time) => {
            AMQPValue::Timestamp(seconds(time).ok_or_else(|| unwritable(value)("it is before 1970"))?)
        }
        Value::Decimal(text) => {
            AMQPValue::DecimalValue(decimal(text).ok_or_else(|| unwritable(value)("it has too many digits"))?)
        }
        Value::BigInt(_) | Value::Date(_) | Value::Time(_) | Value::Uuid(_) => {
            return Err(unwritable(value)("AMQP has no such type"));
        }
    })
}

fn unwritable<E: std::fmt::Display>(value: &Value) -> impl FnOnce(E) -> Error + '_ {
    move |why| Error::new(ErrorKind::Encode, format!("a header cannot hold {}: {why}", repr::repr(value)))
}

fn nested_map(table: &FieldTable, depth: usize) -> Result<Map> {
    let fields = table.inner();
    let pairs = fields.iter().map(|(name, value)| Ok((name.as_str(), read(value, depth)?)));
    Map::of_distinct(fields.len(), pairs)
}

fn read(value: &AMQPValue, depth: usize) -> Result<Value> {
    let Some(deeper) = depth.checked_sub(1) else {
        return Err(Error::new(ErrorKind::Decode, "headers are nested too deeply"));
    };
    Ok(match value {
        AMQPValue::Boolean(truth) => Value::Bool(*truth),
        AMQPValue::ShortShortInt(number) => Value::Int((*number).into()),
        AMQPValue::ShortShortUInt(number) => Value::Int((*number).into()),
        AMQPValue::ShortInt(number) => Value::Int((*number).into()),
        AMQPValue::ShortUInt(number) => Value::Int((*number).into()),
        AMQPValue::LongInt(number) => Value::Int((*number).into()),
        AMQPValue::LongUInt(number) => Value::Int((*number).into()),
        AMQPValue::LongLongInt(number) => Value::Int(*number),
        AMQPValue::Float(number) => Value::Float((*number).into()),
        AMQPValue::Double(number) => Value::Float(*number),
        AMQPValue::DecimalValue(decimal) => Value::Decimal(decimal_text(decimal.scale, decimal.value)),
        AMQPValue::ShortString(text) => Value::String(text.to_string()),
        AMQPValue::LongString(text) => text_or_bytes(text.as_bytes()),
        AMQPValue::FieldArray(items) => Value::List(array(items, deeper)?),
        AMQPValue::Timestamp(seconds) => Value::DateTime(naive(*seconds)?),
        AMQPValue::FieldTable(table) => Value::Map(nested_map(table, deeper)?),
        AMQPValue::ByteArray(bytes) => Value::Bytes(bytes.as_slice().to_vec()),
        AMQPValue::Void => Value::Null,
    })
}

fn array(items: &FieldArray, depth: usize) -> Result<Vec<Value>> {
    items.as_slice().iter().map(|item| read(item, depth)).collect()
}

fn text_or_bytes(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::String(text.to_owned()),
        Err(_) => Value::Bytes(bytes.to_vec()),
    }
}

/// A number of 32 bits, and where its point is.
fn decimal(text: &str) -> Option<DecimalValue> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let value: i32 = format!("{whole}{part}").parse().ok()?;
    Some(DecimalValue { scale: part.len().try_into().ok()?, value: value.cast_unsigned() })
}

/// The value is a signed number whatever the library says of it.
fn decimal_text(scale: u8, value: u32) -> String {
    let value = i64::from(value.cast_signed());
    if scale == 0 {
        return value.to_string();
    }
    let digits = format!("{:0>width$}", value.unsigned_abs(), width = usize::from(scale) + 1);
    let (whole, part) = digits.split_at(digits.len() - usize::from(scale));
    // py-amqp divides, which leaves no zeros at the end.
    let part = part.trim_end_matches('0');
    let point = if part.is_empty() { "" } else { "." };
    format!("{}{whole}{point}{part}", if value < 0 { "-" } else { "" })
}

/// A time in UTC without its zone, as py-amqp makes it. Reckoned as a calendar does: the last day that Python has is
/// none that a `Timestamp` can show.
fn naive(seconds: u64) -> Result<DateTime> {
    let wrong = || Error::new(ErrorKind::Decode, format!("the header time {seconds} is out of range"));
    let since = i64::try_from(seconds).map(SignedDuration::from_secs).map_err(|_| wrong())?;
    let civil = EPOCH.checked_add(since).map_err(|_| wrong())?;
    Ok(DateTime { civil, offset: None })
}

/// Whole seconds, as py-amqp writes them; none for a time before 1970, which it cannot write.
fn seconds(time: &DateTime) -> Option<u64> {
    let shown = time.civil.duration_since(EPOCH).as_secs();
    (shown - i64::from(time.offset.map_or(0, Offset::seconds))).try_into().ok()
}

fn size_of_value(value: &AMQPValue) -> usize {
    1 + match value {
        AMQPValue::Void => 0,
        AMQPValue::Boolean(_) | AMQPValue::ShortShortInt(_) | AMQPValue::ShortShortUInt(_) => 1,
        AMQPValue::ShortInt(_) | AMQPValue::ShortUInt(_) => 2,
        AMQPValue::LongInt(_) | AMQPValue::LongUInt(_) | AMQPValue::Float(_) => 4,
        AMQPValue::DecimalValue(_) => 5,
        AMQPValue::LongLongInt(_) | AMQPValue::Double(_) | AMQPValue::Timestamp(_) => 8,
        AMQPValue::ShortString(text) => 1 + text.as_str().len(),
        AMQPValue::LongString(text) => 4 + text.len(),
        AMQPValue::ByteArray(bytes) => 4 + bytes.len(),
        AMQPValue::FieldArray(items) => 4 + items.as_slice().iter().map(size_of_value).sum::<usize>(),
        AMQPValue::FieldTable(table) => size(table),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_producers_send_survives_a_round_trip() {
        let headers = Map::from([
            ("timelimit", Value::List(vec![Value::Null, 3.5.into()])),
            ("stamps", Value::Map(Map::from([("a", Value::List(vec!["é".into()]))]))),
            ("retries", 0.into()),
            ("large", (1_i64 << 40).into()),
            ("least", i64::MIN.into()),
            ("ignore_result", false.into()),
            ("raw", Value::Bytes(vec![0, 159])),
        ]);
        let table = table(&headers).unwrap();
        assert_eq!(map(&table).unwrap(), headers);
        assert_eq!(table.inner()["retries"], AMQPValue::LongInt(0));
        assert_eq!(size(&FieldTable::default()), 4);
    }

    #[test]
    fn types_of_other_producers_are_read() {
        let rows = [
            (AMQPValue::ShortShortInt(-1), Value::Int(-1)),
            (AMQPValue::ShortUInt(65535), Value::Int(65535)),
            (AMQPValue::Float(0.5), Value::Float(0.5)),
            (AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 314 }), Value::Decimal("3.14".into())),
            (AMQPValue::DecimalValue(DecimalValue { scale: 3, value: u32::MAX }), Value::Decimal("-0.001".into())),
            (AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 300 }), Value::Decimal("3".into())),
            (AMQPValue::Timestamp(0), Value::DateTime("1970-01-01T00:00:00".parse().unwrap())),
            (AMQPValue::ByteArray(vec![1].into()), Value::Bytes(vec![1])),
        ];
        for (written, expected) in rows {
            assert_eq!(read(&written, 1).unwrap(), expected, "{written:?}");
        }
        assert!(read(&AMQPValue::Timestamp(u64::MAX), 1).is_err());
    }

    #[test]
    fn what_has_no_form_is_refused() {
        let mut endless = Value::Null;
        for _ in 0..MAX_DEPTH {
            endless = Value::List(vec![endless]);
        }
        for value in [
            endless,
            Value::Uuid(uuid::Uuid::nil()),
            Value::Decimal("1E+9".into()),
            f64::NAN.into(),
            f64::NEG_INFINITY.into(),
        ] {
            assert_eq!(table(&Map::from([("h", value)])).unwrap_err().kind(), ErrorKind::Encode);
        }
        assert!(table(&Map::from([("n".repeat(256).as_str(), Value::Null)])).is_err());
        let mut endless = AMQPValue::Void;
        for _ in 0..MAX_DEPTH {
            endless = AMQPValue::FieldArray(vec![endless].into());
        }
        assert!(read(&endless, MAX_DEPTH).is_err());
    }
}
