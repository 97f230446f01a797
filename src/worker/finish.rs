//! [`Finisher`]: carries out what was decided, in the one order that loses nothing.
//!
//! What the task sends is accepted by the broker, then its result by the backend, then the message is settled. A crash
//! between two steps leaves the message unsettled, and it comes back.

mod elsewhere;
mod fate;

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::cold::Cold;
use super::conclude::{self, Conclusion, conclude};
use super::continuations::{Continuations, Failed};
use super::dead_letter::{DeadLetters, Death};
use super::duplicates::{Before, Duplicates};
use super::execute::{Ran, execute};
use super::malformed::Malformed;
use super::report;
use super::request::{Work, parent_of};
use super::results::{Finding, Results, part_of_request};
use super::revoked::Reason;
use super::running::Slot;
use super::settle::{Ending, Late, Verdict, verdict};
use super::sink::Sink;
use super::witness::{Ended, Witness};

use crate::Result;
use crate::app::Outgoing;
use crate::backend::ChordProgress;
use crate::protocol::{Exception, MetaResult, ResultTuple, Signature, State, TaskMeta};
use crate::task::{Arguments, Request, Run, SignatureSink, StateSink, Task, TaskContext, outcome_of_panic};
use crate::time::Clock;
use crate::trace;
use crate::transport::Settlement;

/// Runs work and carries out what it comes to.
pub(crate) struct Finisher {
    pub(crate) clock: Clock,
    pub(crate) cold: Cold,
    results: Arc<Results>,
    continuations: Arc<Continuations>,
    /// `None`: nothing is kept, as stock Celery does.
    dead_letters: Option<DeadLetters>,
    duplicates: Duplicates,
    rng: Mutex<fastrand::Rng>,
    /// Is told of all that happens to tasks.
    pub(crate) witness: Arc<Witness>,
}

impl Finisher {
    pub(crate) fn new(
        continuations: Arc<Continuations>,
        dead_letters: Option<DeadLetters>,
        duplicates: Duplicates,
        witness: Arc<Witness>,
        clock: Clock,
        rng: fastrand::Rng,
    ) -> Self {
        let results = Arc::clone(&continuations.results);
        Finisher {
            clock,
            cold: results.cold.clone(),
            results,
            continuations,
            dead_letters,
            duplicates,
            rng: Mutex::new(rng),
            witness,
        }
    }

    /// The worker's node name.
    pub(crate) fn hostname(&self) -> &str {
        &self.results.metas.hostname
    }

