//! The commands that stock workers know, with their arguments (celery/worker/control.py `Panel`).

use crate::cli::failure::Failure;
use crate::protocol::{Map, Value};

/// A command of remote control.
#[derive(Debug)]
pub(super) struct RemoteCommand {
    pub(super) name: &'static str,
    /// Its arguments for people to read.
    pub(super) signature: &'static str,
    pub(super) help: &'static str,
    arguments: &'static [(&'static str, Kind)],
    /// What takes all arguments that are left.
    variadic: Option<&'static str>,
}

/// What an argument is read as.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Text,
    Whole,
    Number,
    Flag,
}

use Kind::{Flag, Number, Text, Whole};

const fn plain(name: &'static str, help: &'static str) -> RemoteCommand {
    RemoteCommand { name, signature: "", help, arguments: &[], variadic: None }
}

/// Those of `inspect`.
pub(super) const INSPECT: &[RemoteCommand] = &[
    plain("active", "Tasks that run at this moment."),
    plain("active_queues", "Queues that are consumed."),
    plain("clock", "The logical clock."),
    RemoteCommand {
        signature: "[include_defaults=False]",
        arguments: &[("with_defaults", Flag)],
        ..plain("conf", "Settings that are not the default; all of them with true.")
    },
    RemoteCommand {
        signature: "[n_samples=10]",
        arguments: &[("samples", Whole)],
        ..plain("memdump", "What earlier memsamples have found.")
    },
    plain("memsample", "Take a sample of the resident memory."),
    RemoteCommand {
        signature: "[object_type=Request] [num=200 [max_depth=10]]",
        arguments: &[("type", Text), ("num", Whole), ("max_depth", Whole)],
        ..plain("objgraph", "Draw the objects that Python has not collected.")
    },
    plain("ping", "Is anybody there?"),
    RemoteCommand {
        signature: "[id1 [id2 [... [idN]]]]",
        variadic: Some("ids"),
        ..plain("query_task", "What the workers know of tasks, by id.")
    },
    RemoteCommand {
        signature: "[attr1 [attr2 [... [attrN]]]]",
        variadic: Some("taskinfoitems"),
        ..plain("registered", "Tasks that can be run, with these attributes.")
    },
    plain("report", "What a bug report should say."),
    plain("reserved", "Tasks that were taken and have not begun; none that wait for their ETA."),
    plain("revoked", "Ids that are revoked."),
    plain("scheduled", "Tasks that wait for their ETA."),
    plain("stats", "Counters, pool, broker and process."),
];

/// Those of `control`.
pub(super) const CONTROL: &[RemoteCommand] = &[
    RemoteCommand {
        signature: "<queue> [exchange [type [routing_key]]]",
        arguments: &[("queue", Text), ("exchange", Text), ("exchange_type", Text), ("routing_key", Text)],
        ..plain("add_consumer", "Consume one more queue.")
    },
    RemoteCommand {
        signature: "[max [min]]",
        arguments: &[("max", Whole), ("min", Whole)],
        ..plain("autoscale", "Change the bounds of the pool.")
    },
    RemoteCommand {
        signature: "<queue>",
        arguments: &[("queue", Text)],
        ..plain("cancel_consumer", "Consume a queue no longer.")
    },
    plain("disable_events", "Send no more events of tasks."),
    plain("election", "Elect a node that does something."),
    plain("enable_events", "Send events of tasks."),
    plain("heartbeat", "Send a heartbeat at once."),
    RemoteCommand {
        signature: "[N=1]",
        arguments: &[("n", Whole)],
        ..plain("pool_grow", "Run N tasks more at a time.")
    },
    plain("pool_restart", "Begin a new pool."),
    RemoteCommand {
        signature: "[N=1]",
        arguments: &[("n", Whole)],
        ..plain("pool_shrink", "Run N tasks fewer at a time.")
    },
    RemoteCommand {
        signature: "<task_name> <rate_limit (e.g., 5/s | 5/m | 5/h)>",
        arguments: &[("task_name", Text), ("rate_limit", Text)],
        ..plain("rate_limit", "Let a task start so often.")
    },
    RemoteCommand {
        signature: "[id1 [id2 [... [idN]]]]",
        variadic: Some("task_id"),
        ..plain("revoke", "Do not run these tasks.")
    },
    RemoteCommand {
        signature: "[key1=value1 [key2=value2 [... [keyN=valueN]]]]",
        variadic: Some("headers"),
        ..plain("revoke_by_stamped_headers", "Do not run tasks with one of these stamps.")
    },
    plain("shutdown", "Stop warmly."),
    RemoteCommand {
        signature: "<signal> [id1 [id2 [... [idN]]]]",
        arguments: &[("signal", Text)],
        variadic: Some("task_id"),
        ..plain("terminate", "End these tasks, also while they run.")
    },
    RemoteCommand {
        signature: "<task_name> <soft_secs> [hard_secs]",
        arguments: &[("task_name", Text), ("soft", Number), ("hard", Number)],
        ..plain("time_limit", "Let a task take so long.")
    },
];

