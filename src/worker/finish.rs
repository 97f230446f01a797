//! [`Finisher`]: carries out what was decided, in the one order that loses nothing.
//!
//! What the task sends is accepted by the broker, then its result by the backend, then the message is settled. A crash
//! between two steps leaves the message unsettled, and it comes back.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::conclude::{self, Conclusion, conclude};
use super::dead_letter::{DeadLetters, Death};
use super::execute::{Ran, execute};
use super::malformed::Malformed;
use super::metas::Metas;
use super::publisher::Publisher;
use super::report::{self, Report};
use super::request::Work;
use super::revoked::Reason;
use super::running::Slot;
use super::settle::{Ending, Late, Verdict, verdict};
use super::states::States;
use crate::backend::ResultWriter;
use crate::protocol::{Exception, Map, MetaResult, State};
use crate::task::{Arguments, Run, StateSink, Task, TaskContext, outcome_of_panic};
use crate::time::Clock;
use crate::transport::Settlement;
use crate::{Error, ErrorKind, Result};

/// How long a cold shutdown waits for what has been sent to broker and backend and is not answered yet.
const PARTING: Duration = Duration::from_secs(2);

/// Runs work and carries out what it comes to.
pub(crate) struct Finisher {
    pub(crate) clock: Clock,
    /// Cancelled by a cold shutdown.
    pub(crate) cold: CancellationToken,
    metas: Metas,
    writer: ResultWriter,
    publisher: Publisher,
    states: Arc<dyn StateSink>,
    /// `None`: nothing is kept, as stock Celery does.
    dead_letters: Option<DeadLetters>,
    rng: Mutex<fastrand::Rng>,
}

impl Finisher {
    pub(crate) fn new(
        metas: Metas,
        writer: ResultWriter,
        publisher: Publisher,
        dead_letters: Option<DeadLetters>,
        clock: Clock,
        rng: fastrand::Rng,
    ) -> Self {
        let states = Arc::new(States { writer: writer.clone(), metas: metas.clone(), extension: Map::new() });
        let cold = CancellationToken::new();
        Finisher { clock, cold, metas, writer, publisher, states, dead_letters, rng: Mutex::new(rng) }
    }

    /// The worker's node name.
    pub(crate) fn hostname(&self) -> &str {
        &self.metas.hostname
    }

    /// Runs one task from reserved to settled.
    pub(crate) async fn run(self: Arc<Self>, mut work: Box<Work>, slot: Slot) {
        // The handler's own panics are its failures; one of ours must not bring the message back to do it again.
        let ran = AssertUnwindSafe(self.run_to_end(&mut work, slot)).catch_unwind().await;
        if ran.is_err() {
            error!(critical = true, "Task {}[{}] INTERNAL ERROR: the worker panicked", work.name, work.request.id);
            self.give_up(&mut work, "the worker panicked").await;
        }
    }

    async fn run_to_end(&self, work: &mut Work, slot: Slot) {
        if work.is_expired(self.clock.now()) {
            return self.expire(work).await;
        }
        let body = match work.take_body() {
            Ok(body) => body,
            // A held message whose body no longer decodes, though it did when it came.
            Err(error) => return self.give_up(work, &error.to_string()).await,
        };
        if !work.task.policy.acks_late {
            work.settle(Settlement::Ack);
        }
        if work.task.policy.track_started && !work.ignore_result {
            self.store_started(work);
        }
        let began = Instant::now();
        // The place in the pool is kept until the message is settled: while broker or backend are away, no more is begun
        // than they will be told of.
        let mut slot = Some(slot);
        let ran = self.execute(work, Arguments { args: body.args, kwargs: body.kwargs }, &mut slot).await;
        let conclusion = {
            let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
            conclude(ran, work, began.elapsed(), self.clock.now(), &mut rng)
        };
        self.carry_out(work, conclusion).await;
        drop(slot);
    }

