//! [`Channel`]: a child's line to the parent.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use celeriac::protocol::{Exception, State};
use celeriac::task::{CallEnd, Raised, StoredMeta};
use pyo3::exceptions::PyConnectionError;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBytes};

use super::objects::Objects;
use crate::claims::Claimant;
use crate::frame::{self, FromChild, ROOM, ToChild};

/// A child's line to the parent: calls come, and what became of each goes. For one thread; others wait for each other.
#[pyclass(module = "celeriac._celeriac", frozen)]
pub(super) struct Channel(Mutex<Line>);

struct Line {
    socket: UnixStream,
    /// Which socket that was: a task may close it, and what is opened next gets its number.
    identity: Option<(u64, u64)>,
    claims: Claimant,
    /// What was read, and up to where it has been used.
    read: Vec<u8>,
    used: usize,
    /// What is to be written with the next thing that cannot wait.
    unsent: Vec<u8>,
    /// How many questions it has asked.
    asked: u64,
}

/// The task's name, its id, the request, the body, its type and its encoding; what has become of it, if it is not to be run.
type Job<'py> =
    (String, String, Bound<'py, PyAny>, Bound<'py, PyBytes>, Option<String>, Option<String>, Option<Bound<'py, PyAny>>);

/// What a child is to do next.
enum Next<'py> {
    Call(Box<Job<'py>>),
    Quit,
}

#[pymethods]
impl Channel {
    /// Takes the socket of that number, and the claims to the calls that come over it: both are the channel's from now on.
    #[new]
    fn new(fd: RawFd, claims: RawFd) -> PyResult<Self> {
        // SAFETY: the caller has received these descriptors for this channel and gives them away.
        #[allow(unsafe_code)]
        let (socket, claims) = unsafe { (OwnedFd::from_raw_fd(fd), OwnedFd::from_raw_fd(claims)) };
        let socket = UnixStream::from(socket);
        let (identity, claims) = (identity(&socket), Claimant::new(claims)?);
        let read = Vec::with_capacity(ROOM);
        Ok(Channel(Mutex::new(Line { socket, identity, claims, read, used: 0, unsent: Vec::new(), asked: 0 })))
    }

    /// The next call; `None` when there will be no more.
    fn next<'py>(&self, py: Python<'py>) -> PyResult<Option<Job<'py>>> {
        let mut line = self.line();
        loop {
            if !line.has_frame()? {
                line.flush(py)?;
                if !line.fill(py)? {
                    return Ok(None);
                }
            }
            match line.take(py)? {
                Some(Next::Call(call)) => return Ok(Some(*call)),
                Some(Next::Quit) => {
                    // It may have come with what the last call waited for.
                    line.flush(py)?;
                    return Ok(None);
                }
                None => {}
            }
        }
    }

    /// Tells that calls can come.
    fn ready(&self, py: Python<'_>) -> PyResult<()> {
        self.say_now(py, &FromChild::Ready { pid: std::process::id() })
    }

    /// Tells that nothing more is said; the process may go on for a while.
    fn close(&self) {
        let line = self.line();
        if line.is_whole().is_ok() {
            // Where the parent is gone nobody needs to know.
            let _ = line.socket.shutdown(Shutdown::Both);
        }
    }

    /// Tells what has been kept back for what comes next, before this process ends.
    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        self.line().flush(py)
    }

    /// Tells that the body of the call that was given last is decoded, which may take long.
    fn reading(&self, py: Python<'_>) -> PyResult<()> {
        self.say_now(py, &FromChild::Reading)
    }

    /// Tells that the call that was given last begins.
    fn accepted(&self, py: Python<'_>) -> PyResult<()> {
        self.say_now(py, &FromChild::Accepted)
    }

    /// Gives a result to be stored, or to be sent where `reply_to` names a queue; with `wait`, answers whether it is.
    #[pyo3(signature = (task_id, state, payload, wait, reply_to=None, correlation_id=None))]
    #[expect(clippy::too_many_arguments, reason = "they have names in Python")]
    fn store(
        &self,
        py: Python<'_>,
        task_id: &str,
        state: &str,
        payload: &[u8],
        wait: bool,
        reply_to: Option<String>,
        correlation_id: Option<String>,
    ) -> PyResult<bool> {
        let (task_id, state) = (task_id.to_owned(), State::from(state.to_owned()));
        let payload = bytes::Bytes::copy_from_slice(payload);
        let meta = StoredMeta { task_id, state, payload, reply_to, correlation_id };
        // A success goes with the end that follows it; what else a task tells is seen while it runs.
        let is_last = meta.state == State::Success;
        let mut line = self.line();
        let asks = wait.then(|| line.ask());
        frame::write_from_child(&FromChild::Store { meta, asks }, &mut line.unsent);
        if !wait && is_last {
            return Ok(true);
        }
        line.flush(py)?;
        asks.map_or(Ok(true), |number| line.answer(py, number))
    }

    /// Ends the call: it returned, shown as `result`, after `runtime` seconds.
    fn success(&self, result: &str, runtime: f64) {
        let runtime = Duration::try_from_secs_f64(runtime).unwrap_or_default();
        self.end(CallEnd::Success { result: result.to_owned(), runtime });
    }

    /// Ends the call: it raised.
    fn failure(&self, exc_type: &str, exc_module: Option<&str>, message: &str, shown: &str, traceback: &str) {
        self.end(CallEnd::Failure(raised(exc_type, exc_module, message, shown, traceback)));
    }

    /// Ends the call: it is retried, because of what is given.
    fn retry(&self, exc_type: &str, exc_module: Option<&str>, message: &str, shown: &str, traceback: &str) {
        self.end(CallEnd::Retry(raised(exc_type, exc_module, message, shown, traceback)));
    }

    /// Ends the call without a result.
    fn ignore(&self) {
        self.end(CallEnd::Ignore);
    }

    /// Ends the call: it refuses its message.
    fn reject(&self, reason: &str, requeue: bool) {
        self.end(CallEnd::Reject { reason: reason.to_owned(), requeue });
    }

    /// Ends the call before it begins: its body cannot be decoded, or with `refused` may not be.
    fn undecodable(&self, reason: &str, refused: bool) {
        self.end(CallEnd::Undecodable { reason: reason.to_owned(), refused });
    }

    /// Ends the call, and with it this process, in the way that is told.
    fn lost(&self, py: Python<'_>, how: &str) -> PyResult<()> {
        self.say_now(py, &FromChild::Ended(CallEnd::Lost(how.to_owned())))
    }
}

