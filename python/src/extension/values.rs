//! [`value_of`]: Python's objects as values.

use celeriac::protocol::{Map, Value, json};
use pyo3::exceptions::{PyRecursionError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

/// As deep as a message may be nested.
const DEEPEST: usize = 1000;

/// What a worker would get if the object were sent to it as JSON.
///
/// # Errors
/// What Kombu raises of an object that it cannot write.
pub(super) fn value_of(object: &Bound<'_, PyAny>) -> PyResult<Value> {
    value_at(object, 0)
}

fn value_at(object: &Bound<'_, PyAny>, depth: usize) -> PyResult<Value> {
    if depth > DEEPEST {
        return Err(PyRecursionError::new_err("a task's argument is nested too deep"));
    }
    if object.is_none() {
        return Ok(Value::Null);
    }
    if object.is_instance_of::<PyString>() {
        return object.extract().map(Value::String);
    }
    // A `bool` is an `int` too.
    if object.is_instance_of::<PyBool>() {
        return object.extract().map(Value::Bool);
    }
    if object.is_instance_of::<PyInt>() {
        return object.extract().map(Value::Int).or_else(|_| as_kombu_writes(object));
    }
    if object.is_instance_of::<PyFloat>() {
        return object.extract().map(Value::Float);
    }
    if let Ok(bytes) = object.cast::<PyBytes>() {
        return Ok(Value::Bytes(bytes.as_bytes().to_vec()));
    }
    if object.is_instance_of::<PyList>() || object.is_instance_of::<PyTuple>() {
        let items = object.try_iter()?.map(|item| value_at(&item?, depth + 1));
        return items.collect::<PyResult<_>>().map(Value::List);
    }
    match object.cast::<PyDict>() {
        Ok(dict) if dict.keys().iter().all(|key| key.is_instance_of::<PyString>()) => map_at(dict, depth),
        _ => as_kombu_writes(object),
    }
}

fn map_at(dict: &Bound<'_, PyDict>, depth: usize) -> PyResult<Value> {
    let pairs = dict.iter().map(|(key, value)| Ok((key.extract::<String>()?, value_at(&value, depth + 1)?)));
    pairs.collect::<PyResult<Map>>().map(Value::Map)
}

/// Dates, decimals, keys that are no text, and whatever else Kombu, or who taught it, knows to write.
fn as_kombu_writes(object: &Bound<'_, PyAny>) -> PyResult<Value> {
    let written: String = object.py().import("kombu.utils.json")?.call_method1("dumps", (object,))?.extract()?;
    json::parse(written.as_bytes()).map_err(|error| PyValueError::new_err(error.to_string()))
}