    async fn execute(&self, work: &Work, arguments: Arguments, slot: &mut Option<Slot>) -> Ran {
        let soft = CancellationToken::new();
        let context = TaskContext::new(Arc::clone(&work.request), self.states(work), soft.clone());
        let run = begin(&*work.task.task, context.clone(), arguments);
        let leash = slot.as_ref().map(Slot::leash).unwrap_or_default();
        let ran = execute(run, work.limits, &context, &soft, &self.cold, &leash, |thread| {
            // The thread goes on and keeps its place in the pool until it comes back.
            let slot = slot.take();
            tokio::spawn(async move {
                thread.await;
                drop(slot);
            });
        })
        .await;
        match ran {
            Ran::SoftLimit(limit) => report::log_limit("Soft", limit, work),
            Ran::HardLimit(limit) => report::log_limit("Hard", limit, work),
            Ran::Terminated if slot.is_none() => report::log_stray(work),
            Ran::Finished(_) | Ran::Cancelled | Ran::Terminated => {}
        }
        ran
    }

    /// Where the handler's `update_state` goes.
    fn states(&self, work: &Work) -> Arc<dyn StateSink> {
        if !self.metas.extended {
            return Arc::clone(&self.states);
        }
        let (writer, metas) = (self.writer.clone(), self.metas.clone());
        Arc::new(States { writer, extension: metas.extension(work), metas })
    }

    /// Not waited for: the writer keeps the order of what it stores for one task.
    fn store_started(&self, work: &Work) {
        let meta = self.metas.started(work);
        drop(self.writer.store(meta));
    }

    async fn carry_out(&self, work: &mut Work, conclusion: Conclusion) {
        if !conclusion.publications.is_empty() {
            let published = self.unless_cold(self.publisher.publish(conclusion.publications)).await;
            if let Err(error) = published {
                // Unsettled and unstored: a late-acknowledged message comes back, and nothing claims that it was done.
                error!("Task {}[{}] cannot publish, and is given back: {error}", work.name, work.request.id);
                return;
            }
        }
        let Verdict { store, late } = verdict(conclusion.ending, &work.task.policy, work.ignore_result);
        conclusion.report.log(work, &conclusion.result);
        let mut late = late;
        if let Some(state) = store {
            match self.store(work, state, conclusion.result.clone(), conclusion.traceback).await {
                Ok(()) => {}
                // The backend is away and the worker stops without waiting for it.
                Err(error) if error.is_connection() => return,
                // To run it again would not help, and to acknowledge it would lose what it came to.
                Err(_) => late = Late::DeadLetter,
            }
        }
        self.settle(work, late, &conclusion.result, conclusion.ending);
    }

    /// Stores a state; a value that cannot be encoded is stored as the failure that it is.
    async fn store(&self, work: &Work, state: State, result: MetaResult, traceback: Option<String>) -> Result<()> {
        let request = self.metas.of_work(work, state, result, traceback);
        let mut stored = self.unless_cold(self.writer.store(request)).await;
        let encode_error = stored.as_ref().err().filter(|error| error.kind() == ErrorKind::Encode);
        if let Some(error) = encode_error {
            let exception = conclude::encode_error(&error.to_string());
            let report = Report::Error(format!("raised unexpected: {exception}"), None);
            let result = MetaResult::Exception(exception);
            report.log(work, &result);
            let request = self.metas.of_work(work, State::Failure, result, None);
            stored = self.unless_cold(self.writer.store(request)).await;
        }
        stored.inspect_err(|error| {
            error!("Task {}[{}]: the result cannot be stored: {error}", work.name, work.request.id);
        })
    }

