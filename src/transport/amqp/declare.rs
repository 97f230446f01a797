//! Exchanges, queues and bindings, as a stock worker declares them (kombu/entity.py `Queue.declare`).
//!
//! A refusal closes the channel that was asked, so each is asked on one that nobody else uses.

use lapin::options::{
    ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueuePurgeOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, ExchangeKind};

use crate::amqp_client::{AmqpConnection, code, is_refusal, refusal, short, table};
use crate::protocol::{Value, repr};
use crate::routing::Declaration;
use crate::transport::{ExchangeType, Queue};
use crate::{Error, ErrorKind, Result};

/// A method of the protocol, for what is said when it is refused.
#[derive(Debug, Clone, Copy)]
pub(super) struct Method {
    name: &'static str,
    class: u16,
    number: u16,
}

const EXCHANGE_DECLARE: Method = Method { name: "Exchange.declare", class: 40, number: 10 };
const EXCHANGE_BIND: Method = Method { name: "Exchange.bind", class: 40, number: 30 };
const QUEUE_DECLARE: Method = Method { name: "Queue.declare", class: 50, number: 10 };
const QUEUE_BIND: Method = Method { name: "Queue.bind", class: 50, number: 20 };
pub(super) const BASIC_CONSUME: Method = Method { name: "Basic.consume", class: 60, number: 20 };

/// Declares and binds queues.
pub(super) async fn declare(connection: &AmqpConnection, queues: &[Queue]) -> Result<()> {
    let channel = connection.channel().await?;
    for queue in queues.iter().filter(|queue| !queue.no_declare) {
        declare_on(connection, &channel, queue).await?;
    }
    close(&channel).await;
    Ok(())
}

/// The same over a channel that the caller has.
pub(super) async fn declare_on(connection: &AmqpConnection, channel: &Channel, queue: &Queue) -> Result<()> {
    declare_exchange(channel, queue).await.map_err(|failed| failed.into_error(connection, EXCHANGE_DECLARE))?;
    declare_queue(channel, queue).await.map_err(|failed| failed.into_error(connection, QUEUE_DECLARE))?;
    bind(channel, queue).await.map_err(|failed| failed.into_error(connection, QUEUE_BIND))
}

/// Makes all that is told, until something is refused.
pub(super) async fn arrange(connection: &AmqpConnection, declarations: &[Declaration]) -> Result<()> {
    let channel = connection.channel().await?;
    for declaration in declarations {
        let method = match declaration {
            Declaration::Exchange(_) => EXCHANGE_DECLARE,
            Declaration::Queue(..) => QUEUE_DECLARE,
            Declaration::QueueBinding { .. } => QUEUE_BIND,
            Declaration::ExchangeBinding { .. } => EXCHANGE_BIND,
        };
        make(&channel, declaration).await.map_err(|failed| failed.into_error(connection, method))?;
    }
    close(&channel).await;
    Ok(())
}

async fn make(channel: &Channel, declaration: &Declaration) -> Result<(), Failed> {
    let none = FieldTable::default;
    match declaration {
        Declaration::Exchange(name) => {
            let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
            channel.exchange_declare(short(name.as_str())?, ExchangeKind::Topic, options, none()).await?;
        }
        Declaration::Queue(name, arguments) => {
            let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
            channel.queue_declare(short(name.as_str())?, options, table(arguments)?).await?;
        }
        Declaration::QueueBinding { queue, exchange, routing_key } => {
            let [queue, exchange, key] =
                [short(queue.as_str())?, short(exchange.as_str())?, short(routing_key.as_str())?];
            channel.queue_bind(queue, exchange, key, QueueBindOptions::default(), none()).await?;
        }
        Declaration::ExchangeBinding { exchange, source, routing_key } => {
            let [to, from, key] = [short(exchange.as_str())?, short(source.as_str())?, short(routing_key.as_str())?];
            channel.exchange_bind(to, from, key, ExchangeBindOptions::default(), none()).await?;
        }
    }
    Ok(())
}

/// What went wrong: here, or over there.
pub(super) enum Failed {
    Here(Error),
    There(lapin::Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Failed::Here(error)
    }
}

impl From<lapin::Error> for Failed {
    fn from(error: lapin::Error) -> Self {
        Failed::There(error)
    }
}

impl Failed {
    pub(super) fn into_error(self, connection: &AmqpConnection, method: Method) -> Error {
        match self {
            Failed::Here(error) => error,
            Failed::There(error) => refused(connection, method, &error),
        }
    }
}

