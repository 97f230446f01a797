//! [`Command`]: what a request asks for, its arguments checked.

use std::time::Duration;

use super::steer::Steering;
use super::{ControlRequest, Rate, Result, Signal, raise};
use crate::protocol::{Map, Value, repr};

/// What a request asks for (celery/worker/control.py). Names that Celery knows and this enum does not are unknown here.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Is somebody there?
    Ping,
    /// Monitors want to hear of tasks.
    EnableEvents,
    /// Monitors want it no more.
    DisableEvents,
    /// Monitors want a sign of life at once.
    Heartbeat,
    /// A node that begins asks what was revoked before, and tells what it knows of (Celery's mingle).
    Hello {
        /// The node that asks.
        from_node: String,
        /// The ids that it knows of, the oldest first.
        revoked: Vec<String>,
    },
    /// One of all nodes is to do something.
    Election {
        /// The election.
        id: Value,
        /// What kind of action it is: `task`.
        topic: Value,
        /// What is to be done.
        action: Value,
    },
    /// Tasks by id are not to run, or with a signal are to be ended.
    Revoke {
        /// The tasks, each once, in the order in which they were named.
        ids: Vec<String>,
        /// Set: those that run are to be ended. An error is raised only after the ids were flagged.
        terminate: Option<Result<Signal>>,
    },
    /// Tasks that bear any of these stamps are not to run, or with a signal are to be ended.
    RevokeByStampedHeaders {
        /// The stamps by header, as the client gave them: a value or a list.
        headers: Map,
        /// Set: those that run are to be ended.
        terminate: Option<Signal>,
    },
    /// How often tasks of one name may start.
    RateLimit {
        /// The task.
        task_name: String,
        /// The limit; none: as often as they like.
        rate: Option<Rate>,
        /// The limit as the client gave it.
        given: Value,
    },
    /// How long tasks of one name may take.
    TimeLimit {
        /// The task.
        task_name: String,
        /// The soft limit.
        soft: TimeLimit,
        /// The hard limit.
        hard: TimeLimit,
    },
    /// What the worker consumes, how much at a time, or its end.
    Steer(Steering),
    /// The request asks for what can never be, and this is what it is told. Nothing is logged.
    Refused(Value),
}

/// A time limit as a client gave it.
#[derive(Debug, Clone, PartialEq)]
pub struct TimeLimit {
    /// None: the worker's own setting.
    pub limit: Option<Duration>,
    /// What the client wrote.
    pub given: Value,
}

impl Command {
    /// Reads what a request asks for.
    ///
    /// # Errors
    /// What Celery's handler would raise: `KeyError` for an unknown command, `TypeError` for missing arguments.
    pub fn read(request: &ControlRequest) -> Result<Self> {
        let arguments = &request.arguments;
        match request.method.as_str() {
            "ping" => Ok(Command::Ping),
            "enable_events" => without_arguments("enable_events", arguments, Command::EnableEvents),
            "disable_events" => without_arguments("disable_events", arguments, Command::DisableEvents),
            "heartbeat" => without_arguments("heartbeat", arguments, Command::Heartbeat),
            "hello" => hello(arguments),
            "election" => election(arguments),
            "revoke" => revoke(arguments),
            "terminate" => terminate(arguments),
            "revoke_by_stamped_headers" => revoke_by_stamped_headers(arguments),
            "rate_limit" => rate_limit(arguments),
            "time_limit" => time_limit(arguments),
            other => match Steering::read(other, arguments)? {
                Some(steering) => Ok(Command::Steer(steering)),
                None => raise("KeyError", other),
            },
        }
    }
}

/// Whether a worker has a command of that name.
pub fn is_known(method: &str) -> bool {
    let request =
        ControlRequest { method: method.to_owned(), arguments: Map::new(), reply_to: None, ticket: Value::Null };
    // A command that is known may want arguments, but it does not lack a name.
    super::Inspection::read(&request).is_some()
        || Command::read(&request).map_or_else(|refusal| refusal.exc_type != "KeyError", |_| true)
}

