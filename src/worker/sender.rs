//! [`Sender`]: plans and carries out what a worker sends on behalf of its tasks.
//!
//! Nothing of a plan leaves before all of it has been routed and encoded: what cannot be sent whole is not sent in part.
//! While the broker is away it waits; a batch whose fate a lost connection hides is sent again, under the same ids.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::publisher::{Current, Publisher};
use super::witness::Witness;
use crate::app::{App, Messages, Outgoing, Prepared, SentEvents, chords, new_id, origin, reply_to, revoke};
use crate::backend::{ChordClaim, NativeChords, ResultBackend};
use crate::canvas::{Given, Parent, Plan, Planner, Rules};
use crate::config::RetryPolicy;
use crate::control::LamportClock;
use crate::protocol::{ResultTuple, Signature, Value};
use crate::time::Clock;
use crate::transport::Backoff;
use crate::{Error, ErrorKind, Result};

/// How long the broker may take to accept events.
const ANNOUNCE: Duration = Duration::from_secs(1);

/// Sends what follows tasks, and what they send themselves.
pub(crate) struct Sender {
    pub(crate) publisher: Publisher,
    pub(crate) backend: Arc<dyn ResultBackend>,
    messages: Messages,
    rules: Rules,
    clock: Clock,
    /// `task_publish_retry_policy`.
    publish_retry_policy: RetryPolicy,
    /// `broker_connection_timeout`.
    connection_timeout: Duration,
    /// Seeds the jitter of what is tried again.
    seed: u64,
    /// `control_exchange`.
    control_exchange: String,
    broadcasts: Broadcasts,
    /// Tells of what is sent, if anybody wants that.
    sent_events: Option<SentEvents>,
    /// Is told of what is sent.
    witness: Option<Arc<Witness>>,
}

/// A plan of which all is routed and encoded.
pub(crate) struct Ready {
    steps: Vec<Prepared>,
    /// The children that carrying it out makes.
    children: Vec<ResultTuple>,
}

/// How a worker speaks to all others.
pub(crate) struct Broadcasts {
    pub(crate) connection: Current,
    /// What control commands are stamped with.
    pub(crate) clock: Arc<LamportClock>,
}

impl Sender {
    /// # Errors
    /// `Configuration`: a setting of what is sent that cannot be used.
    pub(crate) fn new(
        app: &App,
        publisher: Publisher,
        backend: Arc<dyn ResultBackend>,
        clock: Clock,
        broadcasts: Broadcasts,
        broker_delays: bool,
        seed: u64,
    ) -> Result<Self> {
        let (config, reply_to) = (app.config(), reply_to(&*backend));
        Ok(Sender {
            publisher,
            messages: Messages::new(app, origin(), reply_to.as_str())?.with_native_delays(broker_delays),
            rules: Rules {
                reply_to,
                inherit_parent_priority: config.task_inherit_parent_priority,
                allow_error_cb_on_chord_header: config.task_allow_error_cb_on_chord_header,
                chords: chords(&*backend),
            },
            backend,
            clock,
            publish_retry_policy: config.task_publish_retry_policy.clone(),
            connection_timeout: config.broker_connection_timeout,
            seed,
            control_exchange: config.control_exchange.clone(),
            broadcasts,
            sent_events: SentEvents::new(config)?,
            witness: None,
        })
    }

    /// Tells the witness of what it sends.
    pub(crate) fn watched_by(self, witness: Arc<Witness>) -> Self {
        Sender { witness: Some(witness), ..self }
    }

    /// What sending a signature comes to; `parent` is the task that sends it.
    ///
    /// # Errors
    /// A signature that is none, or that nests too deeply.
    pub(crate) fn plan(&self, parent: Option<&Parent>, signature: Signature, given: Given) -> Result<Plan> {
        self.with_planner(parent, |planner| planner.apply(signature, given))
    }

