//! [`Pool`]: where messages are run whose tasks are not handlers in this process.
//!
//! A task that names a pool ([`Task::pool`](super::Task::pool)) is not run by the worker: its message is handed over as it
//! came, and what stock Celery's tracer does in a pool process is done wherever the pool is. It decodes the body, runs the
//! task, sends what follows it and makes its result. The worker does what stock Celery's main process does: it decides when
//! a message begins, acknowledges it, watches over its limits, stores what it is given to store, and says what becomes of a
//! run whose process is gone: a [`Fate`], which the pool carries out where it can.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use super::Request;
use crate::Error;
use crate::protocol::{Exception, Map, Message, State};

/// Runs messages elsewhere.
#[async_trait]
pub trait Pool: Send + Sync + std::fmt::Debug {
    /// Takes a message, which is done when this returns: messages begin in the order in which they are taken. The future
    /// sees it to its end, and nothing about the task is told after that.
    ///
    /// To end a run the worker gives an [`Order`], and waits for the end. If it drops the future all the same, because it is
    /// itself dropped, that is [`Order::Kill`].
    fn run(self: Arc<Self>, call: Call) -> BoxFuture<'static, CallEnd>;

    /// Whether it carries out a [`Fate`]: it stores what has become of a task that it does not run, has follow what is to
    /// follow that, and waits for no run meanwhile. Otherwise the worker does it, as for tasks of its own.
    fn concludes(&self) -> bool {
        false
    }

    /// How many calls it takes at this moment, those that wait in it among them; beyond that they wait in the worker, where
    /// they can be revoked and given back. `None`: as many as the worker runs at a time.
    fn places(&self) -> Option<usize> {
        None
    }

    /// Whether it can end a run before its time. If not, there are no limits on the time of what runs here.
    fn ends_runs(&self) -> bool {
        true
    }

    /// A worker begins, on the runtime of the caller, and runs so many at a time. Starting twice is harmless.
    fn start(&self, _size: usize) {}

    /// The worker is to run so many at a time from now on. What runs beyond that goes on.
    fn resize(&self, _size: usize) {}

    /// Resolves with the reason when nothing can be run here any more: the worker stops then, warmly, and says why. What has
    /// not begun is given back.
    async fn failed(&self) -> Error {
        std::future::pending().await
    }

    /// The worker has ended, and every run with it. Stopping twice, or what was not started, is harmless.
    async fn stop(&self) {}
}

/// A message that is to be run, and the line to the worker that it came to.
#[derive(Debug)]
pub struct Call {
    /// What the headers say, the headers themselves among it.
    pub request: Arc<Request>,
    /// The message but for its headers, which the request has. The body is the producer's bytes.
    pub message: Message,
    /// Not to be run: what has become of the task, to be carried out. The end is [`CallEnd::Ignore`] then, or what the
    /// pool knows better: a success that was stored before, a retry, a message that goes back.
    pub fate: Option<Fate>,
    reports: mpsc::UnboundedSender<Report>,
    orders: mpsc::UnboundedReceiver<Order>,
}

/// The worker's end of a [`Call`].
#[derive(Debug)]
pub struct Line {
    reports: mpsc::UnboundedReceiver<Report>,
    orders: mpsc::UnboundedSender<Order>,
}

/// What is told of a run while it goes on.
#[derive(Debug)]
pub enum Report {
    /// The body is being decoded, which may take long: the task's limits count from now on, though it has not begun.
    Reading,
    /// The task begins, in the process of that id: an early-acknowledged message is acknowledged now.
    Accepted {
        /// The process.
        pid: u32,
    },
    /// To be stored.
    Store(StoredMeta, oneshot::Sender<bool>),
}

/// A result that the tracer has made, for any task, encoded as the backend has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMeta {
    /// The task's id: that of the call, or of what fails with it.
    pub task_id: String,
    /// The state that `payload` holds.
    pub state: State,
    /// The meta, serialized and perhaps compressed (celery/backends/base.py `Backend._get_result_meta`).
    pub payload: Bytes,
    /// The queue that `rpc://` sends it to, of the request that it is about; other backends do not look at it.
    pub reply_to: Option<String>,
    /// What it is sent with there; else the task's id.
    pub correlation_id: Option<String>,
}

/// What a run is told from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The soft limit has passed: `SoftTimeLimitExceeded` is raised in the task.
    SoftLimit,
    /// The signal of this number is sent to the process, if the task runs or its body is read there, as
    /// `revoke(terminate=True)` asks. A run that has not begun does not begin.
    Signal(i64),
    /// The run is to be over: its process is ended, and killed if that does not help.
    Kill,
}