/// A handler that takes no arguments, which most of Celery's do not mind.
pub(super) fn without_arguments<T>(function: &str, arguments: &Map, command: T) -> Result<T> {
    match arguments.keys().next() {
        None => Ok(command),
        Some(name) => raise("TypeError", format!("{function}() got an unexpected keyword argument '{name}'")),
    }
}

/// What nodes tell each other was revoked, the oldest first. Workers before 5.7 tell a map of ids.
pub fn revoked_ids(revoked: &Value) -> Vec<String> {
    match revoked {
        Value::Map(revoked) => revoked.keys().map(str::to_owned).collect(),
        Value::List(revoked) => revoked.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

fn hello(arguments: &Map) -> Result<Command> {
    require("hello", arguments, &["from_node"])?;
    let revoked = revoked_ids(argument(arguments, "revoked"));
    Ok(Command::Hello { from_node: name(argument(arguments, "from_node")), revoked })
}

fn election(arguments: &Map) -> Result<Command> {
    require("election", arguments, &["id", "topic"])?;
    let value = |name| argument(arguments, name).clone();
    Ok(Command::Election { id: value("id"), topic: value("topic"), action: value("action") })
}

fn revoke(arguments: &Map) -> Result<Command> {
    require("revoke", arguments, &["task_id"])?;
    let wants_termination = argument(arguments, "terminate").is_truthy();
    let terminate = wants_termination.then(|| Signal::read(argument(arguments, "signal")));
    Ok(Command::Revoke { ids: ids(argument(arguments, "task_id"))?, terminate })
}

fn terminate(arguments: &Map) -> Result<Command> {
    require("terminate", arguments, &["signal", "task_id"])?;
    let signal = Signal::read(argument(arguments, "signal"));
    Ok(Command::Revoke { ids: ids(argument(arguments, "task_id"))?, terminate: Some(signal) })
}

fn revoke_by_stamped_headers(arguments: &Map) -> Result<Command> {
    require("revoke_by_stamped_headers", arguments, &["headers"])?;
    let signal = Signal::read(argument(arguments, "signal"))?;
    let headers = headers(argument(arguments, "headers"))?;
    Ok(Command::RevokeByStampedHeaders {
        headers,
        terminate: argument(arguments, "terminate").is_truthy().then_some(signal),
    })
}

fn rate_limit(arguments: &Map) -> Result<Command> {
    require("rate_limit", arguments, &["task_name", "rate_limit"])?;
    let given = argument(arguments, "rate_limit").clone();
    let rate = match Rate::read(&given) {
        Err(exception) if exception.exc_type == "ValueError" => {
            return Ok(Command::Refused(super::error(format!("Invalid rate limit string: {exception}"))));
        }
        rate => rate?,
    };
    Ok(Command::RateLimit { task_name: name(argument(arguments, "task_name")), rate, given })
}

fn time_limit(arguments: &Map) -> Result<Command> {
    let limit = |name| TimeLimit::read(argument(arguments, name));
    Ok(Command::TimeLimit {
        task_name: name(argument(arguments, "task_name")),
        soft: limit("soft")?,
        hard: limit("hard")?,
    })
}

impl TimeLimit {
    /// Stock Celery takes anything, and fails when the next task starts: here it is refused.
    fn read(value: &Value) -> Result<Self> {
        let limit = match value {
            value if !value.is_truthy() => Ok(None),
            value => match value.as_f64().map(Duration::try_from_secs_f64) {
                Some(Ok(limit)) => Ok(Some(limit)),
                _ => raise("ValueError", format!("a time limit is a number of seconds: {}", repr::repr(value))),
            },
        };
        Ok(TimeLimit { limit: limit?, given: value.clone() })
    }
}

pub(super) fn argument<'a>(arguments: &'a Map, name: &str) -> &'a Value {
    arguments.get(name).unwrap_or(&Value::Null)
}

