//! Runs that go on elsewhere: the part of stock Celery's main process, beside the tracer in a pool's process
//! (celery/worker/request.py `Request.on_accepted`, `on_success`, `on_failure`, `on_timeout`).
//!
//! What the tracer has made of a task is stored as it hands it over, and what it has sent is sent: of a run that it has
//! ended only the message is left to settle. A run whose process is gone is concluded by its pool (`super::fate`), or as
//! one that went on here.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::super::conclude::{self, Conclusion, conclude};
use super::super::execute::{Limits, Ran, passed};
use super::super::metas::reply_to;
use super::super::report::{self, Report};
use super::super::request::{Handed, Work};
use super::super::running::{End, Leash, Slot};
use super::super::settle::{Ending, verdict};
use super::super::witness::{Active, Ended};
use super::Finisher;
use crate::app::Outgoing;
use crate::backend::EncodedResult;
use crate::protocol::{MetaResult, State};
use crate::task::{CallEnd, Fate, How, Line, Order, Pool, Raised, Report as Told, StoredMeta};
use crate::trace;
use crate::transport::Settlement;
use crate::{Error, ErrorKind, Result};

/// What is known of a run that goes on elsewhere.
pub(super) struct Watch<'a> {
    pub(super) line: Line,
    limits: Limits,
    /// When the task began, or its body was begun to be decoded; its limits count from here.
    began: Option<Instant>,
    active: Option<Active<'a>>,
    /// Its body is being decoded, or could not be.
    is_unread: bool,
    /// It was told of its soft limit: that may be what it has ended with.
    is_overdue: bool,
    /// Why it is to end, if it is.
    stop: Option<Ran>,
    heard_cold: bool,
    /// On their way to the backend.
    pub(super) storing: FuturesUnordered<BoxFuture<'static, Result<()>>>,
    /// What could not be stored.
    unstored: Option<Error>,
    /// The task's own success was given to be stored.
    has_succeeded: bool,
}

/// What happens to a run from outside.
enum Turn {
    Told(Told),
    Stored(Result<()>),
    SoftLimit(Duration),
    HardLimit(Duration),
    Cold,
    Leash(End),
    Over(CallEnd),
}

impl Finisher {
    /// Has a message run in a pool, from reserved to settled.
    pub(super) async fn run_elsewhere(&self, work: &mut Work, pool: Arc<dyn Pool>, slot: Slot) {
        let limits = if pool.ends_runs() { work.limits } else { Limits::default() };
        let (line, run) = work.handed.take().unwrap_or_else(|| Handed::to(pool, work)).into_parts();
        let mut watch = Watch::new(line, limits);
        let end = self.watch(work, &mut watch, run, &slot.leash()).await;
        let runtime = watch.began.map_or(Duration::ZERO, |began| began.elapsed());
        drop(watch.active.take());
        let stored = self.cold.bound(watch.all_stored()).await;
        let end = match end {
            // What it was told to end with is not what is wrong with its body.
            CallEnd::Undecodable { .. } if watch.is_unread && watch.stop.is_some() => CallEnd::NotBegun,
            end => end,
        };
        work.is_unread = watch.is_unread && (watch.is_overdue || !matches!(end, CallEnd::Undecodable { .. }));
        match end {
            CallEnd::Success { result, runtime } => {
                let ended = Ended { runtime: Some(runtime), result: Some(&result), ..Ended::plain(Ending::Success) };
                self.traced(work, stored, None, ended);
            }
            CallEnd::Failure(raised) => self.raised(work, stored, &raised, Ending::Failure, runtime),
            CallEnd::Retry(raised) => self.raised(work, stored, &raised, Ending::Retry, runtime),
            CallEnd::Ignore => self.traced(work, stored, None, Ended::plain(Ending::Ignore)),
            CallEnd::Reject { reason, requeue } => {
                // The tracer has logged it.
                let rejected = Conclusion { report: Report::Silent, ..conclude::rejected(reason, requeue) };
                self.concluded(work, rejected).await;
            }
            CallEnd::Undecodable { refused, reason } => self.undecodable(work, refused, reason).await,
            CallEnd::Lost(how) if watch.has_succeeded => self.lost_after_success(work, stored, &how).await,
            CallEnd::Lost(how) => self.stopped(work, watch.stop.unwrap_or(Ran::Lost(how)), runtime).await,
            CallEnd::NotBegun => match watch.stop {
                Some(ran) => self.stopped(work, ran, runtime).await,
                // Dropped unsettled, it goes back to its queue.
                None => warn!("Task {}[{}] was not begun, and is given back", work.name, work.request.id),
            },
        }
        drop(slot);
    }

