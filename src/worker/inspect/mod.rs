//! Remote control's questions: what the worker has, does and is, as a stock worker tells it.
//!
//! The loop only copies what an answer is made of: a held message stays compressed, arguments stay encoded. The answer is
//! made and encoded beside the loop. What an answer would not bear, a million held tasks, is told in part: the first
//! [`MOST`], and the log says so.

mod items;
mod memory;
mod queues;
mod stats;
mod tasks;
mod waiting;

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;
use tracing::{debug, error, warn};

pub(super) use items::Content;
use items::{Arguments, Item};
use memory::Memory;
use waiting::Scheduled;

use super::consumer::Consumer;
use crate::app::{App, bug_report, conf};
use crate::config::QueueDefinition;
use crate::control::{self, ControlRequest, Inspection};
use crate::protocol::{AcceptContent, Exception, Map, Message, Serializer, Value, repr};
use crate::transport::Transport;

/// How many tasks one answer tells of.
const MOST: usize = 20_000;
/// How many tasks are told of without a thread of their own.
const FEW: usize = 50;
/// How many names are counted; a message may bear any.
const NAMES: usize = 10_000;

/// What a worker can tell of itself beside the state of its loop.
pub(crate) struct About {
    pub(super) app: Arc<App>,
    pub(super) transport: Arc<dyn Transport>,
    /// The queues that were consumed from the start, every field filled in.
    pub(super) queues: Vec<QueueDefinition>,
    /// Since when it runs.
    since: Instant,
    /// How many tasks of each name were begun, as they are shown.
    begun: HashMap<String, u64, ahash::RandomState>,
    memory: Memory,
}

/// What an answer is made of, or the answer.
enum Snapshot {
    Value(Value),
    /// A list of items; with `safe`, arguments are texts.
    Items {
        items: Vec<Item>,
        safe: bool,
    },
    Scheduled(Scheduled),
    /// The settings, by an app in another language.
    Conf {
        app: Arc<App>,
        teller: conf::Teller,
        with_defaults: bool,
    },
    /// Items by id, with what becomes of each.
    Query {
        ids: Vec<String>,
        items: Vec<(&'static str, Item)>,
        scheduled: Scheduled,
    },
}

impl About {
    pub(super) fn new(app: Arc<App>, transport: Arc<dyn Transport>, queues: Vec<QueueDefinition>) -> Self {
        About { app, transport, queues, since: Instant::now(), begun: HashMap::default(), memory: Memory::default() }
    }

    /// Counts a task that begins.
    pub(super) fn count(&mut self, name: &str) {
        if let Some(count) = self.begun.get_mut(name) {
            *count += 1;
        } else if self.begun.len() < NAMES {
            self.begun.insert(name.to_owned(), 1);
        }
    }
}

impl Consumer {
    /// Answers what a client wants to know.
    pub(super) fn inspect(&mut self, request: ControlRequest, inspection: Result<Inspection, Exception>) {
        debug!("pidbox received method {} [ticket:{}]", request.call(), repr::repr(&request.ticket));
        let snapshot = self.snapshot_of(inspection);
        let Some(reply_to) = request.reply_to else { return };
        let (remote, accept) = (Arc::clone(&self.remote), self.tasks.accept());
        tokio::spawn(async move {
            let is_large = snapshot.is_slow() || !remote.writes_ourselves();
            let (ticket, to) = (request.ticket, Arc::clone(&remote));
            let encode = move || snapshot.encode(&accept, to.serializer, |value| to.message(ticket.clone(), value));
            let message = match is_large {
                false => encode(),
                // It panics only if encoding does, and then nobody is answered.
                true => tokio::task::spawn_blocking(encode).await.ok().flatten(),
            };
            if let Some(message) = message {
                remote.send(reply_to, message).await;
            }
        });
    }

    /// What the program itself wants to know; the answer may take long to make.
    pub(super) fn told(&mut self, inspection: Result<Inspection, Exception>) -> impl FnOnce() -> Value + Send + use<> {
        let (mut snapshot, accept) = (self.snapshot_of(inspection), self.tasks.accept());
        move || snapshot.value(Arguments::Values(&accept))
    }

    fn snapshot_of(&mut self, inspection: Result<Inspection, Exception>) -> Snapshot {
        match inspection {
            Ok(inspection) => self.snapshot(&inspection),
            Err(exception) => {
                error!("pidbox command error: {exception}");
                Snapshot::Value(control::error(exception.to_string()))
            }
        }
    }

