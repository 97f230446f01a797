//! [`run`]: Celeriac's command line for a Python app.

use std::ffi::OsString;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use celeriac::cli::{self, BeatStart, Host, Start};
use celeriac::config::TaskAttributes;
use celeriac::protocol::{Map, Value, json};
use celeriac::task::{Arguments, Outcome, Pool, Run, Task, TaskContext, TaskOptions};
use celeriac::{App, Error, ErrorKind, Result};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::beat;
use super::help::READS;
use super::panel::PythonPanel;
use super::settings;
use super::signals::{Signals, Telling};
use crate::pool::{Prefork, PreforkOptions};

/// A task of the Python app.
struct PythonTask {
    name: String,
    options: TaskOptions,
    pool: Arc<dyn Pool>,
}

impl Task for PythonTask {
    fn name(&self) -> &str {
        &self.name
    }

    fn options(&self) -> &TaskOptions {
        &self.options
    }

    fn pool(&self) -> Option<Arc<dyn Pool>> {
        Some(Arc::clone(&self.pool))
    }

    fn run(&self, _: TaskContext, _: Arguments) -> Run {
        let reason = format!("{} is a Python task and runs in the pool's processes alone", self.name);
        Run::from_function(|| Outcome::failure(celeriac::protocol::Exception::new("RuntimeError", reason)))
    }
}

/// Runs the command line for an app of that name and settings, and returns the exit code.
///
/// `tell(with_defaults)` returns the settings as JSON, for remote control.
///
/// `prepare(hostname, loglevel, logfile, no_color, unread)` is called for a worker before it has any thread. It returns
/// the socket of the nursery, the pool's options, the tasks: `(name, options)`, and who hears of the worker, with the
/// signals that it listens to; or `None`, if this is not the one who runs this worker.
///
/// `beat(scheduler=…, …)` is called for a beat. It returns what is to be sent, or the exit code of a beat that it ran itself.
///
/// `line` is the descriptor of a socket, for a worker that is not alone in its process: it heeds no signals, and ends when
/// the other end of the socket is closed.
#[pyfunction]
#[pyo3(signature = (arguments, name, pool, concurrency, settings, tell, prepare, beat, line=None))]
#[expect(clippy::too_many_arguments, reason = "Python names them")]
pub(super) fn run(
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
    run_with(py, &[], command, settings, tell, (prepare, beat))
}

/// A command line, and what it is for.
pub(super) struct Command<'a> {
    pub(super) arguments: Vec<OsString>,
    pub(super) name: String,
    pub(super) pool: &'a str,
    pub(super) concurrency: u32,
    /// Descriptor of a socket that ends the worker when it is closed, which is ours from now on.
    pub(super) line: Option<RawFd>,
}

/// The same, with tasks in Rust beside those of the Python app.
pub(super) fn run_with(
    py: Python<'_>,
    rust: &[Arc<dyn Task>],
    command: Command<'_>,
    settings: &Bound<'_, PyDict>,
    tell: Py<PyAny>,
    (prepare, beat): (Py<PyAny>, Py<PyAny>),
) -> PyResult<u8> {
    let Command { arguments, name, pool, concurrency, line } = command;
    let line = line.map(owned);
    let mut app = App::new(name).with_settings_told(move |with_defaults| told(&tell, with_defaults));
    let unread = settings::merge(app.config_mut(), settings).map_err(|error| refused(&error))?;
    let mut telling = None;
    let mut prepare = |app: App, start: &Start<'_>| {
        let prepared = Python::attach(|py| put_tasks_in(py, app, rust, start, &prepare, &unread)).map_err(|error| {
            let told = settings::raised(&error);
            Python::attach(|py| error.print(py));
            told
        });
        Ok(prepared?.map(|(app, ending)| {
            telling = ending;
            app
        }))
    };
    let mut beats = |start: &BeatStart| {
        Python::attach(|py| beat::begin(py, &beat, start).inspect_err(|error| error.print(py)))
            .map_err(|error| settings::raised(&error))
    };
    // Only what Rust does runs now; where Python is needed it is asked for.
    let code = py.detach(|| {
        let host = Host { pool, concurrency, prepare: &mut prepare, beat: &mut beats, line, reads: READS };
        cli::run_hosted(app, host, arguments)
    });
    py.detach(|| telling.iter().for_each(Telling::end));
    Ok((0..=u8::MAX).find(|number| ExitCode::from(*number) == code).unwrap_or(1))
}

/// What the app says of its settings.
fn told(tell: &Py<PyAny>, with_defaults: bool) -> Result<Map> {
    let text = Python::attach(|py| tell.bind(py).call1((with_defaults,))?.extract::<String>());
    match json::parse_plain(text.map_err(|error| settings::raised(&error))?.as_bytes()) {
        Ok(Value::Map(told)) => Ok(told),
        Ok(_) => Err(Error::new(ErrorKind::Decode, "the settings are no table")),
        Err(error) => Err(error),
    }
}

/// The names of the settings that the worker knows: Celery's, and its own.
#[pyfunction]
pub(super) fn known_settings() -> Vec<&'static str> {
    App::new("check").config().table(true).into_iter().map(|(name, _)| name).collect()
}

/// The names of those settings that have no effect.
#[pyfunction]
pub(super) fn without_effect(settings: &Bound<'_, PyDict>) -> PyResult<Vec<String>> {
    let mut app = App::new("check");
    let unread = settings::merge(app.config_mut(), settings).map_err(|error| refused(&error))?;
    let others = app.config().without_effect().into_iter().map(|warning| warning.name);
    Ok(unread.into_iter().chain(others).collect())
}

