//! [`export`]: a Python module of Rust tasks.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::sync::Arc;

use celeriac::task::Task;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::handler::Handler;
use super::runtimes::Runtimes;
use super::worker::{Command, run_with};

/// The release; a worker has one for all of its parts.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Makes tasks a Python module: those of a Celery project, and of the worker that this library is then.
///
/// ```ignore
/// #[celeriac::task]
/// async fn add(x: i64, y: i64) -> i64 {
///     x + y
/// }
///
/// celeriac_python::python_tasks!(mytasks, [add]);
/// ```
///
/// The crate is a `cdylib` that is called as the module is. In Python, `from mytasks import add` is a Celery task; in
/// `celeriac -A proj worker` it runs as a Rust task, and wherever else it is called, its handler runs to the end without
/// the GIL.
#[macro_export]
macro_rules! python_tasks {
    ($module:ident, [$($task:path),* $(,)?]) => {
        #[$crate::extension::pyo3::pymodule]
        #[pyo3(crate = "::celeriac_python::extension::pyo3")]
        fn $module(
            module: &$crate::extension::pyo3::Bound<'_, $crate::extension::pyo3::types::PyModule>,
        ) -> $crate::extension::pyo3::PyResult<()> {
            $crate::extension::export(module, ::std::vec![$(::std::sync::Arc::new($task)),*])
        }
    };
}

/// Puts tasks into a module, and tells the package `celeriac` of it, which makes Celery's tasks of them.
///
/// # Errors
/// What Python raises.
pub fn export(module: &Bound<'_, PyModule>, tasks: Vec<Arc<dyn Task>>) -> PyResult<()> {
    let py = module.py();
    let runtimes = Arc::<Runtimes>::default();
    let handlers = tasks.iter().map(|task| Bound::new(py, Handler::new(Arc::clone(task), Arc::clone(&runtimes))));
    let handlers = PyList::new(py, handlers.collect::<PyResult<Vec<_>>>()?)?;
    let worker = Bound::new(py, Worker { tasks })?;
    py.import("celeriac.rust_tasks")?.call_method1("declare", (module, handlers, worker, VERSION))?;
    Ok(())
}

/// The worker that this library is, with its tasks in it.
#[pyclass(module = "celeriac._celeriac", frozen)]
struct Worker {
    tasks: Vec<Arc<dyn Task>>,
}

#[pymethods]
impl Worker {
    /// As `celeriac._celeriac.run`.
    #[pyo3(signature = (arguments, name, pool, concurrency, settings, tell, prepare, beat, line=None))]
    #[expect(clippy::too_many_arguments, reason = "Python names them")]
    fn run(
        &self,
        py: Python<'_>,
        arguments: Vec<OsString>,
        name: String,
        pool: &str,
        concurrency: u32,
        settings: &Bound<'_, PyDict>,
        tell: Py<PyAny>,
        prepare: Py<PyAny>,
        beat: Py<PyAny>,
        line: Option<RawFd>,
    ) -> PyResult<u8> {
        let command = Command { arguments, name, pool, concurrency, line };
        run_with(py, &self.tasks, command, settings, tell, (prepare, beat))
    }
}
