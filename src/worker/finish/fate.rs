//! What becomes of a task of a pool that has no run to say so: its process is gone, it is revoked, it cannot be run.
//!
//! What stock Celery's main process does then with the task's backend, its errbacks, its chord and its hooks
//! (celery/worker/request.py `Request.on_failure`, `on_timeout`, `_announce_revoked`) the pool does, if it can: it reads
//! every body, and has every backend. The message is settled here, when that is done. A pool that does not get to it, as
//! when it is gone itself, leaves it to the worker, which does it as for tasks of its own.

use std::time::Duration;

use futures_util::StreamExt;
use tracing::{error, warn};

use super::super::conclude::Conclusion;
use super::super::execute::Limits;
use super::super::request::Work;
use super::super::settle::{Ending, Late, verdict};
use super::super::witness::Ended;
use super::Finisher;
use super::elsewhere::Watch;
use crate::protocol::{Exception, MetaResult};
use crate::task::{Call, CallEnd, Fate, How, Report as Told};
use crate::trace;
use crate::{Error, ErrorKind, Result};

/// How long a pool may take. What it waits for, a backend that is away, it does not wait for without end.
const PATIENCE: Duration = Duration::from_secs(60);

impl Finisher {
    /// Has the task's pool carry out what has become of it, and settles the message. The conclusion comes back where the
    /// pool does not do that.
    pub(super) async fn by_its_pool(&self, work: &mut Work, conclusion: Conclusion) -> Option<Conclusion> {
        let Some(fate) = fate_of(&conclusion) else { return Some(conclusion) };
        let Some((end, stored)) = Box::pin(self.fulfilled(work, fate)).await else {
            return (!self.goes_back(work)).then_some(conclusion);
        };
        match end {
            CallEnd::Ignore => self.fulfil(work, conclusion, stored, false),
            CallEnd::Reject { requeue, .. } => self.fulfil(work, conclusion, stored, requeue),
            CallEnd::Success { result, .. } => {
                warn!("Task {}[{}] succeeded before the worker was lost", work.name, work.request.id);
                self.traced(work, stored, None, Ended { result: Some(&result), ..Ended::plain(Ending::Success) });
            }
            CallEnd::Retry(raised) => {
                let runtime = conclusion.runtime.unwrap_or_default();
                self.raised(work, stored, &raised, Ending::Retry, runtime);
            }
            CallEnd::Failure(raised) => {
                let (name, id) = (&work.name, &work.request.id);
                error!("Task {name}[{id}]: what it came to cannot be stored: {}\n{}", raised.shown, raised.traceback);
                let unstored = Err(Error::new(ErrorKind::Backend, raised.shown));
                self.fulfil(work, conclusion, unstored, false);
            }
            // No fate comes to this.
            CallEnd::Undecodable { .. } | CallEnd::Lost(_) | CallEnd::NotBegun => return Some(conclusion),
        }
        None
    }

    /// The same for what is revoked or expired, and says so in the log itself; whether the pool has done it.
    pub(super) async fn revoked_by_its_pool(&self, work: &mut Work, reason: &str, is_expired: bool) -> bool {
        let exception = Exception::celery("TaskRevokedError", reason);
        let fate = Fate { how: How::Revoked { signal: None, is_expired }, exception, unread: None };
        let stored = match Box::pin(self.fulfilled(work, fate)).await {
            Some((CallEnd::Ignore, stored)) => stored,
            Some((end, _)) => Err(Error::new(ErrorKind::Backend, format!("the pool says {end:?}"))),
            None => return self.goes_back(work),
        };
        let ended = Ended { is_expired, was_unsettled: true, ..Ended::plain(Ending::Revoked) };
        self.traced(work, stored, None, ended);
        true
    }