    /// A random number between 0 and 1.
    pub(crate) fn chance(&self) -> f64 {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner).f64()
    }

    /// Runs one task from reserved to settled, in the trace that its message speaks of.
    pub(crate) async fn run(self: Arc<Self>, work: Box<Work>, slot: Slot) {
        match work.scope() {
            None => self.run_in_scope(work, slot).await,
            // On the heap, so that runs without a trace are no larger for it.
            Some(scope) => Box::pin(scope.run(self.run_in_scope(work, slot))).await,
        }
    }

    async fn run_in_scope(self: Arc<Self>, mut work: Box<Work>, slot: Slot) {
        // The handler's own panics are its failures; one of ours must not bring the message back to do it again.
        let ran = AssertUnwindSafe(self.run_to_end(&mut work, slot)).catch_unwind().await;
        if ran.is_err() {
            error!(critical = true, "Task {}[{}] INTERNAL ERROR: the worker panicked", work.name, work.request.id);
            Box::pin(self.give_up(&mut work, "the worker panicked")).await;
        }
    }

    async fn run_to_end(&self, work: &mut Work, slot: Slot) {
        if work.handed.is_none() && work.is_expired(self.clock.now()) {
            return Box::pin(self.expire(work)).await;
        }
        if let Some(pool) = work.task.pool.clone() {
            return Box::pin(self.run_elsewhere(work, pool, slot)).await;
        }
        let arguments = match work.begin() {
            Ok(arguments) => arguments,
            // A held message whose body no longer decodes, though it did when it came.
            Err(error) => return Box::pin(self.give_up(work, &error.to_string())).await,
        };
        if self.duplicates.may_know(work) {
            match Box::pin(self.duplicates.before(work)).await {
                Before::No => {}
                before => return Box::pin(self.resume(work, before)).await,
            }
        }
        if !work.task.policy.acks_late {
            work.settle(Settlement::Ack);
        }
        if work.task.policy.track_started && !work.ignore_result {
            self.results.started(work);
        }
        let active = self.witness.started(work);
        let began = Instant::now();
        // The place in the pool is kept until the message is settled: while broker or backend are away, no more is begun
        // than they will be told of.
        let mut slot = Some(slot);
        let sink = self.sink(work);
        let ran = self.execute(work, arguments, &sink, &mut slot).await;
        drop(active);
        let conclusion = conclude(ran, work, began.elapsed(), self.clock.now(), &self.rng);
        self.carry_out(work, conclusion, &sink).await;
        drop(slot);
    }

    /// What the handler asks of its worker.
    fn sink(&self, work: &Work) -> Arc<Sink> {
        let sender = Arc::clone(&self.continuations.sender);
        Sink::new(Arc::clone(&self.results), self.results.metas.extension(work), sender, work.embed())
    }

    async fn execute(&self, work: &Work, arguments: Arguments, sink: &Arc<Sink>, slot: &mut Option<Slot>) -> Ran {
        let soft = CancellationToken::new();
        let (states, signatures): (Arc<dyn StateSink>, Arc<dyn SignatureSink>) =
            (Arc::clone(sink) as _, Arc::clone(sink) as _);
        let context = TaskContext::with_sinks(Arc::clone(&work.request), states, signatures, soft.clone());
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
            Ran::Terminated(_) if slot.is_none() => report::log_stray(work),
            Ran::Finished(_) | Ran::Cancelled | Ran::Terminated(_) | Ran::Orphaned | Ran::Lost(_) => {}
        }
        ran
    }

    /// Ends work that is not run, as if it had come to this.
    pub(crate) async fn end(&self, work: &mut Work, conclusion: Conclusion) {
        let Some(conclusion) = self.by_its_pool(work, conclusion).await else { return };
        match work.begin() {
            Ok(_) => self.carry_out(work, conclusion, &self.sink(work)).await,
            Err(error) => self.give_up(work, &error.to_string()).await,
        }
    }

    async fn carry_out(&self, work: &mut Work, conclusion: Conclusion, sink: &Sink) {
        let (conclusion, children) = if conclusion.sends(work) {
            match Box::pin(self.send(work, conclusion, sink)).await {
                Ok(sent) => sent,
                // Unsettled and unstored: nothing claims that it was done.
                Err(error) => return report::log_unsent(work, &error),
            }
        } else {
            (conclusion, sink.take_children())
        };
        let Conclusion { ending, result, traceback, report, runtime, terminated, .. } = conclusion;
        let Verdict { store, part, late } = verdict(ending, &work.task.policy, work.ignore_result);
        let (said, shown) = (report.said(work, &result), self.witness.shown(&result));
        // A dead letter names the exception, and so do errbacks; a plain success is not copied.
        let mut exception = match &result {
            MetaResult::Exception(exception) => Some(exception.clone()),
            MetaResult::Value(_) => None,
        };
        let (stores, fails) = (store.is_some(), part == Some(State::Failure));
        trace::ended(ending.state(), exception.as_ref());
        let finding = Finding { store, part, result, traceback: traceback.clone(), children };
        let kept = match self.results.keep(work, finding, || said.say()).await {
            Ok(kept) => kept,
            // The backend is away and the worker stops without waiting for it.
            Err(error) if error.can_pass() => return,
            // To run it again would not help, and to acknowledge it would lose what it came to.
            Err(_) => {
                let reason = "the task's result could not be stored";
                return self.settle_buried(work, reason, exception.as_ref(), runtime);
            }
        };
        if work.is_followed() {
            let failed = kept.unencodable.as_ref().or(exception.as_ref().filter(|_| fails));
            if let Err(error) = Box::pin(self.follow(work, kept.progress, failed, traceback.as_deref(), stores)).await {
                // The worker stops: what is left is done when the message comes back.
                return report::log_unsent(work, &error);
            }
        }
        // A value that cannot be encoded is the task's failure.
        let (ending, late) = match &kept.unencodable {
            Some(_) if ending == Ending::Success => {
                (Ending::Failure, verdict(Ending::Failure, &work.task.policy, work.ignore_result).late)
            }
            _ => (ending, late),
        };
        exception = kept.unencodable.or(exception);
        if ending == Ending::Success {
            self.duplicates.succeeded(work);
        }
        let was_unsettled = work.is_unsettled();
        self.settle(work, late, exception.as_ref(), ending);
        let (result, exception, traceback) = (shown.as_deref(), exception.as_ref(), traceback.as_deref());
        let ended = Ended { runtime, result, exception, traceback, terminated, was_unsettled, ..Ended::plain(ending) };
        self.witness.ended(work, &ended);
    }

    /// The message of a task that has succeeded before: what a crash left undone after the result was stored is done, and
    /// the task is not run (celery/app/trace.py `build_tracer`).
    async fn resume(&self, work: &mut Work, before: Before) {
        report::log_duplicate(work);
        let resumed = match before {
            Before::Stored(meta) => self.follow_again(work, *meta).await,
            Before::Here | Before::No => Ok(()),
        };
        match resumed {
            Ok(()) => {
                self.duplicates.succeeded(work);
                work.settle(Settlement::Ack);
            }
            // The worker stops: what is left is done when the message comes back.
            Err(error) if error.can_pass() => {}
            Err(error) => {
                error!("Failed to dispatch chain/callbacks for deduplicated task {}: {error}", work.request.id);
                work.settle(Settlement::Requeue);
            }
        }
    }

    /// Sends what follows the success unless its result says that this was sent, and tells the chord, which counts each
    /// of its members once.
    async fn follow_again(&self, work: &Work, meta: TaskMeta) -> Result<()> {
        if meta.children.is_none_or(|children| children.is_empty()) {
            self.send_continuations(work, &meta.result, &mut Vec::new()).await?;
        }
        let (store, part) = (None, Some(State::Success));
        let finding = Finding { store, part, result: meta.result, traceback: None, children: Vec::new() };
        let progress = self.results.keep(work, finding, || {}).await?.progress;
        self.follow(work, progress, None, None, false).await
    }

    /// Sends what must be with the broker before anything is stored: the retry, the replacement, or what follows a
    /// success. What cannot be sent makes the run a failure.
    ///
    /// # Errors
    /// Those of a cold shutdown.
    async fn send(
        &self,
        work: &Work,
        mut conclusion: Conclusion,
        sink: &Sink,
    ) -> Result<(Conclusion, Vec<ResultTuple>)> {
        let mut children = sink.take_children();
        let sent = match conclusion.ending {
            Ending::Retry => {
                children.push(own_result(work));
                let again = std::mem::take(&mut conclusion.publications).into_iter();
                // Back to where it came from, which is there.
                let again = again.map(|publication| Outgoing { publication, queue: None }).collect();
                self.cold.bound(self.continuations.sender.publish(again)).await
            }
            Ending::Replaced => self.replace(work, conclusion.replacement.take(), &mut children).await,
            Ending::Success => self.send_continuations(work, &conclusion.result, &mut children).await,
            _ => Ok(()),
        };
        match sent {
            Ok(()) => Ok((conclusion, children)),
            Err(error) if error.can_pass() => Err(error),
            // celery/app/task.py `Task.retry`: a retry that the broker refuses is a rejected message.
            Err(error) if conclusion.ending == Ending::Retry => {
                Ok((conclude::rejected(error.to_string(), false), sink.take_children()))
            }
            Err(error) => Ok((conclude::failed(conclude::unsent_error(&error), None), children)),
        }
    }

    async fn replace(
        &self,
        work: &Work,
        signature: Option<Box<Signature>>,
        children: &mut Vec<ResultTuple>,
    ) -> Result<()> {
        let Some(signature) = signature else { return Ok(()) };
        let plan = self.continuations.replacing(&work.request, &work.embed(), *signature)?;
        children.extend(self.cold.bound(self.continuations.sender.carry_out(plan)).await?);
        Ok(())
    }

    async fn send_continuations(
        &self,
        work: &Work,
        result: &MetaResult,
        children: &mut Vec<ResultTuple>,
    ) -> Result<()> {
        let MetaResult::Value(value) = result else { return Ok(()) };
        if !work.is_followed() {
            return Ok(());
        }
        let plan = self.continuations.after_success(&work.request, &work.embed(), value)?;
        children.extend(self.cold.bound(self.continuations.sender.carry_out(plan)).await?);
        Ok(())
    }

    /// What follows when the result is stored: the body of a chord that this task has completed; for a failure also what
    /// fails with it, and its errbacks.
    async fn follow(
        &self,
        work: &Work,
        progress: ChordProgress,
        exception: Option<&Exception>,
        traceback: Option<&str>,
        stores: bool,
    ) -> Result<()> {
        if !work.is_followed() {
            return Ok(());
        }
        let embed = work.embed();
        if let Some(body) = embed.chord.clone() {
            self.continuations.after_part(&parent_of(&work.request), body, progress).await?;
        }
        let Some(exception) = exception else { return Ok(()) };
        let failed =
            Failed { request: &work.request, embed: &embed, exception, traceback, stores, calls_errbacks: true };
        self.continuations.after_failure(failed).await
    }

    fn settle(&self, work: &mut Work, late: Late, exception: Option<&Exception>, ending: Ending) {
        let settlement = match late {
            Late::Ack => Settlement::Ack,
            Late::Requeue => Settlement::Requeue,
            Late::Restore => Settlement::Restore,
            Late::DeadLetter if !work.is_unsettled() => return,
            Late::DeadLetter => self.dead_letter(work, exception, ending),
        };
        work.settle(settlement);
    }

    fn dead_letter(&self, work: &Work, exception: Option<&Exception>, ending: Ending) -> Settlement {
        let reason = match ending {
            Ending::Reject { .. } => "the task rejected its message",
            Ending::Failure => "the task failed, and acks_on_failure is off",
            Ending::Lost { .. } => "the process that ran the task is gone, and acks_on_failure is off",
            Ending::WorkerLost => "the task has killed its worker too often",
            _ => "the task's result could not be stored",
        };
        self.bury(work, reason, exception)
    }

    /// Work whose time has passed: REVOKED with `TaskRevokedError("expired")`.
    pub(crate) async fn expire(&self, work: &mut Work) {
        report::log_discarded(work, None);
        self.revoke(work, "expired", true).await;
    }

    /// Work that somebody revoked: REVOKED with `TaskRevokedError("revoked")`.
    pub(crate) async fn discard(&self, work: &mut Work, reason: &Reason) {
        report::log_discarded(work, Some(reason));
        self.revoke(work, "revoked", false).await;
    }

    /// Ends work that is not to run: REVOKED with `TaskRevokedError(reason)`.
    async fn revoke(&self, work: &mut Work, reason: &str, is_expired: bool) {
        if self.revoked_by_its_pool(work, reason, is_expired).await {
            return;
        }
        if !work.is_begun() {
            // What is to follow is in the body; a body that does not decode any more has nothing to follow it.
            let _ = work.begin();
        }
        let Verdict { store, part, .. } = verdict(Ending::Revoked, &work.task.policy, work.ignore_result);
        let result = MetaResult::Exception(Exception::celery("TaskRevokedError", reason));
        let finding = Finding { store, part, result, traceback: None, children: Vec::new() };
        let followed = match self.results.keep(work, finding, || {}).await {
            Ok(kept) => self.follow(work, kept.progress, None, None, false).await,
            Err(error) => Err(error),
        };
        match followed {
            Ok(()) => work.settle(Settlement::Ack),
            // The backend is away and the worker stops without waiting for it: the message comes back, and ends then.
            Err(error) if error.can_pass() => return,
            Err(_) => {
                let letter = self.bury(work, "the task was revoked or expired, and that could not be stored", None);
                work.settle(letter);
            }
        }
        let was_unsettled = true;
        self.witness.ended(work, &Ended { is_expired, was_unsettled, ..Ended::plain(Ending::Revoked) });
    }

    /// A message that this worker cannot deal with, for reasons of its own: a FAILURE, and kept as a dead letter.
    async fn give_up(&self, work: &mut Work, reason: &str) {
        error!("Task {}[{}] is given up: {reason}", work.name, work.request.id);
        let exception = Exception::new("RuntimeError", reason);
        let result = MetaResult::Exception(exception.clone());
        let (store, part) = (Some(State::Failure), Some(State::Failure));
        let finding = Finding { store, part, result, traceback: None, children: Vec::new() };
        // The dead letter is what must not be lost; a failure that cannot be stored is told in the log.
        if let Ok(kept) = self.results.keep(work, finding, || {}).await {
            let _ = self.follow(work, kept.progress, Some(&exception), None, true).await;
        }
        self.settle_buried(work, reason, Some(&exception), None);
    }

    fn settle_buried(&self, work: &mut Work, reason: &str, exception: Option<&Exception>, runtime: Option<Duration>) {
        let (letter, was_unsettled) = (self.bury(work, reason, exception), work.is_unsettled());
        work.settle(letter);
        self.witness.ended(work, &Ended { runtime, exception, was_unsettled, ..Ended::plain(Ending::Failure) });
    }

    fn bury(&self, work: &Work, reason: &str, exception: Option<&Exception>) -> Settlement {
        let death = Death { reason, exception, queue: work.queue.as_str(), time: self.clock.now() };
        let letter = |letters: &DeadLetters| Box::new(letters.of_message(work.whole_message(), &death));
        self.dead_letters.as_ref().map(letter).map_or(Settlement::Reject, Settlement::DeadLetter)
    }

    /// A message that cannot be run: logged, a FAILURE where there is an id, and kept as a dead letter.
    pub(crate) async fn refuse(&self, malformed: Malformed) {
        malformed.log();
        if let Some(request) = &malformed.request
            && let Err(error) = self.fail(request, &malformed).await
        {
            // The dead letter is what must not be lost; the failure is told in the log.
            error!("the failure of {} cannot be stored: {error}", request.id);
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
        self.witness.refused(&malformed);
        malformed.delivery.settle(settlement);
    }
}

