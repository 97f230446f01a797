//! [`Handler`]: a Rust task, as the package `celeriac` makes one of Celery's of it.

use std::sync::Arc;
use std::time::Duration;

use celeriac::protocol::{Exception, Map, Value};
use celeriac::task::binding::Kind;
use celeriac::task::{Arguments, Outcome, Retry, Task, TaskOptions};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::call::call;
use super::objects::Objects;
use super::runtimes::Runtimes;
use super::values::value_of;
use crate::request::request_of;

/// A Rust task.
#[pyclass(module = "celeriac._celeriac", frozen)]
pub(super) struct Handler {
    task: Arc<dyn Task>,
    runtimes: Arc<Runtimes>,
}

impl Handler {
    pub(super) fn new(task: Arc<dyn Task>, runtimes: Arc<Runtimes>) -> Self {
        Handler { task, runtimes }
    }
}

#[pymethods]
impl Handler {
    /// The registered name.
    #[getter]
    fn name(&self) -> &str {
        self.task.name()
    }

    /// The function's name.
    #[getter]
    fn function(&self) -> &str {
        match self.task.signature() {
            Some(signature) => signature.function,
            None => self.task.name().rsplit('.').next().unwrap_or_default(),
        }
    }

    /// Each parameter's name and what it takes: `required`, `optional`, `args`, `kwargs`; `None`: it takes whatever comes.
    #[getter]
    fn parameters(&self) -> Option<Vec<(&'static str, &'static str)>> {
        let kind = |kind| match kind {
            Kind::Required => "required",
            Kind::Optional => "optional",
            Kind::Args => "args",
            Kind::Kwargs => "kwargs",
        };
        let parameters = self.task.signature()?.parameters.iter();
        Some(parameters.map(|parameter| (parameter.name, kind(parameter.kind))).collect())
    }

    /// What its declaration says, under Celery's names.
    #[getter]
    fn options<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        options_of(self.task.options(), py)
    }

    /// Runs the handler to its end. What it asks meanwhile, and how it ends unless it returns, `host` is told of.
    fn run<'py>(
        &self,
        host: &Bound<'py, PyAny>,
        request: &Bound<'py, PyDict>,
        args: &Bound<'py, PyTuple>,
        kwargs: &Bound<'py, PyDict>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let map = |dict| value_of(dict).map(|value| value.into_map().unwrap_or_default());
        let args = value_of(args)?.into_list().unwrap_or_default();
        let arguments = Arguments { args, kwargs: map(kwargs)? };
        let runtime = self.runtimes.here(host.py())?;
        let outcome = call(&*self.task, &runtime, host, request_of(&map(request)?), arguments)?;
        end(outcome, host)
    }
}

/// Tells how it ended. What raises, raises.
fn end<'py>(outcome: Outcome, host: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let objects = Objects(host.py());
    match outcome {
        Outcome::Success(value) => objects.of(&value),
        Outcome::Failure { exception, traceback } => {
            host.call_method1("fail", (objects.of(&exception.to_map().into())?, traceback))
        }
        Outcome::Retry(retry) => host.call_method1("retry", (objects.of(&wish_of(retry).into())?,)),
        Outcome::Replace(signature) => host.call_method1("replace", (objects.of(&(*signature).into())?,)),
        Outcome::Ignore => host.call_method0("ignore"),
        Outcome::Reject { reason, requeue } => host.call_method1("reject", (reason, requeue)),
    }
}

/// The arguments of Celery's `Task.retry`. That there is no limit it cannot be told.
fn wish_of(retry: Retry) -> Map {
    let mut wish = Map::new();
    let mut wants = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            wish.insert(name, value);
        }
    };
    wants("exc", retry.exception.map(|exception: Exception| exception.to_map().into()));
    wants("countdown", retry.countdown.map(|countdown| countdown.as_secs_f64().into()));
    wants("eta", retry.eta.map(|eta| Value::DateTime(eta.into())));
    wants("max_retries", retry.max_retries.map(|limit| limit.map_or(i64::MAX, i64::from).into()));
    wants("args", retry.args.map(Value::List));
    wants("kwargs", retry.kwargs.map(Value::Map));
    wish
}

fn options_of<'py>(options: &TaskOptions, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    let seconds = |duration: Option<Duration>| duration.map(|duration| duration.as_secs_f64());
    for (name, flag) in [
        ("acks_late", options.acks_late),
        ("acks_on_failure", options.acks_on_failure),
        ("acks_on_failure_or_timeout", options.acks_on_failure_or_timeout),
        ("acks_on_timeout", options.acks_on_timeout),
        ("autoretry", options.autoretry.then_some(true)),
        ("ignore_result", options.ignore_result),
        ("reject_on_worker_lost", options.reject_on_worker_lost),
        ("retry_on_worker_lost", options.retry_on_worker_lost),
        ("retry_jitter", options.retry_jitter),
        ("send_events", options.send_events),
        ("store_errors_even_if_ignored", options.store_errors_even_if_ignored),
        ("track_started", options.track_started),
    ] {
        flag.map_or(Ok(()), |flag| dict.set_item(name, flag))?;
    }
    for (name, duration) in [
        ("default_retry_delay", seconds(options.default_retry_delay)),
        ("expires", seconds(options.expires)),
        ("retry_backoff", seconds(options.retry_backoff)),
        ("retry_backoff_max", seconds(options.retry_backoff_max)),
        ("soft_time_limit", seconds(options.soft_time_limit)),
        ("time_limit", seconds(options.time_limit)),
    ] {
        duration.map_or(Ok(()), |duration| dict.set_item(name, duration))?;
    }
    for (name, text) in
        [("queue", &options.queue), ("rate_limit", &options.rate_limit), ("serializer", &options.serializer)]
    {
        text.as_ref().map_or(Ok(()), |text| dict.set_item(name, text))?;
    }
    options.priority.map_or(Ok(()), |priority| dict.set_item("priority", priority))?;
    options.max_retries.map_or(Ok(()), |limit| dict.set_item("max_retries", limit))?;
    Ok(dict)
}
