//! [`Supervisor`]: a worker from its start to its end, steered by signals.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinError;
use tokio::time::{Sleep, sleep};
use tokio_util::task::AbortOnDropHandle;

use super::failure::{Code, Failure, say};
use super::memory;
use super::signals::{Action, Escalation, Heeded, Signals, announce};
use crate::app::Observer;
use crate::worker::{Shutdown, Worker, WorkerHandle};
use crate::{Error, ErrorKind, Result};

/// Hands signals on to a worker, and knows how it is to end.
#[derive(Debug)]
pub(super) struct Supervisor {
    signals: Signals,
    escalation: Escalation,
    /// How long a cold shutdown lets tasks finish first (`worker_soft_shutdown_timeout`).
    soft: Duration,
    /// Is told of shutdowns.
    observer: Option<Arc<dyn Observer>>,
}

/// How a worker ended.
#[derive(Debug)]
pub(super) enum Ending {
    /// On request, with an exit code.
    Stopped(u8),
    /// By itself; it has been logged why.
    Failed(Failure),
    /// To be started again.
    Restart,
}

impl Supervisor {
    /// Heeds what there is of signals; `remapped`: SIGTERM is to do what SIGQUIT does.
    pub(super) fn new(signals: Signals, remapped: bool, soft: Duration, observer: Option<Arc<dyn Observer>>) -> Self {
        Supervisor { signals, escalation: Escalation::new(remapped), soft, observer }
    }

    /// Throws away what waits in the worker's queues, and says how much that was; an ending, if a signal came first.
    ///
    /// # Errors
    /// As [`Worker::purge`].
    pub(super) async fn purge(&mut self, worker: &Worker) -> Result<Option<Ending>> {
        let mut purging = pin!(worker.purge());
        loop {
            tokio::select! {
                purged = &mut purging => {
                    say_purged(purged?);
                    return Ok(None);
                }
                (_, action, said) = next_action(&mut self.signals, &mut self.escalation) => {
                    announce(said);
                    if action != Action::Dump {
                        return Ok(Some(self.stopped()));
                    }
                }
            }
        }
    }

    /// Runs the worker to its end.
    pub(super) async fn run(mut self, worker: Worker) -> Ending {
        let handle = worker.handle();
        let _small = AbortOnDropHandle::new(tokio::spawn(memory::stay_small(handle.clone())));
        // On the runtime's threads, where what it wakes and what wakes it are.
        let mut running = tokio::spawn(worker.run());
        let mut soft_phase = pin!(None);
        loop {
            tokio::select! {
                ended = &mut running => return self.ending(ended),
                () = elapsed(soft_phase.as_mut().as_pin_mut()) => {
                    soft_phase.set(None);
                    handle.shutdown(Shutdown::Cold);
                }
                (signal, action, said) = next_action(&mut self.signals, &mut self.escalation) => {
                    // First what is to be done: whoever reads what is said may have stopped reading.
                    match action {
                        Action::Exit => return Ending::Stopped(Code::Failure as u8),
                        Action::Cold if !self.soft.is_zero() => {
                            handle.shutdown(Shutdown::Warm);
                            soft_phase.set(Some(sleep(self.soft)));
                        }
                        action => act(action, &handle),
                    }
                    announce(said);
                    self.observe(signal, action);
                    if action == Action::Cold && !self.soft.is_zero() {
                        tracing::warn!("Initiating Soft Shutdown, terminating in {} seconds", self.soft.as_secs_f64());
                    }
                }
            }
        }
    }

    /// celery/apps/worker.py `_shutdown_handler`.
    fn observe(&self, signal: Heeded, action: Action) {
        let (Some(observer), Some(name)) = (&self.observer, signal.ends()) else { return };
        match action {
            Action::Warm => observer.shutting_down(name, "Warm", u8::from(signal == Heeded::Interrupt)),
            _ => observer.shutting_down(name, "Cold", Code::Failure as u8),
        }
    }

    fn stopped(&self) -> Ending {
        if self.escalation.is_restart() { Ending::Restart } else { Ending::Stopped(self.escalation.exit_code()) }
    }

    fn ending(&self, ended: Result<Result<()>, JoinError>) -> Ending {
        let error = match ended {
            Ok(Ok(())) => return self.stopped(),
            Ok(Err(error)) => error,
            Err(error) => Error::new(ErrorKind::Io, "run the worker").with_source(error),
        };
        tracing::error!(critical = true, "Unrecoverable error: {error}");
        Ending::Failed(error.into())
    }
}

fn act(action: Action, handle: &WorkerHandle) {
    match action {
        Action::Warm => handle.shutdown(Shutdown::Warm),
        Action::Cold | Action::ColdNow | Action::Exit => handle.shutdown(Shutdown::Cold),
        Action::Dump => handle.log_state(),
    }
}

/// What the next signal asks for, and what is to be said about it.
async fn next_action(signals: &mut Signals, escalation: &mut Escalation) -> (Heeded, Action, &'static [&'static str]) {
    let (signal, is_heard) = signals.next().await;
    let (action, said) = escalation.step(signal);
    (signal, action, if is_heard { said } else { &[] })
}

/// Waits for the end of the soft phase; where there is none, for ever.
async fn elapsed(phase: Option<std::pin::Pin<&mut Sleep>>) {
    match phase {
        Some(sleep) => sleep.await,
        None => std::future::pending().await,
    }
}

/// celery/apps/worker.py `Worker.purge_messages`.
fn say_purged(count: u64) {
    if count > 0 {
        let messages = if count == 1 { "message" } else { "messages" };
        say(&format!("purge: Erased {count} {messages} from the queue.\n"));
    }
}