impl Finisher {
    /// Stores the FAILURE of a message that cannot be run, tells its chord, and fails what was to follow it. Its errbacks
    /// are not called (celery/worker/consumer/consumer.py `Consumer.on_unknown_task`).
    async fn fail(&self, request: &Request, malformed: &Malformed) -> Result<()> {
        if let Some(kept) = self.results.kept_failure(request, malformed).await {
            return kept;
        }
        let (embed, exception) = (&malformed.embed, &malformed.exception);
        let result = MetaResult::Exception(exception.clone());
        let part = embed.chord.as_ref().and_then(|_| part_of_request(request, State::Failure, &result));
        let store = self.results.metas.of_request(request, State::Failure, result, None);
        let progress = self.results.store(Some(store), part).await?;
        if let Some(body) = embed.chord.clone() {
            self.continuations.after_part(&parent_of(request), body, progress).await?;
        }
        let failed = Failed { request, embed, exception, traceback: None, stores: true, calls_errbacks: false };
        self.continuations.after_failure(failed).await
    }
}

/// The task's own result: a retry is a child of the run that asks for it (celery/app/task.py `Task.retry`).
fn own_result(work: &Work) -> ResultTuple {
    ResultTuple::task(work.request.id.as_str())
}

/// Prepares a run; a panic, while preparing or while running, is the task's failure and nothing else.
fn begin(task: &dyn Task, context: TaskContext, arguments: Arguments) -> Run {
    let prepared = std::panic::catch_unwind(AssertUnwindSafe(|| task.run(context, arguments)));
    match prepared {
        Ok(run) => run.guarded(),
        Err(payload) => Run::from_future(std::future::ready(outcome_of_panic(payload))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `run` makes, without making it.
    fn size_of_made<A, B, C, F>(_run: impl FnOnce(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_run_is_small_for_there_are_hundreds() {
        let size = size_of_made(Finisher::run);
        assert!(size <= 3500, "{size} bytes: what is rarely awaited belongs in a box");
    }
}
