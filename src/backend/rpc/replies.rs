//! [`Replies`]: the queue in which results for this process arrive, and the background task that consumes it.
//!
//! The queue is declared before tasks are sent, and consumed from the first time on that somebody asks for a result.
//! When its consumer's connection is lost the broker deletes it, with what is in it, as it does stock clients' queues.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use lapin::Consumer;
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, QueueDeclareOptions};
use lapin::types::ShortString;
use tokio::sync::{mpsc, oneshot};

use super::broker::{Broker, Connected};
use super::inbox::Inbox;
use crate::amqp_client::{read, short, table};
use crate::protocol::{AcceptContent, Map, Message, TaskMeta, Value, deserialize};
use crate::{Error, ErrorKind, Result};

/// The pause between tries to connect while somebody waits: Celery's polling interval.
const PAUSE: Duration = Duration::from_millis(500);

/// What can be read of results; pickled ones cannot.
const ACCEPTED: [&str; 3] = ["json", "msgpack", "yaml"];

const DECLARE: &str = "cannot declare the queue of results at";
const CONSUME: &str = "cannot consume results at";

/// The queue of this process.
#[derive(Debug, Clone)]
pub(super) struct ReplyQueue {
    pub(super) name: String,
    /// After how many milliseconds without use the broker deletes it.
    pub(super) expires: Option<i64>,
}

/// Orders to the background task, which is started by the first.
pub(super) struct Replies {
    broker: Arc<Broker>,
    queue: ReplyQueue,
    inbox: Arc<Inbox>,
    orders: Mutex<Option<mpsc::UnboundedSender<Order>>>,
    /// Whether anything can have come: the queue was declared, or somebody waited.
    is_used: AtomicBool,
}

enum Order {
    /// See that the queue is there.
    Declare(Answer),
    /// Take in all that is in the queue now.
    Look(Answer),
    /// Somebody waits.
    Listen,
}

type Answer = oneshot::Sender<Result<()>>;

impl Replies {
    pub(super) fn new(broker: Arc<Broker>, queue: ReplyQueue, inbox: Arc<Inbox>) -> Self {
        Replies { broker, queue, inbox, orders: Mutex::default(), is_used: AtomicBool::new(false) }
    }

    /// Sees that the queue is there.
    pub(super) async fn declare(&self) -> Result<()> {
        self.is_used.store(true, Ordering::Relaxed);
        self.order(Order::Declare).await
    }

    /// Takes in what is there; nothing, and no connection, when nothing can be.
    pub(super) async fn look(&self) -> Result<()> {
        match self.is_used.load(Ordering::Relaxed) {
            true => self.order(Order::Look).await,
            false => Ok(()),
        }
    }

    /// From now on, what comes is taken in as it comes. Must be called within a Tokio runtime.
    pub(super) fn listen(&self) {
        self.is_used.store(true, Ordering::Relaxed);
        // The task ends only when nobody can give orders any more.
        let _ = self.orders().send(Order::Listen);
    }

    async fn order(&self, order: impl FnOnce(Answer) -> Order) -> Result<()> {
        let (answer, answered) = oneshot::channel();
        let ended = || Err(Error::new(ErrorKind::Connection, "the runtime that results were received on has ended"));
        let _ = self.orders().send(order(answer));
        answered.await.unwrap_or_else(|_| ended())
    }

    /// A runtime that ends takes its task with it: another one gets its own.
    fn orders(&self) -> mpsc::UnboundedSender<Order> {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        match &*orders {
            Some(orders) if !orders.is_closed() => orders.clone(),
            _ => orders.insert(self.start()).clone(),
        }
    }

    fn start(&self) -> mpsc::UnboundedSender<Order> {
        let (orders, incoming) = mpsc::unbounded_channel();
        let receiving = Receiving {
            broker: Arc::clone(&self.broker),
            queue: self.queue.clone(),
            inbox: Arc::clone(&self.inbox),
            incoming,
            open: None,
            is_listening: false,
            is_lost: false,
        };
        tokio::spawn(receiving.run());
        orders
    }
}

