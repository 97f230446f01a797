//! The seam to brokers: [`Transport`], [`Connection`], [`Consumer`] and [`Delivery`].
//!
//! Deliveries come in batches; an `Err` from [`Consumer::next`] means that the connection is gone and is the only error
//! path. A delivery is settled once, by value; one that is dropped unsettled goes back to the broker. Settlements are
//! batched behind the seam. Where the broker lets them ([`Capabilities::settles_across_connections`]) they survive a
//! reconnection and belong to the [`Transport`]; elsewhere they end with the connection that the delivery came over.
//! What is broadcast comes by a [`Subscription`], whose loss concerns nobody else.
//!
//! Implementations differ in their [`Capabilities`], never by a downcast, and all pass `tests/transport_conformance.rs`.

mod amqp;
mod backoff;
mod binding;
mod broadcast;
mod browse;
mod claim;
mod cycle;
mod delivery;
mod filesystem;
mod memory;
mod prefetch;
mod redis;
mod until;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub use amqp::AmqpTransport;
pub use backoff::Backoff;
pub use broadcast::{Broadcast, Subscription};
pub use browse::{Browsed, Browser, Content, Place, Replacement};
pub use claim::Claim;
pub use cycle::QueueOrder;
pub use delivery::{Delivery, Receipt, Refused, Settlement, Settler, Tag, Undecodable};
pub use filesystem::{FilesystemOptions, FilesystemTransport};
pub use memory::MemoryTransport;
pub use prefetch::{Credit, Growth, Prefetch};
pub use redis::{RedisOptions, RedisTransport, Waiting};

use crate::protocol::{Map, Message};
use crate::routing::Declaration;
use crate::{Error, ErrorKind, Result};

/// A broker that can be connected to. It outlives its connections, and what was reserved over a lost one is settled
/// over the next.
#[async_trait]
pub trait Transport: Send + Sync + fmt::Debug {
    /// The broker's address for people to read: passwords are written as `**`.
    fn uri(&self) -> String;

    /// In what this broker differs from others.
    fn capabilities(&self) -> Capabilities;

    /// Whether claims that stand at this server, named as by [`Transport::uri`], stand where the messages do, so that
    /// [`Connection::publish_claimed`] can be asked.
    fn keeps_claims(&self, _server: &str) -> bool {
        false
    }

    /// Opens a connection. One try: who calls decides when to try again.
    ///
    /// # Errors
    /// `Connection`, `Authentication` or `Configuration`.
    async fn connect(&self) -> Result<Arc<dyn Connection>>;
}

/// An open connection to a broker.
#[async_trait]
pub trait Connection: Send + Sync + fmt::Debug {
    /// Makes the queues known to the broker and to producers, with their bindings. Declaring twice is harmless.
    async fn declare(&self, queues: &[Queue]) -> Result<()>;

    /// Makes the exchanges and queues known by which the broker keeps messages until their time: see
    /// [`Capabilities::delays_natively`]. Declaring twice is harmless.
    async fn arrange(&self, declarations: &[Declaration]) -> Result<()> {
        let message = format!("make {} declaration(s): this broker delays no messages", declarations.len());
        Err(Error::new(ErrorKind::Configuration, message))
    }

    /// Hands over messages, and says of each, in the batch's order, whether the broker has accepted it. One that has no
    /// form in the envelope (`Encode`) or that the broker refuses (`Broker`, `Authentication`) is no obstacle to the
    /// others; in some of several queues it may be all the same. One for which no queue is bound is refused, or goes to
    /// the queue that its key names: none is accepted and lost.
    ///
    /// # Errors
    /// The connection is gone: none, some or all may have been accepted, and [`Connection::lost`] returns.
    async fn publish(&self, batch: Vec<Publication>) -> Result<Vec<Result<()>>>;

    /// Publishes a message and takes its claim away in the same instant; does neither if the claim is gone, which says
    /// whether it was there. Asking twice is harmless. See [`Transport::keeps_claims`].
    ///
    /// # Errors
    /// As [`Connection::publish`] for a batch and for one message.
    async fn publish_claimed(&self, publication: Publication, claim: &Claim) -> Result<bool> {
        let message = format!("publish to {} against {}: claims are kept elsewhere", publication.exchange, claim.field);
        Err(Error::new(ErrorKind::Configuration, message))
    }

    /// Begins to consume. At most `prefetch` deliveries are out at a time, over all queues.
    async fn consume(&self, queues: &[Queue], prefetch: Arc<Prefetch>) -> Result<Box<dyn Consumer>>;

