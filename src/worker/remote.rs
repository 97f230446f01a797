//! [`Remote`]: the part of remote control that needs the backend and the broker.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tracing::{debug, warn};

use super::dispatcher::Dispatcher;
use super::gossip::GossipDoor;
use super::metas::Metas;
use super::mingle::Mingle;
use super::publisher::Current;
use crate::Result;
use crate::backend::{ResultBackend, ResultWriter};
use crate::control::{LamportClock, Reply, ReplyTo};
use crate::protocol::{Exception, Message, MetaResult, Serializer, State, TaskMeta, Value};
use crate::transport::Publication;

/// How many stored states are asked for at a time.
const ASKED: usize = 1000;

/// How long an answer waits for a connection: while one begins, commands are heard before all else is there.
const PATIENCE: Duration = Duration::from_secs(1);

/// Stores what commands come to, and answers clients.
pub(crate) struct Remote {
    pub(crate) metas: Metas,
    pub(crate) writer: ResultWriter,
    pub(crate) backend: Arc<dyn ResultBackend>,
    pub(crate) connection: Current,
    pub(crate) clock: Arc<LamportClock>,
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) serializer: Serializer,
    pub(crate) neighbours: Neighbours,
}

/// How the worker talks to others of its kind, where that is wanted.
#[derive(Default)]
pub(crate) struct Neighbours {
    pub(crate) mingle: Option<Mingle>,
    pub(crate) gossip: Option<GossipDoor>,
}

impl Remote {
    /// Stores REVOKED for tasks that nobody has begun or ended yet, so that who waits for one of them need not wait until
    /// its message is met (celery/worker/control.py `_revoke`).
    pub(crate) async fn mark_as_revoked(&self, ids: &[String]) {
        if !self.backend.is_enabled() {
            return;
        }
        for ids in ids.chunks(ASKED) {
            let texts: Vec<&str> = ids.iter().map(String::as_str).collect();
            match self.backend.fetch_many(&texts).await {
                Ok(metas) => self.mark(ids.iter().zip(metas)).await,
                Err(error) => {
                    ids.iter().for_each(|id| warn!("Failed to mark task {id} as revoked in backend: {error}"));
                }
            }
        }
    }

    async fn mark(&self, states: impl Iterator<Item = (&String, Option<TaskMeta>)>) {
        let unbegun = states.filter(|(_, meta)| meta.as_ref().is_none_or(|meta| is_unbegun(&meta.status)));
        // Handed over together, they are stored together.
        let stores: Vec<_> = unbegun.map(|(id, _)| (id, self.store(id))).collect();
        for (id, stored) in stores {
            if let Err(error) = stored.await {
                warn!("Failed to mark task {id} as revoked in backend: {error}");
            }
        }
    }

    fn store(&self, id: &str) -> impl Future<Output = Result<()>> {
        let exception = Exception::celery("TaskRevokedError", "revoked");
        self.writer.store(self.metas.of_id(id, State::Revoked, MetaResult::Exception(exception)))
    }

    /// Answers a client. One that does not wait any more is not told.
    pub(crate) async fn reply(&self, reply_to: ReplyTo, ticket: Value, value: Value) {
        match self.message(ticket, value) {
            Ok(message) => self.send(reply_to, message).await,
            Err(error) => warn!("cannot write the answer to a command: {error}"),
        }
    }

    /// The message of an answer.
    ///
    /// # Errors
    /// `Encode`: the serializer has no form for it.
    pub(crate) fn message(&self, ticket: Value, value: Value) -> Result<Message> {
        let reply = Reply { hostname: &self.metas.hostname, value, ticket, clock: self.clock.forward() };
        reply.into_message(self.serializer)
    }

    /// Sends the message of an answer.
    pub(crate) async fn send(&self, reply_to: ReplyTo, message: Message) {
        let mut current = self.connection.clone();
        let open = timeout(PATIENCE, current.wait_for(Option::is_some)).await.ok();
        let Some(connection) = open.and_then(|open| open.ok()?.clone()) else {
            return debug!("no connection is up: a command is not answered");
        };
        let ReplyTo { exchange, routing_key } = reply_to;
        if let Err(error) = connection.answer(Publication { exchange, routing_key, message }).await {
            warn!("cannot answer a command: {error}");
        }
    }
}

/// Whether a revocation may replace this state: another worker has begun what is STARTED or in a state of its own.
fn is_unbegun(state: &State) -> bool {
    matches!(state, State::Pending | State::Received | State::Retry | State::Rejected)
}
