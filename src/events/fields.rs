//! [`Fields`]: takes the fields of an event, one by one and in their order.

use crate::protocol::{Map, Value};

/// What the fields of an event are put into: a map, or text.
pub(super) trait Fields {
    /// Adds a field; no event has two of one name.
    fn put(&mut self, name: &'static str, value: impl Into<Value>);
}

impl Fields for Map {
    fn put(&mut self, name: &'static str, value: impl Into<Value>) {
        self.insert(name, value);
    }
}