    /// Begins to hear what is broadcast on the queue's exchange, a fanout or topic one, from now on: there is no backlog.
    /// The binding's key may hold `*` and `#`. A subscription that is lost leaves the connection as it is. On a direct
    /// exchange it hears the answers ([`Connection::answer`]) with the queue's key, which is nobody else's queue.
    async fn subscribe(&self, queue: &Queue) -> Result<Box<dyn Subscription>>;

    /// Sends to everybody who is subscribed at this moment to the exchanges named, which are fanout or topic ones.
    async fn broadcast(&self, batch: Vec<Publication>) -> Result<()>;

    /// Sends to whoever listens to the exchanges at this moment, as events are sent: topic exchanges, which are made where
    /// they are not there. Nobody hears whether anything arrived. It goes a way of its own, keeps nothing else waiting, and
    /// returns when the broker has taken it; as long as it takes nothing, this waits.
    ///
    /// # Errors
    /// It could not be sent. The connection may well be alive.
    async fn announce(&self, batch: Vec<Publication>) -> Result<()> {
        self.broadcast(batch).await
    }

    /// Publishes an answer to somebody's question: where nobody is bound to the exchange any more it is dropped, as a
    /// direct exchange does (kombu/pidbox.py `Mailbox._publish_reply`).
    async fn answer(&self, answer: Publication) -> Result<()>;

    /// The bindings of these queues' exchanges, those of other queues too.
    async fn bindings(&self, queues: &[Queue]) -> Result<Vec<Bound>> {
        let names: Vec<_> = queues.iter().map(|queue| queue.exchange.as_str()).collect();
        let message = format!("list the bindings of {}: your transport cannot list bindings", names.join(", "));
        Err(Error::new(ErrorKind::Configuration, message))
    }

    /// Throws away what waits in the queues, and says how many messages that was. Deliveries that are out stay
    /// (kombu/transport/virtual/base.py `Channel.queue_purge`).
    async fn purge(&self, queues: &[Queue]) -> Result<u64> {
        let names: Vec<_> = queues.iter().map(|queue| queue.name.as_str()).collect();
        let message = format!("purge {}: this transport cannot do that", names.join(", "));
        Err(Error::new(ErrorKind::Configuration, message))
    }

    /// Waits until the connection is gone, and says why. Consumers learn it from [`Consumer::next`]; this is for who
    /// keeps a connection without consuming.
    async fn lost(&self) -> Error;
    /// Looks into a queue without consuming it, and takes single messages out of it.
    async fn browse(&self, queue: &QueueName) -> Result<Box<dyn Browser>> {
        let message = format!("look into the queue {queue}: this transport cannot do that");
        Err(Error::new(ErrorKind::Configuration, message))
    }

    /// Reads notes: short texts that the broker keeps beside its messages.
    async fn notes(&self, names: &[String]) -> Result<Vec<Option<String>>>;

    /// Writes notes, or removes those that have no text; `Ok` means that the broker has accepted all of them. Each is
    /// forgotten after `kept_for`, and may be before.
    async fn write_notes(&self, notes: Vec<Note>, kept_for: Duration) -> Result<()>;

    /// Sends what is still to be settled, and closes. The connection is gone afterwards even if this fails.
    async fn close(&self) -> Result<()>;
}

/// A running subscription. Dropping it stops taking messages; deliveries already out stay valid.
#[async_trait]
pub trait Consumer: Send {
    /// Waits for the next deliveries: at least one. Cancel safe: a cancelled call loses no delivery.
    ///
    /// # Errors
    /// The connection is gone; the consumer is of no further use.
    async fn next(&mut self) -> Result<Vec<Delivery>>;

    /// Consumes these queues from now on, which are declared, and no others. Of a queue that is no more among them nothing
    /// is handed out any more; what was handed out stays valid. Not cancel safe: whoever does not wait for the end drops
    /// the consumer.
    ///
    /// # Errors
    /// One of the queues cannot be consumed: those that are consumed already still are, and the connection may well be
    /// alive. Or it is gone.
    async fn consume_from(&mut self, queues: &[Queue]) -> Result<()>;
}

/// A queue that is bound to an exchange.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bound {
    /// The exchange.
    pub exchange: String,
    /// The queue.
    pub queue: String,
    /// The binding's key.
    pub routing_key: String,
}

