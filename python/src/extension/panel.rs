//! [`PythonPanel`]: remote control as far as it is Python's: the project's own commands, and what only Kombu can read.

use std::collections::HashSet;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use bytes::Bytes;
use celeriac::app::{Keeper, Panel, Payload, Reins};
use celeriac::protocol::{Exception, Map, Message, Value};
use celeriac::{Error, ErrorKind, Result};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::objects::Objects;
use super::signals::message_of;
use super::values::value_of;
use crate::pool::Prefork;

/// Has an object of `celeriac.panel.Panel` do it.
#[derive(Debug)]
pub(super) struct PythonPanel {
    panel: Py<PyAny>,
    /// The commands that go before the worker's own.
    overriding: HashSet<String>,
    /// The backend's address, if only Celery has it.
    backend: Option<String>,
    pool: Arc<Prefork>,
    /// Only Kombu writes what clients are to get.
    writes: bool,
}

impl PythonPanel {
    pub(super) fn new(panel: &Bound<'_, PyAny>, pool: Arc<Prefork>) -> PyResult<Self> {
        let overriding = panel.call_method0("overriding")?.extract()?;
        let writes = panel.call_method0("writes")?.extract()?;
        let backend = panel.call_method0("backend")?.extract()?;
        Ok(PythonPanel { panel: panel.clone().unbind(), overriding, backend, pool, writes })
    }

    /// Whether only Celery has the app's result backend.
    pub(super) fn keeps(&self) -> bool {
        self.backend.is_some()
    }
}

impl Panel for PythonPanel {
    fn begins(&self, reins: Arc<dyn Reins>) {
        let reins = WorkerReins { reins, pool: Arc::clone(&self.pool) };
        self.called((), |panel| panel.call_method1("begins", (reins,)).map(drop));
    }

    fn overrides(&self, method: &str) -> bool {
        self.overriding.contains(method)
    }

    fn obey(&self, method: &str, arguments: &Map, is_asked: bool) -> Option<Payload> {
        self.called(None, |panel| {
            let arguments = Objects(panel.py()).of(&Value::Map(arguments.clone()))?;
            let written: Option<Written<'_>> = panel.call_method1("obey", (method, arguments, is_asked))?.extract()?;
            Ok(written.map(payload))
        })
    }

    fn read(&self, message: &Message) -> Result<Value> {
        Python::attach(|py| {
            let body = PyBytes::new(py, &message.body);
            let compression = message.headers.get("compression").and_then(Value::as_str);
            let content = (body, message.content_type.as_deref(), message.content_encoding.as_deref(), compression);
            value_of(&self.panel.bind(py).call_method1("read", content)?)
        })
        .map_err(|error: PyErr| Error::new(ErrorKind::Refused, error.to_string()))
    }

    fn writes(&self) -> bool {
        self.writes
    }

    fn write(&self, answer: &Value) -> Result<Payload> {
        Python::attach(|py| {
            let written: Written<'_> =
                self.panel.bind(py).call_method1("write", (Objects(py).of(answer)?,))?.extract()?;
            Ok(payload(written))
        })
        .map_err(|error: PyErr| Error::new(ErrorKind::Encode, error.to_string()))
    }
}

impl Keeper for PythonPanel {
    fn uri(&self) -> String {
        self.backend.clone().unwrap_or_default()
    }

    fn fail(&self, id: &str, message: &Message, exception: &Exception) -> Result<()> {
        self.stored(|panel| {
            let py = panel.py();
            let Exception { exc_type, exc_module, exc_message } = exception;
            let texts = Objects(py).of(&Value::List(exc_message.clone()))?;
            let parts = message_of(py, &message.headers, message)?;
            panel.call_method1("fail", (id, parts, exc_type, exc_module, texts)).map(drop)
        })
    }

    fn revoke(&self, ids: &[String]) -> Result<()> {
        self.stored(|panel| panel.call_method1("revoke", (ids,)).map(drop))
    }
}

impl PythonPanel {
    fn stored(&self, store: impl FnOnce(&Bound<'_, PyAny>) -> PyResult<()>) -> Result<()> {
        Python::attach(|py| store(self.panel.bind(py)))
            .map_err(|error| Error::new(ErrorKind::Backend, error.to_string()))
    }

    /// What Python says; `otherwise`, and the traceback on standard error, if it raises: also `SystemExit`, by which this
    /// thread must not end the process, which waits for it.
    fn called<T>(&self, otherwise: T, call: impl FnOnce(&Bound<'_, PyAny>) -> PyResult<T>) -> T {
        Python::attach(|py| {
            call(self.panel.bind(py)).unwrap_or_else(|error| {
                error.display(py);
                otherwise
            })
        })
    }
}

/// The type of the content, its encoding, and the bytes.
type Written<'py> = (String, String, Bound<'py, PyBytes>);

fn payload((content_type, content_encoding, body): Written<'_>) -> Payload {
    Payload { content_type, content_encoding, body: Bytes::copy_from_slice(body.as_bytes()) }
}

/// Steers the worker. Each call waits for the worker, and lets other threads run meanwhile.
#[pyclass(module = "celeriac._celeriac", name = "Reins", frozen)]
pub(super) struct WorkerReins {
    reins: Arc<dyn Reins>,
    pool: Arc<Prefork>,
}

#[pymethods]
impl WorkerReins {
    /// Has a command of the worker's own carried out, and returns its answer.
    fn ask<'py>(&self, py: Python<'py>, method: &str, arguments: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let arguments = value_of(arguments)?.into_map().unwrap_or_default();
        let answer = py.detach(|| self.reins.ask(method, arguments));
        Objects(py).of(&answer.map_err(|error| PyRuntimeError::new_err(error.to_string()))?)
    }

    /// How many messages the worker takes before one is done; by so many more from now on. 0: as many as come.
    fn widen(&self, by: i64) -> usize {
        self.reins.widen(by)
    }

    /// Has the pool's processes replaced by those of another nursery: the socket to it, which is the pool's from now on, and
    /// its process id.
    fn renew_pool(&self, line: RawFd, nursery: i32) {
        // SAFETY: the caller has made this descriptor for the pool and gives it away.
        #[allow(unsafe_code)]
        let line = UnixStream::from(unsafe { OwnedFd::from_raw_fd(line) });
        self.pool.renew(line, Some(nursery));
    }

    /// Has the worker stop; with a reason it has failed.
    #[pyo3(signature = (cold=false, failure=None))]
    fn shut_down(&self, cold: bool, failure: Option<String>) {
        self.reins.shut_down(cold, failure);
    }
}
