//! [`Body`]: the decoded body of a task message.

use super::{Map, Value, repr};

/// The body of a version 2 message: `[args, kwargs, embed]`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Body {
    /// Arguments by position.
    pub args: Vec<Value>,
    /// Arguments by name.
    pub kwargs: Map,
    /// What is to follow.
    pub embed: Embed,
}

/// What is to follow a task; signatures as maps.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Embed {
    /// `link`: called with the result.
    pub callbacks: Option<Value>,
    /// `link_error`: called when the task fails.
    pub errbacks: Option<Value>,
    /// The rest of a chain, the next task last.
    pub chain: Option<Value>,
    /// The body of the chord that the task is a member of.
    pub chord: Option<Value>,
    /// Keys that nobody has named yet.
    pub other: Map,
}

/// What a decoded body can be, besides a body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Kills a stock worker.
    #[error("the body is not [args, kwargs, embed] but {0}")]
    NotThreeItems(String),
    /// A stock worker runs nothing and reports success.
    #[error("Task keyword arguments is not a mapping")]
    KwargsNotMapping,
    /// `args` that are no list.
    #[error("Task positional arguments are not a list")]
    ArgsNotList,
    /// `embed` that is no map.
    #[error("the third item of the body is not a mapping")]
    EmbedNotMapping,
}

impl Body {
    /// Reads what a serializer decoded.
    ///
    /// # Errors
    /// The value does not have the form of a body.
    pub fn read(value: Value) -> Result<Self, BodyError> {
        let shown = |value: &Value| repr::saferepr(value, repr::Limits::default());
        let items = match value {
            Value::List(items) => items,
            other => return Err(BodyError::NotThreeItems(shown(&other))),
        };
        let [args, kwargs, embed]: [Value; 3] =
            items.try_into().map_err(|items| BodyError::NotThreeItems(shown(&Value::List(items))))?;
        Ok(Body { args: args_of(args)?, kwargs: kwargs_of(kwargs)?, embed: Embed::read(embed)? })
    }

    /// The value that a serializer writes.
    pub fn to_value(&self) -> Value {
        self.clone().into_value()
    }

    /// The value that a serializer writes.
    pub fn into_value(self) -> Value {
        Value::List(vec![Value::List(self.args), Value::Map(self.kwargs), Value::Map(self.embed.into_map())])
    }
}

impl Embed {
    /// Whether nothing is to follow.
    pub fn is_empty(&self) -> bool {
        let Embed { callbacks, errbacks, chain, chord, other: _ } = self;
        [callbacks, errbacks, chain, chord].into_iter().all(Option::is_none)
    }

    /// What is to follow a task whose arguments may be of any form, if that much can be read.
    pub(crate) fn of(body: Value) -> Option<Self> {
        let [_, _, embed]: [Value; 3] = body.into_list()?.try_into().ok()?;
        Embed::read(embed).ok()
    }

    fn read(value: Value) -> Result<Self, BodyError> {
        let mut map = match value {
            Value::Null => return Ok(Embed::default()),
            Value::Map(map) => map,
            _ => return Err(BodyError::EmbedNotMapping),
        };
        Ok(Embed {
            callbacks: take(&mut map, "callbacks"),
            errbacks: take(&mut map, "errbacks"),
            chain: take(&mut map, "chain"),
            chord: take(&mut map, "chord"),
            other: map,
        })
    }

    /// As it stands in a body.
    pub(crate) fn into_map(self) -> Map {
        let mut map = Map::with_capacity(4 + self.other.len());
        let named =
            [("callbacks", self.callbacks), ("errbacks", self.errbacks), ("chain", self.chain), ("chord", self.chord)];
        map.extend(named);
        map.extend(self.other);
        map
    }
}

/// An empty list or null is nothing to do, as an empty embed is.
fn take(map: &mut Map, name: &str) -> Option<Value> {
    map.remove(name).filter(Value::is_truthy)
}

/// A null is read as no arguments, where a stock worker fails.
fn args_of(args: Value) -> Result<Vec<Value>, BodyError> {
    match args {
        Value::Null => Ok(Vec::new()),
        Value::List(args) => Ok(args),
        _ => Err(BodyError::ArgsNotList),
    }
}

fn kwargs_of(kwargs: Value) -> Result<Map, BodyError> {
    match kwargs {
        Value::Map(kwargs) => Ok(kwargs),
        _ => Err(BodyError::KwargsNotMapping),
    }
}

