//! [`ObjectWriter`]: an object written key by key, where a whole [`Map`] would be built only to be written.

use super::super::{Map, Value};
use super::writer::{write, write_map, write_string};
use crate::Result;

/// Appends one object; [`ObjectWriter::end`] closes it.
pub(crate) struct ObjectWriter<'a> {
    out: &'a mut Vec<u8>,
    is_first: bool,
}

impl<'a> ObjectWriter<'a> {
    pub(crate) fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        ObjectWriter { out, is_first: true }
    }

    /// Goes on with an object of which `start` was written elsewhere, one key of it at least.
    pub(crate) fn resume(out: &'a mut Vec<u8>, start: &[u8]) -> Self {
        out.extend_from_slice(start);
        ObjectWriter { out, is_first: false }
    }

    /// Writes a key; its value must be appended next.
    pub(crate) fn key(&mut self, name: &str) -> &mut Vec<u8> {
        if !std::mem::take(&mut self.is_first) {
            self.out.extend_from_slice(b", ");
        }
        write_string(name, self.out);
        self.out.extend_from_slice(b": ");
        self.out
    }

    pub(crate) fn text(&mut self, name: &str, text: &str) {
        write_string(text, self.key(name));
    }

    /// Writes the text, or no key at all.
    pub(crate) fn text_if_any(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    pub(crate) fn text_or_null(&mut self, name: &str, text: Option<&str>) {
        match text {
            Some(text) => self.text(name, text),
            None => self.key(name).extend_from_slice(b"null"),
        }
    }

    pub(crate) fn value(&mut self, name: &str, value: &Value) -> Result<()> {
        write(value, self.key(name))
    }

    pub(crate) fn map(&mut self, name: &str, map: &Map) -> Result<()> {
        write_map(map, self.key(name))
    }

    /// Writes all pairs of a map.
    pub(crate) fn pairs(&mut self, map: &Map) -> Result<()> {
        map.iter().try_for_each(|(name, value)| self.value(name, value))
    }

    pub(crate) fn end(self) {
        self.out.push(b'}');
    }
}