impl Channel {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What need not be told at once is told with what comes next.
    fn end(&self, end: CallEnd) {
        frame::write_from_child(&FromChild::Ended(end), &mut self.line().unsent);
    }

    fn say_now(&self, py: Python<'_>, frame: &FromChild) -> PyResult<()> {
        let mut line = self.line();
        frame::write_from_child(frame, &mut line.unsent);
        line.flush(py)
    }
}

impl Line {
    fn has_frame(&self) -> PyResult<bool> {
        frame::split(&self.read[self.used..]).map(|frame| frame.is_some()).map_err(no_frame)
    }

    /// Reads until there is a whole frame; `false` when the parent has hung up.
    fn fill(&mut self, py: Python<'_>) -> PyResult<bool> {
        self.compact();
        while !self.has_frame()? {
            if !self.fill_more(py)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What was read, if it is for who waits for a call.
    fn take<'py>(&mut self, py: Python<'py>) -> PyResult<Option<Next<'py>>> {
        let Some((frame, taken)) = frame::split(&self.read[self.used..]).map_err(no_frame)? else { return Ok(None) };
        if frame::is_call(frame) {
            self.is_whole()?;
            if !self.claims.may_begin() {
                // It was taken back, and is run by another child or by none.
                self.pass(taken);
                return Ok(None);
            }
        }
        let next = match frame::read_to_child(frame, &Objects(py)).map_err(no_frame)? {
            ToChild::Job { task, id, content_type, content_encoding, body, request, fate } => {
                let owned = |text: Option<&str>| text.map(str::to_owned);
                let (content_type, content_encoding) = (owned(content_type), owned(content_encoding));
                let body = PyBytes::new(py, body);
                let call = (task.to_owned(), id.to_owned(), request, body, content_type, content_encoding, fate);
                Some(Next::Call(Box::new(call)))
            }
            ToChild::Quit => Some(Next::Quit),
            // Who has asked was interrupted, and waits no more.
            ToChild::Stored(..) => None,
        };
        self.pass(taken);
        Ok(next)
    }

