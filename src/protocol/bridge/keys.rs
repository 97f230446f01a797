//! The keys of maps: text on the wire, and in Rust whatever has a text.

use serde::de::value::StringDeserializer;
use serde::de::{self, DeserializeSeed, EnumAccess, IntoDeserializer, Visitor};
use serde::ser::{self, Impossible, Serialize};

use super::Problem;
use crate::protocol::float;

/// Writes a key as text, as `json.dumps` does: 1 becomes `"1"`, true `"true"`.
pub(super) struct KeySerializer;

fn not_a_key() -> Problem {
    Problem("a map's key must be text, a number or a truth value".into())
}

macro_rules! keys_as_text {
    ($($method:ident($type:ty))*) => {$(
        fn $method(self, value: $type) -> Result<String, Problem> {
            Ok(value.to_string())
        }
    )*};
}

macro_rules! no_keys {
    ($($method:ident($($argument:ty),*) -> $result:ty;)*) => {$(
        fn $method(self, $(_: $argument),*) -> Result<$result, Problem> {
            Err(not_a_key())
        }
    )*};
}

impl ser::Serializer for KeySerializer {
    type Ok = String;
    type Error = Problem;
    type SerializeSeq = Impossible<String, Problem>;
    type SerializeTuple = Impossible<String, Problem>;
    type SerializeTupleStruct = Impossible<String, Problem>;
    type SerializeTupleVariant = Impossible<String, Problem>;
    type SerializeMap = Impossible<String, Problem>;
    type SerializeStruct = Impossible<String, Problem>;
    type SerializeStructVariant = Impossible<String, Problem>;

    keys_as_text! {
        serialize_bool(bool) serialize_i8(i8) serialize_i16(i16) serialize_i32(i32) serialize_i64(i64) serialize_i128(i128)
        serialize_u8(u8) serialize_u16(u16) serialize_u32(u32) serialize_u64(u64) serialize_u128(u128) serialize_char(char)
        serialize_str(&str)
    }

    no_keys! {
        serialize_bytes(&[u8]) -> String;
        serialize_seq(Option<usize>) -> Self::SerializeSeq;
        serialize_tuple(usize) -> Self::SerializeTuple;
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Self::SerializeTupleVariant;
        serialize_map(Option<usize>) -> Self::SerializeMap;
        serialize_struct(&'static str, usize) -> Self::SerializeStruct;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Self::SerializeStructVariant;
    }

    fn serialize_f32(self, value: f32) -> Result<String, Problem> {
        self.serialize_f64(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<String, Problem> {
        let mut out = Vec::new();
        float::write_json(&mut out, value);
        Ok(String::from_utf8_lossy(&out).into_owned())
    }

    fn serialize_none(self) -> Result<String, Problem> {
        Ok("null".into())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<String, Problem> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<String, Problem> {
        Ok("null".into())
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<String, Problem> {
        Ok("null".into())
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<String, Problem> {
        Ok(variant.into())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<String, Problem> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        _variant: &'static str,
        _value: &T,
    ) -> Result<String, Problem> {
        Err(not_a_key())
    }
}

/// Reads a key, as a number or truth value where one is wanted.
pub(super) struct KeyDeserializer(pub(super) String);

macro_rules! keys_from_text {
    ($($method:ident => $visit:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
            match self.0.parse() {
                Ok(parsed) => visitor.$visit(parsed),
                Err(_) => visitor.visit_string(self.0),
            }
        }
    )*};
}

impl<'de> de::Deserializer<'de> for KeyDeserializer {
    type Error = Problem;

    keys_from_text! {
        deserialize_bool => visit_bool
        deserialize_i8 => visit_i8 deserialize_i16 => visit_i16 deserialize_i32 => visit_i32 deserialize_i64 => visit_i64
        deserialize_u8 => visit_u8 deserialize_u16 => visit_u16 deserialize_u32 => visit_u32 deserialize_u64 => visit_u64
        deserialize_i128 => visit_i128 deserialize_u128 => visit_u128 deserialize_f32 => visit_f32 deserialize_f64 => visit_f64
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_string(self.0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        visitor.visit_enum(self)
    }

    serde::forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

impl<'de> EnumAccess<'de> for KeyDeserializer {
    type Error = Problem;
    type Variant = <StringDeserializer<Problem> as EnumAccess<'de>>::Variant;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self::Variant), Problem> {
        let text: StringDeserializer<Problem> = self.0.into_deserializer();
        text.variant_seed(seed)
    }
}
