//! [`Inspection`]: a request that asks what a worker does, and changes nothing.

use super::command::{argument, ids, require, without_arguments};
use super::{ControlRequest, Result, raise};
use crate::protocol::{Map, Value};

/// What a request wants to know (celery/worker/control.py, those with `inspect_command`).
#[derive(Debug, Clone, PartialEq)]
pub enum Inspection {
    /// The tasks that run.
    Active {
        /// Arguments are told as texts.
        safe: bool,
    },
    /// Those that were taken and have not begun.
    Reserved,
    /// Those that wait for their ETA.
    Scheduled,
    /// The ids that are revoked.
    Revoked,
    /// What becomes of the tasks with these ids.
    QueryTask(Vec<String>),
    /// The tasks that can be run.
    Registered {
        /// The attributes to tell of each.
        attributes: Vec<String>,
        /// Tell those that every worker has, too.
        builtins: bool,
    },
    /// The queues that are consumed.
    ActiveQueues,
    /// Counters, pool, broker and process.
    Stats,
    /// The logical clock.
    Clock,
    /// The settings that are not the default.
    Conf {
        /// All of them.
        with_defaults: bool,
    },
    /// What a bug report should say.
    Report,
    /// The resident memory.
    MemSample,
    /// What earlier samples have found.
    MemDump {
        /// How many of them to tell.
        samples: usize,
    },
    /// What a worker without Python cannot tell, and is answered with this error.
    Impossible(&'static str),
}

/// The attributes of a task that are told unless others are asked for.
const ATTRIBUTES: [&str; 3] = ["exchange", "routing_key", "rate_limit"];

impl Inspection {
    /// Reads what a request wants to know; `None`: it is no inspection.
    pub fn read(request: &ControlRequest) -> Option<Result<Self>> {
        let arguments = &request.arguments;
        Some(match request.method.as_str() {
            "active" | "dump_active" => Ok(Inspection::Active { safe: argument(arguments, "safe").is_truthy() }),
            "reserved" | "dump_reserved" => Ok(Inspection::Reserved),
            "scheduled" | "dump_schedule" => Ok(Inspection::Scheduled),
            "revoked" | "dump_revoked" => Ok(Inspection::Revoked),
            "query_task" => query_task(arguments),
            "registered" | "dump_tasks" => registered(arguments),
            "active_queues" => without_arguments("active_queues", arguments, Inspection::ActiveQueues),
            "stats" => Ok(Inspection::Stats),
            "clock" => Ok(Inspection::Clock),
            "conf" | "dump_conf" => {
                Ok(Inspection::Conf { with_defaults: argument(arguments, "with_defaults").is_truthy() })
            }
            "report" => without_arguments("report", arguments, Inspection::Report),
            "memsample" => Ok(Inspection::MemSample),
            "memdump" => memdump(arguments),
            "objgraph" => Ok(Inspection::Impossible("objgraph draws Python's objects, and this worker has none")),
            _ => return None,
        })
    }
}

/// Ids that are no text are nobody's.
fn query_task(arguments: &Map) -> Result<Inspection> {
    require("query_task", arguments, &["ids"])?;
    let asked = match argument(arguments, "ids") {
        Value::Null => return raise("TypeError", "'NoneType' object is not iterable"),
        Value::List(ids) => ids.as_slice(),
        one => std::slice::from_ref(one),
    };
    match asked.iter().find(|id| matches!(id, Value::List(_) | Value::Map(_))) {
        Some(id) => raise("TypeError", format!("unhashable type: '{}'", id.type_name())),
        None => {
            let texts: Vec<Value> = asked.iter().filter(|id| id.as_str().is_some()).cloned().collect();
            ids(&texts.into()).map(Inspection::QueryTask)
        }
    }
}

fn memdump(arguments: &Map) -> Result<Inspection> {
    let samples =
        arguments.get("samples").map_or(Some(10), Value::as_u64).and_then(|number| usize::try_from(number).ok());
    match samples {
        Some(samples) => Ok(Inspection::MemDump { samples }),
        None => raise("ValueError", "memdump: samples is a whole number"),
    }
}

fn registered(arguments: &Map) -> Result<Inspection> {
    let public = |names: &mut dyn Iterator<Item = &str>| {
        names.filter(|name| !name.starts_with('_')).map(str::to_owned).collect()
    };
    let attributes = match argument(arguments, "taskinfoitems") {
        value if !value.is_truthy() => public(&mut ATTRIBUTES.into_iter()),
        Value::List(names) => public(&mut names.iter().filter_map(Value::as_str)),
        Value::Map(names) => public(&mut names.keys()),
        // Python takes a text for its characters, and no attribute has a name of one.
        Value::String(_) => Vec::new(),
        other => return raise("TypeError", format!("'{}' object is not iterable", other.type_name())),
    };
    Ok(Inspection::Registered { attributes, builtins: argument(arguments, "builtins").is_truthy() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::json;

    fn read(method: &str, arguments: &str) -> Option<std::result::Result<Inspection, String>> {
        let arguments = json::parse(arguments.as_bytes()).unwrap().into_map().unwrap();
        let request = ControlRequest { method: method.into(), arguments, reply_to: None, ticket: Value::Null };
        Inspection::read(&request).map(|read| read.map_err(|exception| exception.to_string()))
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn questions_are_read() {
        let registered =
            |attributes: &[&str], builtins| Inspection::Registered { attributes: names(attributes), builtins };
        let rows = [
            ("active", "{}", Inspection::Active { safe: false }),
            ("dump_active", r#"{"safe": true, "unknown": 1}"#, Inspection::Active { safe: true }),
            ("dump_reserved", "{}", Inspection::Reserved),
            ("dump_schedule", "{}", Inspection::Scheduled),
            ("dump_revoked", "{}", Inspection::Revoked),
            ("query_task", r#"{"ids": ["a", 5, "b", "a"]}"#, Inspection::QueryTask(names(&["a", "b"]))),
            ("query_task", r#"{"ids": "a"}"#, Inspection::QueryTask(names(&["a"]))),
            ("query_task", r#"{"ids": 5}"#, Inspection::QueryTask(Vec::new())),
            ("dump_tasks", "{}", registered(&ATTRIBUTES, false)),
            ("registered", r#"{"taskinfoitems": [], "builtins": true}"#, registered(&ATTRIBUTES, true)),
            ("registered", r#"{"taskinfoitems": ["acks_late", "_x", 1]}"#, registered(&["acks_late"], false)),
            ("registered", r#"{"taskinfoitems": "name"}"#, registered(&[], false)),
            ("stats", "{}", Inspection::Stats),
            ("dump_conf", "{}", Inspection::Conf { with_defaults: false }),
            ("conf", r#"{"with_defaults": "no"}"#, Inspection::Conf { with_defaults: true }),
            ("memdump", r#"{"samples": 3}"#, Inspection::MemDump { samples: 3 }),
            ("memdump", "{}", Inspection::MemDump { samples: 10 }),
        ];
        for (method, arguments, expected) in rows {
            assert_eq!(read(method, arguments), Some(Ok(expected)), "{method} {arguments}");
        }
        assert_eq!(read("ping", "{}"), None);
    }

    /// Recorded from a stock worker, 5.7.0.
    #[test]
    fn what_cannot_be_told_is_refused_in_pythons_words() {
        let rows = [
            ("query_task", "{}", "TypeError(\"query_task() missing 1 required positional argument: 'ids'\")"),
            ("query_task", r#"{"ids": null}"#, "TypeError(\"'NoneType' object is not iterable\")"),
            ("query_task", r#"{"ids": [[1]]}"#, "TypeError(\"unhashable type: 'list'\")"),
            ("memdump", r#"{"samples": -1}"#, "ValueError('memdump: samples is a whole number')"),
            ("report", r#"{"x": 1}"#, "TypeError(\"report() got an unexpected keyword argument 'x'\")"),
            ("registered", r#"{"taskinfoitems": 5}"#, "TypeError(\"'int' object is not iterable\")"),
            ("active_queues", r#"{"x": 1}"#, "TypeError(\"active_queues() got an unexpected keyword argument 'x'\")"),
        ];
        for (method, arguments, expected) in rows {
            assert_eq!(read(method, arguments), Some(Err(expected.to_owned())), "{method} {arguments}");
        }
    }
}
