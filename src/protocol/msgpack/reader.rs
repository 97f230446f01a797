//! Bytes to values.

use jiff::Timestamp;
use rmp::Marker;

use super::super::value::MapBuilder;
use super::super::{DateTime, Value};
use super::MAX_DEPTH;
use crate::{Error, ErrorKind, Result};

/// Room that is made for a list before its items are seen.
const FIRST_ITEMS: usize = 64;

/// The extension type of timestamps.
const TIMESTAMP: i8 = -1;

pub(super) fn read(bytes: &[u8]) -> Result<Value> {
    let mut reader = Reader { rest: bytes, depth: 0 };
    let value = reader.value()?;
    match reader.rest.len() {
        0 => Ok(value),
        trailing => Err(malformed(format!("{trailing} bytes follow the value"))),
    }
}

struct Reader<'a> {
    rest: &'a [u8],
    depth: usize,
}

/// What the first bytes of a value say.
enum Head {
    Scalar(Value),
    Text(usize),
    Bytes(usize),
    List(usize),
    Map(usize),
    Extension(usize),
}

impl<'a> Reader<'a> {
    fn value(&mut self) -> Result<Value> {
        match self.head()? {
            Head::Scalar(value) => Ok(value),
            Head::Text(length) => self.text(length),
            Head::Bytes(length) => Ok(Value::Bytes(self.take(length)?.to_vec())),
            Head::List(length) => self.list(length),
            Head::Map(length) => self.map(length),
            Head::Extension(length) => self.extension(length),
        }
    }

    fn head(&mut self) -> Result<Head> {
        let [marker] = self.array()?;
        Ok(Head::Scalar(match Marker::from_u8(marker) {
            Marker::Null => Value::Null,
            Marker::False => Value::Bool(false),
            Marker::True => Value::Bool(true),
            Marker::FixPos(number) => Value::Int(number.into()),
            Marker::FixNeg(number) => Value::Int(number.into()),
            Marker::U8 => u8::from_be_bytes(self.array()?).into(),
            Marker::U16 => u16::from_be_bytes(self.array()?).into(),
            Marker::U32 => u32::from_be_bytes(self.array()?).into(),
            Marker::U64 => u64::from_be_bytes(self.array()?).into(),
            Marker::I8 => i8::from_be_bytes(self.array()?).into(),
            Marker::I16 => i16::from_be_bytes(self.array()?).into(),
            Marker::I32 => i32::from_be_bytes(self.array()?).into(),
            Marker::I64 => i64::from_be_bytes(self.array()?).into(),
            Marker::F32 => Value::Float(f32::from_be_bytes(self.array()?).into()),
            Marker::F64 => Value::Float(f64::from_be_bytes(self.array()?)),
            marker => return self.sized_head(marker),
        }))
    }

    fn sized_head(&mut self, marker: Marker) -> Result<Head> {
        Ok(match marker {
            Marker::FixStr(length) => Head::Text(length.into()),
            Marker::Str8 => Head::Text(self.length8()?),
            Marker::Str16 => Head::Text(self.length16()?),
            Marker::Str32 => Head::Text(self.length32()?),
            Marker::Bin8 => Head::Bytes(self.length8()?),
            Marker::Bin16 => Head::Bytes(self.length16()?),
            Marker::Bin32 => Head::Bytes(self.length32()?),
            Marker::FixArray(length) => Head::List(length.into()),
            Marker::Array16 => Head::List(self.length16()?),
            Marker::Array32 => Head::List(self.length32()?),
            Marker::FixMap(length) => Head::Map(length.into()),
            Marker::Map16 => Head::Map(self.length16()?),
            Marker::Map32 => Head::Map(self.length32()?),
            Marker::FixExt1 => Head::Extension(1),
            Marker::FixExt2 => Head::Extension(2),
            Marker::FixExt4 => Head::Extension(4),
            Marker::FixExt8 => Head::Extension(8),
            Marker::FixExt16 => Head::Extension(16),
            Marker::Ext8 => Head::Extension(self.length8()?),
            Marker::Ext16 => Head::Extension(self.length16()?),
            Marker::Ext32 => Head::Extension(self.length32()?),
            marker => return Err(malformed(format!("the byte {:#04x} means nothing", marker.to_u8()))),
        })
    }