/// The command of that name; `kind` is `inspect` or `control`.
pub(super) fn find(
    commands: &'static [RemoteCommand],
    kind: &str,
    name: &str,
) -> Result<&'static RemoteCommand, Failure> {
    commands.iter().find(|command| command.name == name).ok_or_else(|| {
        let names: Vec<_> = commands.iter().map(|command| command.name).collect();
        let names = names.join(", ");
        Failure::usage(format!("Command {name} not recognized. Available {kind} commands: {names}"))
    })
}

impl RemoteCommand {
    /// What was given, under the names that workers know. What is missing is for the worker to say.
    pub(super) fn arguments(&self, given: &[String]) -> Result<Map, Failure> {
        let (named, rest) = given.split_at(given.len().min(self.arguments.len()));
        let mut arguments = Map::new();
        for (text, (name, kind)) in named.iter().zip(self.arguments) {
            let value = kind.read(text).ok_or_else(|| {
                Failure::usage(format!("'{text}' is not what {} takes: {} {}", self.name, self.name, self.signature))
            })?;
            arguments.insert(*name, value);
        }
        match self.variadic {
            Some(name) => {
                arguments.insert(name, rest.to_vec());
            }
            None if rest.is_empty() => {}
            None => {
                let takes = if self.signature.is_empty() { "None" } else { self.signature };
                return Err(Failure::usage(format!("Command '{}' takes arguments: {takes}", self.name)));
            }
        }
        Ok(arguments)
    }
}

impl Kind {
    fn read(self, text: &str) -> Option<Value> {
        match self {
            Text => Some(text.into()),
            Whole => text.parse::<i64>().ok().map(Value::from),
            Number => text.parse::<f64>().ok().map(Value::from),
            // celery/utils/serialization.py `strtobool`.
            Flag => match text.to_lowercase().as_str() {
                "yes" | "true" | "on" | "1" => Some(true.into()),
                "no" | "false" | "off" | "0" => Some(false.into()),
                _ => None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Command, ControlRequest, Inspection};

    fn arguments(name: &str, given: &[&str]) -> Result<Map, String> {
        let given: Vec<_> = given.iter().map(|text| (*text).to_owned()).collect();
        let command = find(CONTROL, "control", name).or_else(|_| find(INSPECT, "inspect", name));
        command.and_then(|command| command.arguments(&given)).map_err(|failure| failure.message)
    }

    #[test]
    fn arguments_have_the_names_that_workers_know() {
        let rows = [
            ("ping", &[][..], Ok(Map::new())),
            ("ping", &["x"], Err("Command 'ping' takes arguments: None")),
            ("revoke", &["a", "b"], Ok(Map::from([("task_id", vec!["a", "b"])]))),
            ("conf", &["true"], Ok(Map::from([("with_defaults", true)]))),
            ("autoscale", &["10", "3"], Ok(Map::from([("max", 10), ("min", 3)]))),
            ("autoscale", &["ten"], Err("'ten' is not what autoscale takes: autoscale [max [min]]")),
            (
                "terminate",
                &["KILL", "a"],
                Ok(Map::from([("signal", Value::from("KILL")), ("task_id", vec!["a"].into())])),
            ),
            ("time_limit", &["t", "1.5"], Ok(Map::from([("task_name", Value::from("t")), ("soft", 1.5.into())]))),
            ("pool_grow", &["1", "2"], Err("Command 'pool_grow' takes arguments: [N=1]")),
        ];
        for (name, given, expected) in rows {
            assert_eq!(arguments(name, given), expected.map_err(str::to_owned), "{name} {given:?}");
        }
        let unknown = arguments("nope", &[]).unwrap_err();
        assert!(unknown.starts_with("Command nope not recognized. Available inspect commands: active, "), "{unknown}");
    }

    #[test]
    fn every_command_is_one_that_workers_know() {
        for RemoteCommand { name, .. } in CONTROL.iter().chain(INSPECT) {
            let (method, arguments) = ((*name).to_owned(), Map::default());
            let request = ControlRequest { method, arguments, reply_to: None, ticket: Value::Null };
            let is_command = !Command::read(&request).is_err_and(|raised| raised.exc_type == "KeyError");
            assert!(is_command || Inspection::read(&request).is_some(), "{name}");
        }
    }
}
