//! [`conclude`]: what a run came to, decided without doing any of it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use jiff::Timestamp;

use super::execute::Ran;
use super::report::Report;
use super::request::Work;
use super::retry::{self, Again};
use super::settle::Ending;
use crate::config::QueueNotFound;
use crate::control::Signal;
use crate::protocol::{Exception, MetaResult, Signature, Value};
use crate::task::{Outcome, Retry, RetryDecision, RetryPolicy, RetryTime};
use crate::transport::Publication;
use crate::{Error, ErrorKind};

/// Where the exceptions of Celery's pool live.
const BILLIARD: &str = "billiard.exceptions";

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Conclusion {
    /// How the task ended: with its policy this decides what is stored and what becomes of the message.
    pub(crate) ending: Ending,
    /// What is stored, if anything is.
    pub(crate) result: MetaResult,
    /// The traceback stored beside it.
    pub(crate) traceback: Option<String>,
    /// What the broker must have before anything is stored or settled.
    pub(crate) publications: Vec<Publication>,
    /// What takes the task's place.
    pub(crate) replacement: Option<Box<Signature>>,
    /// What the log says.
    pub(crate) report: Report,
    /// How long the handler ran; `None`: it was not run.
    pub(crate) runtime: Option<Duration>,
    /// The signal that ended it.
    pub(crate) terminated: Option<Signal>,
}

impl Conclusion {
    /// Whether anything must be with the broker before anything is stored.
    pub(crate) fn sends(&self, work: &Work) -> bool {
        match self.ending {
            Ending::Retry => !self.publications.is_empty(),
            Ending::Replaced => true,
            Ending::Success => work.is_followed(),
            _ => false,
        }
    }
}

/// Decides what `ran` comes to. `runtime` is how long the handler ran, and its body was read by a pool that told of that.
pub(crate) fn conclude(ran: Ran, work: &Work, runtime: Duration, now: Timestamp, rng: &Mutex<Rng>) -> Conclusion {
    Conclusion { runtime: Some(runtime), ..conclude_ran(ran, work, runtime, now, rng) }
}

fn conclude_ran(ran: Ran, work: &Work, runtime: Duration, now: Timestamp, rng: &Mutex<Rng>) -> Conclusion {
    match ran {
        Ran::Finished(outcome) => conclude_outcome(outcome, work, runtime, now, rng),
        Ran::SoftLimit(_) => {
            let exception = Exception::with_args("SoftTimeLimitExceeded", BILLIARD, [] as [Value; 0]);
            raised(exception, None, work, now, rng)
        }
        Ran::HardLimit(limit) => {
            let exception = Exception::with_args("TimeLimitExceeded", BILLIARD, [seconds_value(limit)]);
            let report = Report::Error(format!("raised unexpected: {exception}"), None);
            Conclusion { ending: Ending::TimeLimit, ..failure(exception, None, report) }
        }
        Ran::Cancelled => cancelled("cancelled by a cold shutdown"),
        Ran::Orphaned => cancelled("cancelled: the connection that its message came over is lost"),
        Ran::Terminated(signal) => terminated(signal),
        Ran::Lost(how) => lost(&how, work),
    }
}

fn conclude_outcome(outcome: Outcome, work: &Work, runtime: Duration, now: Timestamp, rng: &Mutex<Rng>) -> Conclusion {
    match outcome {
        Outcome::Success(value) => succeeded(value, runtime),
        Outcome::Failure { exception, traceback } => raised(exception, traceback, work, now, rng),
        Outcome::Retry(retry) => retried(&retry, None, work, now, rng),
        Outcome::Replace(signature) => Conclusion {
            replacement: Some(signature),
            report: Report::Info("ignored".to_owned()),
            ..plain(Ending::Replaced)
        },
        Outcome::Ignore => Conclusion { report: Report::Info("ignored".to_owned()), ..plain(Ending::Ignore) },
        Outcome::Reject { reason, requeue } => rejected(reason, requeue),
    }
}