    /// A frame of that length is done with.
    fn pass(&mut self, length: usize) {
        self.used += length;
        if self.used > ROOM {
            self.compact();
        }
    }

    /// Drops what has been used, and the room that a large frame took.
    fn compact(&mut self) {
        self.read.drain(..self.used);
        self.used = 0;
        frame::give_back(&mut self.read);
    }

    /// The number of a question.
    fn ask(&mut self) -> u64 {
        self.asked += 1;
        self.asked
    }

    /// The answer to the question of that number. Calls may stand before it, and stay there; so may the answer to a
    /// question whose asker was interrupted, as by a soft limit, and nobody waits for that.
    fn answer(&mut self, py: Python<'_>, asked: u64) -> PyResult<bool> {
        loop {
            let mut at = self.used;
            while let Some((frame, taken)) = frame::split(&self.read[at..]).map_err(no_frame)? {
                let Some((number, is_stored)) = frame::as_stored(frame) else {
                    at += taken;
                    continue;
                };
                self.read.drain(at..at + taken);
                if number == asked {
                    return Ok(is_stored);
                }
            }
            if !self.fill_more(py)? {
                return Err(PyConnectionError::new_err("the worker is gone"));
            }
        }
    }

    /// Reads what there is; `false` when the parent has hung up.
    fn fill_more(&mut self, py: Python<'_>) -> PyResult<bool> {
        let at = self.read.len();
        self.read.resize(at + ROOM, 0);
        let (socket, room) = (&self.socket, &mut self.read[at..]);
        let read = py.detach(|| (&mut { socket }).read(room));
        self.read.truncate(at + read.as_ref().map_or(0, |length| *length));
        match read {
            Ok(length) => Ok(length > 0),
            Err(error) if error.kind() == ErrorKind::Interrupted => py.check_signals().map(|()| true),
            Err(error) => Err(lost(&error)),
        }
    }

    /// Whether the socket is the one that it was.
    fn is_whole(&self) -> PyResult<()> {
        match identity(&self.socket) == self.identity {
            true => Ok(()),
            false => Err(PyConnectionError::new_err("a task has closed the line to the worker")),
        }
    }

    fn flush(&mut self, py: Python<'_>) -> PyResult<()> {
        self.is_whole()?;
        let unsent = std::mem::take(&mut self.unsent);
        let socket = &self.socket;
        let written = py.detach(|| (&mut { socket }).write_all(&unsent));
        self.unsent = unsent;
        self.unsent.clear();
        frame::give_back(&mut self.unsent);
        written.map_err(|error| lost(&error))
    }
}

/// What tells this socket from all else that its number may stand for.
fn identity(socket: &UnixStream) -> Option<(u64, u64)> {
    let known = rustix::fs::fstat(socket).ok()?;
    Some((known.st_dev, known.st_ino))
}

fn raised(exc_type: &str, exc_module: Option<&str>, message: &str, shown: &str, traceback: &str) -> Raised {
    let (exc_type, exc_module) = (exc_type.to_owned(), exc_module.map(str::to_owned));
    let exception = Exception { exc_type, exc_module, exc_message: vec![message.into()] };
    Raised { exception, shown: shown.to_owned(), traceback: traceback.to_owned() }
}

fn no_frame(cut: frame::Cut) -> PyErr {
    PyConnectionError::new_err(cut.to_string())
}

fn lost(error: &io::Error) -> PyErr {
    PyConnectionError::new_err(format!("the worker is gone: {error}"))
}