    fn length8(&mut self) -> Result<usize> {
        Ok(u8::from_be_bytes(self.array()?).into())
    }

    fn length16(&mut self) -> Result<usize> {
        Ok(u16::from_be_bytes(self.array()?).into())
    }

    fn length32(&mut self) -> Result<usize> {
        usize::try_from(u32::from_be_bytes(self.array()?)).map_err(|_| cut_short())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or_else(cut_short)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(cut_short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn text(&mut self, length: usize) -> Result<Value> {
        text_of(self.take(length)?).map(Value::String)
    }

    fn list(&mut self, length: usize) -> Result<Value> {
        self.enter(length)?;
        let mut items = Vec::with_capacity(length.min(FIRST_ITEMS));
        for _ in 0..length {
            items.push(self.value()?);
        }
        self.depth -= 1;
        Ok(Value::List(items))
    }

    fn map(&mut self, length: usize) -> Result<Value> {
        self.enter(length)?;
        let mut map = MapBuilder::default();
        for _ in 0..length {
            let key = self.key()?;
            map.insert(key, self.value()?);
        }
        self.depth -= 1;
        Ok(Value::Map(map.finish()))
    }

    fn key(&mut self) -> Result<String> {
        match self.head()? {
            Head::Text(length) | Head::Bytes(length) => text_of(self.take(length)?),
            _ => Err(malformed("a map's key is not text".to_owned())),
        }
    }

    /// Goes one level down, into what holds `length` values, each of which takes a byte at least.
    fn enter(&mut self, length: usize) -> Result<()> {
        if length > self.rest.len() {
            return Err(cut_short());
        }
        if self.depth == MAX_DEPTH {
            return Err(malformed(format!("values are nested deeper than {MAX_DEPTH}")));
        }
        self.depth += 1;
        Ok(())
    }

    fn extension(&mut self, length: usize) -> Result<Value> {
        let kind = i8::from_be_bytes(self.array()?);
        let data = self.take(length)?;
        match kind {
            TIMESTAMP => timestamp(data)
                .map(|moment| Value::DateTime(moment.into()))
                .ok_or_else(|| malformed("a timestamp is malformed or out of range".to_owned())),
            _ => Err(malformed(format!("the extension type {kind} is unknown"))),
        }
    }
}

/// Reads the seconds, or nanoseconds and seconds, of a timestamp (msgpack/ext.py `Timestamp.from_bytes`).
fn timestamp(data: &[u8]) -> Option<Timestamp> {
    let (seconds, nanoseconds) = match data.len() {
        4 => (u32::from_be_bytes(data.try_into().ok()?).into(), 0),
        8 => {
            let both = u64::from_be_bytes(data.try_into().ok()?);
            (i64::try_from(both & 0x3_FFFF_FFFF).ok()?, u32::try_from(both >> 34).ok()?)
        }
        12 => {
            let (nanoseconds, seconds) = data.split_first_chunk()?;
            (i64::from_be_bytes(seconds.try_into().ok()?), u32::from_be_bytes(*nanoseconds))
        }
        _ => return None,
    };
    let nanoseconds = i32::try_from(nanoseconds).ok().filter(|nanoseconds| *nanoseconds < 1_000_000_000)?;
    let moment = Timestamp::new(seconds, nanoseconds).ok()?;
    // Python's years are 1 to 9999.
    (DateTime::from(moment).civil.year() > 0).then_some(moment)
}

fn text_of(bytes: &[u8]) -> Result<String> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(cause) => Err(malformed("text is not UTF-8".to_owned()).with_source(cause)),
    }
}

fn cut_short() -> Error {
    malformed("the input ends within a value".to_owned())
}

fn malformed(why: String) -> Error {
    Error::new(ErrorKind::Decode, format!("cannot read MessagePack: {why}"))
}