/// A task's name; what is no text names no task.
fn name(value: &Value) -> String {
    value.as_str().map_or_else(|| repr::repr(value), str::to_owned)
}

/// Python's error for arguments without a default that were not given.
pub(super) fn require(function: &str, arguments: &Map, names: &[&str]) -> Result<()> {
    let missing: Vec<_> =
        names.iter().filter(|name| !arguments.contains_key(name)).map(|name| format!("'{name}'")).collect();
    match missing.as_slice() {
        [] => Ok(()),
        [one] => raise("TypeError", format!("{function}() missing 1 required positional argument: {one}")),
        several => {
            let (count, list) = (several.len(), several.join(" and "));
            raise("TypeError", format!("{function}() missing {count} required positional arguments: {list}"))
        }
    }
}

/// One id or a list of them, each once (celery/worker/control.py `revoke`).
pub(super) fn ids(value: &Value) -> Result<Vec<String>> {
    let values = match value {
        Value::Null => &[],
        Value::List(values) => values.as_slice(),
        one => std::slice::from_ref(one),
    };
    let mut ids = Vec::with_capacity(values.len());
    let mut seen = std::collections::HashSet::new();
    for (at, value) in values.iter().enumerate() {
        let Some(id) = value.as_str() else {
            let name = value.type_name();
            return raise("TypeError", format!("sequence item {at}: expected str instance, {name} found"));
        };
        if seen.insert(id) {
            ids.push(id.to_owned());
        }
    }
    Ok(ids)
}

/// A map, or a list of `key=value`.
fn headers(value: &Value) -> Result<Map> {
    match value {
        Value::Map(headers) => Ok(headers.clone()),
        Value::List(pairs) => pairs.iter().map(pair).collect::<Result<Vec<_>>>().map(Map::from_iter),
        other => raise("AttributeError", format!("'{}' object has no attribute 'items'", other.type_name())),
    }
}