    /// What waits for the broker or the backend waits for as long as they are away, and through a cold shutdown for a
    /// moment: what is on its way arrives.
    async fn unless_cold<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let parting = async {
            self.cold.cancelled().await;
            tokio::time::sleep(PARTING).await;
        };
        tokio::select! {
            biased;
            done = work => done,
            () = parting => {
                Err(Error::new(ErrorKind::Connection, "the worker shuts down without waiting for it"))
            }
        }
    }

    fn settle(&self, work: &mut Work, late: Late, result: &MetaResult, ending: Ending) {
        let settlement = match late {
            Late::Ack => Settlement::Ack,
            Late::Requeue => Settlement::Requeue,
            Late::Restore => Settlement::Restore,
            Late::DeadLetter if !work.is_unsettled() => return,
            Late::DeadLetter => self.dead_letter(work, result, ending),
        };
        work.settle(settlement);
    }

    fn dead_letter(&self, work: &Work, result: &MetaResult, ending: Ending) -> Settlement {
        let reason = match ending {
            Ending::Reject { .. } => "the task rejected its message",
            Ending::Failure => "the task failed, and acks_on_failure is off",
            _ => "the task's result could not be stored",
        };
        let exception = match result {
            MetaResult::Exception(exception) => Some(exception),
            MetaResult::Value(_) => None,
        };
        self.bury(work, reason, exception)
    }

    /// Work whose time has passed: REVOKED with `TaskRevokedError("expired")`.
    pub(crate) async fn expire(&self, work: &mut Work) {
        report::log_discarded(work, None);
        self.revoke(work, "expired").await;
    }

    /// Work that somebody revoked: REVOKED with `TaskRevokedError("revoked")`.
    pub(crate) async fn discard(&self, work: &mut Work, reason: &Reason) {
        report::log_discarded(work, Some(reason));
        self.revoke(work, "revoked").await;
    }

    async fn revoke(&self, work: &mut Work, why: &str) {
        let verdict = verdict(Ending::Revoked, &work.task.policy, work.ignore_result);
        let exception = Exception::celery("TaskRevokedError", why);
        let stored = match verdict.store {
            Some(state) => self.store(work, state, MetaResult::Exception(exception), None).await,
            None => Ok(()),
        };
        match stored {
            Ok(()) => work.settle(Settlement::Ack),
            // The backend is away and the worker stops without waiting for it: the message comes back, and ends then.
            Err(error) if error.is_connection() => {}
            Err(_) => {
                let letter = self.bury(work, "the task was revoked or expired, and that could not be stored", None);
                work.settle(letter);
            }
        }
    }

    /// A message that this worker cannot deal with, for reasons of its own: a FAILURE, and kept as a dead letter.
    async fn give_up(&self, work: &mut Work, reason: &str) {
        error!("Task {}[{}] is given up: {reason}", work.name, work.request.id);
        let exception = Exception::new("RuntimeError", reason);
        let failure = MetaResult::Exception(exception.clone());
        // The dead letter is what must not be lost; a failure that cannot be stored is told in the log.
        let _ = self.store(work, State::Failure, failure, None).await;
        let letter = self.bury(work, reason, Some(&exception));
        work.settle(letter);
    }

    fn bury(&self, work: &Work, reason: &str, exception: Option<&Exception>) -> Settlement {
        let death = Death { reason, exception, queue: work.queue.as_str(), time: self.clock.now() };
        let letter = |letters: &DeadLetters| Box::new(letters.of_message(work.whole_message(), &death));
        self.dead_letters.as_ref().map(letter).map_or(Settlement::Reject, Settlement::DeadLetter)
    }

    /// A message that cannot be run: logged, a FAILURE where there is an id, and kept as a dead letter.
    pub(crate) async fn refuse(&self, malformed: Malformed) {
        malformed.log();
        if let Some(request) = &malformed.request {
            let result = MetaResult::Exception(malformed.exception.clone());
            let store = self.metas.of_request(request, State::Failure, result, None);
            if let Err(error) = self.unless_cold(self.writer.store(store)).await {
                // The dead letter is what must not be lost; the failure is told in the log.
                error!("the failure of {} cannot be stored: {error}", request.id);
            }
        }
        let death = Death {
            reason: &malformed.reason,
            exception: Some(&malformed.exception),
            queue: malformed.delivery.queue().as_str(),
            time: self.clock.now(),
        };
        let letter = self.dead_letters.as_ref().map(|letters| match &malformed.message {
            Ok(message) => letters.of_message(message.clone(), &death),
            Err(undecodable) => letters.of_bytes(undecodable, &death),
        });
        let settlement = letter.map_or(Settlement::Reject, |letter| Settlement::DeadLetter(Box::new(letter)));
        malformed.delivery.settle(settlement);
    }
}

/// Prepares a run; a panic, while preparing or while running, is the task's failure and nothing else.
fn begin(task: &dyn Task, context: TaskContext, arguments: Arguments) -> Run {
    let prepared = std::panic::catch_unwind(AssertUnwindSafe(|| task.run(context, arguments)));
    match prepared {
        Ok(run) => run.guarded(),
        Err(payload) => Run::from_future(std::future::ready(outcome_of_panic(payload))),
    }
}
