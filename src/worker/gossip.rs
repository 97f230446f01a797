//! [`Gossip`]: hears what other workers tell of themselves, and holds elections with them
//! (celery/worker/consumer/gossip.py `Gossip`).
//!
//! It hears no events of tasks, and none of the worker's tasks hears of it: it is a part of its own with a subscription of
//! its own.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, interval_at, sleep, timeout};
use tracing::{debug, error, info};

use super::dispatcher::Dispatcher;
use super::ear::{Ear, Setbacks};
use super::publisher::{Current, changed_from};
use super::sender::Sender;
use crate::app::{new_id, parts};
use crate::canvas::Given;
use crate::config::Config;
use crate::control::LamportClock;
use crate::events::{CLAIMS, Elections, Kind, News, Party, Step};
use crate::protocol::{AcceptContent, Map, Message, Signature, Value, repr};
use crate::time::Clock;
use crate::transport::{Backoff, Broadcast, Connection, Queue};
use crate::{Error, ErrorKind, Result};

/// How often missed heartbeats are looked for (celery/worker/consumer/gossip.py `Gossip.__init__`).
const INTERVAL: Duration = Duration::from_secs(5);

/// What nobody has heard within this is gone: `Gossip.__init__`'s `heartbeat_interval`.
const EVENT_TTL: Duration = Duration::from_secs(2);

/// Where the loop hands over elections.
#[derive(Debug, Clone)]
pub(crate) struct GossipDoor {
    dispatcher: Arc<Dispatcher>,
    elections: mpsc::UnboundedSender<Value>,
}

/// Hears events of workers, for as long as there are connections.
pub(crate) struct Gossip {
    hostname: String,
    /// But for its name, which is another over each connection.
    queue: Queue,
    /// `event_queue_prefix`.
    prefix: String,
    accept: AcceptContent,
    lamport: Arc<LamportClock>,
    clock: Clock,
    connection: Current,
    seed: u64,
    party: Party,
    elections: Elections,
    /// The ids of elections that this worker is to hold.
    ordered: mpsc::UnboundedReceiver<Value>,
    dispatcher: Arc<Dispatcher>,
}

/// What it is made from, beside the settings.
pub(crate) struct GossipParts {
    pub(crate) hostname: String,
    pub(crate) lamport: Arc<LamportClock>,
    pub(crate) clock: Clock,
    pub(crate) connection: Current,
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) seed: u64,
}

impl GossipDoor {
    /// Takes part in an election (celery/worker/control.py `election`).
    pub(crate) fn hold(&self, id: Value, topic: Value, action: Value) {
        // The other end is gone only when the worker is.
        let _ = self.elections.send(id.clone());
        self.dispatcher.say_at(&CLAIMS, Kind::WorkerElect { id, topic, action });
    }
}

impl Gossip {
    /// # Errors
    /// `Configuration`: a queue that is none, a serializer that there is not.
    pub(crate) fn new(config: &Config, parts: GossipParts) -> Result<(Self, GossipDoor)> {
        let GossipParts { hostname, lamport, clock, connection, dispatcher, seed } = parts;
        let (sender, ordered) = mpsc::unbounded_channel();
        let gossip = Gossip {
            queue: queue(config)?,
            prefix: config.event_queue_prefix.clone(),
            accept: AcceptContent::new([config.event_serializer.as_str(), "json"])?,
            lamport,
            clock,
            connection,
            seed,
            party: Party::default(),
            elections: Elections::new(&hostname, std::process::id()),
            ordered,
            dispatcher: Arc::clone(&dispatcher),
            hostname,
        };
        Ok((gossip, GossipDoor { dispatcher, elections: sender }))
    }

    /// Runs until there will be no further connection.
    pub(crate) async fn run(mut self, sender: Arc<Sender>) {
        let mut setbacks = Setbacks::new("gossip: events of other workers", Backoff::patient(self.seed));
        loop {
            let Ok(connection) = self.connection.wait_for(Option::is_some).await.map(|now| now.clone()) else { return };
            let Some(connection) = connection else { continue };
            if !self.listen(&connection, &mut setbacks, &sender).await {
                return;
            }
        }
    }

    /// Listens until the connection is lost; says whether there may be another.
    async fn listen(
        &mut self,
        connection: &Arc<dyn Connection>,
        setbacks: &mut Setbacks,
        sender: &Arc<Sender>,
    ) -> bool {
        let mut rounds = interval_at(Instant::now() + INTERVAL, INTERVAL);
        let mut current = self.connection.clone();
        let (broadcasts, mut arrived) = mpsc::channel(1);
        // The broker may not know yet that the connection before is gone: of one queue it would give each a part.
        let queue = Queue { name: format!("{}.{}", self.prefix, new_id()).into(), ..self.queue.clone() };
        // Whatever else there is to see to: a subscription that is asked whether it is alive has to be waited for.
        let mut hearing = pin!(hear_all(&**connection, &queue, setbacks, broadcasts));
        loop {
            let heard = tokio::select! {
                biased;
                is_open = changed_from(&mut current, connection) => return is_open,
                heard = self.next(&mut arrived, &mut rounds) => heard,
                never = &mut hearing => match never {},
            };
            self.take_in(heard);
            self.settle(sender);
        }
    }

    /// The next thing to see to. Cancel safe.
    async fn next(&mut self, broadcasts: &mut mpsc::Receiver<Broadcast>, rounds: &mut Interval) -> Heard {
        let now = self.clock.epoch_seconds();
        let due = self.elections.next_due().map(|due| Duration::try_from_secs_f64(due - now).unwrap_or_default());
        tokio::select! {
            biased;
            Some(id) = self.ordered.recv() => Heard::Order(id),
            _ = rounds.tick() => Heard::Round,
            () = after(due) => Heard::Due,
            Some(broadcast) = broadcasts.recv() => Heard::Event(Box::new(broadcast)),
        }
    }

