//! [`Producer`]: sends tasks and canvases.

use std::fmt;
use std::sync::Arc;

use super::messages::Prepared;
use super::outbox::Outbox;
use super::revoke::Revocation;
use super::sent_events::SentEvents;
use super::{App, AsyncResult, GroupResult, Messages, Outgoing, parts};
use crate::backend::{NativeChords, ResultBackend};
use crate::canvas::{Chords, Given, Plan, Planner, Rules};
use crate::control::LamportClock;
use crate::protocol::{ResultTuple, Signature};
use crate::time::Clock;
use crate::transport::{Claim, Transport};
use crate::{Error, ErrorKind, Result};

/// Sends tasks and canvases, to workers of any language, and finds their results. Cheap to clone; clones share one
/// connection, which is made when the first task is sent and made again when it is lost.
///
/// ```no_run
/// # async fn shop() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use celeriac::{App, args, signature};
///
/// let mut app = App::new("shop");
/// app.config_mut().broker_url = Some("redis://localhost/0".to_owned());
/// app.config_mut().result_backend = Some("redis://localhost/1".to_owned());
/// let producer = app.producer()?;
/// let result = producer.send(signature("shop.tasks.add", args![2, 3]).countdown(5.0)).await?;
/// let sum: i64 = result.get(Duration::from_secs(10)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Producer {
    inner: Arc<Inner>,
}

struct Inner {
    messages: Messages,
    outbox: Outbox,
    /// Tells of what is sent, if anybody wants that.
    sent_events: Option<SentEvents>,
    backend: Arc<dyn ResultBackend>,
    rules: Rules,
    clock: Clock,
    /// What control commands are stamped with.
    lamport: LamportClock,
    /// `control_exchange`.
    control_exchange: String,
}

impl Producer {
    /// A producer for the app's own broker and backend. Nothing is connected to yet.
    ///
    /// # Errors
    /// `Configuration`: a setting, a URL or a route that cannot be used, or two tasks of one name.
    pub fn new(app: &App) -> Result<Self> {
        let clock = Clock::system();
        let transport = parts::write_transport(app.config(), clock.clone(), fastrand::u64(..))?;
        Producer::with_parts(app, transport, parts::backend(app.config())?, clock)
    }

    /// A producer for a given broker, backend and clock.
    ///
    /// # Errors
    /// `Configuration`, as [`Producer::new`].
    pub fn with_parts(
        app: &App,
        transport: Arc<dyn Transport>,
        backend: Arc<dyn ResultBackend>,
        clock: Clock,
    ) -> Result<Self> {
        app.check()?;
        let config = app.config();
        let reply_to = reply_to(&*backend);
        let rules = Rules {
            reply_to: reply_to.clone(),
            inherit_parent_priority: config.task_inherit_parent_priority,
            allow_error_cb_on_chord_header: config.task_allow_error_cb_on_chord_header,
            chords: chords(&*backend),
        };
        Ok(Producer {
            inner: Arc::new(Inner {
                messages: Messages::new(app, origin(), reply_to)?
                    .with_native_delays(transport.capabilities().delays_natively),
                outbox: Outbox::new(transport, config),
                sent_events: SentEvents::new(config)?,
                backend,
                rules,
                clock,
                lamport: LamportClock::new(0),
                control_exchange: config.control_exchange.clone(),
            }),
        })
    }

    /// Sends a task or a canvas; returns when the broker has accepted all of it. A publication that fails for a lost
    /// connection is tried again as `task_publish_retry_policy` says; a message may then come twice. When that fails for
    /// good in the middle of a canvas, what was sent before stays sent.
    ///
    /// # Errors
    /// `Configuration`: an option that is none, a queue that may not be made, a canvas that cannot be sent; `Encode`: an
    /// argument that the serializer has no form for: nothing was sent. `Connection` and the like: the broker's or, for
    /// chords, the backend's.
    pub async fn send(&self, signature: impl Into<Signature>) -> Result<AsyncResult> {
        let plan = self.plan(signature.into())?;
        let result = self.result_of(&plan)?;
        self.carry_out(plan).await?;
        Ok(result)
    }

    /// Sends several, in as few round trips as one; the results are in the same order.
    ///
    /// # Errors
    /// As [`Producer::send`].
    pub async fn send_many<S: Into<Signature>>(
        &self,
        signatures: impl IntoIterator<Item = S>,
    ) -> Result<Vec<AsyncResult>> {
        let (mut all, mut results) = (Plan::default(), Vec::new());
        for signature in signatures {
            let plan = self.plan(signature.into())?;
            results.push(self.result_of(&plan)?);
            all.append(plan);
        }
        self.carry_out(all).await?;
        Ok(results)
    }

    /// Sends a task and takes its claim away in the same instant, or nothing if the claim is gone: whoever took it has sent
    /// the task. Says whether it has done either; it cannot for a canvas of several messages, nor where the broker does not
    /// keep the claims of `server`, and then nothing was sent.
    ///
    /// # Errors
    /// As [`Producer::send`].
    pub(crate) async fn send_claimed(&self, signature: Signature, server: &str, claim: Claim) -> Result<bool> {
        let Inner { messages, outbox, sent_events, lamport, clock, .. } = &*self.inner;
        if !outbox.keeps_claims(server) {
            return Ok(false);
        }
        let mut prepared = messages.prepare(self.plan(signature)?.steps, clock.now())?;
        let (Some(Prepared::Send(mut batch)), true) = (prepared.pop(), prepared.is_empty()) else { return Ok(false) };
        let (Some(message), true) = (batch.pop(), batch.is_empty()) else { return Ok(false) };
        let told = sent_events.as_ref().map(|events| (events, events.of(std::slice::from_ref(&message))));
        outbox.send_claimed(message, claim).await?;
        if let Some((events, told)) = told {
            outbox.announce(events.publications(told, lamport, clock.now())?);
        }
        Ok(true)
    }

