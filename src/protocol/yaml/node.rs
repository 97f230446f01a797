//! Nodes, and the collections that they are gathered in (yaml/constructor.py `SafeConstructor`).

use std::collections::HashSet;

use super::super::value::MapBuilder;
use super::super::{Map, Value, datetime, float, repr};
use super::reader::malformed;
use crate::Result;

/// A complete value with what it takes to copy it.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) value: Value,
    /// About how many bytes of memory it takes.
    pub(super) size: usize,
    /// How many levels of collections it has.
    pub(super) height: usize,
}

impl Node {
    pub(super) fn scalar(value: Value) -> Self {
        let content = match &value {
            Value::String(text) | Value::Decimal(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
            Value::BigInt(number) => usize::try_from(number.bits() / 8).unwrap_or(usize::MAX),
            _ => 0,
        };
        Node { value, size: size_of::<Value>() + content, height: 0 }
    }
}

/// A sequence or mapping that is being read.
pub(super) struct Collection {
    content: Content,
    size: usize,
    height: usize,
}

enum Content {
    List(Vec<Value>),
    /// `!!omap` and `!!pairs`: each item is a mapping with one key.
    Pairs(Vec<Value>),
    Map(Mapping),
    /// `!!set`: a mapping of which the keys alone matter.
    Set {
        keys: Vec<Value>,
        seen: HashSet<String>,
        at_value: bool,
    },
}

#[derive(Default)]
struct Mapping {
    own: MapBuilder,
    /// What `<<` brings in; what comes later replaces what came before, and the mapping's own entries replace all.
    merged: Vec<Map>,
    key: Option<Key>,
}

enum Key {
    Text(String),
    Merge,
}

impl Collection {
    /// A sequence with the tag of that name; `None` if the tag is none for sequences.
    pub(super) fn sequence(tag: Option<&str>) -> Option<Self> {
        Some(Collection::new(match tag {
            None | Some("seq") => Content::List(Vec::new()),
            Some("omap" | "pairs") => Content::Pairs(Vec::new()),
            Some(_) => return None,
        }))
    }

    /// A mapping with the tag of that name; `None` if the tag is none for mappings.
    pub(super) fn mapping(tag: Option<&str>) -> Option<Self> {
        Some(Collection::new(match tag {
            None | Some("map") => Content::Map(Mapping::default()),
            Some("set") => Content::Set { keys: Vec::new(), seen: HashSet::new(), at_value: false },
            Some(_) => return None,
        }))
    }

    fn new(content: Content) -> Self {
        Collection { content, size: size_of::<Value>(), height: 0 }
    }

    /// Whether a key comes next.
    pub(super) fn wants_key(&self) -> bool {
        match &self.content {
            Content::List(_) | Content::Pairs(_) => false,
            Content::Map(mapping) => mapping.key.is_none(),
            Content::Set { at_value, .. } => !at_value,
        }
    }

    /// Whether `<<` has a meaning as a key here.
    pub(super) fn can_merge(&self) -> bool {
        matches!(self.content, Content::Map(_))
    }

    /// Takes the next value for one to be merged.
    pub(super) fn merge_next(&mut self) {
        if let Content::Map(mapping) = &mut self.content {
            mapping.key = Some(Key::Merge);
        }
    }

    /// Adds the next item, key or value.
    pub(super) fn add(&mut self, node: Node) -> Result<()> {
        self.size += node.size;
        self.height = self.height.max(node.height);
        match &mut self.content {
            Content::List(items) => items.push(node.value),
            Content::Pairs(pairs) => pairs.push(pair(node.value)?),
            Content::Map(mapping) => mapping.add(node.value)?,
            Content::Set { keys, seen, at_value } => {
                if !*at_value && seen.insert(key_repr(&node.value)?) {
                    keys.push(node.value);
                }
                *at_value = !*at_value;
            }
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Node> {
        let value = match self.content {
            Content::List(items) | Content::Pairs(items) | Content::Set { keys: items, .. } => Value::List(items),
            Content::Map(mapping) => Value::Map(mapping.finish()),
        };
        Ok(Node { value, size: self.size, height: self.height + 1 })
    }
}

impl Mapping {
    fn add(&mut self, value: Value) -> Result<()> {
        match self.key.take() {
            None => self.key = Some(Key::Text(key_text(value)?)),
            Some(Key::Text(key)) => self.own.insert(key, value),
            Some(Key::Merge) => self.merge(value)?,
        }
        Ok(())
    }

    /// Merges a mapping, or a sequence of them of which the first wins (yaml/constructor.py `flatten_mapping`).
    fn merge(&mut self, value: Value) -> Result<()> {
        let maps = match value {
            Value::List(items) => items,
            only => vec![only],
        };
        for map in maps.into_iter().rev() {
            self.merged.push(map.into_map().ok_or_else(|| malformed("what << merges is no mapping"))?);
        }
        Ok(())
    }

    fn finish(self) -> Map {
        let own = self.own.finish();
        if self.merged.is_empty() {
            return own;
        }
        let mut map = Map::new();
        self.merged.into_iter().chain([own]).for_each(|part| map.extend(part));
        map
    }
}

/// A key as JSON would write it: Python's dicts have keys of any type, ours have text.
fn key_text(key: Value) -> Result<String> {
    match key {
        Value::String(text) => Ok(text),
        Value::Null => Ok("null".to_owned()),
        Value::Bool(value) => Ok(value.to_string()),
        Value::Int(number) => Ok(number.to_string()),
        Value::BigInt(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(datetime::text_of(|out| float::write_json(out, number))),
        other => Err(malformed(&format!("a {} cannot be a key", other.type_name()))),
    }
}

/// What tells the keys of a set from one another.
fn key_repr(key: &Value) -> Result<String> {
    match key {
        Value::List(_) | Value::Map(_) => Err(malformed(&format!("a {} cannot be a key", key.type_name()))),
        key => Ok(repr::repr(key)),
    }
}

fn pair(value: Value) -> Result<Value> {
    match value.into_map().map(Map::into_iter) {
        Some(mut entries) if entries.len() == 1 => {
            Ok(entries.next().map(|(key, value)| Value::List(vec![key.into(), value])).unwrap_or_default())
        }
        _ => Err(malformed("an item of !!omap or !!pairs is no mapping with one key")),
    }
}
