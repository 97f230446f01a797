//! [`Work`]: a message that is to be run.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use jiff::Timestamp;

use super::execute::Limits;
use super::intake::KnownTask;
use super::malformed::Malformed;
use super::poison::Record;
use super::witness::Waiting;
use crate::canvas::Parent;
use crate::protocol::{Body, Embed, Message, Value};
use crate::task::{Arguments, Call, CallEnd, Line, Pool, Request};
use crate::trace::{self, Scope};
use crate::transport::{Credit, QueueName, Receipt, Settlement};
use crate::{Error, Result};

/// A message that is to be run, with everything that running it takes.
#[derive(Debug)]
pub(crate) struct Work {
    /// Unsettled; `None` once it has been settled.
    delivery: Option<Receipt>,
    /// The queue that it was taken from.
    pub(crate) queue: QueueName,
    /// The message but for its headers, which the request has: see [`Work::whole_message`].
    pub(crate) message: Message,
    /// The decoded body; `None` once the handler has it, and where it is decoded elsewhere.
    pub(crate) body: Option<Body>,
    /// What is to follow, kept from the body when the handler gets the rest of it.
    embed: Option<Arc<Embed>>,
    /// The body has been taken.
    is_begun: bool,
    /// Who began to decode the body did not come to its end: no pool is to do that to conclude this run.
    pub(crate) is_unread: bool,
    /// The task that it calls.
    pub(crate) task: Arc<KnownTask>,
    /// What the handler can know.
    pub(crate) request: Arc<Request>,
    /// The name to show: the header `shadow`, or the task's name.
    pub(crate) name: String,
    /// The message's limits, or the task's.
    pub(crate) limits: Limits,
    /// The message's wish, or the task's.
    pub(crate) ignore_result: bool,
    /// The routing key of its queue, where the broker keeps what is sent to it until its time.
    pub(crate) delayed_as: Option<Arc<str>>,
    /// The run that goes on elsewhere, once the pool has the message.
    pub(crate) handed: Option<Handed>,
    /// Of its runs that did not end; `None`: nobody counts them.
    pub(crate) record: Option<Record>,
    /// Counts it as waiting, if anybody counts those.
    pub(crate) waiting: Option<Waiting>,
}

impl Work {
    pub(crate) fn new(
        delivery: Receipt,
        message: Message,
        body: Option<Body>,
        task: Arc<KnownTask>,
        request: Request,
        name: String,
    ) -> Self {
        Work {
            queue: delivery.queue().clone(),
            delivery: Some(delivery),
            message,
            body,
            embed: None,
            is_begun: false,
            is_unread: false,
            limits: task.policy.limits,
            ignore_result: task.policy.ignore_result,
            delayed_as: None,
            handed: None,
            record: None,
            waiting: None,
            task,
            request: Arc::new(request),
            name,
        }
    }

    /// The message as it came: a retry is made from it, and so is a dead letter.
    pub(crate) fn whole_message(&self) -> Message {
        Message { headers: self.request.headers.clone(), ..self.message.clone() }
    }

    /// The message as it came and what settles it; `None` if it has been settled.
    pub(crate) fn into_message(self) -> Option<(Receipt, Message)> {
        let headers = match Arc::try_unwrap(self.request) {
            Ok(request) => request.headers,
            Err(shared) => shared.headers.clone(),
        };
        Some((self.delivery?, Message { headers, ..self.message }))
    }

    /// The handler's arguments; what is to follow is kept.
    ///
    /// # Errors
    /// `Decode` or `Refused`, which they were not when the message came.
    pub(crate) fn begin(&mut self) -> Result<Arguments> {
        let body = match self.body.take() {
            Some(body) => body,
            None => self.decode()?,
        };
        self.is_begun = true;
        self.embed = (!body.embed.is_empty()).then(|| Arc::new(body.embed));
        Ok(Arguments { args: body.args, kwargs: body.kwargs })
    }

