//! What becomes of a task's message and result: one table, [`verdict`], from how the run ended and the task's policy.

use crate::protocol::State;

use super::policy::Policy;

/// How a task ended, without the values that it ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The handler returned.
    Success,
    /// The handler raised, panicked or ran into its soft limit.
    Failure,
    /// The handler is to run again, and the new message is published.
    Retry,
    /// The handler ended without a result.
    Ignore,
    /// The handler refused its message.
    Reject {
        /// It asked for the message to go back to the queue.
        requeue: bool,
    },
    /// The hard limit passed.
    TimeLimit,
    /// It expired, or was revoked.
    Revoked,
    /// Another task or canvas, which is sent, took its place.
    Replaced,
    /// A cold shutdown ended the run.
    Cancelled,
    /// The process that ran it is gone.
    Lost {
        /// It was to be retried for that, and no retries are left: its message does not go back either.
        is_exhausted: bool,
    },
    /// Its handling has killed as many workers as it may: it is not run again.
    WorkerLost,
}

impl Ending {
    /// The state that a run ends with (celery/app/trace.py `trace_task`), whether it is stored or not.
    pub(crate) fn state(self) -> &'static str {
        match self {
            Ending::Success => "SUCCESS",
            Ending::Failure | Ending::TimeLimit | Ending::Lost { .. } | Ending::WorkerLost => "FAILURE",
            Ending::Retry | Ending::Cancelled => "RETRY",
            Ending::Ignore | Ending::Replaced => "IGNORED",
            Ending::Reject { .. } => "REJECTED",
            Ending::Revoked => "REVOKED",
        }
    }
}

/// What is done about an [`Ending`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The state to store, if any.
    pub(crate) store: Option<State>,
    /// What the chord is told that the task is a member of, whether anything is stored or not.
    pub(crate) part: Option<State>,
    /// What happens to the message if it was not acknowledged before the run.
    pub(crate) late: Late,
}

/// What happens to a message that was not acknowledged before the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Late {
    /// Done with.
    Ack,
    /// Back to the queue, as `reject(requeue=True)`.
    Requeue,
    /// Where stock Celery throws it away, `reject(requeue=False)`: kept as a dead letter.
    DeadLetter,
    /// Back to the front of the queue: the run was cut short.
    Restore,
}

/// Decides as Celery does in `Request.on_success`, `on_failure`, `on_timeout` and `on_retry` (celery/worker/request.py)
/// and `TraceInfo.handle_error_state` (celery/app/trace.py).
///
/// `ignore_result` is the message's header where it has one, else the task's option.
pub(crate) fn verdict(ending: Ending, policy: &Policy, ignore_result: bool) -> Verdict {
    let result = |state| (!ignore_result).then_some(state);
    let error = |state| (!ignore_result || policy.store_errors_even_if_ignored).then_some(state);
    let (store, late) = match ending {
        Ending::Success => (result(State::Success), Late::Ack),
        Ending::Failure if policy.acks_on_failure => (error(State::Failure), Late::Ack),
        Ending::Failure => (error(State::Failure), Late::DeadLetter),
        // The next run says what it comes to.
        Ending::Lost { is_exhausted: false } if policy.requeues_lost() => (None, Late::Requeue),
        Ending::Lost { .. } if policy.acks_on_failure => (error(State::Failure), Late::Ack),
        Ending::Lost { .. } => (error(State::Failure), Late::DeadLetter),
        Ending::Retry => (error(State::Retry), Late::Ack),
        Ending::Ignore | Ending::Replaced => (None, Late::Ack),
        Ending::Reject { requeue: true } => (None, Late::Requeue),
        Ending::Reject { requeue: false } => (error(State::Failure), Late::DeadLetter),
        Ending::TimeLimit if policy.acks_on_timeout => (error(State::Failure), Late::Ack),
        Ending::TimeLimit => (error(State::Failure), Late::Requeue),
        Ending::Revoked => (error(State::Revoked), Late::Ack),
        Ending::WorkerLost => (error(State::Failure), Late::DeadLetter),
        // A late-acknowledged task will be run again by whoever gets it, so only an early-acknowledged one, which will
        // not, leaves a trace (celery/worker/request.py `Request._announce_cancelled`).
        Ending::Cancelled if policy.acks_late => (None, Late::Restore),
        Ending::Cancelled => (error(State::Retry), Late::Restore),
    };
    Verdict { store, part: part(ending, policy), late }
}