/// Why no worker would start with those settings; none: one would.
#[pyfunction]
pub(super) fn refusal(settings: &Bound<'_, PyDict>) -> PyResult<Option<String>> {
    let mut app = App::new("check");
    settings::merge(app.config_mut(), settings).map_err(|error| refused(&error))?;
    Ok(app.check_parts().err().map(|error| error.to_string()))
}

/// What annotations of tasks can say.
#[pyfunction]
pub(super) fn known_annotations() -> Vec<&'static str> {
    TaskAttributes::names().to_vec()
}

fn refused(error: &celeriac::Error) -> PyErr {
    pyo3::exceptions::PyValueError::new_err(error.to_string())
}

/// The socket of the nursery, the pool's options, the tasks, who hears, and what.
type Prepared<'py> = (RawFd, Bound<'py, PyDict>, Vec<(String, Bound<'py, PyDict>)>, Py<PyAny>, Vec<String>);

fn put_tasks_in(
    py: Python<'_>,
    mut app: App,
    rust: &[Arc<dyn Task>],
    start: &Start<'_>,
    prepare: &Py<PyAny>,
    unread: &[String],
) -> PyResult<Option<(App, Option<Telling>)>> {
    let logfile = start.logfile.as_ref().map(|file| file.to_string_lossy().into_owned());
    let given = (start.hostname, start.loglevel.name(), logfile, start.no_color, unread.to_vec());
    let prepared: Option<Prepared<'_>> = prepare.bind(py).call1(given)?.extract()?;
    let Some((socket, options, tasks, hears, wanted)) = prepared else { return Ok(None) };
    let socket = owned(socket);
    let max_tasks_per_child = option(&options, "max_tasks_per_child")?;
    let nursery = option(&options, "nursery")?;
    let defaults = PreforkOptions::default();
    let alive_timeout = seconds(option(&options, "alive_timeout")?).unwrap_or(defaults.alive_timeout);
    let has_processes = option(&options, "has_processes")?.unwrap_or(true);
    if let Some(changed) = options.get_item("settings")? {
        settings::merge(app.config_mut(), changed.cast()?).map_err(|error| refused(&error))?;
    }
    // What Python alone can store is stored where Python runs them.
    let rust = if option(&options, "rust_tasks")?.unwrap_or(true) { rust } else { &[] };
    if let Some(changes) = options.get_item("queues")? {
        let (added, removed) = settings::queues(app.config(), changes.cast()?).map_err(|error| refused(&error))?;
        app = app.with_queues(added, removed);
    }
    let panel = options.get_item("panel")?;
    let options = PreforkOptions { has_processes, max_tasks_per_child, alive_timeout, nursery, ..defaults };
    let prefork = Arc::new(Prefork::new(socket, options));
    if let Some(panel) = panel {
        let panel = Arc::new(PythonPanel::new(&panel, Arc::clone(&prefork))?);
        if panel.keeps() {
            app = app.with_keeper(Arc::clone(&panel) as _);
        }
        app = app.with_panel(panel);
    }
    let pool: Arc<dyn Pool> = prefork;
    for task in rust {
        app = app.task(Arc::clone(task));
    }
    for (name, options) in tasks {
        // What Python has under that name is for those who call it in their own process.
        if app.tasks().task(&name).is_some() {
            continue;
        }
        app = app.task(PythonTask { name, options: options_of(&options)?, pool: Arc::clone(&pool) });
    }
    Ok(Some(match Signals::start(hears, &wanted) {
        Some((signals, telling)) => (app.observed_by(signals), Some(telling)),
        None => (app, None),
    }))
}

/// A socket that Python has made for us.
fn owned(descriptor: RawFd) -> UnixStream {
    // SAFETY: Python has detached this descriptor, and keeps no copy.
    #[allow(unsafe_code)]
    let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
    UnixStream::from(owned)
}

/// What the task says of itself: Celery has put the settings into it already.
fn options_of(given: &Bound<'_, PyDict>) -> PyResult<TaskOptions> {
    Ok(TaskOptions {
        acks_late: option(given, "acks_late")?,
        acks_on_failure: option(given, "acks_on_failure")?,
        acks_on_timeout: option(given, "acks_on_timeout")?,
        acks_on_failure_or_timeout: option(given, "acks_on_failure_or_timeout")?,
        default_retry_delay: delay(option(given, "default_retry_delay")?),
        ignore_result: option(given, "ignore_result")?,
        max_retries: Some(option(given, "max_retries")?),
        rate_limit: option(given, "rate_limit")?,
        reject_on_worker_lost: option(given, "reject_on_worker_lost")?,
        retry_on_worker_lost: option(given, "retry_on_worker_lost")?,
        send_events: option(given, "send_events")?,
        soft_time_limit: seconds(option(given, "soft_time_limit")?),
        store_errors_even_if_ignored: option(given, "store_errors_even_if_ignored")?,
        time_limit: seconds(option(given, "time_limit")?),
        track_started: option(given, "track_started")?,
        ..TaskOptions::default()
    })
}

fn option<T: for<'a, 'py> FromPyObject<'a, 'py>>(given: &Bound<'_, PyDict>, name: &str) -> PyResult<Option<T>> {
    match given.get_item(name)? {
        Some(value) if !value.is_none() => value.extract().map(Some).map_err(Into::into),
        _ => Ok(None),
    }
}

/// Here 0 is 0.
fn delay(seconds: Option<f64>) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds?).ok()
}

/// As in Celery, 0 is none.
fn seconds(seconds: Option<f64>) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds?).ok().filter(|limit| !limit.is_zero())
}