    /// Hands a message over that is run elsewhere, unless its time has passed. Whoever begins runs does it, so that a pool
    /// gets messages in their order.
    pub(crate) fn hand_over(&mut self, now: Timestamp) {
        if let Some(pool) = self.task.pool.clone().filter(|_| !self.is_expired(now)) {
            self.handed = Some(Handed::to(pool, self));
        }
    }

    /// Whether its body has been taken: [`Work::embed`] is known.
    pub(crate) fn is_begun(&self) -> bool {
        self.is_begun
    }

    /// What is to follow, once the body has been taken.
    pub(crate) fn embed(&self) -> Arc<Embed> {
        static NOTHING: LazyLock<Arc<Embed>> = LazyLock::new(Arc::default);
        self.embed.clone().unwrap_or_else(|| Arc::clone(&NOTHING))
    }

    /// Whether it is a member of a chord.
    pub(crate) fn is_chord_member(&self) -> bool {
        self.embed.as_ref().is_some_and(|embed| embed.chord.is_some())
    }

    /// Whether anything is to follow.
    pub(crate) fn is_followed(&self) -> bool {
        self.embed.is_some()
    }

    /// The trace that its message speaks of, and the span of its run, if there is either.
    pub(crate) fn scope(&self) -> Option<Scope> {
        let request = &*self.request;
        let run = trace::Run {
            name: &request.task,
            id: &request.id,
            root_id: request.root_id.as_deref(),
            parent_id: request.parent_id.as_deref(),
            queue: self.queue.as_str(),
            retries: request.retries,
            hostname: &request.hostname,
            correlation_id: request.correlation_id.as_deref(),
        };
        Scope::of_message(&request.headers, || run.span())
    }

    /// Whether its time has passed: `now > expires` (celery/worker/request.py `Request.maybe_expire`).
    pub(crate) fn is_expired(&self, now: Timestamp) -> bool {
        self.request.expires.is_some_and(|expires| now > expires)
    }

    /// Settles the message unless it was settled before; the first settlement stands.
    pub(crate) fn settle(&mut self, settlement: Settlement) {
        if let Some(delivery) = self.delivery.take() {
            delivery.settle(settlement);
        }
    }

    /// What becomes of work whose body, as was found elsewhere, cannot be decoded; `None` if it has been settled.
    pub(crate) fn undecodable(&mut self, error: Error) -> Option<Malformed> {
        let (delivery, message) = (self.delivery.take()?, self.whole_message());
        Some(self.task.undecodable(delivery, message, self.request.id.clone(), error))
    }

    /// Whether the broker has taken the message back.
    pub(crate) fn is_lost(&self) -> bool {
        self.delivery.as_ref().is_some_and(Receipt::is_lost)
    }

    /// The unit of the prefetch window that it holds.
    pub(crate) fn take_credit(&mut self) -> Option<Credit> {
        self.delivery.as_mut().and_then(Receipt::take_credit)
    }

    /// Its unit of the prefetch window takes nothing of the limit from now on.
    pub(crate) fn stand_aside(&mut self) {
        self.delivery.iter_mut().for_each(Receipt::stand_aside);
    }

    /// Whether the broker still waits for a settlement.
    pub(crate) fn is_unsettled(&self) -> bool {
        self.delivery.is_some()
    }
}

/// A message that a pool has.
pub(crate) struct Handed {
    line: Line,
    /// Locked by nobody: work is looked at from several threads, and a future is not.
    run: Mutex<BoxFuture<'static, CallEnd>>,
}

impl Handed {
    pub(crate) fn to(pool: Arc<dyn Pool>, work: &Work) -> Self {
        let (call, line) = Call::new(Arc::clone(&work.request), work.message.clone());
        Handed { line, run: Mutex::new(pool.run(call)) }
    }

    pub(crate) fn into_parts(self) -> (Line, BoxFuture<'static, CallEnd>) {
        (self.line, self.run.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

impl std::fmt::Debug for Handed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handed").finish_non_exhaustive()
    }
}

/// The task as the parent of what it sends.
pub(crate) fn parent_of(request: &Request) -> Parent {
    Parent {
        id: request.id.clone(),
        root_id: request.root_id.clone(),
        priority: request.delivery_info.get("priority").and_then(Value::as_i64),
    }
}
