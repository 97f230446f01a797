//! [`Retry`]: a handler's wish to be run again.

use std::time::Duration;

use jiff::Timestamp;

use super::Arguments;
use super::binding::Signature;
use crate::protocol::{Exception, Map, Value};

/// A wish to be run again (celery/app/task.py `Task.retry`).
///
/// Begun with [`TaskContext::retry`](super::TaskContext::retry) and returned as an error.
#[derive(Debug, Clone, PartialEq, Default)]
#[must_use = "a retry happens when the handler returns it as its error"]
pub struct Retry {
    /// What went wrong: stored as the RETRY state's result, and raised when no retries are left.
    pub exception: Option<Exception>,
    /// How long to wait; `None`: the task's back-off, or its default delay.
    pub countdown: Option<Duration>,
    /// When to run; wins over `countdown`.
    pub eta: Option<Timestamp>,
    /// Another limit than the task's; `Some(None)` is no limit.
    pub max_retries: Option<Option<u32>>,
    /// Other arguments than this run's.
    pub args: Option<Vec<Value>>,
    /// Other keyword arguments than this run's.
    pub kwargs: Option<Map>,
}

impl Retry {
    /// What went wrong: any error, or an [`Exception`]. Clients see it while the task waits, and when no retries are
    /// left.
    pub fn exception(mut self, error: impl Into<Exception>) -> Self {
        self.exception = Some(error.into());
        self
    }

    /// Waits this long.
    pub fn countdown(mut self, countdown: Duration) -> Self {
        self.countdown = Some(countdown);
        self
    }

    /// Waits until then; wins over a countdown.
    pub fn eta(mut self, eta: Timestamp) -> Self {
        self.eta = Some(eta);
        self
    }

    /// Another limit than the task's, for this run: a number, or `None` for no limit.
    pub fn max_retries(mut self, limit: impl Into<Option<u32>>) -> Self {
        self.max_retries = Some(limit.into());
        self
    }

    /// Other arguments by position than this run's.
    pub fn args<V: Into<Value>>(mut self, args: impl IntoIterator<Item = V>) -> Self {
        self.args = Some(args.into_iter().map(Into::into).collect());
        self
    }

    /// Other arguments by name than this run's.
    pub fn kwargs(mut self, kwargs: Map) -> Self {
        self.kwargs = Some(kwargs);
        self
    }

    /// What the next run is given, where this one was given `original`.
    ///
    /// Arguments that the handler names replace those of this run in the way that they were passed: a new positional
    /// argument drops a keyword of the same parameter, a new keyword replaces a positional argument (Celery 5.7's
    /// `Task.retry`; older ones leave both, and the next run fails).
    pub fn arguments(&self, original: &Arguments, signature: Option<&Signature>) -> Arguments {
        let positional = signature.map(Signature::positional).unwrap_or_default();
        match (&self.args, &self.kwargs) {
            (None, None) => original.clone(),
            (Some(args), Some(kwargs)) => Arguments { args: args.clone(), kwargs: kwargs.clone() },
            (Some(args), None) => {
                let mut kwargs = original.kwargs.clone();
                for parameter in positional.iter().take(args.len()) {
                    kwargs.remove(parameter.name);
                }
                Arguments { args: args.clone(), kwargs }
            }
            (None, Some(kwargs)) => {
                let (mut args, mut kwargs) = (original.args.clone(), kwargs.clone());
                for (parameter, argument) in positional.iter().zip(&mut args) {
                    if let Some(value) = kwargs.remove(parameter.name) {
                        *argument = value;
                    }
                }
                Arguments { args, kwargs }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::binding::{Kind, Parameter};

    const fn parameter(name: &'static str) -> Parameter {
        Parameter { name, kind: Kind::Required }
    }

    static ADD: Signature = Signature { function: "add", parameters: &[parameter("x"), parameter("y")] };

    fn arguments(args: &[i64], kwargs: &[(&str, i64)]) -> Arguments {
        Arguments {
            args: args.iter().copied().map(Value::Int).collect(),
            kwargs: kwargs.iter().map(|(name, value)| (*name, Value::Int(*value))).collect(),
        }
    }

    /// Each row is what Celery 5.7's `Task.retry` sends for `def add(x, y)`.
    #[test]
    fn new_arguments_take_the_place_of_the_old() {
        let kwargs = |pairs: &[(&str, i64)]| arguments(&[], pairs).kwargs;
        let check = |retry: Retry, original: Arguments, expected: Arguments| {
            assert_eq!(retry.arguments(&original, Some(&ADD)), expected, "{retry:?} {original:?}");
        };
        let by_name = arguments(&[], &[("x", 1), ("y", 2)]);
        let by_position = arguments(&[1, 2], &[]);
        check(Retry::default(), by_name.clone(), by_name.clone());
        check(Retry::default().args([7]), by_name.clone(), arguments(&[7], &[("y", 2)]));
        check(Retry::default().args([7, 8]), by_name.clone(), arguments(&[7, 8], &[]));
        check(Retry::default().args([7]), by_position.clone(), arguments(&[7], &[]));
        check(Retry::default().kwargs(kwargs(&[("y", 8)])), by_position.clone(), arguments(&[1, 8], &[]));
        check(Retry::default().kwargs(kwargs(&[("y", 8)])), by_name.clone(), arguments(&[], &[("y", 8)]));
        check(Retry::default().args([7]).kwargs(kwargs(&[("y", 8)])), by_position, arguments(&[7], &[("y", 8)]));
    }

    #[test]
    fn arguments_of_a_handler_without_signature_are_replaced_as_they_are() {
        let original = arguments(&[1], &[("y", 2)]);
        assert_eq!(Retry::default().args([7]).arguments(&original, None), arguments(&[7], &[("y", 2)]));
    }
}
