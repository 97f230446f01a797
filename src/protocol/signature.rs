//! [`Signature`]: a call that is still to be made, as callbacks, chains and chords carry it (celery/canvas.py).

use super::{Map, Value};
use crate::{Error, ErrorKind, Result};

/// A task's name with arguments and options, to be sent later (celery/canvas.py `Signature`).
///
/// Keys that we do not know are kept in `other` and written behind the known ones.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Signature {
    /// The task's registered name; `celery.chain` and its like for a canvas.
    pub task: String,
    /// The arguments that it has of its own: they come behind those that it is called with.
    pub args: Vec<Value>,
    /// The keyword arguments that it has of its own.
    pub kwargs: Map,
    /// Options of `apply_async`: `task_id`, `queue`, `link` and so on.
    pub options: Map,
    /// Which class of canvas Celery makes of it; see [`Signature::kind`].
    pub subtask_type: Option<String>,
    /// Whether it ignores the arguments that it is called with.
    pub immutable: bool,
    /// Every other key, in the producer's order.
    pub other: Map,
}

/// What a [`Signature`] stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// One task.
    Task,
    /// Tasks one after the other; `kwargs.tasks` holds them in order.
    Chain,
    /// Tasks side by side; `kwargs.tasks` holds them.
    Group,
    /// A group (`kwargs.header`) and what is done with its results (`kwargs.body`).
    Chord,
    /// `kwargs.task` called with each item of `kwargs.it`, in one message.
    Map,
    /// As `Map`, with each item's own items as the arguments.
    StarMap,
    /// As `StarMap`, `kwargs.n` items to a message.
    Chunks,
}

/// Options that a call never changes where the signature has them (celery/canvas.py `Signature._IMMUTABLE_OPTIONS`).
const PROTECTED: [&str; 2] = ["group_id", "stamped_headers"];

impl Signature {
    /// A call of `task` without arguments.
    pub fn new(task: impl Into<String>) -> Self {
        Signature { task: task.into(), ..Signature::default() }
    }

    /// What it stands for: what its `subtask_type` says, or its task's name where that says nothing
    /// (celery/canvas.py `Signature.from_dict`).
    pub fn kind(&self) -> Kind {
        let name = match self.subtask_type.as_deref() {
            Some(name) if !name.is_empty() => name,
            _ => self.task.strip_prefix("celery.").unwrap_or(""),
        };
        match name {
            "chain" => Kind::Chain,
            "group" => Kind::Group,
            "chord" => Kind::Chord,
            "map" | "xmap" => Kind::Map,
            "starmap" | "xstarmap" => Kind::StarMap,
            "chunks" => Kind::Chunks,
            _ => Kind::Task,
        }
    }

    /// The signature as it is when called with more arguments (celery/canvas.py `Signature.apply_async`, `_merge`).
    ///
    /// Given arguments come before its own, given keyword arguments replace its own, unless it is immutable. Given
    /// options replace its own in any case, except those that are null, and `group_id`, `stamped_headers` and the
    /// stamps, which stay where it has them.
    #[must_use]
    pub fn with_arguments(mut self, args: Vec<Value>, kwargs: Map, options: Map) -> Self {
        if !self.immutable {
            let own = std::mem::replace(&mut self.args, args);
            self.args.extend(own);
            merge(&mut self.kwargs, kwargs);
        }
        let stamps = self.stamps();
        for (name, value) in options {
            let protected = PROTECTED.contains(&name.as_str()) || stamps.contains(&name);
            let kept = protected && self.options.contains_key(&name);
            if !kept && !value.is_null() {
                self.options.insert(name, value);
            }
        }
        self
    }

    /// The names of its own stamps.
    fn stamps(&self) -> ahash::HashSet<String> {
        let names = self.options.get("stamped_headers").and_then(Value::as_list).unwrap_or_default();
        names.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    }
}

fn merge(own: &mut Map, given: Map) {
    for (name, value) in given {
        own.insert(name, value);
    }
}

/// Reads the map that a message carries. A key that is missing or null has its default, except `task`; what is no map,
/// has no `task`, or has a key of the wrong type is an error of kind [`ErrorKind::Decode`].
impl TryFrom<Value> for Signature {
    type Error = Error;

    fn try_from(value: Value) -> Result<Self> {
        let Value::Map(mut map) = value else { return Err(malformed("is no map")) };
        let task = map.remove("task").and_then(Value::into_string).ok_or_else(|| malformed("has no task name"))?;
        Ok(Signature {
            task,
            args: read(&mut map, "args", Value::into_list)?,
            kwargs: read(&mut map, "kwargs", Value::into_map)?,
            options: read(&mut map, "options", Value::into_map)?,
            subtask_type: read(&mut map, "subtask_type", |value| value.into_string().map(Some))?,
            immutable: map.remove("immutable").is_some_and(|value| value.is_truthy()),
            other: map,
        })
    }
}

fn read<T: Default>(map: &mut Map, key: &str, convert: impl FnOnce(Value) -> Option<T>) -> Result<T> {
    match map.remove(key) {
        None | Some(Value::Null) => Ok(T::default()),
        Some(value) => convert(value).ok_or_else(|| malformed(&format!("has a {key} of the wrong type"))),
    }
}

