//! From [`Value`]s to Rust types.

use serde::de::value::{MapDeserializer, SeqDeserializer, StringDeserializer};
use serde::de::{self, DeserializeSeed, EnumAccess, IntoDeserializer, Unexpected, VariantAccess, Visitor};

use super::keys::KeyDeserializer;
use super::{Problem, names};
use crate::protocol::{Value, datetime};

/// Reads a [`Value`].
pub(super) struct ValueDeserializer(pub(super) Value);

/// The text, and the private name, of a kind that serde does not know.
fn as_named_text(value: Value) -> Result<(&'static str, String), Value> {
    Ok(match value {
        Value::BigInt(number) => (names::BIG_INT, number.to_string()),
        Value::DateTime(moment) => (names::DATE_TIME, moment.to_string()),
        Value::Date(date) => (names::DATE, datetime::text_of(|out| datetime::write_date(out, date))),
        Value::Time(time) => (names::TIME, time.to_string()),
        Value::Decimal(text) => (names::DECIMAL, text),
        Value::Uuid(uuid) => (names::UUID, uuid.to_string()),
        other => return Err(other),
    })
}

impl<'de> IntoDeserializer<'de, Problem> for Value {
    type Deserializer = ValueDeserializer;

    fn into_deserializer(self) -> ValueDeserializer {
        ValueDeserializer(self)
    }
}

impl ValueDeserializer {
    fn wrong_type<T>(self, expected: &dyn de::Expected) -> Result<T, Problem> {
        let unexpected = match &self.0 {
            Value::Null => Unexpected::Unit,
            Value::Bool(value) => Unexpected::Bool(*value),
            Value::Int(value) => Unexpected::Signed(*value),
            Value::Float(value) => Unexpected::Float(*value),
            Value::String(value) => Unexpected::Str(value),
            Value::Bytes(value) => Unexpected::Bytes(value),
            Value::List(_) => Unexpected::Seq,
            Value::Map(_) => Unexpected::Map,
            other => Unexpected::Other(other.type_name()),
        };
        Err(de::Error::invalid_type(unexpected, expected))
    }
}

impl<'de> de::Deserializer<'de> for ValueDeserializer {
    type Error = Problem;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Int(value) => visitor.visit_i64(value),
            Value::Float(value) => visitor.visit_f64(value),
            Value::String(value) => visitor.visit_string(value),
            Value::Bytes(value) => visitor.visit_byte_buf(value),
            Value::List(items) => visit_list(items.into_iter(), visitor),
            Value::Map(map) => {
                let mut pairs = MapDeserializer::new(map.into_iter().map(|(key, value)| (Key(key), value)));
                let read = visitor.visit_map(&mut pairs)?;
                pairs.end().map(|()| read)
            }
            Value::BigInt(number) => match (i128::try_from(&*number), u128::try_from(&*number)) {
                (Ok(number), _) => visitor.visit_i128(number),
                (_, Ok(number)) => visitor.visit_u128(number),
                _ => visitor.visit_string(number.to_string()),
            },
            named => match as_named_text(named) {
                Ok((_, text)) => visitor.visit_string(text),
                Err(other) => ValueDeserializer(other).wrong_type(&visitor),
            },
        }
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match self.0.as_u64() {
            Some(number) => visitor.visit_u64(number),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.0 {
            Value::BigInt(number) => match number.to_string().parse() {
                Ok(number) => visitor.visit_f64(number),
                Err(_) => self.wrong_type(&visitor),
            },
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match self.0 {
            Value::Bytes(bytes) => visit_list(bytes.into_iter(), visitor),
            other => ValueDeserializer(other).deserialize_any(visitor),
        }
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match self.0 {
            Value::String(text) => visitor.visit_byte_buf(text.into_bytes()),
            other => ValueDeserializer(other).deserialize_any(visitor),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            value => visitor.visit_some(ValueDeserializer(value)),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Problem> {
        if !name.starts_with("$celeriac::") {
            return visitor.visit_newtype_struct(self);
        }
        match as_named_text(self.0) {
            // Only a `Value` takes every kind; its visitor reads the kind's name as that of an enum's variant.
            Ok(named) if name == names::VALUE => visitor.visit_enum(Kind(named)),
            Ok((kind, text)) if kind == name => visitor.visit_newtype_struct(ValueDeserializer(Value::String(text))),
            // A day is wanted where a `datetime` came, or the like: its text shows whether that fits.
            Ok((_, text)) => visitor.visit_newtype_struct(ValueDeserializer(Value::String(text))),
            Err(other) => visitor.visit_newtype_struct(ValueDeserializer(other)),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        match self.0 {
            Value::String(variant) => visitor.visit_enum(Variant { variant, content: None }),
            Value::Map(map) if map.len() == 1 => {
                let (variant, content) = map.into_iter().next().unwrap_or_default();
                visitor.visit_enum(Variant { variant, content: Some(content) })
            }
            other => ValueDeserializer(other).wrong_type(&"text, or a map with one key"),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u128 char str string unit unit_struct tuple tuple_struct map struct identifier
    }
}

fn visit_list<'de, V, I, T>(items: I, visitor: V) -> Result<V::Value, Problem>
where
    V: Visitor<'de>,
    I: Iterator<Item = T>,
    T: IntoDeserializer<'de, Problem>,
{
    let mut items = SeqDeserializer::new(items);
    let read = visitor.visit_seq(&mut items)?;
    items.end().map(|()| read)
}

/// A map's key.
struct Key(String);

impl<'de> IntoDeserializer<'de, Problem> for Key {
    type Deserializer = KeyDeserializer;

    fn into_deserializer(self) -> KeyDeserializer {
        KeyDeserializer(self.0)
    }
}

/// A kind that serde does not know, as an enum's variant that holds text.
struct Kind((&'static str, String));

impl<'de> EnumAccess<'de> for Kind {
    type Error = Problem;
    type Variant = Content;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Content), Problem> {
        let (name, text) = self.0;
        Ok((seed.deserialize(name.into_deserializer())?, Content(Some(Value::String(text)))))
    }
}

/// An enum's variant.
struct Variant {
    variant: String,
    content: Option<Value>,
}

impl<'de> EnumAccess<'de> for Variant {
    type Error = Problem;
    type Variant = Content;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Content), Problem> {
        let variant: StringDeserializer<Problem> = self.variant.into_deserializer();
        Ok((seed.deserialize(variant)?, Content(self.content)))
    }
}

/// What an enum's variant holds.
struct Content(Option<Value>);

impl<'de> VariantAccess<'de> for Content {
    type Error = Problem;

    fn unit_variant(self) -> Result<(), Problem> {
        match self.0 {
            None | Some(Value::Null) => Ok(()),
            Some(content) => ValueDeserializer(content).wrong_type(&"a variant without content"),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Problem> {
        seed.deserialize(ValueDeserializer(self.0.unwrap_or_default()))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _length: usize, visitor: V) -> Result<V::Value, Problem> {
        de::Deserializer::deserialize_seq(ValueDeserializer(self.0.unwrap_or_default()), visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        de::Deserializer::deserialize_any(ValueDeserializer(self.0.unwrap_or_default()), visitor)
    }
}