impl Body {
    /// Reads a payload that came without the header `task`, with the headers that it came with: a version 1 message as the
    /// headers (message headers win) and the body of version 2; `None` for what is no task message at all. That is the
    /// order of `create_task_handler` (celery/worker/consumer/consumer.py).
    ///
    /// Unlike `hybrid_to_proto2` (celery/worker/strategy.py), which loses them, `group_index` and `taskset` are kept and
    /// the argument reprs are computed.
    ///
    /// # Errors
    /// A version 1 body whose `kwargs` are no map, or whose `args` are no list.
    pub fn read_version_1(value: Value, message_headers: &Map) -> Result<Option<(Map, Body)>, BodyError> {
        let Value::Map(mut map) = value else { return Ok(None) };
        if !map.contains_key("task") {
            return Ok(None);
        }
        let args = args_of(map.remove("args").unwrap_or_default())?;
        let kwargs = kwargs_of(map.remove("kwargs").unwrap_or_else(|| Value::Map(Map::new())))?;
        let embed = Embed {
            callbacks: take(&mut map, "callbacks"),
            errbacks: take(&mut map, "errbacks"),
            chain: None,
            chord: take(&mut map, "chord"),
            other: Map::new(),
        };
        let mut headers = headers_of_version_1(map, &args, &kwargs);
        for (name, value) in message_headers.iter() {
            headers.insert(name, value.clone());
        }
        Ok(Some((headers, Body { args, kwargs, embed })))
    }
}

fn headers_of_version_1(mut map: Map, args: &[Value], kwargs: &Map) -> Map {
    let mut headers = Map::new();
    for name in
        ["task", "id", "root_id", "parent_id", "shadow", "eta", "expires", "group_index", "retries", "timelimit"]
    {
        headers.insert(name, map.remove(name).unwrap_or_default());
    }
    let group = map.remove("group").filter(Value::is_truthy).or_else(|| map.remove("taskset"));
    headers.insert("group", group.unwrap_or_default());
    headers.insert("argsrepr", repr::argsrepr(args, repr::Limits::default()));
    headers.insert("kwargsrepr", repr::kwargsrepr(kwargs, repr::Limits::default()));
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::json;

    fn read(text: &str) -> Result<Body, BodyError> {
        Body::read(json::parse(text.as_bytes()).unwrap())
    }

    #[test]
    fn bodies_pass_both_ways() {
        let text =
            r#"[[2, 3], {"z": 1}, {"callbacks": null, "errbacks": null, "chain": [{"task": "t"}], "chord": null}]"#;
        let body = read(text).unwrap();
        assert_eq!(body.args, [Value::Int(2), Value::Int(3)]);
        assert!(body.embed.chain.is_some() && body.embed.callbacks.is_none());
        assert_eq!(json::to_vec(&body.to_value()).unwrap(), text.as_bytes());
    }

    #[test]
    fn what_is_missing_is_nothing() {
        for text in ["[null, {}, null]", "[[], {}, {}]", r#"[[], {}, {"callbacks": [], "chain": []}]"#] {
            let body = read(text).unwrap();
            assert!(body.embed.is_empty() && body.args.is_empty(), "{text}");
        }
    }

    #[test]
    fn malformed_bodies_are_told_apart() {
        for (text, error) in [
            ("[[], {}]", "the body is not [args, kwargs, embed] but [[], {}]"),
            ("{}", "the body is not [args, kwargs, embed] but {}"),
            ("[[], null, {}]", "Task keyword arguments is not a mapping"),
            ("[[], [], {}]", "Task keyword arguments is not a mapping"),
            ("[{}, {}, {}]", "Task positional arguments are not a list"),
            ("[[], {}, 1]", "the third item of the body is not a mapping"),
        ] {
            assert_eq!(read(text).unwrap_err().to_string(), error, "{text}");
        }
    }

    #[test]
    fn version_1_becomes_version_2() {
        let text =
            r#"{"task": "t", "id": "i", "args": [1], "kwargs": {}, "taskset": "g", "group_index": 2, "retries": 1}"#;
        let message_headers = Map::from([("id", "wins")]);
        let read = Body::read_version_1(json::parse(text.as_bytes()).unwrap(), &message_headers).unwrap();
        let (headers, body) = read.expect("version 1");
        assert_eq!(headers.get("id"), Some(&Value::from("wins")));
        assert_eq!(headers.get("group"), Some(&Value::from("g")));
        assert_eq!(headers.get("group_index"), Some(&Value::Int(2)));
        assert_eq!(headers.get("argsrepr"), Some(&Value::from("(1,)")));
        assert_eq!(body.args, [Value::Int(1)]);
    }

    #[test]
    fn other_payloads_are_unknown() {
        for text in ["1", "[]", r#"{"id": "i"}"#, r#""task""#] {
            let read = Body::read_version_1(json::parse(text.as_bytes()).unwrap(), &Map::new());
            assert_eq!(read, Ok(None), "{text}");
        }
    }
}
