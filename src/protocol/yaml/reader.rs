//! Events to values, without recursion, so that no nesting can exhaust the stack.

use std::collections::HashMap;
use std::str::Chars;

use yaml_rust2::parser::{Event, Parser, Tag};

use super::super::{MAX_DEPTH, Value};
use super::node::{Collection, Node};
use super::scalar::{self, Scalar};
use crate::{Error, ErrorKind, Result};

/// How many bytes aliases may add to a document, so that a few lines of aliases to aliases do not fill the memory.
const MAX_ALIASED: usize = 64 << 20;

/// Reads the one document of the text.
pub(super) fn read(text: &str) -> Result<Value> {
    let mut parser = Parser::new_from_str(text);
    let mut reader = Reader::default();
    loop {
        match next(&mut parser)? {
            Event::StreamEnd => return Ok(reader.document.unwrap_or_default()),
            event => reader.event(event)?,
        }
    }
}

fn next(parser: &mut Parser<Chars<'_>>) -> Result<Event> {
    match parser.next_token() {
        Ok((event, _)) => Ok(event),
        Err(cause) => Err(malformed("the text has no structure").with_source(cause)),
    }
}

#[derive(Default)]
struct Reader {
    /// Sequences and mappings whose end was not yet seen, the innermost last.
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    aliased: usize,
    document: Option<Value>,
}

struct Open {
    collection: Collection,
    anchor: usize,
}

impl Reader {
    fn event(&mut self, event: Event) -> Result<()> {
        match event {
            Event::DocumentStart if self.document.is_some() => Err(malformed("there is more than one document")),
            Event::Scalar(text, style, anchor, tag) => {
                let scalar = scalar::scalar(text, style, tag.as_ref())?;
                self.scalar(scalar, anchor)
            }
            Event::SequenceStart(anchor, tag) => self.open(anchor, tag.as_ref(), Collection::sequence),
            Event::MappingStart(anchor, tag) => self.open(anchor, tag.as_ref(), Collection::mapping),
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => self.alias(anchor),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart | Event::DocumentEnd => {
                Ok(())
            }
        }
    }

    fn scalar(&mut self, scalar: Scalar, anchor: usize) -> Result<()> {
        let key_of = self.open.last_mut().map(|open| &mut open.collection).filter(|collection| collection.wants_key());
        let value = match (scalar, key_of) {
            (Scalar::Value(value), _) => value,
            (Scalar::Equals, Some(_)) => "=".into(),
            (Scalar::Merge, Some(collection)) if collection.can_merge() => {
                collection.merge_next();
                return Ok(());
            }
            _ => return Err(malformed("a mark of a mapping's key stands elsewhere")),
        };
        self.finished(Node::scalar(value), anchor)
    }

    fn open(&mut self, anchor: usize, tag: Option<&Tag>, new: fn(Option<&str>) -> Option<Collection>) -> Result<()> {
        if self.open.len() == MAX_DEPTH {
            return Err(too_deep());
        }
        let name = scalar::tag_name(tag)?;
        let collection = new(name).ok_or_else(|| malformed("a collection has the tag of something else"))?;
        self.open.push(Open { collection, anchor });
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        let Some(Open { collection, anchor }) = self.open.pop() else { return Err(malformed("an end has no start")) };
        self.finished(collection.finish()?, anchor)
    }

    /// Puts a copy of the node in the place of its alias. An anchor is known when its node is complete, so that none can
    /// contain itself.
    fn alias(&mut self, anchor: usize) -> Result<()> {
        let Some(node) = self.anchors.get(&anchor) else { return Err(malformed("a node contains itself")) };
        let node = copy(node, &mut self.aliased)?;
        if self.open.len() + node.height > MAX_DEPTH {
            return Err(too_deep());
        }
        self.place(node)
    }

    fn finished(&mut self, node: Node, anchor: usize) -> Result<()> {
        if anchor != 0 {
            let node = copy(&node, &mut self.aliased)?;
            self.anchors.insert(anchor, node);
        }
        self.place(node)
    }

    fn place(&mut self, node: Node) -> Result<()> {
        match self.open.last_mut() {
            Some(open) => open.collection.add(node),
            None => {
                self.document = Some(node.value);
                Ok(())
            }
        }
    }
}

fn copy(node: &Node, aliased: &mut usize) -> Result<Node> {
    *aliased += node.size;
    if *aliased > MAX_ALIASED {
        return Err(malformed("aliases multiply the text too often"));
    }
    Ok(node.clone())
}

fn too_deep() -> Error {
    malformed(&format!("values are nested deeper than {MAX_DEPTH}"))
}

pub(super) fn malformed(why: &str) -> Error {
    Error::new(ErrorKind::Decode, format!("cannot read YAML: {why}"))
}