/// As Celery says it: `PreconditionFailed(406, "…", (50, 10), 'Queue.declare')`. Somebody else's exclusive queue may
/// be that of a connection of ours that the server has yet to miss: it is worth another try.
fn refused(connection: &AmqpConnection, method: Method, error: &lapin::Error) -> Error {
    let (Some(code), true) = (code(error), is_refusal(error)) else {
        return connection.failed("cannot declare queues at", error);
    };
    let (name, kind) = match code {
        403 => ("AccessRefused", ErrorKind::Authentication),
        404 => ("NotFound", ErrorKind::Broker),
        405 => ("ResourceLocked", ErrorKind::Locked),
        406 => ("PreconditionFailed", ErrorKind::Configuration),
        _ => return refusal("cannot declare queues at", connection.place(), error),
    };
    let text = match error.kind() {
        lapin::ErrorKind::ProtocolError(error) => repr::repr(&Value::from(error.get_message().as_str())),
        _ => String::new(),
    };
    let Method { name: method, class, number } = method;
    Error::new(kind, format!("{name}({code}, {text}, ({class}, {number}), '{method}')"))
}

async fn declare_exchange(channel: &Channel, queue: &Queue) -> Result<(), Failed> {
    if queue.exchange.is_empty() || queue.exchange.starts_with("amq.") {
        return Ok(());
    }
    let kind = match queue.exchange_type {
        ExchangeType::Direct => ExchangeKind::Direct,
        ExchangeType::Topic => ExchangeKind::Topic,
        ExchangeType::Fanout => ExchangeKind::Fanout,
    };
    let options = ExchangeDeclareOptions {
        durable: queue.exchange_durable,
        auto_delete: queue.exchange_auto_delete,
        ..ExchangeDeclareOptions::default()
    };
    let name = short(queue.exchange.as_str())?;
    Ok(channel.exchange_declare(name, kind, options, table(&queue.exchange_arguments)?).await?)
}

async fn declare_queue(channel: &Channel, queue: &Queue) -> Result<(), Failed> {
    let options = QueueDeclareOptions {
        durable: queue.durable,
        exclusive: queue.exclusive,
        auto_delete: queue.auto_delete,
        ..QueueDeclareOptions::default()
    };
    channel.queue_declare(short(queue.name.as_str())?, options, table(&queue.arguments)?).await?;
    Ok(())
}

/// The default exchange has a binding of every queue, and takes no other.
async fn bind(channel: &Channel, queue: &Queue) -> Result<(), Failed> {
    if queue.exchange.is_empty() {
        return Ok(());
    }
    let (name, exchange) = (short(queue.name.as_str())?, short(queue.exchange.as_str())?);
    let (key, arguments) = (short(queue.routing_key.as_str())?, table(&queue.binding_arguments)?);
    Ok(channel.queue_bind(name, exchange, key, QueueBindOptions::default(), arguments).await?)
}

/// Whether there is an exchange of that name.
pub(super) async fn exchange_exists(connection: &AmqpConnection, name: &str) -> Result<bool> {
    let channel = connection.channel().await?;
    let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    let looked = channel.exchange_declare(short(name)?, ExchangeKind::Direct, options, FieldTable::default()).await;
    match looked {
        Ok(()) => close(&channel).await,
        Err(error) if code(&error) == Some(404) => return Ok(false),
        // Who may not ask may publish all the same.
        Err(error) if is_refusal(&error) => {}
        Err(error) => return Err(connection.failed("cannot look for an exchange at", &error)),
    }
    Ok(true)
}

/// Makes the queue that dead letters are kept in, unless it is there: with whatever arguments.
pub(super) async fn ensure_queue(connection: &AmqpConnection, name: &str) -> Result<()> {
    let channel = connection.channel().await?;
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    match channel.queue_declare(short(name)?, options, FieldTable::default()).await {
        Ok(_) => close(&channel).await,
        Err(error) if is_refusal(&error) => tracing::debug!("{}", refused(connection, QUEUE_DECLARE, &error)),
        Err(error) => return Err(connection.failed("cannot declare queues at", &error)),
    }
    Ok(())
}

/// Empties queues and counts what was in them; one that is not there holds nothing.
pub(super) async fn purge(connection: &AmqpConnection, queues: &[Queue]) -> Result<u64> {
    let mut purged = 0;
    for queue in queues {
        let channel = connection.channel().await?;
        match channel.queue_purge(short(queue.name.as_str())?, QueuePurgeOptions::default()).await {
            Ok(count) => purged += u64::from(count),
            Err(error) if code(&error) == Some(404) => continue,
            Err(error) if is_refusal(&error) => {
                return Err(refusal("cannot purge queues of", connection.place(), &error));
            }
            Err(error) => return Err(connection.failed("cannot purge queues of", &error)),
        }
        close(&channel).await;
    }
    Ok(purged)
}

/// Closes a channel that has done its duty. One that is gone is closed.
pub(super) async fn close(channel: &Channel) {
    if let Ok(ok) = short("OK") {
        let closed = channel.close(200, ok).await;
        tracing::trace!(?closed, "a channel");
    }
}
