//! What is told of tasks: from what a worker knows to the events that a stock worker would send, decided without sending
//! any. Who counts counts the same ([`tales`]) (celery/worker/strategy.py `default`, celery/worker/request.py `Request`).

use std::time::Duration;

use super::policy::Policy;
use super::request::Work;
use super::settle::Ending;
use super::witness::Ended;
use crate::events::{Kind, Revocation, Task};
use crate::protocol::{DateTime, Value};

/// The task of a message, as `task-received` describes it.
pub(super) fn received(work: &Work) -> Task {
    let request = &work.request;
    let header = |name| request.headers.get(name).cloned();
    let time = |time: Option<jiff::Timestamp>| Value::from(time.map(|time| DateTime::from(time).to_string()));
    Task {
        uuid: request.id.clone(),
        name: work.name.clone(),
        args: header("argsrepr").unwrap_or_else(|| "".into()),
        kwargs: header("kwargsrepr").unwrap_or_else(|| "".into()),
        root_id: request.root_id.clone().into(),
        parent_id: request.parent_id.clone().into(),
        retries: request.retries.into(),
        eta: time(request.eta),
        expires: time(request.expires),
    }
}

/// What is told of a task's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tale {
    Succeeded,
    Failed,
    Retried,
    Rejected { requeue: bool },
    Revoked,
    Cancelled,
}

/// What is told of a task's end, in Celery's order.
pub(super) fn tales(end: &Ended<'_>, policy: &Policy) -> impl Iterator<Item = Tale> + use<> {
    let rejected = |requeue| end.was_unsettled.then_some(Tale::Rejected { requeue });
    let returned = |is_done: bool, requeue| if policy.acks_late && !is_done { rejected(requeue) } else { None };
    let tales = match end.ending {
        Ending::Success => [Some(Tale::Succeeded), None],
        Ending::Failure => [returned(policy.acks_on_failure, false), Some(Tale::Failed)],
        Ending::TimeLimit => [Some(Tale::Failed), returned(policy.acks_on_timeout, true)],
        Ending::Lost { is_exhausted: false } if policy.requeues_lost() => [rejected(true), None],
        Ending::Lost { .. } => [returned(policy.acks_on_failure, false), Some(Tale::Failed)],
        Ending::WorkerLost => [Some(Tale::Failed), None],
        Ending::Reject { requeue: false } => [Some(Tale::Failed), rejected(false)],
        Ending::Reject { requeue: true } => [rejected(true), None],
        Ending::Retry => [Some(Tale::Retried), None],
        Ending::Revoked => [Some(Tale::Revoked), None],
        Ending::Cancelled => [Some(Tale::Cancelled), None],
        // Celery tells nothing of these: to monitors they go on.
        Ending::Ignore | Ending::Replaced => [None, None],
    };
    tales.into_iter().flatten()
}

/// The events of a task's end, in Celery's order.
pub(super) fn ended(uuid: &str, end: &Ended<'_>, policy: &Policy) -> impl Iterator<Item = Kind> {
    tales(end, policy).map(|tale| event(tale, uuid.to_owned(), end))
}

fn event(tale: Tale, uuid: String, end: &Ended<'_>) -> Kind {
    match tale {
        Tale::Succeeded => {
            let runtime = end.runtime.as_ref().map(Duration::as_secs_f64).into();
            Kind::TaskSucceeded { uuid, result: end.result.unwrap_or_default().to_owned(), runtime }
        }
        Tale::Failed => failed(uuid, end),
        Tale::Retried => Kind::TaskRetried { uuid, exception: exception(end), traceback: traceback(end) },
        Tale::Rejected { requeue } => Kind::TaskRejected { uuid, requeue },
        Tale::Revoked => {
            let how = Revocation { signum: end.terminated.map(|signal| signal.number()), expired: end.is_expired };
            Kind::TaskRevoked { uuid, how }
        }
        Tale::Cancelled => Kind::TaskCancelled(uuid),
    }
}

fn failed(uuid: String, end: &Ended<'_>) -> Kind {
    Kind::TaskFailed { uuid, exception: exception(end), traceback: Some(traceback(end).into()) }
}

/// Python's `repr` of the exception; a retry may be for nothing, and a rejection has a repr of its own
/// (celery/exceptions.py `Reject.__repr__`).
fn exception(end: &Ended<'_>) -> String {
    if let Some(shown) = end.shown {
        return shown.to_owned();
    }
    match (end.exception, end.ending) {
        (None, _) => "None".to_owned(),
        (Some(exception), Ending::Reject { requeue }) => {
            let reason = exception.exc_message.first().and_then(Value::as_str).unwrap_or_default();
            format!("reject requeue={}: {reason}", if requeue { "True" } else { "False" })
        }
        (Some(exception), _) => exception.to_string(),
    }
}