    /// Lends a planner for what `parent` sends.
    pub(crate) fn with_planner<T>(&self, parent: Option<&Parent>, plan: impl FnOnce(&mut Planner<'_>) -> T) -> T {
        let mut ids = new_id;
        let planner = Planner::new(&self.rules, &mut ids);
        match parent {
            Some(parent) => plan(&mut planner.within(parent)),
            None => plan(&mut { planner }),
        }
    }

    /// Does what a plan says, and returns the children that it makes.
    ///
    /// # Errors
    /// `Encode`, `Configuration`: nothing was sent. The broker's refusal, or the backend's: what came before in the plan
    /// is sent.
    pub(crate) async fn carry_out(&self, plan: Plan) -> Result<Vec<ResultTuple>> {
        self.carry_out_ready(self.prepare(plan)?).await
    }

    /// Routes and encodes all that a plan sends.
    ///
    /// # Errors
    /// `Encode`, `Configuration`.
    pub(crate) fn prepare(&self, plan: Plan) -> Result<Ready> {
        let steps = self.messages.prepare(plan.steps, self.clock.now())?;
        Ok(Ready { steps, children: plan.children })
    }

    /// [`Sender::carry_out`] from where nothing can fail any more but what is outside.
    pub(crate) async fn carry_out_ready(&self, ready: Ready) -> Result<Vec<ResultTuple>> {
        for step in ready.steps {
            match step {
                Prepared::Send(messages) => self.publish(messages).await?,
                Prepared::SaveHeader(header) => self.insist(|chords| chords.save_header(&header)).await?,
                Prepared::StartChord(group_id, size) => {
                    self.insist(|chords| chords.start_chord(&group_id, size)).await?;
                }
            }
        }
        Ok(ready.children)
    }

    /// Sends messages, and then tells of them; nobody waits for that.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    pub(crate) async fn publish(&self, messages: Vec<Outgoing>) -> Result<()> {
        let witness = self.witness.as_ref().filter(|witness| witness.wants_sent());
        let named = witness.map(|witness| (witness, messages.iter().map(named).collect::<Vec<_>>()));
        let told = self.sent_events.as_ref().map(|events| (events, events.of(&messages)));
        self.publisher.publish(messages).await?;
        if let Some((witness, named)) = named {
            named.iter().for_each(|(name, queue)| witness.sent(name, queue));
        }
        let Some((events, told)) = told else { return Ok(()) };
        let told = events.publications(told, &self.broadcasts.clock, self.clock.now())?;
        let connection = self.broadcasts.connection.borrow().clone();
        if let Some(connection) = connection {
            // However slow the broker is, no more of these gather than are made within that time.
            tokio::spawn(async move { timeout(ANNOUNCE, connection.announce(told)).await });
        }
        Ok(())
    }

    /// Tells all workers not to run these tasks. A worker that does not hear it meets results that are final already.
    pub(crate) async fn revoke(&self, ids: Vec<String>) {
        let connection = self.broadcasts.connection.borrow().clone();
        let (Some(connection), false) = (connection, ids.is_empty()) else { return };
        let revocation = revoke::Revocation::of_result(ids.into(), None);
        let command = revocation.into_publication(&self.control_exchange, self.broadcasts.clock.forward());
        let sent = match command {
            Ok(command) => connection.broadcast(vec![command]).await,
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            tracing::warn!("cannot revoke the members of a chord's body: {error}");
        }
    }

    /// For how long to keep the claim on a chord while its body is being sent.
    pub(crate) fn publish_lease(&self, claim: &ChordClaim) -> Duration {
        claim.publish_lease(Some(&self.publish_retry_policy), Some(self.connection_timeout))
    }

    /// Asks the backend's chords, again and again while the backend is away.
    pub(crate) async fn insist<'a, T, F>(&'a self, ask: impl Fn(&'a dyn NativeChords) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let chords = self.backend.native_chords().ok_or_else(|| unsendable("this backend does not count chords"))?;
        let mut backoff = Backoff::new(self.seed);
        loop {
            match ask(chords).await {
                Err(error) if error.can_pass() => {
                    let pause = backoff.next_pause();
                    tracing::warn!("{error}: trying again in {:.2} seconds", pause.as_secs_f64());
                    tokio::time::sleep(pause).await;
                }
                answer => return answer,
            }
        }
    }
}

/// The task that a message calls, and the queue that it is for.
fn named(message: &Outgoing) -> (String, String) {
    let name = message.publication.message.headers.get("task").and_then(Value::as_str).unwrap_or_default();
    (name.to_owned(), message.queue_name().unwrap_or_default().to_owned())
}

fn unsendable(why: &str) -> Error {
    Error::new(ErrorKind::Configuration, why)
}