    fn take_in(&mut self, heard: Heard) {
        let now = self.clock.epoch_seconds();
        match heard {
            Heard::Order(id) => self.elections.hold(&id, now),
            Heard::Round => {
                self.party.miss(now).iter().for_each(|hostname| info!("missed heartbeat from {hostname}"));
            }
            Heard::Due => {}
            Heard::Event(heard) => match *heard {
                Ok(message) => self.receive(&message, now),
                Err(undecodable) => error!("gossip: an event cannot be read: {}", undecodable.reason),
            },
        }
    }

    /// celery/worker/consumer/gossip.py `Gossip.on_message`.
    fn receive(&mut self, message: &Message, now: f64) {
        // A broker may hand on what was not asked for: Redis, with `fanout_patterns` off.
        if message.properties.routing_key.as_deref().is_some_and(|key| key.split('.').next() == Some("task")) {
            return;
        }
        match message.payload(&self.accept) {
            Ok(Value::Map(event)) => self.hear(&event, now),
            Ok(_) => {}
            Err(error) => error!("gossip: an event cannot be read: {error}"),
        }
    }

    fn hear(&mut self, event: &Map, now: f64) {
        let hostname = event.get("hostname").and_then(Value::as_str).unwrap_or_default();
        match event.get("type").and_then(Value::as_str) {
            Some("worker-elect") => {
                if self.elections.request(event, now).is_none() {
                    let shown = repr::repr(&event.clone().into());
                    error!("election request missing field: {shown}");
                }
            }
            Some("worker-elect-ack") => self.elections.answer(event),
            _ if hostname == self.hostname => {
                self.lamport.forward();
            }
            _ => {
                match event.get("clock").and_then(Value::as_u64) {
                    Some(clock) => self.lamport.adjust(clock),
                    None => self.lamport.forward(),
                };
                match self.party.hear(event, now) {
                    Some(News::Joined) => debug!("{hostname} joined the party"),
                    Some(News::Left) => debug!("{hostname} left"),
                    None => {}
                }
            }
        }
    }

    /// Does what elections come to.
    fn settle(&mut self, sender: &Arc<Sender>) {
        let now = self.clock.epoch_seconds();
        let alive: Vec<_> = self.party.alive(now).collect();
        for step in self.elections.steps(&alive, now) {
            match step {
                Step::Answer(id) => self.dispatcher.say(Kind::WorkerElectAck(id)),
                Step::Lost { id, leader } => info!("node {leader} elected for {}", repr::repr(&id)),
                Step::Won { id, topic, action } => {
                    info!("I won the election {}", repr::repr(&id));
                    act(&topic, action, sender);
                }
            }
        }
    }
}

/// How long after its subscription a connection may be seen to be gone.
const A_MOMENT: Duration = Duration::from_millis(100);
/// How long to wait for the connection after one that is gone.
const GONE: Duration = Duration::from_secs(1);

/// What gossip sees to.
enum Heard {
    /// An election to hold.
    Order(Value),
    /// It is time to look for missed heartbeats.
    Round,
    /// It is time to go on with an election.
    Due,
    /// An event.
    Event(Box<Broadcast>),
}

/// Hears whatever is broadcast, and subscribes again when a subscription ends or cannot be had.
async fn hear_all(
    connection: &dyn Connection,
    queue: &Queue,
    setbacks: &mut Setbacks,
    heard: mpsc::Sender<Broadcast>,
) -> Infallible {
    let mut ear = Ear::new();
    loop {
        match ear.hear(connection, queue).await {
            Ok(broadcast) => {
                setbacks.end();
                // Whoever drops the other end drops this, too.
                let _ = heard.send(broadcast).await;
            }
            Err(error) => {
                // A connection that is gone, or is being closed, says so a moment later: of that others tell, and whoever
                // has the next one drops this.
                let is_gone = timeout(A_MOMENT, connection.lost()).await.is_ok();
                sleep(if is_gone { GONE } else { setbacks.pause_after(&error, &ear) }).await;
            }
        }
    }
}

/// Does what this node was elected for: of topics there is but one.
fn act(topic: &Value, action: Value, sender: &Arc<Sender>) {
    if topic.as_str() != Some("task") {
        return error!("Unknown election topic {}", repr::repr(topic));
    }
    let sender = Arc::clone(sender);
    // The broker may be away for a while; others are heard meanwhile.
    tokio::spawn(async move {
        if let Err(error) = call_task(action, &sender).await {
            error!("Could not call task: {error}");
        }
    });
}

/// A signature, or a task's name alone (celery/worker/consumer/gossip.py `Gossip.call_task`).
async fn call_task(action: Value, sender: &Sender) -> Result<()> {
    let signature = match action {
        Value::String(name) => Signature::new(name),
        map => Signature::try_from(map)?,
    };
    let plan = sender.plan(None, signature, Given::default())?;
    sender.carry_out(plan).await.map(drop)
}

/// A queue of one's own for the events of workers.
fn queue(config: &Config) -> Result<Queue> {
    if config.event_queue_exclusive && config.event_queue_durable {
        let message = "Queue cannot be both exclusive and durable, choose one or the other.";
        return Err(Error::new(ErrorKind::Configuration, message));
    }
    let config = Config { event_queue_ttl: Some(EVENT_TTL), ..config.clone() };
    Ok(Queue { routing_key: "worker.#".to_owned(), ..parts::event_queue(&new_id(), &config) })
}

async fn after(wait: Option<Duration>) {
    match wait {
        Some(wait) => sleep(wait).await,
        None => std::future::pending().await,
    }
}