/// The background task.
struct Receiving {
    broker: Arc<Broker>,
    queue: ReplyQueue,
    inbox: Arc<Inbox>,
    incoming: mpsc::UnboundedReceiver<Order>,
    open: Option<Open>,
    /// Whether the queue is to be consumed: somebody has asked for a result.
    is_listening: bool,
    /// Whether the present outage has been logged.
    is_lost: bool,
}

struct Open {
    connected: Connected,
    consumer: Option<Consumer>,
}

/// What the background task hears.
enum Event {
    Ordered(Option<Order>),
    Came(Box<Delivery>),
    Lost(Error),
}

impl Receiving {
    async fn run(mut self) {
        loop {
            if self.is_listening && !self.is_consuming() {
                self.consume_again().await;
            }
            match self.next().await {
                Event::Came(delivery) => self.inbox.receive(*delivery),
                Event::Lost(error) => self.lost(&error),
                Event::Ordered(Some(order)) => self.obey(order).await,
                Event::Ordered(None) => return,
            }
        }
    }

    fn is_consuming(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.consumer.is_some())
    }

    async fn next(&mut self) -> Event {
        let Receiving { open, incoming, is_listening, .. } = self;
        let Some(open) = open else {
            // Whoever waits is not kept waiting by there being no orders.
            return match *is_listening {
                false => Event::Ordered(incoming.recv().await),
                true => tokio::time::timeout(PAUSE, incoming.recv())
                    .await
                    .map_or_else(|_| Event::Ordered(Some(Order::Listen)), Event::Ordered),
            };
        };
        let Open { connected, consumer } = open;
        tokio::select! {
            came = next_of(consumer) => match came {
                Some(Ok(delivery)) => Event::Came(Box::new(delivery)),
                Some(Err(error)) => Event::Lost(connected.failed(CONSUME, &error)),
                None => Event::Lost(connected.error(ErrorKind::Connection, "the queue of results was deleted")),
            },
            order = incoming.recv() => Event::Ordered(order),
            error = connected.lost() => Event::Lost(error),
        }
    }

    /// Who waits goes on waiting through an outage; what an outage does not explain is theirs.
    async fn consume_again(&mut self) {
        let Err(error) = self.consume().await else {
            self.is_lost = false;
            return;
        };
        self.open = None;
        if error.is_connection() {
            return self.log_lost(&error);
        }
        self.is_listening = false;
        self.inbox.refuse_all(&error);
    }

    fn lost(&mut self, error: &Error) {
        if let Some(mut open) = self.open.take() {
            open.drain(&self.inbox);
        }
        // Without a consumer nothing is missed.
        if self.is_listening {
            self.log_lost(error);
        }
    }

    fn log_lost(&mut self, error: &Error) {
        if !std::mem::replace(&mut self.is_lost, true) {
            tracing::warn!("Connection to RabbitMQ lost: results that come meanwhile are lost as well. ({error})");
        }
    }

    /// Carries out what has gathered, each kind once.
    async fn obey(&mut self, first: Order) {
        let (mut declares, mut looks) = (Vec::new(), Vec::new());
        let mut next = Some(first);
        while let Some(order) = next {
            match order {
                Order::Declare(answer) => declares.push(answer),
                Order::Look(answer) => looks.push(answer),
                Order::Listen => self.is_listening = true,
            }
            next = self.incoming.try_recv().ok();
        }
        if !declares.is_empty() {
            let outcome = self.declared().await;
            answer_all(declares, &outcome);
        }
        if !looks.is_empty() {
            let outcome = self.looked().await;
            answer_all(looks, &outcome);
        }
    }

    /// A queue that is consumed is there. A connection that turns out to be dead is replaced once.
    async fn declared(&mut self) -> Result<()> {
        if self.is_consuming() {
            return Ok(());
        }
        let is_old = self.open.is_some();
        match self.declare().await {
            Err(error) if is_old && error.is_connection() => {
                self.open = None;
                self.declare().await.inspect_err(|_| self.open = None)
            }
            outcome => outcome.inspect_err(|_| self.open = None),
        }
    }

    async fn declare(&mut self) -> Result<()> {
        let queue = self.queue.clone();
        let connected = &self.open().await?.connected;
        queue.declare(connected).await.map(drop)
    }

    async fn looked(&mut self) -> Result<()> {
        let is_old = self.is_consuming();
        match self.look().await {
            Err(error) if is_old && error.is_connection() => {
                self.lost(&error);
                self.look().await.inspect_err(|_| self.open = None)
            }
            outcome => outcome.inspect_err(|_| self.open = None),
        }
    }

    /// The queue is empty when it says so; what it gave away last is still on its way then, and here when the server
    /// has answered once more.
    async fn look(&mut self) -> Result<()> {
        self.is_listening = true;
        self.consume().await?;
        let (queue, inbox) = (self.queue.clone(), Arc::clone(&self.inbox));
        let open = self.open().await?;
        let mut empty = 0;
        while empty < 2 {
            let left = queue.declare(&open.connected).await?;
            open.drain(&inbox);
            empty = if left == 0 { empty + 1 } else { 0 };
        }
        Ok(())
    }

    async fn consume(&mut self) -> Result<()> {
        let queue = self.queue.clone();
        let Open { connected, consumer } = self.open().await?;
        if consumer.is_none() {
            queue.declare(connected).await?;
            let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
            let consuming =
                connected.channel.basic_consume(queue.short()?, ShortString::default(), options, Default::default());
            *consumer = Some(connected.answered(CONSUME, consuming).await?);
        }
        Ok(())
    }

    async fn open(&mut self) -> Result<&mut Open> {
        let open = match self.open.take() {
            Some(open) => open,
            None => Open { connected: self.broker.connect().await?, consumer: None },
        };
        Ok(self.open.insert(open))
    }
}