/// In what brokers differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Messages are taken by their priority, and not only in their order.
    pub heeds_priorities: bool,
    /// Priority 0 is taken first (Redis), not last (AMQP).
    pub lowest_priority_first: bool,
    /// An unsettled delivery comes back after a visibility timeout, not when the connection closes.
    pub redelivers_by_timeout: bool,
    /// A connection lost does not invalidate deliveries: they are settled over the next one.
    pub settles_across_connections: bool,
    /// Where a message was published to is a part of it (Redis), and not of its last way to a queue (AMQP).
    pub keeps_place_of_origin: bool,
    /// What is requeued is consumed last (Redis), and not where it stood (AMQP).
    pub requeues_to_the_end: bool,
    /// Who looks into a queue leaves no mark on it (Redis); elsewhere messages are away meanwhile, and count as
    /// delivered before.
    pub browses_in_place: bool,
    /// The broker sends ahead by itself, so that which queue is served next is its decision too.
    pub sends_ahead: bool,
    /// The broker can keep a message until its time ([`Connection::arrange`]).
    pub delays_natively: bool,
    /// Workers in other processes meet there, as Celery's do: they mingle and gossip
    /// (celery/worker/consumer/mingle.py `Mingle.compatible_transports`).
    pub has_neighbours: bool,
    /// A login that was refused may be accepted later: Celery tries again (Redis), or gives up (AMQP).
    pub retries_refused_logins: bool,
}

/// A short text that the broker keeps for us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// What it is found under.
    pub name: String,
    /// What it says; `None` removes it.
    pub text: Option<String>,
}

/// A queue and how it is bound (kombu/entity.py `Queue`).
#[derive(Debug, Clone, PartialEq)]
pub struct Queue {
    /// The queue's name.
    pub name: QueueName,
    /// The exchange it is bound to; `""` is the default exchange.
    pub exchange: String,
    /// The exchange's type.
    pub exchange_type: ExchangeType,
    /// The binding's key.
    pub routing_key: String,
    /// Arguments such as `x-max-priority`.
    pub arguments: Map,
    /// Arguments of the binding.
    pub binding_arguments: Map,
    /// Arguments of those who consume it, such as `x-priority`.
    pub consumer_arguments: Map,
    /// It survives a restart of the broker.
    pub durable: bool,
    /// It is its connection's alone, and gone with it.
    pub exclusive: bool,
    /// It is gone with its last consumer.
    pub auto_delete: bool,
    /// Its messages are done with when they are sent to a consumer.
    pub no_ack: bool,
    /// It is somebody else's to declare.
    pub no_declare: bool,
    /// The exchange survives a restart of the broker.
    pub exchange_durable: bool,
    /// The exchange is gone with its last binding.
    pub exchange_auto_delete: bool,
    /// Arguments of the exchange.
    pub exchange_arguments: Map,
}

impl Queue {
    /// A queue as Celery makes it for a name alone: a direct exchange and a binding key of the same name
    /// (celery/app/amqp.py `Queues.new_missing`).
    pub fn direct(name: impl Into<QueueName>) -> Self {
        let name = name.into();
        Queue {
            exchange: name.to_string(),
            routing_key: name.to_string(),
            exchange_type: ExchangeType::Direct,
            arguments: Map::default(),
            binding_arguments: Map::default(),
            consumer_arguments: Map::default(),
            durable: true,
            exclusive: false,
            auto_delete: false,
            no_ack: false,
            no_declare: false,
            exchange_durable: true,
            exchange_auto_delete: false,
            exchange_arguments: Map::default(),
            name,
        }
    }
}

/// How an exchange chooses queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExchangeType {
    /// By equal routing key.
    Direct,
    /// By a pattern of words.
    Topic,
    /// All bound queues.
    Fanout,
}

impl ExchangeType {
    /// As AMQP names it.
    pub fn name(self) -> &'static str {
        match self {
            ExchangeType::Direct => "direct",
            ExchangeType::Topic => "topic",
            ExchangeType::Fanout => "fanout",
        }
    }

    /// The one of that name; `None`: there is none, or none that is consumed from here.
    pub fn named(name: &str) -> Option<Self> {
        [ExchangeType::Direct, ExchangeType::Topic, ExchangeType::Fanout].into_iter().find(|kind| kind.name() == name)
    }
}

/// The name of a queue: cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueName(Arc<str>);

impl QueueName {
    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: Into<Arc<str>>> From<T> for QueueName {
    fn from(name: T) -> Self {
        QueueName(name.into())
    }
}

impl fmt::Display for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A message and where it is to go.
#[derive(Debug, Clone, PartialEq)]
pub struct Publication {
    /// `""` is the default exchange, which routes by queue name.
    pub exchange: String,
    /// The routing key: for the default exchange, the queue.
    pub routing_key: String,
    /// What to send.
    pub message: Message,
}

impl Publication {
    /// `message` to the queue of that name.
    pub fn to_queue(queue: &str, message: Message) -> Self {
        Publication { exchange: String::new(), routing_key: queue.to_owned(), message }
    }
}