fn succeeded(value: Value, runtime: Duration) -> Conclusion {
    Conclusion { report: Report::Succeeded(runtime), result: MetaResult::Value(value), ..plain(Ending::Success) }
}

/// An ending of which nothing else is known.
pub(crate) fn plain(ending: Ending) -> Conclusion {
    Conclusion {
        ending,
        result: MetaResult::Value(Value::Null),
        traceback: None,
        publications: Vec::new(),
        replacement: None,
        report: Report::Info(String::new()),
        runtime: None,
        terminated: None,
    }
}

/// A failure, or with `autoretry` a retry for as long as there are any left.
fn raised(
    exception: Exception,
    traceback: Option<String>,
    work: &Work,
    now: Timestamp,
    rng: &Mutex<Rng>,
) -> Conclusion {
    if work.task.task.options().autoretry {
        return retried(&Retry::default().exception(exception), traceback, work, now, rng);
    }
    failed(exception, traceback)
}

/// A failure as any that a handler raises.
pub(crate) fn failed(exception: Exception, traceback: Option<String>) -> Conclusion {
    let report = Report::Error(format!("raised unexpected: {exception}"), traceback.clone());
    failure(exception, traceback, report)
}

fn failure(exception: Exception, traceback: Option<String>, report: Report) -> Conclusion {
    Conclusion { result: MetaResult::Exception(exception), traceback, report, ..plain(Ending::Failure) }
}

fn retried(retry: &Retry, traceback: Option<String>, work: &Work, now: Timestamp, rng: &Mutex<Rng>) -> Conclusion {
    let policy = &work.task.retries;
    let decision = {
        // Only a retry has a use for it: other endings do not wait for each other here.
        let mut rng = rng.lock().unwrap_or_else(PoisonError::into_inner);
        policy.decide(retry, work.request.retries, &mut rng)
    };
    let RetryDecision::Again { retries, time } = decision else {
        return failed(exhausted(retry, work), traceback);
    };
    let eta = retry::eta(time, now);
    match retry::publication(work, retry, Again { retries, eta, now, is_inside: true }) {
        Ok(publication) => Conclusion {
            result: retry.exception.clone().map_or(MetaResult::Value(Value::Null), MetaResult::Exception),
            traceback,
            publications: vec![publication],
            report: Report::Info(format!("retry: {}", time.message(retry.exception.as_ref()))),
            ..plain(Ending::Retry)
        },
        // Other arguments that the serializer cannot write (kombu's EncodeError).
        Err(error) => failed(encode_error(&error.to_string()), traceback),
    }
}

fn exhausted(retry: &Retry, work: &Work) -> Exception {
    let next = retry.arguments(&work.arguments(), work.task.task.signature());
    RetryPolicy::exhausted(retry.clone(), &work.request, &next)
}

pub(crate) fn rejected(reason: String, requeue: bool) -> Conclusion {
    Conclusion {
        report: Report::Warning(format!("reject requeue={}: {reason}", if requeue { "True" } else { "False" })),
        result: MetaResult::Exception(Exception::with_args(
            "Reject",
            "celery.exceptions",
            [Value::from(reason), Value::from(requeue)],
        )),
        ..plain(Ending::Reject { requeue })
    }
}

/// A cold shutdown (celery/worker/request.py `Request._announce_cancelled`).
fn cancelled(why: &str) -> Conclusion {
    Conclusion {
        result: MetaResult::Exception(Exception::celery("Retry", "Retry(Retry(...), None, None)")),
        report: Report::Warning(why.to_owned()),
        ..plain(Ending::Cancelled)
    }
}

/// `revoke(terminate=True)` (celery/worker/request.py `Request.terminate`).
fn terminated(signal: Signal) -> Conclusion {
    Conclusion {
        terminated: Some(signal),
        result: MetaResult::Exception(Exception::celery("TaskRevokedError", "terminated")),
        report: Report::Silent,
        ..plain(Ending::Revoked)
    }
}