impl Open {
    /// Takes in what the client library has.
    fn drain(&mut self, inbox: &Inbox) {
        while let Some(Some(Ok(delivery))) = next_of(&mut self.consumer).now_or_never() {
            inbox.receive(delivery);
        }
    }
}

impl ReplyQueue {
    fn short(&self) -> Result<ShortString> {
        short(self.name.as_str())
    }

    /// As celery/backends/rpc.py `RPCBackend.binding` does; returns how many results wait in it.
    async fn declare(&self, connected: &Connected) -> Result<u32> {
        let options = QueueDeclareOptions { durable: true, auto_delete: true, ..QueueDeclareOptions::default() };
        let expires = self.expires.map(|expires| ("x-expires".to_owned(), Value::from(expires)));
        let declaring = connected.channel.queue_declare(self.short()?, options, table(&Map::from_iter(expires))?);
        connected.answered(DECLARE, declaring).await.map(|queue| queue.message_count())
    }
}

impl Inbox {
    /// Takes in what a worker has sent.
    fn receive(&self, mut delivery: Delivery) {
        let bytes = delivery.data.len();
        let message = match read(&mut delivery) {
            Ok(message) => message,
            Err(error) => return tracing::warn!("A message among the results cannot be read: {error}"),
        };
        let meta = meta(&message);
        let correlation_id = message.properties.correlation_id.as_deref().unwrap_or_default();
        if let Err(error) = &meta {
            tracing::warn!("The result of {correlation_id:?} cannot be read: {error}");
        }
        let task_id = meta.as_ref().map_or(correlation_id, |meta| &meta.task_id).to_owned();
        self.take(&task_id, meta, bytes);
    }
}

fn meta(message: &Message) -> Result<TaskMeta> {
    let accept = AcceptContent::new(ACCEPTED)?;
    let (content_type, content_encoding) = (message.content_type.as_deref(), message.content_encoding.as_deref());
    let value = deserialize(&message.body, content_type, content_encoding, &accept)?;
    let is_none = || Error::new(ErrorKind::Decode, "it has not the form of a result");
    TaskMeta::from_map(value.into_map().ok_or_else(is_none)?)
}

async fn next_of(consumer: &mut Option<Consumer>) -> Option<lapin::Result<Delivery>> {
    match consumer {
        Some(consumer) => consumer.next().await,
        None => std::future::pending().await,
    }
}

fn answer_all(answers: Vec<Answer>, outcome: &Result<()>) {
    for answer in answers {
        let copy = outcome.as_ref().copied().map_err(|error| Error::new(error.kind(), error.to_string()));
        // Who asked may have gone.
        let _ = answer.send(copy);
    }
}
