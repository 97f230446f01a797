//! [`call`]: one run of a handler for Python, to its end and without the GIL.
//!
//! What the handler asks of its worker is Celery's to do, in the thread that runs the task: its request is known there
//! alone. So that thread waits for the handler, and does what is asked meanwhile.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use celeriac::protocol::{ResultTuple, Signature, State, Value};
use celeriac::task::{Arguments, Outcome, Request, Run, SignatureSink, StateSink, Task, TaskContext, outcome_of_panic};
use celeriac::{Error, ErrorKind, Result, async_trait};
use pyo3::prelude::*;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::objects::Objects;
use super::values::value_of;

/// How often a thread that waits looks whether Python has a signal for it.
const LOOK: Duration = Duration::from_millis(50);

type Handler = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// What a thread that waits has to do.
enum Turn {
    Over(Outcome),
    Asked(Ask),
    Look,
}

/// What a handler asks for.
enum Ask {
    State(State, Value, oneshot::Sender<Result<()>>),
    Send(Signature, oneshot::Sender<Result<ResultTuple>>),
    AddToChord(Signature, oneshot::Sender<Result<ResultTuple>>),
}

/// Runs a handler to its end. `host` is asked for what a worker does: `update_state`, `send`, `add_to_chord`.
///
/// # Errors
/// What a signal handler of Python's raises, such as `KeyboardInterrupt`: an async handler is dropped then; the thread of a
/// blocking one goes on.
pub(super) fn call(
    task: &dyn Task,
    runtime: &Handle,
    host: &Bound<'_, PyAny>,
    request: Request,
    arguments: Arguments,
) -> PyResult<Outcome> {
    let (asks, mut asked) = mpsc::unbounded_channel();
    let line = Arc::new(Line(asks));
    let soft_limit = CancellationToken::new();
    // The context takes along the runtime that it is made on.
    let entered = runtime.enter();
    let context = TaskContext::with_sinks(Arc::new(request), line.clone(), line, soft_limit.clone());
    let mut handler = begin(task.run(context.clone(), arguments).guarded());
    drop(entered);
    loop {
        let turn = host.py().detach(|| runtime.block_on(next(&mut handler, &mut asked)));
        match turn {
            Turn::Over(outcome) => return Ok(outcome),
            Turn::Asked(ask) => ask.answer(host),
            Turn::Look => match host.py().check_signals() {
                Err(error) if context.handles_soft_limit() && is_soft_limit(host.py(), &error) => soft_limit.cancel(),
                looked => looked?,
            },
        }
    }
}

fn begin(run: Run) -> Handler {
    match run {
        Run::Async(future) => future,
        Run::Blocking(function) => {
            // Nobody cancels it: a panic is the only error.
            let thread = tokio::task::spawn_blocking(function);
            Box::pin(async { thread.await.unwrap_or_else(|error| outcome_of_panic(error.into_panic())) })
        }
    }
}

async fn next(handler: &mut Handler, asked: &mut mpsc::UnboundedReceiver<Ask>) -> Turn {
    tokio::select! {
        biased;
        Some(ask) = asked.recv() => Turn::Asked(ask),
        outcome = handler => Turn::Over(outcome),
        () = tokio::time::sleep(LOOK) => Turn::Look,
    }
}

fn is_soft_limit(py: Python<'_>, error: &PyErr) -> bool {
    let class = py.import("billiard.exceptions").and_then(|module| module.getattr("SoftTimeLimitExceeded"));
    class.is_ok_and(|class| error.matches(py, class).unwrap_or(false))
}

impl Ask {
    /// Does it. Who asked may be gone by then.
    fn answer(self, host: &Bound<'_, PyAny>) {
        let objects = Objects(host.py());
        match self {
            Ask::State(state, meta, answer) => {
                let done = objects.of(&meta).and_then(|meta| host.call_method1("update_state", (state.as_str(), meta)));
                drop(answer.send(
                    done.map(drop).map_err(|error| raised(ErrorKind::Backend, "update the task's state", &error)),
                ));
            }
            Ask::Send(signature, answer) => drop(answer.send(sent("send", signature, host))),
            Ask::AddToChord(signature, answer) => drop(answer.send(sent("add_to_chord", signature, host))),
        }
    }
}

fn sent(how: &str, signature: Signature, host: &Bound<'_, PyAny>) -> Result<ResultTuple> {
    let tried = format!("{how} task '{}'", signature.task);
    let sent = Objects(host.py()).of(&signature.into()).and_then(|signature| host.call_method1(how, (signature,)));
    let tuple = sent.and_then(|result| value_of(&result)).map_err(|error| raised(ErrorKind::Broker, &tried, &error))?;
    ResultTuple::try_from(&tuple)
}

fn raised(kind: ErrorKind, tried: &str, error: &PyErr) -> Error {
    Error::new(kind, format!("{tried}: {error}"))
}

/// A handler's line to the thread that waits for it.
struct Line(mpsc::UnboundedSender<Ask>);

impl Line {
    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<Result<T>>) -> Ask) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        let gone = || Error::new(ErrorKind::Broker, "nobody waits for this task any more");
        self.0.send(ask(answer)).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

#[async_trait]
impl StateSink for Line {
    async fn update_state(&self, _: &Request, state: State, meta: Value) -> Result<()> {
        self.ask(|answer| Ask::State(state, meta, answer)).await
    }
}

#[async_trait]
impl SignatureSink for Line {
    async fn send(&self, _: &Request, signature: Signature) -> Result<ResultTuple> {
        self.ask(|answer| Ask::Send(signature, answer)).await
    }

    async fn add_to_chord(&self, _: &Request, signature: Signature) -> Result<ResultTuple> {
        self.ask(|answer| Ask::AddToChord(signature, answer)).await
    }

    /// Celery knows what it has sent for a task.
    fn add_child(&self, _: ResultTuple) {}
}
