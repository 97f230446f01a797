//! [`Node`]: a signature with the signatures inside it read, so that canvases can be taken apart and put together.

use std::sync::Arc;

use super::rules::as_text;
use crate::protocol::{Kind, Map, Signature, Value, json, repr};
use crate::{Error, ErrorKind, Result};

/// How deep canvases may stand in each other: deeper than stock Celery's recursion gets, and no danger to a thread's stack.
const MAX_NESTING: usize = 100;

/// Options that a call never changes where the signature has them (celery/canvas.py `Signature._IMMUTABLE_OPTIONS`).
const PROTECTED: [&str; 2] = ["group_id", "stamped_headers"];

/// A signature, its parts read. Links stay values until somebody calls them.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Node {
    pub(super) task: String,
    pub(super) args: Vec<Value>,
    /// Without the parts.
    pub(super) kwargs: Map,
    /// Without `chord` and `chain`.
    pub(super) options: Map,
    /// The option `chord`, which the members of a header share.
    pub(super) chord: Option<Arc<Value>>,
    /// The option `chain`: the steps to come, the next one last.
    pub(super) chain: Option<Arc<Vec<Value>>>,
    pub(super) subtask_type: Option<String>,
    pub(super) immutable: bool,
    pub(super) other: Map,
    pub(super) parts: Parts,
}

/// What a signature is made of.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) enum Parts {
    #[default]
    Task,
    Chain(Vec<Node>),
    Group(Vec<Node>),
    Chord(Box<ChordParts>),
}

#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct ChordParts {
    pub(super) header: Vec<Node>,
    /// The options of the group that freezing makes of the header.
    pub(super) group: Option<Map>,
    pub(super) body: Option<Node>,
}

impl Node {
    pub(super) fn read(signature: Signature) -> Result<Self> {
        Node::read_at(signature, 0)
    }

    pub(super) fn from_value(value: Value) -> Result<Self> {
        Node::value_at(value, 0)
    }

    fn value_at(value: Value, depth: usize) -> Result<Self> {
        Node::read_at(Signature::try_from(value)?, depth)
    }

    fn read_at(signature: Signature, depth: usize) -> Result<Self> {
        if depth > MAX_NESTING {
            return Err(malformed(&format!("holds more than {MAX_NESTING} others in each other")));
        }
        let kind = signature.kind();
        let Signature { task, args, kwargs, options, subtask_type, immutable, other } = signature;
        let mut node = Node { task, args, kwargs, options, subtask_type, immutable, other, ..Node::default() };
        node.chord = node.options.remove("chord").filter(Value::is_truthy).map(Arc::new);
        node.chain = match node.options.remove("chain") {
            None | Some(Value::Null) => None,
            Some(Value::List(steps)) => Some(Arc::new(steps)),
            Some(_) => return Err(malformed("has a chain that is no list")),
        };
        node.parts = match kind {
            Kind::Chain => Parts::Chain(read_list(node.kwargs.remove("tasks"), depth)?),
            Kind::Group => Parts::Group(read_list(node.kwargs.remove("tasks"), depth)?),
            Kind::Chord => Parts::Chord(Box::new(read_chord(&mut node.kwargs, depth)?)),
            Kind::Task | Kind::Map | Kind::StarMap | Kind::Chunks => Parts::Task,
        };
        Ok(node)
    }

    pub(super) fn task(name: impl Into<String>) -> Self {
        Node { task: name.into(), ..Node::default() }
    }

    pub(super) fn chain(tasks: Vec<Node>) -> Self {
        Node { subtask_type: Some("chain".into()), parts: Parts::Chain(tasks), ..Node::task("celery.chain") }
    }

    pub(super) fn group(tasks: Vec<Node>) -> Self {
        Node { subtask_type: Some("group".into()), parts: Parts::Group(tasks), ..Node::task("celery.group") }
    }

    pub(super) fn chord(header: Vec<Node>, body: Option<Node>) -> Self {
        Node {
            subtask_type: Some("chord".into()),
            kwargs: Map::from([("kwargs", Map::new())]),
            parts: Parts::Chord(Box::new(ChordParts { header, group: None, body })),
            ..Node::task("celery.chord")
        }
    }

    /// The text of an option; null is none.
    pub(super) fn option(&self, name: &str) -> Option<String> {
        self.options.get(name).cloned().and_then(as_text)
    }

    pub(super) fn is_group(&self) -> bool {
        matches!(self.parts, Parts::Group(_))
    }

    pub(super) fn is_chord(&self) -> bool {
        matches!(self.parts, Parts::Chord(_))
    }

    pub(super) fn is_empty_group(&self) -> bool {
        matches!(&self.parts, Parts::Group(tasks) if tasks.is_empty())
    }

    pub(super) fn is_empty_chain(&self) -> bool {
        matches!(&self.parts, Parts::Chain(tasks) if tasks.is_empty())
    }

    /// A group of one is the one (celery/canvas.py `maybe_unroll_group`).
    pub(super) fn unrolled(mut self) -> Node {
        match &mut self.parts {
            Parts::Group(tasks) if tasks.len() == 1 => tasks.pop().unwrap_or_default(),
            _ => self,
        }
    }