    fn snapshot(&mut self, inspection: &Inspection) -> Snapshot {
        match inspection {
            Inspection::Active { safe } => Snapshot::Items { items: self.active(), safe: *safe },
            Inspection::Reserved => Snapshot::Items { items: self.reserved_items(), safe: false },
            Inspection::Scheduled => Snapshot::Scheduled(self.scheduled()),
            Inspection::Revoked => Snapshot::Value(self.revoked.remembered(Instant::now()).0.into()),
            Inspection::QueryTask(ids) => self.query(ids),
            Inspection::Registered { attributes, builtins } => {
                Snapshot::Value(tasks::registered(&self.tasks, attributes, *builtins))
            }
            Inspection::ActiveQueues => Snapshot::Value(self.active_queues()),
            Inspection::Stats => Snapshot::Value(self.stats()),
            Inspection::Conf { with_defaults } => self.conf(*with_defaults),
            Inspection::Report => Snapshot::Value(control::ok(self.report())),
            Inspection::MemSample => Snapshot::Value(self.about.memory.sample().into()),
            Inspection::MemDump { samples } => Snapshot::Value(self.about.memory.dump(*samples).into()),
            Inspection::Impossible(reason) => Snapshot::Value(control::error(*reason)),
            Inspection::Clock => Snapshot::Value(Map::from([("clock", self.remote.clock.value())]).into()),
        }
    }

    fn conf(&self, with_defaults: bool) -> Snapshot {
        let app = Arc::clone(&self.about.app);
        match app.teller().cloned() {
            Some(teller) => Snapshot::Conf { app, teller, with_defaults },
            None => Snapshot::Value(conf::table(app.config(), with_defaults).into()),
        }
    }

    fn report(&self) -> String {
        bug_report(&self.about.app, &self.about.transport.uri(), &self.remote.backend_uri())
    }

    fn active(&self) -> Vec<Item> {
        self.running.iter().map(Item::running).collect()
    }
}

impl Snapshot {
    /// Whether it takes a thread of its own: it tells of many things, or another language does.
    fn is_slow(&self) -> bool {
        let told = match self {
            Snapshot::Value(Value::List(values)) => values.len(),
            Snapshot::Value(_) => 0,
            Snapshot::Items { items, .. } => items.len(),
            Snapshot::Scheduled(scheduled) => scheduled.len(),
            Snapshot::Query { items, scheduled, .. } => items.len() + scheduled.len(),
            Snapshot::Conf { .. } => return true,
        };
        told > FEW
    }

    /// The answer's message. Arguments that the serializer has no form for are told as texts.
    fn encode(
        self,
        accept: &AcceptContent,
        serializer: Serializer,
        message: impl Fn(Value) -> crate::Result<Message>,
    ) -> Option<Message> {
        let encoded = match self {
            Snapshot::Value(value) => message(value),
            mut tasks => message(tasks.value(Arguments::Values(accept)))
                .or_else(|_| message(tasks.value(Arguments::Encodable(accept, serializer)))),
        };
        encoded.inspect_err(|error| warn!("cannot write the answer to a command: {error}")).ok()
    }

    fn value(&mut self, how: Arguments<'_>) -> Value {
        match self {
            Snapshot::Value(value) => value.clone(),
            Snapshot::Conf { app, teller, with_defaults } => {
                let told =
                    teller.tell(*with_defaults).inspect_err(|error| warn!("cannot ask for the settings: {error}"));
                told.unwrap_or_else(|_| conf::table(app.config(), *with_defaults)).into()
            }
            Snapshot::Items { items, safe: true } => items.iter().map(|item| item.info(Arguments::Texts)).collect(),
            Snapshot::Items { items, .. } => items.iter().map(|item| item.info(how)).collect(),
            Snapshot::Scheduled(scheduled) => {
                scheduled.thaw().iter().map(|(eta, item)| waiting::entry(eta, item, how)).collect()
            }
            Snapshot::Query { ids, items, scheduled } => {
                let held = scheduled.thaw();
                let held = held.iter().map(|(_, item)| ("scheduled", item));
                let mut found = HashMap::new();
                for (state, item) in items.iter().map(|(state, item)| (*state, item)).chain(held) {
                    found.entry(item.request.id.as_str()).or_insert((state, item));
                }
                let found = ids.iter().filter_map(|id| Some((id.as_str(), found.get(id.as_str())?)));
                let told = found.map(|(id, (state, item))| (id, vec![Value::from(*state), item.info(how)]));
                told.collect::<Map>().into()
            }
        }
    }
}