    /// Has a pool carry out a fate: how that ended, and whether what it gave to be stored is. `None`: it does not do it.
    pub(super) async fn fulfilled(&self, work: &Work, fate: Fate) -> Option<(CallEnd, Result<()>)> {
        let pool = work.task.pool.clone().filter(|pool| pool.concludes())?;
        let fate = Fate { unread: work.is_unread.then(|| work.follows()), ..fate };
        let (call, line) = Call::with_fate(work.request.clone(), work.message.clone(), fate);
        let mut watch = Watch::new(line, Limits::default());
        let mut run = pool.run(call);
        let end = async {
            let end = loop {
                tokio::select! {
                    biased;
                    told = watch.line.report() => self.keep_told(&mut watch, told),
                    Some(stored) = watch.storing.next(), if !watch.storing.is_empty() => watch.stored(stored),
                    end = &mut run => break end,
                }
            };
            while let Some(told) = watch.line.try_report() {
                self.keep_told(&mut watch, told);
            }
            Ok(end)
        };
        let end = tokio::time::timeout(PATIENCE, self.cold.bound(end)).await.ok()?.ok()?;
        let stored = self.cold.bound(watch.all_stored()).await;
        Some((end, stored)).filter(|(end, _)| !matches!(end, CallEnd::Lost(_) | CallEnd::NotBegun))
    }

    /// Whether what a pool did not get to is left to whoever gets the message next, for this process would lose what the
    /// pool was to store, or what was to follow.
    fn goes_back(&self, work: &mut Work) -> bool {
        let is_concluded_there = work.task.pool.as_ref().is_some_and(|pool| pool.concludes());
        let knows_all = self.results.writer.backend().is_enabled() && work.begin().is_ok();
        let goes_back = is_concluded_there && work.is_unsettled() && !knows_all;
        if goes_back {
            let (name, id) = (&work.name, &work.request.id);
            warn!(
                "Task {name}[{id}] is given back: what became of it cannot be stored, as no process is left to do so"
            );
        }
        goes_back
    }

    fn keep_told(&self, watch: &mut Watch<'_>, told: Told) {
        if let Told::Store(meta, answer) = told {
            self.store(watch, meta, answer);
        }
    }

    /// Says what became of the task, and settles its message.
    fn fulfil(&self, work: &mut Work, conclusion: Conclusion, stored: Result<()>, goes_back: bool) {
        let Conclusion { ending, result, traceback, report, runtime, terminated, .. } = conclusion;
        let exception = match &result {
            MetaResult::Exception(exception) => Some(exception),
            MetaResult::Value(_) => None,
        };
        trace::ended(ending.state(), exception);
        match stored {
            // The backend is away and the worker stops without waiting for it.
            Err(error) if error.can_pass() => return,
            Err(_) => return self.settle_buried(work, "the task's result could not be stored", exception, runtime),
            Ok(()) => report.log(work, &result),
        }
        let late = match verdict(ending, &work.task.policy, work.ignore_result).late {
            _ if goes_back => Late::Requeue,
            // Celery knows better.
            Late::Requeue => Late::Ack,
            late => late,
        };
        let (was_unsettled, traceback) = (work.is_unsettled(), traceback.as_deref());
        self.settle(work, late, exception, ending);
        let ended = Ended { runtime, exception, traceback, terminated, was_unsettled, ..Ended::plain(ending) };
        self.witness.ended(work, &ended);
    }
}

/// What a pool is told of a conclusion; nothing of one that a run has come to by itself.
fn fate_of(conclusion: &Conclusion) -> Option<Fate> {
    let how = match conclusion.ending {
        Ending::TimeLimit => How::TimeLimit,
        Ending::Lost { .. } => How::Lost,
        Ending::Reject { requeue: false } => How::Rejected,
        Ending::Revoked => {
            How::Revoked { signal: conclusion.terminated.map(|signal| signal.number()), is_expired: false }
        }
        Ending::Cancelled => How::Cancelled,
        Ending::WorkerLost => How::Failed,
        Ending::Reject { requeue: true }
        | Ending::Success
        | Ending::Failure
        | Ending::Retry
        | Ending::Ignore
        | Ending::Replaced => return None,
    };
    match &conclusion.result {
        MetaResult::Exception(exception) => Some(Fate { how, exception: exception.clone(), unread: None }),
        MetaResult::Value(_) => None,
    }
}