/// A handler in Rust may have none to tell.
fn traceback(end: &Ended<'_>) -> String {
    end.traceback.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Signal;
    use crate::protocol::Exception;

    fn name(kind: &Kind) -> &'static str {
        match kind {
            Kind::TaskSucceeded { .. } => "succeeded",
            Kind::TaskFailed { .. } => "failed",
            Kind::TaskRetried { .. } => "retried",
            Kind::TaskRejected { requeue: true, .. } => "requeued",
            Kind::TaskRejected { requeue: false, .. } => "rejected",
            Kind::TaskRevoked { .. } => "revoked",
            Kind::TaskCancelled(_) => "cancelled",
            _ => "another",
        }
    }

    #[test]
    fn every_ending_has_its_events() {
        let early = Policy { acks_on_failure: true, acks_on_timeout: true, ..Policy::default() };
        let late = Policy { acks_late: true, ..early.clone() };
        let strict = Policy { acks_late: true, ..Policy::default() };
        let lost = Policy { reject_on_worker_lost: true, ..late.clone() };
        let rows: [(Ending, &Policy, &[&str]); 24] = [
            (Ending::Success, &early, &["succeeded"]),
            (Ending::Success, &strict, &["succeeded"]),
            (Ending::Failure, &early, &["failed"]),
            (Ending::Failure, &late, &["failed"]),
            (Ending::Failure, &strict, &["rejected", "failed"]),
            (Ending::Retry, &early, &["retried"]),
            (Ending::Retry, &strict, &["retried"]),
            (Ending::Ignore, &early, &[]),
            (Ending::Replaced, &late, &[]),
            (Ending::Reject { requeue: true }, &early, &[]),
            (Ending::Reject { requeue: true }, &late, &["requeued"]),
            (Ending::Reject { requeue: false }, &early, &["failed"]),
            (Ending::Reject { requeue: false }, &late, &["failed", "rejected"]),
            (Ending::TimeLimit, &early, &["failed"]),
            (Ending::TimeLimit, &late, &["failed"]),
            (Ending::TimeLimit, &strict, &["failed", "requeued"]),
            (Ending::Revoked, &early, &["revoked"]),
            (Ending::Lost { is_exhausted: false }, &late, &["failed"]),
            (Ending::Lost { is_exhausted: false }, &strict, &["rejected", "failed"]),
            (Ending::Lost { is_exhausted: false }, &lost, &["requeued"]),
            (Ending::Lost { is_exhausted: true }, &lost, &["failed"]),
            (Ending::Lost { is_exhausted: true }, &strict, &["rejected", "failed"]),
            (Ending::WorkerLost, &late, &["failed"]),
            (Ending::Cancelled, &late, &["cancelled"]),
        ];
        for (ending, policy, expected) in rows {
            let end = Ended { was_unsettled: policy.acks_late, ..Ended::plain(ending) };
            let told: Vec<_> = ended("i", &end, policy).map(|kind| name(&kind)).collect();
            assert_eq!(told, expected, "{ending:?} {policy:?}");
        }
    }

    #[test]
    fn ends_are_told_with_what_is_known_of_them() {
        let (policy, exception) = (Policy::default(), Exception::new("ValueError", "x"));
        let end = Ended {
            runtime: Some(Duration::from_millis(250)),
            result: Some("3"),
            exception: Some(&exception),
            traceback: Some("T"),
            terminated: Some(Signal::default()),
            ..Ended::plain(Ending::Success)
        };
        let uuid = || "i".to_owned();
        let text = || "ValueError('x')".to_owned();
        let revoked = |signum, expired| Kind::TaskRevoked { uuid: uuid(), how: Revocation { signum, expired } };
        let rows = [
            (end, Kind::TaskSucceeded { uuid: uuid(), result: "3".into(), runtime: 0.25.into() }),
            (
                Ended { ending: Ending::Failure, ..end },
                Kind::TaskFailed { uuid: uuid(), exception: text(), traceback: Some("T".into()) },
            ),
            (
                Ended { ending: Ending::Retry, ..end },
                Kind::TaskRetried { uuid: uuid(), exception: text(), traceback: "T".into() },
            ),
            (
                Ended::plain(Ending::Retry),
                Kind::TaskRetried { uuid: uuid(), exception: "None".into(), traceback: String::new() },
            ),
            (
                Ended { ending: Ending::Reject { requeue: false }, ..end },
                Kind::TaskFailed {
                    uuid: uuid(),
                    exception: "reject requeue=False: x".into(),
                    traceback: Some("T".into()),
                },
            ),
            (Ended { ending: Ending::Revoked, ..end }, revoked(Some(15), false)),
            (Ended { is_expired: true, ..Ended::plain(Ending::Revoked) }, revoked(None, true)),
        ];
        for (end, expected) in rows {
            assert_eq!(ended("i", &end, &policy).collect::<Vec<_>>(), [expected], "{end:?}");
        }
    }
}
