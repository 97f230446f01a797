//! [`Objects`]: values as Python's objects.

use celeriac::protocol::Value;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};

use crate::frame::{Build, Cut, Written};

/// Makes Python's objects of values.
pub(super) struct Objects<'py>(pub(super) Python<'py>);

impl<'py> Build for Objects<'py> {
    type Value = Bound<'py, PyAny>;

    fn null(&self) -> Self::Value {
        self.0.None().into_bound(self.0)
    }

    fn bool(&self, value: bool) -> Self::Value {
        pyo3::types::PyBool::new(self.0, value).to_owned().into_any()
    }

    fn int(&self, number: i64) -> Self::Value {
        pyo3::types::PyInt::new(self.0, number).into_any()
    }

    fn float(&self, number: f64) -> Self::Value {
        pyo3::types::PyFloat::new(self.0, number).into_any()
    }

    fn text(&self, text: &str) -> Self::Value {
        PyString::new(self.0, text).into_any()
    }

    fn bytes(&self, bytes: &[u8]) -> Self::Value {
        PyBytes::new(self.0, bytes).into_any()
    }

    fn list(&self, items: Vec<Self::Value>) -> Result<Self::Value, Cut> {
        PyList::new(self.0, items).map(Bound::into_any).map_err(|_| Cut)
    }

    fn map(&self, pairs: Vec<(&str, Self::Value)>) -> Result<Self::Value, Cut> {
        let dict = PyDict::new(self.0);
        for (key, value) in pairs {
            // The same names come with every message.
            dict.set_item(PyString::intern(self.0, key), value).map_err(|_| Cut)?;
        }
        Ok(dict.into_any())
    }

    fn written(&self, kind: Written, text: &str) -> Result<Self::Value, Cut> {
        self.call(kind, text).map_err(|_| Cut)
    }
}

impl<'py> Objects<'py> {
    /// A value as an object.
    ///
    /// # Errors
    /// Python has no such object: a date before its first one.
    pub(super) fn of(&self, value: &Value) -> PyResult<Bound<'py, PyAny>> {
        let written = |kind, text: &dyn ToString| self.call(kind, &text.to_string());
        Ok(match value {
            Value::Null => self.null(),
            Value::Bool(value) => self.bool(*value),
            Value::Int(number) => self.int(*number),
            Value::Float(number) => self.float(*number),
            Value::String(text) => self.text(text),
            Value::Bytes(bytes) => self.bytes(bytes),
            Value::List(items) => {
                self.list(items.iter().map(|item| self.of(item)).collect::<PyResult<_>>()?).map_err(no_object)?
            }
            Value::Map(map) => {
                let pairs = map.iter().map(|(key, value)| Ok((key, self.of(value)?)));
                self.map(pairs.collect::<PyResult<_>>()?).map_err(no_object)?
            }
            Value::BigInt(number) => written(Written::BigInt, number)?,
            Value::DateTime(moment) => written(Written::DateTime, moment)?,
            Value::Date(date) => written(Written::Date, date)?,
            Value::Time(time) => written(Written::Time, time)?,
            Value::Decimal(text) => written(Written::Decimal, text)?,
            Value::Uuid(uuid) => written(Written::Uuid, uuid)?,
        })
    }

    fn call(&self, kind: Written, text: &str) -> PyResult<Bound<'py, PyAny>> {
        let (module, class) = match kind {
            Written::BigInt => ("builtins", "int"),
            Written::DateTime => ("datetime", "datetime"),
            Written::Date => ("datetime", "date"),
            Written::Time => ("datetime", "time"),
            Written::Decimal => ("decimal", "Decimal"),
            Written::Uuid => ("uuid", "UUID"),
        };
        let class = self.0.import(module)?.getattr(class)?;
        match kind {
            Written::BigInt | Written::Decimal | Written::Uuid => class.call1((text,)),
            Written::DateTime | Written::Date | Written::Time => class.call_method1("fromisoformat", (text,)),
        }
    }
}

fn no_object(cut: Cut) -> PyErr {
    PyValueError::new_err(cut.to_string())
}