    /// Sees a run to its end.
    async fn watch<'a>(
        &'a self,
        work: &mut Work,
        watch: &mut Watch<'a>,
        mut run: BoxFuture<'static, CallEnd>,
        leash: &Leash,
    ) -> CallEnd {
        let end = loop {
            let turn = tokio::select! {
                biased;
                told = watch.line.report() => Turn::Told(told),
                Some(stored) = watch.storing.next(), if !watch.storing.is_empty() => Turn::Stored(stored),
                end = &mut run => Turn::Over(end),
                () = self.cold.begun(), if !watch.heard_cold => Turn::Cold,
                end = leash.ended() => Turn::Leash(end),
                limit = since(watch.began, watch.limits.hard) => Turn::HardLimit(limit),
                limit = since(watch.began, watch.limits.soft) => Turn::SoftLimit(limit),
            };
            match turn {
                Turn::Told(told) => self.hear(work, watch, told),
                Turn::Over(end) => break end,
                Turn::SoftLimit(limit) => {
                    report::log_limit("Soft", limit, work);
                    watch.soft_limit();
                }
                turn => watch.turn(turn),
            }
        };
        while let Some(told) = watch.line.try_report() {
            self.hear(work, watch, told);
        }
        end
    }

    fn hear<'a>(&'a self, work: &mut Work, watch: &mut Watch<'a>, told: Told) {
        match told {
            Told::Reading => (watch.began, watch.is_unread) = (Some(Instant::now()), true),
            Told::Accepted { pid } => {
                if !work.task.policy.acks_late {
                    work.settle(Settlement::Ack);
                }
                debug!("Task accepted: {}[{}] pid:{pid}", work.name, work.request.id);
                watch.began.get_or_insert_with(Instant::now);
                watch.is_unread = false;
                watch.active = Some(self.witness.started(work));
            }
            Told::Store(meta, answer) => {
                watch.has_succeeded |= meta.task_id == work.request.id && meta.state == State::Success;
                self.store(watch, meta, answer);
            }
        }
    }

    /// Stores what the pool gives to be stored.
    pub(super) fn store(&self, watch: &mut Watch<'_>, meta: StoredMeta, answer: oneshot::Sender<bool>) {
        let storing = self.results.writer.store_encoded(encoded(meta));
        watch.storing.push(Box::pin(async move {
            let stored = storing.await;
            // Who does not wait for it has dropped its end.
            let _ = answer.send(stored.is_ok());
            stored
        }));
    }

    pub(super) fn raised(
        &self,
        work: &mut Work,
        stored: Result<()>,
        raised: &Raised,
        ending: Ending,
        runtime: Duration,
    ) {
        let (shown, traceback) = (Some(raised.shown.as_str()), Some(raised.traceback.as_str()));
        let ended = Ended { runtime: Some(runtime), shown, traceback, ..Ended::plain(ending) };
        self.traced(work, stored, Some(raised), ended);
    }

    /// Settles the message of a run that the tracer has ended.
    pub(super) fn traced(&self, work: &mut Work, stored: Result<()>, raised: Option<&Raised>, ended: Ended<'_>) {
        let exception = raised.map(|raised| &raised.exception);
        trace::ended(ended.ending.state(), exception);
        match stored {
            // The backend is away and the worker stops without waiting for it.
            Err(error) if error.can_pass() => return,
            Err(error) => {
                tracing::error!("Task {}[{}]: the result cannot be stored: {error}", work.name, work.request.id);
                return self.settle_buried(work, "the task's result could not be stored", exception, ended.runtime);
            }
            Ok(()) => {}
        }
        let late = verdict(ended.ending, &work.task.policy, work.ignore_result).late;
        let was_unsettled = work.is_unsettled();
        self.settle(work, late, exception, ended.ending);
        self.witness.ended(work, &Ended { exception, was_unsettled, ..ended });
    }

    /// A run that did not end by itself.
    async fn stopped(&self, work: &mut Work, ran: Ran, runtime: Duration) {
        if let Ran::HardLimit(limit) = ran {
            report::log_limit("Hard", limit, work);
        }
        let mut conclusion = conclude(ran, work, runtime, self.clock.now(), &self.rng);
        if let (Ending::TimeLimit, MetaResult::Exception(exception)) = (conclusion.ending, &conclusion.result) {
            conclusion.report = Report::Handler(exception.to_string());
        }
        self.concluded(work, conclusion).await;
    }

    /// Ends a run with what this process has concluded: its pool carries that out, or else the worker.
    async fn concluded(&self, work: &mut Work, conclusion: Conclusion) {
        let Some(conclusion) = self.by_its_pool_or_unread(work, conclusion).await else { return };
        // What was to follow is in the body; where only Python can read that, nothing follows.
        let _ = work.begin();
        if let Some(conclusion) = Box::pin(self.lost_or_retried(work, conclusion)).await {
            self.carry_out(work, conclusion, &self.sink(work)).await;
        }
    }

    /// Has its pool carry out what has become of it, unless that is a retry of what no pool is to read: it would be sent
    /// without its arguments, and is sent by the worker, which calls none of the hooks of a retry.
    async fn by_its_pool_or_unread(&self, work: &mut Work, conclusion: Conclusion) -> Option<Conclusion> {
        if work.is_unread {
            if conclude::retry_of_lost(&conclusion, work, self.clock.now()).is_some() {
                return Some(conclusion);
            }
            // It has had its run, though what was run of it was its body.
            if !work.task.policy.acks_late && matches!(conclusion.ending, Ending::TimeLimit | Ending::Lost { .. }) {
                work.settle(Settlement::Ack);
            }
        }
        self.by_its_pool(work, conclusion).await
    }

    /// A run whose process is gone, and that is retried for it: a retry as any, once the broker has the new message. If
    /// that cannot be sent, what becomes of the run is what would without. `None`: the worker stops without waiting for
    /// the broker, and leaves the message to who gets it next.
    async fn lost_or_retried(&self, work: &Work, conclusion: Conclusion) -> Option<Conclusion> {
        let now = self.clock.now();
        let Some((again, retried)) = conclude::retry_of_lost(&conclusion, work, now) else { return Some(conclusion) };
        // Back to where it came from, which is there.
        let again = vec![Outgoing { publication: again, queue: None }];
        match self.cold.bound(self.continuations.sender.publish(again)).await {
            Ok(()) => Some(retried),
            Err(error) if error.can_pass() => {
                report::log_unsent(work, &error);
                None
            }
            Err(error) => {
                let (name, id) = (&work.name, &work.request.id);
                tracing::error!("Failed to retry task {name}[{id}] after worker was lost: {error}");
                Some(conclusion)
            }
        }
    }

    /// The process was lost when the success had been stored already: that stands
    /// (celery/worker/request.py `Request._success_was_stored`).
    async fn lost_after_success(&self, work: &mut Work, stored: Result<()>, how: &str) {
        warn!("Task {}[{}] succeeded before the worker was lost: {how}", work.name, work.request.id);
        let fetched = match &stored {
            Ok(()) => self.results.writer.backend().fetch(&work.request.id).await.ok().flatten(),
            Err(_) => None,
        };
        let result = fetched.and_then(|meta| self.witness.shown(&meta.result));
        self.traced(work, stored, None, Ended { result: result.as_deref(), ..Ended::plain(Ending::Success) });
    }

    async fn undecodable(&self, work: &mut Work, refused: bool, reason: String) {
        let kind = if refused { ErrorKind::Refused } else { ErrorKind::Decode };
        let Some(mut malformed) = work.undecodable(Error::new(kind, reason)) else { return };
        let fate = Fate { how: How::Failed, exception: malformed.exception.clone(), unread: None };
        if self.fulfilled(work, fate).await.is_some_and(|(end, stored)| stored.is_ok() && end == CallEnd::Ignore) {
            // Its failure is stored.
            malformed.request = None;
        }
        self.refuse(malformed).await;
    }
}