fn malformed(why: &str) -> Error {
    Error::new(ErrorKind::Decode, format!("a signature {why}"))
}

/// Writes the map that a message carries, its keys in Celery's order.
impl From<Signature> for Value {
    fn from(signature: Signature) -> Self {
        let mut map = Map::new();
        map.insert("task", signature.task);
        map.insert("args", Value::List(signature.args));
        map.insert("kwargs", signature.kwargs);
        map.insert("options", signature.options);
        map.insert("subtask_type", signature.subtask_type.map_or(Value::Null, Value::String));
        map.insert("immutable", Value::Bool(signature.immutable));
        merge(&mut map, signature.other);
        Value::Map(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::json;

    fn signature(text: &str) -> Signature {
        json::parse(text.as_bytes()).unwrap().try_into().unwrap()
    }

    fn text(signature: Signature) -> String {
        String::from_utf8(json::to_vec(&signature.into()).unwrap()).unwrap()
    }

    #[test]
    fn written_as_celery_writes_it() {
        let check = |input: &str, expected: &str| assert_eq!(text(signature(input)), expected);
        let whole = r#"{"task": "add", "args": [1, 2], "kwargs": {"z": 3}, "options": {"task_id": "a"}, "subtask_type": "chain", "immutable": true, "chord_size": 2}"#;
        check(whole, whole);
        check(
            r#"{"new": [1], "task": "add", "args": null, "immutable": 0}"#,
            r#"{"task": "add", "args": [], "kwargs": {}, "options": {}, "subtask_type": null, "immutable": false, "new": [1]}"#,
        );
    }

    #[test]
    fn malformed_ones_are_refused() {
        for input in
            ["null", "[]", "{}", r#"{"task": 1}"#, r#"{"task": "t", "args": {}}"#, r#"{"task": "t", "kwargs": []}"#]
        {
            let refused = Signature::try_from(json::parse(input.as_bytes()).unwrap());
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::Decode, "{input}");
        }
    }

    #[test]
    fn kinds() {
        let check = |task: &str, subtask_type: Option<&str>, expected| {
            let signature = Signature { subtask_type: subtask_type.map(str::to_owned), ..Signature::new(task) };
            assert_eq!(signature.kind(), expected, "{task} {subtask_type:?}");
        };
        check("add", None, Kind::Task);
        check("chain", None, Kind::Task);
        check("celery.chain", Some("chain"), Kind::Chain);
        check("celery.chain", None, Kind::Chain);
        check("celery.group", Some(""), Kind::Group);
        check("celery.chord", Some("chord"), Kind::Chord);
        check("celery.map", None, Kind::Map);
        check("celery.starmap", Some("xstarmap"), Kind::StarMap);
        check("celery.chunks", None, Kind::Chunks);
        check("celery.backend_cleanup", None, Kind::Task);
    }

    /// Each row: the signature's own, what it is called with, what comes out; args, kwargs, options. Seen with
    /// `Signature.apply_async` of Celery 5.7.
    #[test]
    fn merged_as_celery_merges() {
        let check = |immutable: bool, own: &str, given: &str, expected: &str| {
            let parts =
                |text: &str| match <[Value; 3]>::try_from(json::parse(text.as_bytes()).unwrap().into_list().unwrap()) {
                    Ok([Value::List(args), Value::Map(kwargs), Value::Map(options)]) => (args, kwargs, options),
                    other => panic!("not three parts: {other:?}"),
                };
            let (args, kwargs, options) = parts(own);
            let signature = Signature { args, kwargs, options, immutable, ..Signature::new("t") };
            let (args, kwargs, options) = parts(given);
            let merged = signature.with_arguments(args, kwargs, options);
            let merged = Value::List(vec![merged.args.into(), merged.kwargs.into(), merged.options.into()]);
            assert_eq!(String::from_utf8(json::to_vec(&merged).unwrap()).unwrap(), expected, "{own} {given}");
        };
        let own = r#"[[2], {"a": 1, "b": 2}, {"queue": "q"}]"#;
        check(
            false,
            own,
            r#"[[1], {"b": 3}, {"queue": "p", "priority": 5}]"#,
            r#"[[1, 2], {"a": 1, "b": 3}, {"queue": "p", "priority": 5}]"#,
        );
        check(
            true,
            own,
            r#"[[1], {"b": 3}, {"priority": 5}]"#,
            r#"[[2], {"a": 1, "b": 2}, {"queue": "q", "priority": 5}]"#,
        );
        check(false, own, r#"[[], {}, {"queue": null, "eta": null}]"#, own);
        let stamped = r#"[[], {}, {"group_id": "g", "stamped_headers": ["stamp"], "stamp": 1}]"#;
        let over = r#"[[], {}, {"group_id": "h", "stamped_headers": ["other"], "stamp": 2, "other": 3}]"#;
        check(
            false,
            stamped,
            over,
            r#"[[], {}, {"group_id": "g", "stamped_headers": ["stamp"], "stamp": 1, "other": 3}]"#,
        );
        check(false, "[[], {}, {}]", over, over);
    }
}
