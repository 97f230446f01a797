//! From Rust types to [`Value`]s.

use num_bigint::BigInt;
use serde::ser::{self, Serialize};

use super::keys::KeySerializer;
use super::{Problem, names};
use crate::protocol::{Map, Value};

/// Writes what it is given as a [`Value`]; `depth` is how much deeper it may still go.
#[derive(Clone, Copy)]
pub(super) struct ValueSerializer {
    depth: usize,
}

impl ValueSerializer {
    pub(super) fn new(depth: usize) -> Self {
        ValueSerializer { depth }
    }

    fn deeper(self) -> Result<Self, Problem> {
        match self.depth.checked_sub(1) {
            Some(depth) => Ok(ValueSerializer { depth }),
            None => Err(Problem("the value is nested too deeply".into())),
        }
    }
}

macro_rules! serialize_into {
    ($($method:ident($type:ty))*) => {$(
        fn $method(self, value: $type) -> Result<Value, Problem> {
            Ok(value.into())
        }
    )*};
}

impl ser::Serializer for ValueSerializer {
    type Ok = Value;
    type Error = Problem;
    type SerializeSeq = ListSerializer;
    type SerializeTuple = ListSerializer;
    type SerializeTupleStruct = ListSerializer;
    type SerializeTupleVariant = Variant<ListSerializer>;
    type SerializeMap = MapSerializer;
    type SerializeStruct = MapSerializer;
    type SerializeStructVariant = Variant<MapSerializer>;

    serialize_into! {
        serialize_bool(bool) serialize_i8(i8) serialize_i16(i16) serialize_i32(i32) serialize_i64(i64) serialize_i128(i128)
        serialize_u8(u8) serialize_u16(u16) serialize_u32(u32) serialize_u64(u64) serialize_u128(u128) serialize_f64(f64)
        serialize_str(&str) serialize_bytes(&[u8])
    }

    fn serialize_f32(self, value: f32) -> Result<Value, Problem> {
        Ok(Value::Float(value.into()))
    }

    fn serialize_char(self, value: char) -> Result<Value, Problem> {
        Ok(Value::String(value.into()))
    }

    fn serialize_none(self) -> Result<Value, Problem> {
        Ok(Value::Null)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Value, Problem> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<Value, Problem> {
        Ok(Value::Null)
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<Value, Problem> {
        Ok(Value::Null)
    }

    fn serialize_unit_variant(self, _name: &'static str, _index: u32, variant: &'static str) -> Result<Value, Problem> {
        Ok(variant.into())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Result<Value, Problem> {
        let value = value.serialize(self)?;
        match value {
            Value::String(text) if name.starts_with("$celeriac::") => kind_from_text(name, text),
            value => Ok(value),
        }
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Value, Problem> {
        Ok(Map::from([(variant, value.serialize(self.deeper()?)?)]).into())
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<ListSerializer, Problem> {
        // The length is only a hint, and a wrong one must not reserve the whole memory.
        Ok(ListSerializer { list: Vec::with_capacity(length.unwrap_or(0).min(1 << 16)), inner: self.deeper()? })
    }

    fn serialize_tuple(self, length: usize) -> Result<ListSerializer, Problem> {
        self.serialize_seq(Some(length))
    }

    fn serialize_tuple_struct(self, _name: &'static str, length: usize) -> Result<ListSerializer, Problem> {
        self.serialize_seq(Some(length))
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Self::SerializeTupleVariant, Problem> {
        Ok(Variant { name: variant, content: self.deeper()?.serialize_seq(Some(length))? })
    }

    fn serialize_map(self, _length: Option<usize>) -> Result<MapSerializer, Problem> {
        Ok(MapSerializer { map: Map::new(), key: None, inner: self.deeper()? })
    }

    fn serialize_struct(self, _name: &'static str, length: usize) -> Result<MapSerializer, Problem> {
        self.serialize_map(Some(length))
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Self::SerializeStructVariant, Problem> {
        Ok(Variant { name: variant, content: self.deeper()?.serialize_map(Some(length))? })
    }
}

/// The value of one of our own kinds, from the text that it passed through serde as.
fn kind_from_text(name: &str, text: String) -> Result<Value, Problem> {
    let wrong = |error: &dyn std::fmt::Display| Problem(error.to_string());
    Ok(match name {
        names::BIG_INT => text.parse::<BigInt>().map_err(|error| wrong(&error))?.into(),
        names::DATE_TIME => Value::DateTime(text.parse().map_err(|error| wrong(&error))?),
        names::DATE => Value::Date(text.parse().map_err(|error| wrong(&error))?),
        names::TIME => Value::Time(text.parse().map_err(|error| wrong(&error))?),
        names::DECIMAL => Value::Decimal(text),
        names::UUID => Value::Uuid(text.parse().map_err(|error| wrong(&error))?),
        _ => Value::String(text),
    })
}

/// A list on its way.
pub(super) struct ListSerializer {
    list: Vec<Value>,
    inner: ValueSerializer,
}

impl ListSerializer {
    fn push<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Problem> {
        self.list.push(value.serialize(self.inner)?);
        Ok(())
    }
}

/// A map on its way.
pub(super) struct MapSerializer {
    map: Map,
    key: Option<String>,
    inner: ValueSerializer,
}

/// The content of an enum's variant on its way.
pub(super) struct Variant<S> {
    name: &'static str,
    content: S,
}

impl ser::SerializeSeq for ListSerializer {
    type Ok = Value;
    type Error = Problem;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Problem> {
        self.push(value)
    }

    fn end(self) -> Result<Value, Problem> {
        Ok(Value::List(self.list))
    }
}

impl ser::SerializeTuple for ListSerializer {
    type Ok = Value;
    type Error = Problem;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Problem> {
        self.push(value)
    }

    fn end(self) -> Result<Value, Problem> {
        Ok(Value::List(self.list))
    }
}

impl ser::SerializeTupleStruct for ListSerializer {
    type Ok = Value;
    type Error = Problem;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Problem> {
        self.push(value)
    }

    fn end(self) -> Result<Value, Problem> {
        Ok(Value::List(self.list))
    }
}

impl ser::SerializeTupleVariant for Variant<ListSerializer> {
    type Ok = Value;
    type Error = Problem;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Problem> {
        self.content.push(value)
    }

    fn end(self) -> Result<Value, Problem> {
        Ok(Map::from([(self.name, self.content.list)]).into())
    }
}

impl ser::SerializeMap for MapSerializer {
    type Ok = Value;
    type Error = Problem;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Problem> {
        self.key = Some(key.serialize(KeySerializer)?);
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Problem> {
        let key = self.key.take().ok_or_else(|| Problem("a map's value came before its key".into()))?;
        self.map.insert(key, value.serialize(self.inner)?);
        Ok(())
    }

    fn end(self) -> Result<Value, Problem> {
        Ok(Value::Map(self.map))
    }
}

impl ser::SerializeStruct for MapSerializer {
    type Ok = Value;
    type Error = Problem;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Problem> {
        self.map.insert(key, value.serialize(self.inner)?);
        Ok(())
    }

    fn end(self) -> Result<Value, Problem> {
        Ok(Value::Map(self.map))
    }
}

impl ser::SerializeStructVariant for Variant<MapSerializer> {
    type Ok = Value;
    type Error = Problem;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Problem> {
        ser::SerializeStruct::serialize_field(&mut self.content, key, value)
    }

    fn end(self) -> Result<Value, Problem> {
        Ok(Map::from([(self.name, self.content.map)]).into())
    }
}