impl Watch<'_> {
    pub(super) fn new(line: Line, limits: Limits) -> Self {
        Watch {
            line,
            limits,
            began: None,
            active: None,
            is_unread: false,
            is_overdue: false,
            stop: None,
            heard_cold: false,
            storing: FuturesUnordered::new(),
            unstored: None,
            has_succeeded: false,
        }
    }

    fn soft_limit(&mut self) {
        self.limits.soft = None;
        self.is_overdue = true;
        self.line.order(Order::SoftLimit);
    }

    fn turn(&mut self, turn: Turn) {
        match turn {
            Turn::Stored(stored) => self.stored(stored),
            Turn::HardLimit(limit) => {
                self.limits.hard = None;
                self.end(Ran::HardLimit(limit), Order::Kill);
            }
            Turn::Cold => {
                self.heard_cold = true;
                self.end(Ran::Cancelled, Order::Kill);
            }
            Turn::Leash(End::Terminated(signal)) => self.end(Ran::Terminated(signal), Order::Signal(signal.number())),
            Turn::Leash(End::Orphaned) => self.end(Ran::Orphaned, Order::Kill),
            Turn::Told(_) | Turn::SoftLimit(_) | Turn::Over(_) => {}
        }
    }

    /// The first reason is the one that counts.
    fn end(&mut self, why: Ran, order: Order) {
        self.stop.get_or_insert(why);
        self.line.order(order);
    }

    pub(super) fn stored(&mut self, stored: Result<()>) {
        if let Err(error) = stored {
            self.unstored.get_or_insert(error);
        }
    }

    /// Waits until the backend has all that was handed over.
    pub(super) async fn all_stored(&mut self) -> Result<()> {
        while let Some(stored) = self.storing.next().await {
            self.stored(stored);
        }
        self.unstored.take().map_or(Ok(()), Err)
    }
}

/// Resolves when a limit has passed since the task, or its body, was begun; never before it was, or without one.
async fn since(began: Option<Instant>, limit: Option<Duration>) -> Duration {
    match began {
        Some(began) => passed(began, limit).await,
        None => std::future::pending().await,
    }
}

fn encoded(meta: StoredMeta) -> EncodedResult {
    let StoredMeta { task_id, state, payload, .. } = meta;
    let reply_to = reply_to(meta.reply_to.as_deref(), meta.correlation_id.as_deref());
    EncodedResult { task_id, state, payload, reply_to }
}