/// Retries and what is put in a task's place report later (celery/backends/base.py `Backend.mark_as_done`,
/// `mark_as_failure`, `mark_as_revoked`).
fn part(ending: Ending, policy: &Policy) -> Option<State> {
    match ending {
        Ending::Lost { is_exhausted } => (is_exhausted || !policy.requeues_lost()).then_some(State::Failure),
        Ending::Success => Some(State::Success),
        Ending::Failure | Ending::TimeLimit | Ending::WorkerLost | Ending::Reject { requeue: false } => {
            Some(State::Failure)
        }
        Ending::Revoked => Some(State::Revoked),
        Ending::Retry | Ending::Ignore | Ending::Replaced | Ending::Cancelled | Ending::Reject { requeue: true } => {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GONE: Ending = Ending::Lost { is_exhausted: false };
    const EXHAUSTED: Ending = Ending::Lost { is_exhausted: true };

    fn policy(acks_on_failure: bool, acks_on_timeout: bool, store_errors: bool) -> Policy {
        Policy { acks_on_failure, acks_on_timeout, store_errors_even_if_ignored: store_errors, ..Policy::default() }
    }

    #[test]
    fn every_ending_has_its_verdict() {
        let keep = policy(true, true, false);
        let throw = policy(false, false, false);
        let late = Policy { acks_late: true, ..policy(true, true, false) };
        let lost = Policy { reject_on_worker_lost: true, ..late.clone() };
        let early = Policy { acks_late: false, ..lost.clone() };
        let strict = Policy { acks_on_failure: false, ..lost.clone() };
        let rows = [
            (Ending::Success, &keep, Some(State::Success), Late::Ack),
            (Ending::Success, &throw, Some(State::Success), Late::Ack),
            (Ending::Failure, &keep, Some(State::Failure), Late::Ack),
            (Ending::Failure, &throw, Some(State::Failure), Late::DeadLetter),
            (Ending::Retry, &keep, Some(State::Retry), Late::Ack),
            (Ending::Ignore, &keep, None, Late::Ack),
            (Ending::Reject { requeue: true }, &keep, None, Late::Requeue),
            (Ending::Reject { requeue: false }, &keep, Some(State::Failure), Late::DeadLetter),
            (Ending::TimeLimit, &keep, Some(State::Failure), Late::Ack),
            (Ending::TimeLimit, &throw, Some(State::Failure), Late::Requeue),
            (Ending::Revoked, &throw, Some(State::Revoked), Late::Ack),
            (Ending::WorkerLost, &keep, Some(State::Failure), Late::DeadLetter),
            (GONE, &keep, Some(State::Failure), Late::Ack),
            (GONE, &throw, Some(State::Failure), Late::DeadLetter),
            (GONE, &late, Some(State::Failure), Late::Ack),
            (GONE, &lost, None, Late::Requeue),
            (GONE, &early, Some(State::Failure), Late::Ack),
            (EXHAUSTED, &lost, Some(State::Failure), Late::Ack),
            (EXHAUSTED, &strict, Some(State::Failure), Late::DeadLetter),
            (Ending::Cancelled, &keep, Some(State::Retry), Late::Restore),
            (Ending::Cancelled, &late, None, Late::Restore),
            (Ending::Replaced, &keep, None, Late::Ack),
        ];
        for (ending, policy, store, late) in rows {
            let verdict = verdict(ending, policy, false);
            assert_eq!((verdict.store.clone(), verdict.late), (store, late), "{ending:?}");
            // What is stored as final is told to a chord, and nothing else is.
            assert_eq!(verdict.part, verdict.store.filter(State::is_ready), "{ending:?}");
        }
    }

    #[test]
    fn ignored_results_store_only_the_errors_that_were_asked_for() {
        let endings = [Ending::Success, Ending::Failure, Ending::Retry, Ending::TimeLimit, Ending::Revoked];
        for ending in endings {
            assert_eq!(verdict(ending, &policy(true, true, false), true).store, None, "{ending:?}");
            let kept = verdict(ending, &policy(true, true, true), true).store.is_some();
            assert_eq!(kept, ending != Ending::Success, "{ending:?}");
            let told = verdict(ending, &policy(true, true, false), true).part.is_some();
            assert_eq!(told, ending != Ending::Retry, "{ending:?}");
        }
    }
}
