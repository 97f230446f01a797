//! [`WorkerReins`]: by which a program steers the worker that it is; and what the loop does then.

use std::sync::{Arc, OnceLock};

use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;

use super::consumer::Consumer;
use super::event::{Event, Shutdown};
use crate::app::Reins;
use crate::control::{ControlRequest, Inspection};
use crate::protocol::{Map, Value};
use crate::transport::Prefetch;
use crate::{Error, ErrorKind, Result};

/// Steers one worker.
#[derive(Debug)]
pub(crate) struct WorkerReins {
    pub(crate) events: mpsc::UnboundedSender<Event>,
    pub(crate) prefetch: Arc<Prefetch>,
    /// Why the worker is to have failed.
    pub(crate) failure: Arc<OnceLock<String>>,
}

/// A command of the program itself, and where it waits for the answer.
#[derive(Debug)]
pub(crate) struct Asked {
    request: ControlRequest,
    answer: oneshot::Sender<Value>,
}

impl Reins for WorkerReins {
    fn ask(&self, method: &str, arguments: Map) -> Result<Value> {
        let ended = || Error::new(ErrorKind::Io, "the worker has ended");
        let request = ControlRequest { method: method.to_owned(), arguments, reply_to: None, ticket: Value::Null };
        let (answer, answered) = oneshot::channel();
        self.events.send(Event::Asked(Box::new(Asked { request, answer }))).map_err(|_| ended())?;
        answered.blocking_recv().map_err(|_| ended())
    }

    fn widen(&self, by: i64) -> usize {
        self.prefetch.widen(by)
    }

    fn shut_down(&self, cold: bool, failure: Option<String>) {
        if let Some(failure) = failure {
            // The first reason is the one that counts.
            let _ = self.failure.set(failure);
        }
        // A worker that has ended has nothing left to stop.
        let _ = self.events.send(Event::Shutdown(if cold { Shutdown::Cold } else { Shutdown::Warm }));
    }
}

impl Consumer {
    /// Does what the program itself asks for.
    pub(super) fn asked(&mut self, asked: Asked) {
        let Asked { request, answer } = asked;
        // Who asked may be gone by then.
        let Some(inspection) = Inspection::read(&request) else {
            drop(answer.send(self.carried_out(&request).map_or(Value::Null, |answer| answer.value)));
            return;
        };
        let tell = self.told(inspection);
        spawn_blocking(move || drop(answer.send(tell())));
    }
}