/// The process of a run is gone (celery/worker/request.py `Request.on_failure`).
fn lost(how: &str, work: &Work) -> Conclusion {
    let exception = Exception::billiard("WorkerLostError", format!("Worker exited prematurely: {how}."));
    let report = Report::Handler(exception.to_string());
    let most = work.task.retries.max_retries.filter(|_| work.task.policy.retry_on_worker_lost);
    let is_exhausted = most.is_some_and(|most| work.request.retries >= most);
    Conclusion { ending: Ending::Lost { is_exhausted }, ..failure(exception, None, report) }
}

/// What is to be sent where a lost run is retried for it, and what the run comes to when the broker has that: the same
/// task after its default delay, without back-off. Nobody sends it from inside the task
/// (celery/worker/request.py `Request._retry_worker_lost`).
pub(crate) fn retry_of_lost(lost: &Conclusion, work: &Work, now: Timestamp) -> Option<(Publication, Conclusion)> {
    let is_retried = lost.ending == (Ending::Lost { is_exhausted: false }) && work.task.policy.retry_on_worker_lost;
    let MetaResult::Exception(exception) = lost.result.clone() else { return None };
    let retries = work.request.retries.checked_add(1).filter(|_| is_retried)?;
    let time = RetryTime::In(work.task.retries.default_delay);
    let again = Again { retries, eta: retry::eta(time, now), now, is_inside: false };
    let publication = retry::publication(work, &Retry::default(), again).ok()?;
    let conclusion = Conclusion {
        report: Report::Info(format!("retry: {}", time.message(Some(&exception)))),
        result: MetaResult::Exception(exception),
        runtime: lost.runtime,
        ..plain(Ending::Retry)
    };
    Some((publication, conclusion))
}

/// What a task raises whose continuation cannot be sent, as Kombu and Celery name it: nothing knows the queue, or the
/// broker refuses the message, or it cannot be written.
pub(crate) fn unsent_error(error: &Error) -> Exception {
    let text = error.to_string();
    if QueueNotFound::caused(error) {
        return Exception::celery("QueueNotFound", text);
    }
    match error.kind() {
        ErrorKind::Broker | ErrorKind::Authentication | ErrorKind::Connection | ErrorKind::Backend => {
            Exception::with_args("OperationalError", "kombu.exceptions", [text])
        }
        _ => encode_error(&text),
    }
}

/// What a value that the result serializer cannot write is to clients.
pub(crate) fn encode_error(reason: &str) -> Exception {
    Exception::with_args("EncodeError", "kombu.exceptions", [reason])
}

/// A limit as the exception's argument: whole seconds are an int, as the usual settings are.
fn seconds_value(limit: Duration) -> Value {
    match limit.subsec_nanos() {
        0 => Value::from(i64::try_from(limit.as_secs()).unwrap_or(i64::MAX)),
        _ => Value::from(limit.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::seconds;
    use super::*;

    #[test]
    fn what_cannot_be_sent_has_the_name_that_stock_celery_gives_it() {
        let missing = crate::config::Config { task_create_missing_queues: false, ..<_>::default() };
        let rows = [
            (missing.queue("nowhere").unwrap_err(), "celery.exceptions", "QueueNotFound"),
            (Error::new(ErrorKind::Broker, "Queue 'x' is full"), "kombu.exceptions", "OperationalError"),
            (Error::new(ErrorKind::Authentication, "may not"), "kombu.exceptions", "OperationalError"),
            (Error::new(ErrorKind::Encode, "no form"), "kombu.exceptions", "EncodeError"),
        ];
        for (error, module, name) in rows {
            let exception = unsent_error(&error);
            assert_eq!((exception.exc_module.as_deref(), exception.exc_type.as_str()), (Some(module), name));
            assert_eq!(exception.message(), error.to_string());
        }
    }

    #[test]
    fn limits_are_written_as_python_writes_them() {
        for (limit, value, text) in
            [(Duration::from_secs(1), Value::Int(1), "1"), (Duration::from_millis(1500), Value::Float(1.5), "1.5")]
        {
            assert_eq!(seconds_value(limit), value);
            assert_eq!(seconds(limit), text);
        }
    }
}
