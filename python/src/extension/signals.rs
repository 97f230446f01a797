//! [`Signals`]: what happens to the worker is told to Python, on a thread of its own.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use async_trait::async_trait;
use celeriac::app::{Observer, Revocation};
use celeriac::protocol::{Map, Message, Value};
use celeriac::task::Request;
use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit};
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBytes};
use tokio::sync::Notify;

use super::objects::Objects;
use crate::frame::{self, Reader};
use crate::pool::properties;

/// What was told, and by which of Celery's signals somebody wants to hear of it.
#[derive(Debug)]
enum Told {
    Received(Arc<Request>, Message),
    Revoked(Arc<Request>, Message, Revocation),
    Rejected(Message, Option<String>),
    Unknown(Message, String, String),
    Ready,
    Beats,
    ShuttingDown(String, String, u8),
    Connected,
    Disconnected,
    /// Coldly, or not.
    Stopping(bool),
    /// Nothing more comes.
    Last,
}

/// What is told and was not heard yet is no more than this, but for what follows from messages that were taken in before. A
/// stock worker calls receivers before it looks at the next message; here the next few are on their way meanwhile.
const MOST: usize = 4;

/// Tells Python. What nobody listens to costs a look at a flag.
#[derive(Debug)]
pub(super) struct Signals {
    wanted: Wanted,
    told: Sender<(Told, Unheard)>,
    queue: Arc<Queue>,
}

/// What was told and was not heard yet.
#[derive(Debug, Default)]
struct Queue {
    length: AtomicUsize,
    /// There is one less.
    heard: Notify,
    /// A heartbeat is among it.
    has_beat: AtomicBool,
}

/// One of what was told; dropped when it was heard, or never will be.
#[derive(Debug)]
struct Unheard(Arc<Queue>);

impl Unheard {
    fn among(queue: &Arc<Queue>) -> Self {
        queue.length.fetch_add(1, Ordering::AcqRel);
        Unheard(Arc::clone(queue))
    }
}

impl Drop for Unheard {
    fn drop(&mut self) {
        self.0.length.fetch_sub(1, Ordering::AcqRel);
        self.0.heard.notify_one();
    }
}

/// Whether somebody wanted to hear of it when the worker began.
#[derive(Debug)]
struct Wanted {
    received: bool,
    revoked: bool,
    rejected: bool,
    unknown: bool,
    ready: bool,
    beats: bool,
    shutting_down: bool,
    /// The project has boot steps.
    steps: bool,
}

/// The thread, until all is told.
pub(super) struct Telling {
    signals: Arc<Signals>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Signals {
    /// Calls the methods of `hears` whose names are `wanted`; nobody, where there are none.
    pub(super) fn start(hears: Py<PyAny>, wanted: &[String]) -> Option<(Arc<Self>, Telling)> {
        let wants = |name: &str| wanted.iter().any(|wanted| wanted == name);
        if wanted.is_empty() {
            return None;
        }
        let wanted = Wanted {
            received: wants("task_received"),
            revoked: wants("task_revoked"),
            rejected: wants("task_rejected"),
            unknown: wants("task_unknown"),
            ready: wants("worker_ready"),
            beats: wants("heartbeat_sent"),
            shutting_down: wants("worker_shutting_down"),
            steps: wants("steps"),
        };
        let (told, heard) = mpsc::channel();
        let thread = thread::Builder::new().name("signals".to_owned()).spawn(move || hear(&hears, &heard)).ok();
        let signals = Arc::new(Signals { wanted, told, queue: Arc::default() });
        let telling = Telling { signals: Arc::clone(&signals), thread: Mutex::new(thread) };
        Some((signals, telling))
    }

    fn tell(&self, is_wanted: bool, told: impl FnOnce() -> Told) {
        if is_wanted {
            // The thread ends only when the worker has.
            let _ = self.told.send((told(), Unheard::among(&self.queue)));
        }
    }
}

impl Telling {
    /// Waits until all has been told.
    pub(super) fn end(&self) {
        self.signals.tell(true, || Told::Last);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A thread that panicked has said so.
        thread.map(JoinHandle::join);
    }
}

#[async_trait]
impl Observer for Signals {
    async fn room(&self) -> usize {
        loop {
            // What is heard before this waits is kept for it.
            match MOST.saturating_sub(self.queue.length.load(Ordering::Acquire)) {
                0 => self.queue.heard.notified().await,
                room if self.wanted.received => return room,
                // Of most messages nobody is told, and as many as come are taken in.
                _ => return usize::MAX,
            }
        }
    }

    fn received(&self, request: &Arc<Request>, message: &Message) {
        self.tell(self.wanted.received, || Told::Received(Arc::clone(request), message.clone()));
    }

