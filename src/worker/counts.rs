//! [`Counts`]: what has happened to the tasks of a worker, as numbers.
//!
//! It listens to the witness and counts what events tell (`told`), whether anybody wants events or not. Each hook costs one
//! lookup and a few additions, and takes no lock. A task is counted under the name that the worker knows it by, not under
//! the one that its message gives it to be shown, so that who sends does not decide how many there are.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::malformed::Malformed;
use super::request::Work;
use super::settle::Ending;
use super::told::{Tale, tales};
use super::witness::{Ended, Listener, Waiting};
use crate::metrics::{Counter, Family, Gauge, Histogram};

/// Stands for the name of a task that nobody here knows, as in celery-exporter.
pub(crate) const UNKNOWN: &str = "None";

/// How many kinds of exceptions are told apart for one task.
const EXCEPTIONS: usize = 32;
/// How many combinations of names and queues are told apart in what is sent, which messages decide about.
const SENT: usize = 1024;
/// The same for what is refused.
const REFUSED: usize = 256;
/// The room for names and queues is so many times what is needed, so that lookups are short, and within these bounds.
const SPARE: usize = 4;
const LEAST: usize = 256;
const MOST: usize = 16_384;

/// What has happened.
#[derive(Debug)]
pub(crate) struct Counts {
    /// By the task's name and the queue that it came from.
    pub(crate) tasks: Family<TaskCounts, 2>,
    /// By the task's name and the queue that it went to.
    pub(crate) sent: Family<Counter, 2>,
    /// Messages that cannot be run, by their queue and the exception.
    pub(crate) refused: Family<Counter, 2>,
    /// Connections that were consumed from.
    pub(crate) connections: Counter,
}

/// What has happened to the tasks of one name from one queue.
#[derive(Debug)]
pub(crate) struct TaskCounts {
    pub(crate) received: Counter,
    pub(crate) started: Counter,
    pub(crate) succeeded: Counter,
    /// By the exception's class.
    pub(crate) failed: Family<Counter, 1>,
    pub(crate) rejected: Counter,
    pub(crate) revoked: Counter,
    pub(crate) retried: Counter,
    /// By [`ENDINGS`].
    pub(crate) endings: [Counter; ENDINGS.len()],
    /// How long those that succeeded ran.
    pub(crate) runtime: Histogram,
    /// From received to started, of those without an ETA.
    pub(crate) waits: Histogram,
    /// Those without an ETA that were received, and have not begun.
    pub(crate) waiting: Gauge,
    /// How long the last that was started had waited, in nanoseconds; 0 when one has ended since.
    pub(crate) last_wait: AtomicU64,
}

/// How tasks end.
pub(crate) const ENDINGS: [&str; 11] = [
    "success",
    "failure",
    "retry",
    "ignore",
    "reject",
    "requeue",
    "time-limit",
    "revoked",
    "replaced",
    "cancelled",
    "worker-lost",
];

fn place(ending: Ending) -> usize {
    match ending {
        Ending::Success => 0,
        Ending::Failure => 1,
        Ending::Retry => 2,
        Ending::Ignore => 3,
        Ending::Reject { requeue: false } => 4,
        Ending::Reject { requeue: true } => 5,
        Ending::TimeLimit => 6,
        Ending::Revoked => 7,
        Ending::Replaced => 8,
        Ending::Cancelled => 9,
        Ending::Lost { .. } | Ending::WorkerLost => 10,
    }
}

impl Default for TaskCounts {
    fn default() -> Self {
        TaskCounts {
            received: Counter::default(),
            started: Counter::default(),
            succeeded: Counter::default(),
            failed: Family::new(EXCEPTIONS),
            rejected: Counter::default(),
            revoked: Counter::default(),
            retried: Counter::default(),
            endings: Default::default(),
            runtime: Histogram::default(),
            waits: Histogram::default(),
            waiting: Gauge::default(),
            last_wait: AtomicU64::new(0),
        }
    }
}

impl TaskCounts {
    /// How long the last that was started had waited.
    pub(crate) fn last_wait(&self) -> Duration {
        Duration::from_nanos(self.last_wait.load(Ordering::Relaxed))
    }

