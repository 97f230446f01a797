//! [`Remote`]: the part of remote control that needs the backend and the broker.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::dispatcher::Dispatcher;
use super::gossip::GossipDoor;
use super::metas::Metas;
use super::mingle::Mingle;
use super::publisher::Current;
use crate::Result;
use crate::app::{Keeper, Panel, Payload};
use crate::backend::{ResultBackend, ResultWriter};
use crate::control::{self, LamportClock, Reply, ReplyTo};
use crate::protocol::{Exception, Map, Message, MetaResult, Serializer, State, TaskMeta, Value};
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
    /// Stores in a backend that only the program has.
    pub(crate) keeper: Option<Arc<dyn Keeper>>,
    /// Writes answers in a serializer that is not ours.
    pub(crate) writer_of_answers: Option<Arc<dyn Panel>>,
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
        if let Some(keeper) = self.keeper.clone().filter(|_| !ids.is_empty()) {
            let ids = ids.to_vec();
            if let Ok(Err(error)) = spawn_blocking(move || keeper.revoke(&ids)).await {
                warn!("Failed to mark tasks as revoked in backend: {error}");
            }
            return;
        }
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
    pub(crate) async fn reply(self: &Arc<Self>, reply_to: ReplyTo, ticket: Value, value: Value) {
        let remote = Arc::clone(self);
        let write = move || remote.message(ticket, value);
        let written = match self.writes_ourselves() {
            true => write(),
            // It panics only if writing does, and then nobody is answered.
            false => match spawn_blocking(write).await {
                Ok(written) => written,
                Err(_) => return,
            },
        };
        match written {
            Ok(message) => self.send(reply_to, message).await,
            Err(error) => warn!("cannot write the answer to a command: {error}"),
        }
    }

    /// The backend's address for people to read.
    pub(crate) fn backend_uri(&self) -> String {
        self.keeper.as_ref().map_or_else(|| self.backend.uri(), |keeper| keeper.uri())
    }

    /// Whether answers are written without asking anybody, who may take long.
    pub(crate) fn writes_ourselves(&self) -> bool {
        self.writer_of_answers.is_none()
    }

    /// The message of an answer.
    ///
    /// # Errors
    /// `Encode`: the serializer has no form for it.
    pub(crate) fn message(&self, ticket: Value, value: Value) -> Result<Message> {
        let hostname = &self.metas.hostname;
        match &self.writer_of_answers {
            Some(panel) => {
                let answer = Value::Map(Map::from([(hostname.as_str(), value)]));
                Ok(self.bearing(ticket, panel.write(&answer)?))
            }
            None => Reply { hostname, value, ticket, clock: self.clock.forward() }.into_message(self.serializer),
        }
    }

    /// The message of an answer that is written already.
    pub(crate) fn bearing(&self, ticket: Value, payload: Payload) -> Message {
        let Payload { content_type, content_encoding, body } = payload;
        control::answering(ticket, self.clock.forward(), (content_type, content_encoding), body)
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
