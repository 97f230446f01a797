//! [`Steering`]: the commands that change what a worker consumes, how much at a time, or end it.

use super::command::require;
use super::{Result, raise};
use crate::protocol::{Map, Value, repr};

/// What a client wants the worker to be from now on (celery/worker/control.py, "Pool" and what follows).
#[derive(Debug, Clone, PartialEq)]
pub enum Steering {
    /// Run so many more at a time. Asked with bad words, it is refused only where the pool may grow at all.
    PoolGrow(Result<i64>),
    /// Run so many fewer at a time.
    PoolShrink(Result<i64>),
    /// Begin a new pool.
    PoolRestart,
    /// Other bounds for the pool that grows and shrinks by itself.
    Autoscale(Result<Bounds>),
    /// Consume one more queue.
    AddConsumer {
        /// Its name.
        queue: String,
        /// How it is declared and bound where the worker does not know it yet: `exchange`, `routing_key`, `durable` and
        /// the like, as the client gave them.
        options: Map,
    },
    /// Consume that queue no longer.
    CancelConsumer(String),
    /// Stop warmly, with this in the log.
    Shutdown(String),
}

/// Between what a pool grows and shrinks; what was not given stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    /// The most that run at a time.
    pub max: Option<i64>,
    /// The least that may.
    pub min: Option<i64>,
}

impl Steering {
    /// Reads one of these commands; `None`: it is none of them.
    pub(super) fn read(method: &str, arguments: &Map) -> Result<Option<Self>> {
        Ok(Some(match method {
            "pool_grow" => Steering::PoolGrow(places(arguments, |name| {
                format!("'{name}' object cannot be interpreted as an integer")
            })),
            "pool_shrink" => Steering::PoolShrink(places(arguments, |name| {
                format!("unsupported operand type(s) for -: '{name}' and 'int'")
            })),
            "pool_restart" => Steering::PoolRestart,
            "autoscale" => Steering::Autoscale(bounds(arguments)?),
            "add_consumer" => {
                Steering::AddConsumer { queue: queue("add_consumer", arguments)?, options: options(arguments) }
            }
            "cancel_consumer" => Steering::CancelConsumer(queue("cancel_consumer", arguments)?),
            "shutdown" => Steering::Shutdown(message(arguments)),
            _ => return Ok(None),
        }))
    }
}

/// How many places are meant: one, unless it is said. Python says what is wrong with what is no number in words that
/// depend on what is done with it.
fn places(arguments: &Map, complaint: impl Fn(&str) -> String) -> Result<i64> {
    match arguments.get("n") {
        None => Ok(1),
        Some(value) => whole(value).map_or_else(|| raise("TypeError", complaint(value.type_name())), Ok),
    }
}

/// The outer error is that of the call, which is raised before anything else is looked at.
fn bounds(arguments: &Map) -> Result<Result<Bounds>> {
    if let Some(name) = arguments.keys().find(|name| !["max", "min"].contains(name)) {
        return raise("TypeError", format!("autoscale() got an unexpected keyword argument '{name}'"));
    }
    let bound = |name, comparison| match arguments.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => whole(value).map(Some).ok_or((comparison, value.type_name())),
    };
    Ok(match (bound("max", '<'), bound("min", '>')) {
        (Ok(max), Ok(min)) => Ok(Bounds { max, min }),
        (Err((comparison, name)), _) | (_, Err((comparison, name))) => {
            let message = format!("'{comparison}' not supported between instances of '{name}' and 'int'");
            raise("TypeError", message)
        }
    })
}

/// What was said about the queue; Python's `None` says nothing.
fn options(arguments: &Map) -> Map {
    let said = arguments.iter().filter(|(name, value)| *name != "queue" && !value.is_null());
    said.map(|(name, value)| (name, value.clone())).collect()
}

fn queue(function: &str, arguments: &Map) -> Result<String> {
    require(function, arguments, &["queue"])?;
    let given = arguments.get("queue").unwrap_or(&Value::Null);
    match given.as_str() {
        Some(name) if !name.is_empty() => Ok(name.to_owned()),
        _ => raise("ValueError", format!("a queue has a name, and this is none: {}", repr::repr(given))),
    }
}

fn message(arguments: &Map) -> String {
    match arguments.get("msg") {
        None => "Got shutdown from remote".to_owned(),
        Some(value) => value.as_str().map_or_else(|| repr::repr(value), str::to_owned),
    }
}

/// To Python the truths are numbers.
fn whole(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_bool().map(i64::from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::json;

    fn check(method: &str, arguments: &str, expected: &str) {
        let arguments = json::parse(arguments.as_bytes()).unwrap().into_map().unwrap();
        let shown = match Steering::read(method, &arguments) {
            Ok(Some(
                Steering::PoolGrow(Err(raised)) | Steering::PoolShrink(Err(raised)) | Steering::Autoscale(Err(raised)),
            )) => format!("inside: {raised}"),
            Ok(read) => format!("{read:?}"),
            Err(raised) => raised.to_string(),
        };
        assert_eq!(shown, expected, "{method} {arguments:?}");
    }

    #[test]
    fn orders_are_read() {
        check("pool_grow", "{}", "Some(PoolGrow(Ok(1)))");
        check("pool_grow", r#"{"n": 3, "x": 1}"#, "Some(PoolGrow(Ok(3)))");
        check("pool_shrink", r#"{"n": true}"#, "Some(PoolShrink(Ok(1)))");
        check("autoscale", r#"{"max": 10, "min": null}"#, "Some(Autoscale(Ok(Bounds { max: Some(10), min: None })))");
        check("cancel_consumer", r#"{"queue": "q", "x": 1}"#, "Some(CancelConsumer(\"q\"))");
        check("shutdown", r#"{"x": 1}"#, "Some(Shutdown(\"Got shutdown from remote\"))");
        check("shutdown", r#"{"msg": "enough"}"#, "Some(Shutdown(\"enough\"))");
        check("ping", "{}", "None");
    }

    #[test]
    fn what_is_not_given_of_a_queue_is_not_said() {
        let arguments = r#"{"queue": "q", "exchange": null, "exchange_type": "topic", "durable": false}"#;
        let arguments = json::parse(arguments.as_bytes()).unwrap().into_map().unwrap();
        let options = Map::from([("exchange_type", Value::from("topic")), ("durable", false.into())]);
        let expected = Steering::AddConsumer { queue: "q".into(), options };
        assert_eq!(Steering::read("add_consumer", &arguments), Ok(Some(expected)));
    }

    #[test]
    fn what_is_no_number_is_told_in_pythons_words() {
        check("pool_grow", r#"{"n": "2"}"#, "inside: TypeError(\"'str' object cannot be interpreted as an integer\")");
        check(
            "pool_shrink",
            r#"{"n": null}"#,
            "inside: TypeError(\"unsupported operand type(s) for -: 'NoneType' and 'int'\")",
        );
        check(
            "autoscale",
            r#"{"max": 2, "min": "1"}"#,
            "inside: TypeError(\"'>' not supported between instances of 'str' and 'int'\")",
        );
        check("add_consumer", "{}", "TypeError(\"add_consumer() missing 1 required positional argument: 'queue'\")");
        check("cancel_consumer", r#"{"queue": 5}"#, "ValueError('a queue has a name, and this is none: 5')");
        check("autoscale", r#"{"n": 2}"#, "TypeError(\"autoscale() got an unexpected keyword argument 'n'\")");
    }
}