    fn waited(&self, wait: Duration) {
        self.waits.observe(wait);
        self.set_last_wait(wait);
    }

    fn set_last_wait(&self, wait: Duration) {
        self.last_wait.store(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn told(&self, tale: Tale, ended: &Ended<'_>) {
        match tale {
            Tale::Succeeded => {
                self.succeeded.increment();
                ended.runtime.iter().for_each(|runtime| self.runtime.observe(*runtime));
            }
            Tale::Failed => self.failed.of([exception(ended)]).increment(),
            Tale::Retried => self.retried.increment(),
            Tale::Rejected { .. } => self.rejected.increment(),
            Tale::Revoked => self.revoked.increment(),
            // Neither celery-exporter nor Flower counts these.
            Tale::Cancelled => {}
        }
    }
}

impl Counts {
    /// For a worker that knows so many tasks and consumes so many queues.
    pub(crate) fn new(tasks: usize, queues: usize) -> Self {
        let room = tasks.saturating_mul(queues).saturating_mul(SPARE).clamp(LEAST, MOST);
        Counts {
            tasks: Family::new(room),
            sent: Family::new(SENT),
            refused: Family::new(REFUSED),
            connections: Counter::default(),
        }
    }

    fn of(&self, work: &Work) -> &TaskCounts {
        self.tasks.of([&work.request.task, work.queue.as_str()])
    }
}

/// What celery-exporter makes of the event: it finds no class in the `repr` of a rejection.
fn exception<'a>(ended: &Ended<'a>) -> &'a str {
    match (ended.ending, ended.exception) {
        (Ending::Reject { .. }, _) | (_, None) => "UnknownException",
        (_, Some(exception)) => &exception.exc_type,
    }
}

impl Listener for Counts {
    fn wants_sent(&self) -> bool {
        true
    }

    fn received(&self, work: &Work) {
        self.of(work).received.increment();
    }

    /// As Flower, which counts no task that is to wait.
    fn waits(&self, work: &Work) -> Option<Waiting> {
        let waiting = || Waiting { since: Instant::now(), _counted: self.of(work).waiting.count() };
        work.request.eta.is_none().then(waiting)
    }

    fn started(&self, work: &Work) {
        let counts = self.of(work);
        counts.started.increment();
        work.waiting.iter().for_each(|waiting| counts.waited(waiting.since.elapsed()));
    }

    fn ended(&self, work: &Work, ended: &Ended<'_>) {
        let counts = self.of(work);
        if let Some(count) = counts.endings.get(place(ended.ending)) {
            count.increment();
        }
        for tale in tales(ended, &work.task.policy) {
            counts.told(tale, ended);
        }
        if ended.runtime.is_some() {
            counts.set_last_wait(Duration::ZERO);
        }
    }

    fn refused(&self, malformed: &Malformed) {
        let (queue, exception) = (malformed.delivery.queue().as_str(), &malformed.exception.exc_type);
        self.refused.of([queue, exception]).increment();
        if malformed.is_told() {
            self.tasks.of([UNKNOWN, queue]).failed.of([exception]).increment();
        }
    }

    fn sent(&self, name: &str, queue: &str) {
        self.sent.of([name, queue]).increment();
    }

    fn online(&self) {
        self.connections.increment();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ending_has_a_name_of_its_own() {
        let endings = [
            (Ending::Success, "success"),
            (Ending::Failure, "failure"),
            (Ending::Retry, "retry"),
            (Ending::Ignore, "ignore"),
            (Ending::Reject { requeue: false }, "reject"),
            (Ending::Reject { requeue: true }, "requeue"),
            (Ending::TimeLimit, "time-limit"),
            (Ending::Revoked, "revoked"),
            (Ending::Replaced, "replaced"),
            (Ending::Cancelled, "cancelled"),
            (Ending::WorkerLost, "worker-lost"),
        ];
        assert_eq!(endings.len(), ENDINGS.len());
        for (ending, name) in endings {
            assert_eq!(ENDINGS.get(place(ending)), Some(&name));
        }
    }
}
