//! [`execute`]: one run of a handler, bounded by its time limits.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::cold::Cold;
use super::running::{End, Leash};
use crate::control::Signal;
use crate::task::{self, Outcome, Run, TaskContext};
use crate::trace::Scope;

/// How long a run may take.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Limits {
    /// After this the run is ended.
    pub(crate) hard: Option<Duration>,
    /// After this the handler is told, or ended if it does not listen.
    pub(crate) soft: Option<Duration>,
}

/// How a run ended, as far as the pool can say.
#[derive(Debug, PartialEq)]
pub(crate) enum Ran {
    /// The handler answered, or panicked.
    Finished(Outcome),
    /// The soft limit passed and the handler does not handle it.
    SoftLimit(Duration),
    /// The hard limit passed.
    HardLimit(Duration),
    /// The worker shuts down cold.
    Cancelled,
    /// Somebody asked for its end.
    Terminated(Signal),
    /// Its message will be run again.
    Orphaned,
    /// The process that ran it is gone, in this way.
    Lost(String),
}

type Handler = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// Runs the handler to its end or to the first limit. `soft` is cancelled when the soft limit passes.
///
/// A limit ends an async handler at its next `.await`. The thread of a blocking handler cannot be taken away: `on_stray`
/// is called with a handle that resolves when such a thread, given up, comes back.
pub(crate) async fn execute(
    run: Run,
    limits: Limits,
    context: &TaskContext,
    soft: &CancellationToken,
    cold: &Cold,
    leash: &Leash,
    on_stray: impl FnOnce(Handler),
) -> Ran {
    let (mut handler, blocking) = match run {
        Run::Async(future) => (future, false),
        Run::Blocking(function) => (on_thread(function), true),
    };
    let ran = until_limit(&mut handler, limits, context, soft, cold, leash).await;
    if blocking && !matches!(ran, Ran::Finished(_)) {
        on_stray(handler);
    }
    ran
}

/// The function's answer as a future; the function runs on a thread that may block, in the same trace and span.
fn on_thread(function: Box<dyn FnOnce() -> Outcome + Send>) -> Handler {
    let scope = Scope::here();
    let thread = tokio::task::spawn_blocking(move || scope.call(function));
    Box::pin(async move {
        match thread.await {
            Ok(outcome) => outcome,
            Err(error) => match error.try_into_panic() {
                Ok(payload) => task::outcome_of_panic(payload),
                // Only a runtime that is going down cancels a thread that has not begun.
                Err(_) => Outcome::Reject { reason: "the worker stopped before the task began".into(), requeue: true },
            },
        }
    })
}

async fn until_limit(
    handler: &mut Handler,
    limits: Limits,
    context: &TaskContext,
    soft: &CancellationToken,
    cold: &Cold,
    leash: &Leash,
) -> Ran {
    let start = Instant::now();
    let mut soft_limit = limits.soft;
    loop {
        tokio::select! {
            biased;
            outcome = &mut *handler => return Ran::Finished(outcome),
            () = cold.begun() => return Ran::Cancelled,
            end = leash.ended() => return match end {
                End::Terminated(signal) => Ran::Terminated(signal),
                End::Orphaned => Ran::Orphaned,
            },
            limit = passed(start, limits.hard) => return Ran::HardLimit(limit),
            limit = passed(start, soft_limit) => {
                if !context.handles_soft_limit() {
                    return Ran::SoftLimit(limit);
                }
                soft.cancel();
                soft_limit = None;
            }
        }
    }
}

/// Resolves to `limit` when it has passed since `start`; never without one, or with one beyond the end of time.
pub(crate) async fn passed(start: Instant, limit: Option<Duration>) -> Duration {
    let end = limit.and_then(|limit| Some((start.checked_add(limit)?, limit)));
    let Some((end, limit)) = end else { return std::future::pending().await };
    tokio::time::sleep_until(end).await;
    limit
}