    fn revoked(&self, request: &Arc<Request>, message: &Message, revocation: Revocation) {
        self.tell(self.wanted.revoked, || Told::Revoked(Arc::clone(request), message.clone(), revocation));
    }

    fn rejected(&self, message: &Message, reason: Option<&str>) {
        self.tell(self.wanted.rejected, || Told::Rejected(message.clone(), reason.map(str::to_owned)));
    }

    fn unknown(&self, message: &Message, name: &str, id: &str) {
        self.tell(self.wanted.unknown, || Told::Unknown(message.clone(), name.to_owned(), id.to_owned()));
    }

    fn ready(&self) {
        self.tell(self.wanted.ready, || Told::Ready);
    }

    fn beats(&self) {
        // Celery's timer, which a slow receiver keeps waiting, does not make up for what it has missed.
        if self.wanted.beats && !self.queue.has_beat.swap(true, Ordering::AcqRel) {
            self.tell(true, || Told::Beats);
        }
    }

    fn connected(&self) {
        self.tell(self.wanted.steps, || Told::Connected);
    }

    fn disconnected(&self) {
        self.tell(self.wanted.steps, || Told::Disconnected);
    }

    fn stopping(&self, cold: bool) {
        self.tell(self.wanted.steps, || Told::Stopping(cold));
    }

    fn shutting_down(&self, signal: &str, how: &str, exit_code: u8) {
        self.tell(self.wanted.shutting_down, || Told::ShuttingDown(signal.to_owned(), how.to_owned(), exit_code));
    }
}

fn hear(hears: &Py<PyAny>, heard: &Receiver<(Told, Unheard)>) {
    for (told, unheard) in heard {
        match told {
            Told::Last => return,
            Told::Beats => unheard.0.has_beat.store(false, Ordering::Release),
            _ => {}
        }
        Python::attach(|py| {
            let hears = hears.bind(py);
            let told = call(hears, &told).or_else(|error| match ends_the_worker(py, &error) {
                true => hears.call_method1("leave", (error.value(py),)).map(drop),
                false => Err(error),
            });
            if let Err(error) = told {
                // What a message holds that Python cannot. To print it as Python's own end of a process would be to wait for
                // the thread that waits for this one.
                error.display(py);
            }
        });
    }
}

/// Whether a receiver has raised what Celery does not catch, which ends a stock worker.
fn ends_the_worker(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PySystemExit>(py) || error.is_instance_of::<PyKeyboardInterrupt>(py)
}

fn call(hears: &Bound<'_, PyAny>, told: &Told) -> PyResult<()> {
    let py = hears.py();
    match told {
        Told::Received(request, message) => {
            hears.call_method1("received", message_of(py, &request.headers, message)?)?;
        }
        Told::Revoked(request, message, revocation) => {
            let message = message_of(py, &request.headers, message)?;
            hears.call_method1("revoked", (message, revocation.signal, revocation.expired))?;
        }
        Told::Rejected(message, reason) => {
            hears.call_method1("rejected", (message_of(py, &message.headers, message)?, reason))?;
        }
        Told::Unknown(message, name, id) => {
            hears.call_method1("unknown", (message_of(py, &message.headers, message)?, name, id))?;
        }
        Told::Ready => drop(hears.call_method0("ready")?),
        Told::Beats => drop(hears.call_method0("beats")?),
        Told::ShuttingDown(signal, how, exit_code) => {
            hears.call_method1("shutting_down", (signal, how, exit_code))?;
        }
        Told::Connected => drop(hears.call_method0("connected")?),
        Told::Disconnected => drop(hears.call_method0("disconnected")?),
        Told::Stopping(cold) => drop(hears.call_method1("stopping", (cold,))?),
        Told::Last => {}
    }
    Ok(())
}

/// Headers, properties, delivery info, the body, its type and its encoding.
pub(super) type Parts<'py> =
    (Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyBytes>, Option<String>, Option<String>);

pub(super) fn message_of<'py>(py: Python<'py>, headers: &Map, message: &Message) -> PyResult<Parts<'py>> {
    Ok((
        object(py, headers.clone())?,
        object(py, properties(&message.properties))?,
        object(py, message.properties.delivery_info())?,
        PyBytes::new(py, &message.body),
        message.content_type.clone(),
        message.content_encoding.clone(),
    ))
}

fn object(py: Python<'_>, map: Map) -> PyResult<Bound<'_, PyAny>> {
    // Read as a child reads it, after a byte for the kind of a frame.
    let mut written = vec![0];
    frame::write_value(&Value::Map(map), &mut written);
    let (_, mut fields) = Reader::new(&written).map_err(|cut| no_object(&cut))?;
    frame::read_value(&mut fields, &Objects(py)).map_err(|cut| no_object(&cut))
}

fn no_object(cut: &frame::Cut) -> PyErr {
    pyo3::exceptions::PyValueError::new_err(cut.to_string())
}
