//! From [`Value`]s to Rust types.

use std::cell::Cell;

use serde::de::value::{MapDeserializer, SeqDeserializer, StringDeserializer};
use serde::de::{self, DeserializeSeed, EnumAccess, IntoDeserializer, Unexpected, VariantAccess, Visitor};

use super::keys::KeyDeserializer;
use super::{Problem, names};
use crate::protocol::{Value, datetime};

/// Reads a [`Value`]; `depth` is how much deeper it may still go.
pub(super) struct ValueDeserializer {
    value: Value,
    depth: usize,
}

thread_local! {
    /// A [`Value`] on its way through serde to a target that is a `Value` itself. Serde has no way to hand over a whole, and
    /// to take it apart would cost time and stack for every level of it. It is put here and taken out by the two sides of
    /// one call, with nothing between.
    static PASSING: Cell<Option<Value>> = const { Cell::new(None) };
}

/// The whole that is being passed, asked for by a visitor of [`names::VALUE`].
pub(super) fn passed() -> Option<Value> {
    PASSING.take()
}

/// The text of a kind that serde does not know.
fn text_of_kind(value: Value) -> Result<String, Value> {
    Ok(match value {
        Value::BigInt(number) => number.to_string(),
        Value::DateTime(moment) => moment.to_string(),
        Value::Date(date) => datetime::text_of(|out| datetime::write_date(out, date)),
        Value::Time(time) => time.to_string(),
        Value::Decimal(text) => text,
        Value::Uuid(uuid) => uuid.to_string(),
        other => return Err(other),
    })
}

impl<'de> IntoDeserializer<'de, Problem> for ValueDeserializer {
    type Deserializer = ValueDeserializer;

    fn into_deserializer(self) -> ValueDeserializer {
        self
    }
}

impl ValueDeserializer {
    pub(super) fn new(value: Value, depth: usize) -> Self {
        ValueDeserializer { value, depth }
    }

    /// The same for a value inside this one.
    fn deeper(depth: usize) -> Result<impl Fn(Value) -> Self, Problem> {
        let depth = depth.checked_sub(1).ok_or_else(|| Problem("the value is nested too deeply".into()))?;
        Ok(move |value| ValueDeserializer { value, depth })
    }

    fn wrong_type<T>(self, expected: &dyn de::Expected) -> Result<T, Problem> {
        let unexpected = match &self.value {
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
        let depth = self.depth;
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Int(value) => visitor.visit_i64(value),
            Value::Float(value) => visitor.visit_f64(value),
            Value::String(value) => visitor.visit_string(value),
            Value::Bytes(value) => visitor.visit_byte_buf(value),
            Value::List(items) => {
                let deeper = ValueDeserializer::deeper(depth)?;
                visit_list(items.into_iter().map(deeper), visitor)
            }
            Value::Map(map) => {
                let deeper = ValueDeserializer::deeper(depth)?;
                let mut pairs = MapDeserializer::new(map.into_iter().map(|(key, value)| (Key(key), deeper(value))));
                let read = visitor.visit_map(&mut pairs)?;
                pairs.end().map(|()| read)
            }
            Value::BigInt(number) => match (i128::try_from(&*number), u128::try_from(&*number)) {
                (Ok(number), _) => visitor.visit_i128(number),
                (_, Ok(number)) => visitor.visit_u128(number),
                _ => visitor.visit_string(number.to_string()),
            },
            named => match text_of_kind(named) {
                Ok(text) => visitor.visit_string(text),
                Err(value) => ValueDeserializer { value, depth }.wrong_type(&visitor),
            },
        }
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match self.value.as_u64() {
            Some(number) => visitor.visit_u64(number),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.value {
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
        match self.value {
            Value::Bytes(bytes) => visit_list(bytes.into_iter(), visitor),
            value => ValueDeserializer { value, ..self }.deserialize_any(visitor),
        }
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match self.value {
            Value::String(text) => visitor.visit_byte_buf(text.into_bytes()),
            value => ValueDeserializer { value, ..self }.deserialize_any(visitor),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match self.value {
            Value::Null => visitor.visit_none(),
            value => visitor.visit_some(ValueDeserializer { value, ..self }),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Problem> {
        if !name.starts_with("$celeriac::") {
            return visitor.visit_newtype_struct(self);
        }
        if name == names::VALUE {
            PASSING.set(Some(self.value));
            return visitor.visit_newtype_struct(ValueDeserializer { value: Value::Null, ..self });
        }
        // Of one of our own kinds its text is taken, also where another is wanted: the text shows whether it fits.
        let value = text_of_kind(self.value).map_or_else(|other| other, Value::String);
        visitor.visit_newtype_struct(ValueDeserializer { value, ..self })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        match self.value {
            Value::String(variant) => visitor.visit_enum(Variant { variant, content: None }),
            Value::Map(map) if map.len() == 1 => {
                let (variant, content) = map.into_iter().next().unwrap_or_default();
                let deeper = ValueDeserializer::deeper(self.depth)?;
                visitor.visit_enum(Variant { variant, content: Some(deeper(content)) })
            }
            value => ValueDeserializer { value, ..self }.wrong_type(&"text, or a map with one key"),
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

/// An enum's variant.
struct Variant {
    variant: String,
    content: Option<ValueDeserializer>,
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
struct Content(Option<ValueDeserializer>);

impl<'de> VariantAccess<'de> for Content {
    type Error = Problem;

    fn unit_variant(self) -> Result<(), Problem> {
        match self.0 {
            None | Some(ValueDeserializer { value: Value::Null, .. }) => Ok(()),
            Some(content) => content.wrong_type(&"a variant without content"),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Problem> {
        seed.deserialize(self.or_null())
    }

    fn tuple_variant<V: Visitor<'de>>(self, _length: usize, visitor: V) -> Result<V::Value, Problem> {
        de::Deserializer::deserialize_seq(self.or_null(), visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        de::Deserializer::deserialize_any(self.or_null(), visitor)
    }
}

impl Content {
    fn or_null(self) -> ValueDeserializer {
        self.0.unwrap_or(ValueDeserializer { value: Value::Null, depth: 0 })
    }
}
