//! Building canvases: [`chain`], [`group`], [`chord`] and their like, and what links signatures to each other.

use super::Rules;
use super::link;
use super::node::{Node, Parts, malformed};
use super::pipe::{fold, pipe};
use super::stamp;
use crate::Result;
use crate::protocol::{Map, Signature, Value};

/// Tasks one after the other, each called with the result of the one before (celery/canvas.py `chain`).
///
/// It is built as Celery builds it: chains in it are flattened, a group that something follows becomes a chord, and what
/// follows a chord joins its body.
pub fn chain<T: Into<Signature>>(tasks: impl IntoIterator<Item = T>) -> Signature {
    let tasks: Vec<Signature> = tasks.into_iter().map(Into::into).collect();
    or_as_written(tasks, |tasks| fold(tasks, &Rules::default()))
}

/// Tasks side by side (celery/canvas.py `group`).
pub fn group<T: Into<Signature>>(tasks: impl IntoIterator<Item = T>) -> Signature {
    let tasks: Value = tasks.into_iter().map(|task| Value::from(task.into())).collect();
    canvas("group", Map::from([("tasks", tasks)]))
}

/// Tasks side by side, and `body`, which is called with the list of their results (celery/canvas.py `chord`).
pub fn chord<T: Into<Signature>>(header: impl IntoIterator<Item = T>, body: impl Into<Signature>) -> Signature {
    let header: Value = header.into_iter().map(|task| Value::from(task.into())).collect();
    let body = Value::from(body.into());
    canvas("chord", Map::from([("kwargs", Value::Map(Map::new())), ("header", header), ("body", body)]))
}

/// `task` called with each item of `items` in turn, in one message (celery/canvas.py `xmap`).
pub fn map<V: Into<Value>>(task: impl Into<Signature>, items: impl IntoIterator<Item = V>) -> Signature {
    mapped("celery.map", task.into(), items.into_iter().map(Into::into).collect())
}

/// As [`map`], each item being the list of all arguments (celery/canvas.py `xstarmap`).
pub fn starmap<V: Into<Value>>(task: impl Into<Signature>, items: impl IntoIterator<Item = V>) -> Signature {
    mapped("celery.starmap", task.into(), items.into_iter().map(Into::into).collect())
}

/// As [`starmap`], `size` items to a message (celery/canvas.py `chunks`). Sent by itself it is a group of such messages.
pub fn chunks<V: Into<Value>>(
    task: impl Into<Signature>,
    items: impl IntoIterator<Item = V>,
    size: usize,
) -> Signature {
    let mut chunks = mapped("celery.chunks", task.into(), items.into_iter().map(Into::into).collect());
    chunks.kwargs.insert("n", size);
    chunks
}

fn canvas(kind: &str, kwargs: Map) -> Signature {
    Signature { kwargs, subtask_type: Some(kind.to_owned()), ..Signature::new(format!("celery.{kind}")) }
}

fn mapped(name: &str, task: Signature, items: Value) -> Signature {
    let kwargs = Map::from([("task", Value::from(task)), ("it", items)]);
    Signature { kwargs, immutable: true, ..Signature::new(name) }
}

/// What `build` makes of the tasks; where one has a form that nobody can build with, a chain of them as they are, which
/// says so when it is sent.
fn or_as_written(tasks: Vec<Signature>, build: impl FnOnce(Vec<Node>) -> Result<Node>) -> Signature {
    let nodes: Result<Vec<Node>> = tasks.iter().cloned().map(Node::read).collect();
    match nodes.and_then(build) {
        Ok(node) => node.into(),
        Err(_) => canvas("chain", Map::from([("tasks", tasks.into_iter().map(Value::from).collect::<Value>())])),
    }
}

/// The group that `celery.chunks` is sent as (celery/canvas.py `chunks.apply_async`).
pub(super) fn expanded(chunks: Signature) -> Result<Node> {
    let Signature { mut kwargs, options, .. } = chunks;
    let task = kwargs.remove("task").unwrap_or_default();
    let items = kwargs.remove("it").and_then(Value::into_list);
    let items = items.ok_or_else(|| malformed("has nothing to cut into chunks"))?;
    let size = kwargs.get("n").and_then(Value::as_u64).and_then(|size| usize::try_from(size).ok());
    let size = size.filter(|&size| size > 0).ok_or_else(|| malformed("has chunks without a size"))?;
    let mut parts = Vec::with_capacity(items.len() / size + 1);
    let mut items = items.into_iter().peekable();
    while items.peek().is_some() {
        let part: Value = items.by_ref().take(size).collect();
        let kwargs = Map::from([("task", task.clone()), ("it", part)]);
        parts.push(Node { kwargs, immutable: true, ..Node::task("celery.starmap") });
    }
    Ok(Node { options, ..Node::group(parts) })
}

/// Putting signatures together. What is added to a canvas goes where Celery puts it: a chord's links on its body, a
/// group's callback, made immutable, on its first task, a group's errback on every task.
impl Signature {
    /// This, then `next`: Celery's `self | next`.
    #[must_use]
    pub fn then(self, next: impl Into<Signature>) -> Self {
        or_as_written(vec![self, next.into()], |mut both| match (both.pop(), both.pop()) {
            (Some(next), Some(first)) => pipe(first, next, &Rules::default()),
            _ => Err(malformed("is missing")),
        })
    }

    /// Calls `callback` with the result when the task succeeds (celery/canvas.py `Signature.link`).
    #[must_use]
    pub fn link(self, callback: impl Into<Signature>) -> Self {
        let callback = [Value::from(callback.into())];
        self.changed(|node| link::link(node, &callback))
    }

    /// Calls `errback` when the task fails (celery/canvas.py `Signature.on_error`).
    #[must_use]
    pub fn link_error(self, errback: impl Into<Signature>) -> Self {
        let errback = [Value::from(errback.into())];
        self.changed(|node| {
            link::link_error(node, &errback, &Rules::default());
            Ok(())
        })
    }

    /// Whether it ignores the arguments that it is called with; a group's tasks and a chord's header
    /// (celery/canvas.py `Signature.set_immutable`).
    #[must_use]
    pub fn immutable(self, immutable: bool) -> Self {
        self.changed(|node| {
            set_immutable(node, immutable);
            Ok(())
        })
    }

    /// Puts a stamp on the task and its links, or on those of a canvas; a chord's body gets none
    /// (celery/canvas.py `Signature.stamp`).
    #[must_use]
    pub fn stamp(self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        let stamps = Map::from([(name.into(), value.into())]);
        self.changed(|node| {
            stamp::stamp(node, &stamps);
            Ok(())
        })
    }

    /// The same where `change` fails, or where its form is one that cannot be read: that is said when it is sent.
    fn changed(self, change: impl FnOnce(&mut Node) -> Result<()>) -> Self {
        let Ok(mut node) = Node::read(self.clone()) else { return self };
        match change(&mut node) {
            Ok(()) => node.into(),
            Err(_) => self,
        }
    }
}

fn set_immutable(node: &mut Node, immutable: bool) {
    match &mut node.parts {
        Parts::Task | Parts::Chain(_) => node.immutable = immutable,
        Parts::Group(tasks) => tasks.iter_mut().for_each(|task| set_immutable(task, immutable)),
        Parts::Chord(parts) => parts.header.iter_mut().for_each(|task| set_immutable(task, immutable)),
    }
}
