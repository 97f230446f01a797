//! Settings of a Python app, as [`Config`] reads them.

use celeriac::config::{Config, QueueDefinition};
use celeriac::{Error, ErrorKind, Result};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use toml::{Table, Value};

/// How deep a setting may be nested.
const DEEPEST: usize = 32;

/// Puts settings over those of a config. What has the form of none of TOML's values is not handed over: the names of these.
///
/// # Errors
/// `Configuration`: a value that its setting cannot have.
pub(super) fn merge(config: &mut Config, settings: &Bound<'_, PyDict>) -> Result<Vec<String>> {
    let mut unread = Vec::new();
    let mut table = Table::new();
    for (name, value) in settings {
        let name = name.to_string();
        match value_of(&value, 0) {
            Some(value) => drop(table.insert(name, value)),
            None => unread.push(name),
        }
    }
    for warning in config.merge_toml(&table.to_string(), "app.conf")? {
        unread.push(warning.name);
    }
    Ok(unread)
}

/// The queues that are `added`, every field filled in, and the names of those that are `removed`.
///
/// # Errors
/// `Configuration`: something that a queue cannot have.
pub(super) fn queues(config: &Config, changes: &Bound<'_, PyDict>) -> Result<(Vec<QueueDefinition>, Vec<String>)> {
    let Some(Value::Table(mut changes)) = value_of(changes, 0) else { return Ok(Default::default()) };
    let removed = changes.remove("removed").and_then(|names| names.try_into().ok()).unwrap_or_default();
    let Some(added @ Value::Array(_)) = changes.remove("added") else { return Ok((Vec::new(), removed)) };
    if added.as_array().is_some_and(Vec::is_empty) {
        return Ok((Vec::new(), removed));
    }
    // Read and filled in as those of the settings are.
    let mut config = config.clone();
    let table = Table::from_iter([("task_queues".to_owned(), added)]);
    config.merge_toml(&table.to_string(), "app.amqp.queues")?;
    Ok((config.defined_queues(), removed))
}

fn value_of(value: &Bound<'_, PyAny>, depth: usize) -> Option<Value> {
    if depth > DEEPEST {
        return None;
    }
    if value.is_instance_of::<PyBool>() {
        return value.extract().ok().map(Value::Boolean);
    }
    if value.is_instance_of::<PyInt>() {
        return value.extract().ok().map(Value::Integer);
    }
    if value.is_instance_of::<PyFloat>() {
        return value.extract().ok().map(Value::Float);
    }
    if value.is_instance_of::<PyString>() {
        return value.extract().ok().map(Value::String);
    }
    if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        let items = value.try_iter().ok()?;
        return items.map(|item| value_of(&item.ok()?, depth + 1)).collect::<Option<_>>().map(Value::Array);
    }
    let dict = value.cast::<PyDict>().ok()?;
    let pairs = dict.iter().filter(|(_, value)| !value.is_none());
    let pairs = pairs.map(|(key, value)| Some((key.extract::<String>().ok()?, value_of(&value, depth + 1)?)));
    pairs.collect::<Option<Table>>().map(Value::Table)
}

/// What Python raised, as an error of ours.
pub(super) fn raised(error: &PyErr) -> Error {
    Error::new(ErrorKind::Configuration, error.to_string())
}
