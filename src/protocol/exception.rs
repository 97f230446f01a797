//! [`Exception`]: a Python exception as results carry it.

use std::fmt;

use super::{Map, Value, repr};

/// A Python exception by name: what `AsyncResult.get()` raises (celery/backends/base.py `Backend.prepare_exception`,
/// `exception_to_python`).
///
/// The client looks the class up among the modules that it has imported; where there is none it makes a class of that
/// name under `celery.exceptions`. As text it is Python's `repr`: `ValueError('bad', 3)`. It is not itself an error to Rust,
/// so that any error can become one.
#[derive(Debug, Clone, PartialEq)]
pub struct Exception {
    /// The class's qualified name: `ValueError`.
    pub exc_type: String,
    /// The module that holds it: `builtins`.
    pub exc_module: Option<String>,
    /// The exception's `args`.
    pub exc_message: Vec<Value>,
}

impl Exception {
    /// One of Python's built-in exceptions with one argument: `Exception::new("ValueError", "bad")`.
    pub fn new(exc_type: impl Into<String>, message: impl Into<Value>) -> Self {
        Exception::with_args(exc_type, "builtins", [message])
    }

    /// An exception of any module with any arguments.
    pub fn with_args<T: Into<Value>>(
        exc_type: impl Into<String>,
        exc_module: impl Into<String>,
        args: impl IntoIterator<Item = T>,
    ) -> Self {
        Exception {
            exc_type: exc_type.into(),
            exc_module: Some(exc_module.into()),
            exc_message: args.into_iter().map(Into::into).collect(),
        }
    }

    /// One of Celery's own exceptions (celery/exceptions.py), such as `NotRegistered` or `TaskRevokedError`.
    pub fn celery(exc_type: impl Into<String>, message: impl Into<Value>) -> Self {
        Exception::with_args(exc_type, "celery.exceptions", [message])
    }

    /// One of the pool's exceptions, which Celery takes from Billiard: `TimeLimitExceeded`, `WorkerLostError`.
    pub fn billiard(exc_type: impl Into<String>, message: impl Into<Value>) -> Self {
        Exception::with_args(exc_type, "billiard.exceptions", [message])
    }

    /// What Python's `str()` makes of it: the only argument, or a tuple of them.
    pub fn message(&self) -> String {
        match self.exc_message.as_slice() {
            [] => String::new(),
            [Value::String(text)] => text.clone(),
            [only] => repr::repr(only),
            several => repr::tuple(several),
        }
    }

    /// The dict that results carry: `exc_type`, `exc_message`, `exc_module`.
    pub fn to_map(&self) -> Map {
        Map::from([
            ("exc_type", Value::from(self.exc_type.as_str())),
            ("exc_message", Value::List(self.exc_message.clone())),
            ("exc_module", Value::from(self.exc_module.as_deref())),
        ])
    }

    /// Reads the dict that results carry; `None` if it lacks an `exc_type`. A message that is not a list, which other
    /// writers store, is the only argument.
    pub fn from_map(map: &Map) -> Option<Self> {
        let text = |key| map.get(key).and_then(Value::as_str).map(str::to_owned);
        let exc_message = match map.get("exc_message") {
            Some(Value::List(args)) => args.clone(),
            Some(only) => vec![only.clone()],
            None => vec!["".into()],
        };
        Some(Exception { exc_type: text("exc_type")?, exc_module: text("exc_module"), exc_message })
    }
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.exc_type.rsplit('.').next().unwrap_or_default();
        let args: Vec<String> = self.exc_message.iter().map(repr::repr).collect();
        write!(f, "{name}({})", args.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_pythons() {
        let check = |args: Vec<Value>, shown: &str, message: &str| {
            let exception = Exception::with_args("ValueError", "builtins", args);
            assert_eq!((exception.to_string().as_str(), exception.message().as_str()), (shown, message));
        };
        check(vec![], "ValueError()", "");
        check(vec!["bad".into()], "ValueError('bad')", "bad");
        check(vec![1.5.into()], "ValueError(1.5)", "1.5");
        check(vec!["it's".into(), 3.into()], "ValueError(\"it's\", 3)", "(\"it's\", 3)");
        assert_eq!(Exception::with_args("Outer.Inner", "app", [1]).to_string(), "Inner(1)");
    }

    #[test]
    fn dicts_pass_both_ways() {
        let exception = Exception::celery("NotRegistered", "proj.add");
        assert_eq!(Exception::from_map(&exception.to_map()), Some(exception));
        let foreign = Map::from([("exc_type", Value::from("Odd")), ("exc_message", "text".into())]);
        let expected = Exception { exc_type: "Odd".into(), exc_module: None, exc_message: vec!["text".into()] };
        assert_eq!(Exception::from_map(&foreign), Some(expected));
        assert_eq!(Exception::from_map(&Map::new()), None);
    }
}