    /// The result of a task that somebody sent.
    pub fn result(&self, task_id: impl Into<String>) -> AsyncResult {
        AsyncResult::new(ResultTuple::task(task_id), false, self.clone())
    }

    /// The results of a group that was saved ([`GroupResult::save`]); `None` for an id that is not known.
    ///
    /// # Errors
    /// The backend's.
    pub async fn group_result(&self, group_id: &str) -> Result<Option<GroupResult>> {
        let tuple = self.inner.backend.restore_group(group_id).await?;
        Ok(tuple.map(|tuple| GroupResult::new(tuple, self.clone())))
    }

    /// Tells all workers not to run these tasks and, with a signal such as `SIGTERM`, to end those that run
    /// (celery/app/control.py `Control.revoke`). A worker that is not there now does not hear of it.
    ///
    /// # Errors
    /// The broker's.
    pub async fn revoke(&self, task_ids: Vec<String>, signal: Option<&str>) -> Result<()> {
        self.tell(Revocation::of_tasks(task_ids, signal)).await
    }

    pub(super) async fn tell(&self, revocation: Revocation) -> Result<()> {
        let Inner { control_exchange, lamport, outbox, .. } = &*self.inner;
        outbox.broadcast(revocation.into_publication(control_exchange, lamport.forward())?).await
    }

    /// Closes the connection to the broker when everything is sent; a task that is sent later opens another.
    ///
    /// # Errors
    /// None that matters: what was sent is with the broker.
    pub async fn close(&self) -> Result<()> {
        self.inner.outbox.close().await
    }

    pub(super) fn backend(&self) -> &dyn ResultBackend {
        &*self.inner.backend
    }
}

impl Producer {
    fn result_of(&self, plan: &Plan) -> Result<AsyncResult> {
        let tuple = plan.result.clone();
        let tuple =
            tuple.ok_or_else(|| Error::new(ErrorKind::Configuration, "send a canvas: there is no task in it"))?;
        let call = plan.calls().find(|call| call.id == tuple.id);
        let ignored = call.is_some_and(|call| self.inner.messages.ignores_result(call));
        Ok(AsyncResult::new(tuple, ignored, self.clone()))
    }

    fn plan(&self, signature: Signature) -> Result<Plan> {
        Planner::new(&self.inner.rules, &mut new_id).apply(signature, Given::default())
    }

    async fn carry_out(&self, plan: Plan) -> Result<()> {
        if plan.calls().any(|call| !self.inner.messages.ignores_result(call)) {
            self.inner.outbox.insist(|| self.inner.backend.expect_results()).await?;
        }
        let steps = plan.steps;
        for step in self.inner.messages.prepare(steps, self.inner.clock.now())? {
            match step {
                Prepared::Send(messages) => self.send_messages(messages).await?,
                Prepared::SaveHeader(header) => self.chords()?.save_header(&header).await?,
                Prepared::StartChord(group_id, size) => self.chords()?.start_chord(&group_id, size).await?,
            }
        }
        Ok(())
    }

    /// Sends messages, and then tells of them; nobody waits for that.
    async fn send_messages(&self, messages: Vec<Outgoing>) -> Result<()> {
        let Inner { sent_events, outbox, lamport, clock, .. } = &*self.inner;
        let Some(events) = sent_events else { return outbox.send(messages).await };
        let told = events.of(&messages);
        outbox.send(messages).await?;
        outbox.announce(events.publications(told, lamport, clock.now())?);
        Ok(())
    }

    fn chords(&self) -> Result<&dyn NativeChords> {
        let refused =
            || Error::new(ErrorKind::Configuration, "send a chord: the result backend does not count members");
        self.inner.backend.native_chords().ok_or_else(refused)
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("outbox", &self.inner.outbox).finish_non_exhaustive()
    }
}

pub(crate) fn chords(backend: &dyn ResultBackend) -> Chords {
    match backend.ensure_chords_allowed() {
        Err(refused) => Chords::Refused(refused.to_string()),
        Ok(()) => match backend.native_chords() {
            Some(chords) if chords.wants_header() => Chords::Announced,
            Some(_) => Chords::Native,
            None => Chords::Unlock,
        },
    }
}

/// Where results for this process arrive (celery/app/base.py `Celery.thread_oid`): with most backends nowhere.
pub(crate) fn reply_to(backend: &dyn ResultBackend) -> String {
    backend.reply_queue().map_or_else(new_id, str::to_owned)
}

/// An id that nobody has: Celery's `uuid()`.
pub(crate) fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// celery/utils/nodenames.py `anon_nodename`.
pub(crate) fn origin() -> String {
    let host = hostname::get().unwrap_or_default();
    format!("gen{}@{}", std::process::id(), host.to_string_lossy())
}