fn pair(value: &Value) -> Result<(String, Value)> {
    let Some(text) = value.as_str() else {
        return raise("AttributeError", format!("'{}' object has no attribute 'split'", value.type_name()));
    };
    let mut parts = text.split('=');
    match (parts.next(), parts.next()) {
        (Some(key), Some(value)) => Ok((key.to_owned(), value.into())),
        _ => raise("IndexError", "list index out of range"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::json;

    #[test]
    fn a_command_is_known_by_its_name_alone() {
        let known = [
            "ping",
            "enable_events",
            "hello",
            "election",
            "revoke",
            "terminate",
            "revoke_by_stamped_headers",
            "rate_limit",
            "time_limit",
            "shutdown",
            "add_consumer",
            "autoscale",
            "active",
            "dump_conf",
            "query_task",
        ];
        assert!(known.iter().all(|method| is_known(method)));
        assert!(!is_known("increase_prefetch_count") && !is_known(""));
    }

    fn read(method: &str, arguments: &str) -> std::result::Result<Command, String> {
        let arguments = json::parse(arguments.as_bytes()).unwrap().into_map().unwrap();
        let request = ControlRequest { method: method.into(), arguments, reply_to: None, ticket: Value::Null };
        Command::read(&request).map_err(|exception| exception.to_string())
    }

    fn revoked(ids: &[&str], terminate: Option<i64>) -> Command {
        let terminate = terminate.map(|number| Signal::read(&number.into()));
        Command::Revoke { ids: ids.iter().map(|id| (*id).to_owned()).collect(), terminate }
    }

    #[test]
    fn commands_are_read() {
        let rows = [
            ("ping", "{}", Command::Ping),
            ("ping", r#"{"unknown": 1}"#, Command::Ping),
            ("enable_events", "{}", Command::EnableEvents),
            ("disable_events", "{}", Command::DisableEvents),
            ("heartbeat", "{}", Command::Heartbeat),
            (
                "election",
                r#"{"id": "e", "topic": "task"}"#,
                Command::Election { id: "e".into(), topic: "task".into(), action: Value::Null },
            ),
            ("revoke", r#"{"task_id": "a"}"#, revoked(&["a"], None)),
            ("revoke", r#"{"task_id": ["a", "b", "a"], "terminate": false}"#, revoked(&["a", "b"], None)),
            ("revoke", r#"{"task_id": null}"#, revoked(&[], None)),
            ("revoke", r#"{"task_id": "a", "terminate": true, "signal": "KILL"}"#, revoked(&["a"], Some(9))),
            ("terminate", r#"{"task_id": "a", "signal": null}"#, revoked(&["a"], Some(15))),
            (
                "revoke_by_stamped_headers",
                r#"{"headers": ["a=b", "c=d=e"]}"#,
                Command::RevokeByStampedHeaders { headers: Map::from([("a", "b"), ("c", "d")]), terminate: None },
            ),
            (
                "rate_limit",
                r#"{"task_name": "t", "rate_limit": "abc"}"#,
                Command::Refused(crate::control::error(
                    "Invalid rate limit string: ValueError(\"could not convert string to float: 'abc'\")",
                )),
            ),
            (
                "time_limit",
                r#"{"task_name": "t", "hard": 1.5}"#,
                Command::TimeLimit {
                    task_name: "t".into(),
                    soft: TimeLimit { limit: None, given: Value::Null },
                    hard: TimeLimit { limit: Some(Duration::from_millis(1500)), given: 1.5.into() },
                },
            ),
        ];
        for (method, arguments, expected) in rows {
            assert_eq!(read(method, arguments), Ok(expected), "{method} {arguments}");
        }
    }

    #[test]
    fn what_others_know_is_read_whoever_tells() {
        let expected = Command::Hello { from_node: "w2@h".into(), revoked: vec!["a".into()] };
        for revoked in [r#"["a", 1]"#, r#"{"a": 5.5}"#] {
            let arguments = format!(r#"{{"from_node": "w2@h", "revoked": {revoked}}}"#);
            assert_eq!(read("hello", &arguments), Ok(expected.clone()), "{revoked}");
        }
        let alone = Command::Hello { from_node: "w2@h".into(), revoked: Vec::new() };
        assert_eq!(read("hello", r#"{"from_node": "w2@h", "revoked": null}"#), Ok(alone));
    }

    #[test]
    fn what_cannot_be_done_is_told_in_pythons_words() {
        let rows = [
            ("nocmd", "{}", "KeyError('nocmd')"),
            ("heartbeat", r#"{"x": 1}"#, "TypeError(\"heartbeat() got an unexpected keyword argument 'x'\")"),
            ("revoke", "{}", "TypeError(\"revoke() missing 1 required positional argument: 'task_id'\")"),
            (
                "rate_limit",
                "{}",
                "TypeError(\"rate_limit() missing 2 required positional arguments: 'task_name' and 'rate_limit'\")",
            ),
            ("revoke", r#"{"task_id": [1]}"#, "TypeError('sequence item 0: expected str instance, int found')"),
            ("revoke_by_stamped_headers", r#"{"headers": ["a"]}"#, "IndexError('list index out of range')"),
            (
                "revoke_by_stamped_headers",
                r#"{"headers": {}, "signal": "x"}"#,
                "TypeError('signal name must be uppercase string.')",
            ),
            ("rate_limit", r#"{"task_name": "t", "rate_limit": "5/x"}"#, "KeyError('x')"),
            ("time_limit", r#"{"soft": "x"}"#, "ValueError(\"a time limit is a number of seconds: 'x'\")"),
        ];
        for (method, arguments, expected) in rows {
            assert_eq!(read(method, arguments), Err(expected.to_owned()), "{method} {arguments}");
        }
    }
}