    /// Puts arguments before its own and over its own, unless it is immutable.
    pub(super) fn add_arguments(&mut self, args: &[Value], kwargs: &Map) {
        if self.immutable {
            return;
        }
        self.args.splice(0..0, args.iter().cloned());
        self.kwargs.extend(kwargs.iter().map(|(name, value)| (name, value.clone())));
    }

    /// Puts options over its own, but for those that a call never changes (celery/canvas.py `Signature._merge`).
    pub(super) fn merge_options(&mut self, given: Map) {
        merge(&mut self.options, given);
    }

    /// The number of tasks that report to the chord that this is in (celery/canvas.py `_chord._descend`).
    pub(super) fn chord_size(&self) -> u64 {
        match &self.parts {
            Parts::Task => 1,
            Parts::Group(tasks) => tasks.iter().map(Node::chord_size).sum(),
            Parts::Chain(tasks) => tasks.iter().rev().map(Node::chord_size).find(|&size| size > 0).unwrap_or(0),
            Parts::Chord(parts) => parts.body.as_ref().map_or(0, Node::chord_size),
        }
    }
}

/// Celery's `_merge` for options; nulls among the given ones count.
pub(super) fn merge(own: &mut Map, given: Map) {
    if own.is_empty() {
        *own = given;
        return;
    }
    let stamps: ahash::HashSet<String> = match own.get("stamped_headers").and_then(Value::as_list) {
        Some(names) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        None => Default::default(),
    };
    for (name, value) in given {
        let protected = PROTECTED.contains(&name.as_str()) || stamps.contains(&name);
        if !(protected && own.contains_key(&name)) {
            own.insert(name, value);
        }
    }
}

fn read_list(tasks: Option<Value>, depth: usize) -> Result<Vec<Node>> {
    match tasks {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::List(tasks)) => tasks.into_iter().map(|task| Node::value_at(task, depth + 1)).collect(),
        Some(_) => Err(malformed("has tasks that are no list")),
    }
}

/// A header is a list, or a canvas whose tasks are taken (celery/canvas.py `_maybe_group`).
fn read_chord(kwargs: &mut Map, depth: usize) -> Result<ChordParts> {
    let header = match kwargs.remove("header") {
        Some(header @ Value::Map(_)) => {
            let mut header = Node::value_at(header, depth)?;
            match &mut header.parts {
                Parts::Group(tasks) | Parts::Chain(tasks) => std::mem::take(tasks),
                _ => vec![header],
            }
        }
        list => read_list(list, depth)?,
    };
    let body = kwargs.remove("body").filter(|body| !body.is_null());
    let body = body.map(|body| Node::value_at(body, depth + 1)).transpose()?;
    Ok(ChordParts { header, group: None, body })
}

pub(super) fn malformed(why: &str) -> Error {
    Error::new(ErrorKind::Decode, format!("a signature {why}"))
}

/// One signature or a list of them, as options hold links.
pub(super) fn listed(value: Option<Value>) -> Vec<Value> {
    match value {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::List(values)) => values,
        Some(one) => vec![one],
    }
}

impl From<Node> for Signature {
    fn from(node: Node) -> Self {
        let mut signature = Signature {
            task: node.task,
            args: node.args,
            kwargs: node.kwargs,
            options: node.options,
            subtask_type: node.subtask_type,
            immutable: node.immutable,
            other: node.other,
        };
        write_parts(node.parts, &mut signature.kwargs);
        if let Some(chord) = node.chord {
            signature.options.insert("chord", Arc::unwrap_or_clone(chord));
        }
        if let Some(chain) = node.chain {
            signature.options.insert("chain", Value::List(Arc::unwrap_or_clone(chain)));
        }
        signature
    }
}

impl From<Node> for Value {
    fn from(node: Node) -> Self {
        Signature::from(node).into()
    }
}

fn write_parts(parts: Parts, kwargs: &mut Map) {
    match parts {
        Parts::Task => {}
        Parts::Chain(tasks) | Parts::Group(tasks) => {
            kwargs.insert("tasks", tasks.into_iter().collect::<Value>());
        }
        Parts::Chord(parts) => {
            let ChordParts { header, group, body } = *parts;
            let header: Value = match group {
                Some(options) => Node { options, ..Node::group(header) }.into(),
                None => header.into_iter().collect(),
            };
            kwargs.insert("header", header);
            kwargs.insert("body", body.map_or(Value::Null, Value::from));
        }
    }
}

/// Adds the links that are not there yet (celery/canvas.py `Signature.append_to_list_option`).
pub(super) fn append_links(options: &mut Map, name: &str, links: &[Value]) {
    if links.is_empty() {
        return;
    }
    let mut all = listed(options.remove(name));
    if all.len() + links.len() <= FEW_LINKS {
        for link in links {
            if !all.contains(link) {
                all.push(link.clone());
            }
        }
    } else {
        let mut seen: ahash::HashSet<Vec<u8>> = all.iter().map(fingerprint).collect();
        all.extend(links.iter().filter(|link| seen.insert(fingerprint(link))).cloned());
    }
    options.insert(name, Value::List(all));
}

/// Up to this many links are compared one by one.
const FEW_LINKS: usize = 32;

/// What is equal for equal values. Links that no serializer takes are told apart by their repr.
fn fingerprint(link: &Value) -> Vec<u8> {
    json::to_vec(link).unwrap_or_else(|_| repr::repr(link).into_bytes())
}