/// What becomes of a task without a run that says so.
#[derive(Debug, Clone, PartialEq)]
pub struct Fate {
    /// Why.
    pub how: How,
    /// What whoever waits for the result is to see.
    pub exception: Exception,
    /// The body is not to be read: who began to has hung, or died. Here is what follows the task, as far as that is known
    /// (the third part of the body, celery/app/amqp.py `AMQP.as_task_v2`).
    pub unread: Option<Map>,
}

/// Why a task has no run that says what it came to (celery/worker/request.py).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// The hard limit passed: `Request.on_timeout`.
    TimeLimit,
    /// Its process is gone: `Request.on_failure` with a `WorkerLostError`.
    Lost,
    /// It threw its message away: `Request.on_failure` with a `Reject`.
    Rejected,
    /// It was revoked, or its time has passed: `Request._announce_revoked`.
    Revoked {
        /// The number of the signal that ended it.
        signal: Option<i64>,
        /// Its time has passed.
        is_expired: bool,
    },
    /// It was cut short, and its message comes back: `Request._announce_cancelled`.
    Cancelled,
    /// It was not run, for it cannot be.
    Failed,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum CallEnd {
    /// The task returned.
    Success {
        /// The `repr` of what it returned, shortened (celery/app/trace.py `Rstr`).
        result: String,
        /// How long it ran.
        runtime: Duration,
    },
    /// It raised.
    Failure(Raised),
    /// It is sent again; what it raised is the reason, if there is one.
    Retry(Raised),
    /// It ended without a result.
    Ignore,
    /// It refused its message.
    Reject {
        /// Why.
        reason: String,
        /// Back to the queue, or thrown away.
        requeue: bool,
    },
    /// The body cannot be decoded; the task did not begin, and was not accepted.
    Undecodable {
        /// Its content is not accepted: kombu's `ContentDisallowed`.
        refused: bool,
        /// What is wrong with it.
        reason: String,
    },
    /// The process is gone: how, in the words of Billiard: `signal 9 (SIGKILL) Job: 2`, `exitcode 3`.
    Lost(String),
    /// The task did not begin: the pool closes, or an order came before.
    NotBegun,
}

/// What a task raised.
#[derive(Debug, Clone, PartialEq)]
pub struct Raised {
    /// The exception by name, for a dead letter.
    pub exception: Exception,
    /// Its `repr`, as events show it.
    pub shown: String,
    /// Where it was raised, as text.
    pub traceback: String,
}

impl Call {
    /// A call, and the worker's end of its line.
    pub fn new(request: Arc<Request>, message: Message) -> (Call, Line) {
        let (reports, reported) = mpsc::unbounded_channel();
        let (ordering, orders) = mpsc::unbounded_channel();
        (Call { request, message, fate: None, reports, orders }, Line { reports: reported, orders: ordering })
    }

    /// A call that is not to be run: its fate is to be carried out.
    pub fn with_fate(request: Arc<Request>, message: Message, fate: Fate) -> (Call, Line) {
        let (call, line) = Call::new(request, message);
        (Call { fate: Some(fate), ..call }, line)
    }

    /// Tells that the body is being decoded, where that may take long, or never end. Not to be told otherwise.
    pub fn reading(&self) {
        self.report(Report::Reading);
    }

    /// Tells that the task begins.
    pub fn accepted(&self, pid: u32) {
        self.report(Report::Accepted { pid });
    }

    /// Gives a result to be stored, in the order of the calls. The future says whether it is: it need not be waited for, and
    /// a late acknowledgement does not leave before it all the same.
    pub fn store(&self, result: StoredMeta) -> impl Future<Output = bool> + Send + use<> {
        let (answer, stored) = oneshot::channel();
        self.report(Report::Store(result, answer));
        async move { stored.await.unwrap_or(false) }
    }

    /// Waits for an order; for ever when there will be none.
    pub async fn order(&mut self) -> Order {
        match self.orders.recv().await {
            Some(order) => order,
            None => std::future::pending().await,
        }
    }

    fn report(&self, report: Report) {
        // The worker hangs up only when it ends without waiting for anybody.
        let _ = self.reports.send(report);
    }
}

impl Line {
    /// Waits for a report; for ever when there will be none.
    pub async fn report(&mut self) -> Report {
        match self.reports.recv().await {
            Some(report) => report,
            None => std::future::pending().await,
        }
    }

    /// A report that is there already.
    pub fn try_report(&mut self) -> Option<Report> {
        self.reports.try_recv().ok()
    }

    /// Gives an order; without effect when the run is over.
    pub fn order(&self, order: Order) {
        let _ = self.orders.send(order);
    }
}
