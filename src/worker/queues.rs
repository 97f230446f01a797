//! [`Queues`]: what the worker consumes, which clients may change while it runs.

use std::sync::Arc;

use tokio::sync::watch;
use tracing::info;

use crate::app::{App, parts};
use crate::config::Config;
use crate::protocol::{Exception, Map, Value, repr};
use crate::transport::{ExchangeType, Queue};

/// What is consumed now. The loop and the link share it: the one says what is to be, the other makes it so, over this
/// connection and all that follow, and takes back what the broker refuses.
pub(crate) type Consumed = Arc<watch::Sender<Vec<Queue>>>;

/// The queues by their names (celery/app/amqp.py `Queues`).
#[derive(Debug)]
pub(crate) struct Queues {
    app: Arc<App>,
    /// All that were consumed or might be: what was declared in one way is not declared in another.
    known: Vec<Queue>,
    consumed: Consumed,
}

impl Queues {
    pub(crate) fn new(app: &Arc<App>, consumed: &Consumed) -> Self {
        let defined = app.config().defined_queues();
        let mut known = consumed.borrow().clone();
        for queue in defined.iter().map(parts::queue) {
            if known.iter().all(|other| other.name != queue.name) {
                known.push(queue);
            }
        }
        Queues { app: Arc::clone(app), known, consumed: Arc::clone(consumed) }
    }

    /// celery/worker/consumer/consumer.py `Consumer.add_task_queue`.
    pub(crate) fn add(&mut self, name: &str, options: &Map) -> Result<(), Exception> {
        let config = self.app.config();
        if config.dead_letter_queue.as_deref() == Some(name) {
            return Err(invalid("a worker cannot consume the queue of its own dead letters"));
        }
        let queue = match self.known.iter().find(|queue| queue.name.as_str() == name) {
            Some(known) => known.clone(),
            None => {
                let queue = declared(name, options, config)?;
                self.known.push(queue.clone());
                queue
            }
        };
        self.consumed.send_if_modified(|consumed| {
            let is_new = consumed.iter().all(|other| other.name != queue.name);
            consumed.extend(is_new.then_some(queue));
            is_new
        });
        Ok(())
    }

    /// What is consumed now.
    pub(crate) fn consumed(&self) -> Vec<Queue> {
        self.consumed.borrow().clone()
    }

    /// celery/worker/consumer/consumer.py `Consumer.cancel_task_queue`. One that is not consumed is cancelled, too.
    pub(crate) fn cancel(&self, name: &str) {
        info!("Canceling queue {name}");
        self.consumed.send_if_modified(|consumed| {
            let before = consumed.len();
            consumed.retain(|queue| queue.name.as_str() != name);
            consumed.len() < before
        });
    }
}

/// A queue of which a client says how it is declared and bound (celery/app/amqp.py `Queues.add_compat`, kombu/entity.py
/// `Queue.from_dict`).
fn declared(name: &str, options: &Map, config: &Config) -> Result<Queue, Exception> {
    let given = Given(options);
    let mut queue = Queue::direct(name);
    if let Some(exchange) = given.text("exchange")? {
        exchange.clone_into(&mut queue.exchange);
    }
    queue.exchange_type = exchange_type(given.text("exchange_type")?.unwrap_or_default())?;
    if queue.exchange.is_empty() {
        queue.exchange = config.task_default_exchange.as_ref().unwrap_or(&config.task_default_queue).clone();
        queue.exchange_type = exchange_type(&config.task_default_exchange_type)?;
    }
    if let Some(key) = given.first("binding_key", "routing_key", Given::text)? {
        key.clone_into(&mut queue.routing_key);
    }
    queue.durable = given.first("queue_durable", "durable", Given::truth)?.unwrap_or(true);
    queue.exclusive = given.truth("exclusive")?.unwrap_or(false);
    queue.auto_delete =
        given.first("queue_auto_delete", "auto_delete", Given::truth)?.unwrap_or(false) || queue.exclusive;
    queue.no_ack = given.truth("no_ack")?.unwrap_or(false);
    queue.exchange_durable = given.first("exchange_durable", "durable", Given::truth)?.unwrap_or(true);
    queue.exchange_auto_delete = given.first("exchange_auto_delete", "auto_delete", Given::truth)?.unwrap_or(false);
    queue.arguments = given.map("queue_arguments")?;
    queue.binding_arguments = given.map("binding_arguments")?;
    queue.consumer_arguments = given.map("consumer_arguments")?;
    queue.exchange_arguments = given.map("exchange_arguments")?;
    if let Some(priority) = config.task_queue_max_priority {
        queue.arguments.get_or_insert_with("x-max-priority", || i64::from(priority).into());
    }
    for (option, argument, unit) in LIMITS {
        if let Some(number) = given.read(option, "a number", Value::as_f64)? {
            queue.arguments.insert(argument, (number * unit) as i64);
        }
    }
    Ok(queue)
}

/// What Kombu has options for, in seconds where the broker counts milliseconds (kombu/transport/base.py
/// `RABBITMQ_QUEUE_ARGUMENTS`). They go before the arguments.
const LIMITS: [(&str, &str, f64); 5] = [
    ("expires", "x-expires", 1e3),
    ("message_ttl", "x-message-ttl", 1e3),
    ("max_length", "x-max-length", 1.0),
    ("max_length_bytes", "x-max-length-bytes", 1.0),
    ("max_priority", "x-max-priority", 1.0),
];

fn exchange_type(name: &str) -> Result<ExchangeType, Exception> {
    let wrong = || invalid(format!("exchange_type: expected direct, topic or fanout, and not '{name}'"));
    // Kombu's is direct where nothing is said.
    if name.is_empty() { Ok(ExchangeType::Direct) } else { ExchangeType::named(name).ok_or_else(wrong) }
}

/// What a client has said, by name.
struct Given<'a>(&'a Map);

impl<'a> Given<'a> {
    fn text(&self, name: &str) -> Result<Option<&'a str>, Exception> {
        self.read(name, "text", Value::as_str)
    }

    fn truth(&self, name: &str) -> Result<Option<bool>, Exception> {
        self.read(name, "true or false", Value::as_bool)
    }

    fn map(&self, name: &str) -> Result<Map, Exception> {
        Ok(self.read(name, "a map", Value::as_map)?.cloned().unwrap_or_default())
    }

    /// What is said under the one name, or else under the other.
    fn first<T>(
        &self,
        name: &str,
        other: &str,
        read: impl Fn(&Self, &str) -> Result<Option<T>, Exception>,
    ) -> Result<Option<T>, Exception> {
        Ok(read(self, name)?.or(read(self, other)?))
    }

    fn read<T>(&self, name: &str, kind: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>, Exception> {
        match self.0.get(name) {
            None => Ok(None),
            Some(value) => match read(value) {
                Some(read) => Ok(Some(read)),
                None => Err(invalid(format!("{name}: expected {kind}, and not {}", repr::repr(value)))),
            },
        }
    }
}

fn invalid(message: impl Into<String>) -> Exception {
    Exception::new("ValueError", message.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues() -> (Queues, Consumed) {
        let mut config = Config::default();
        config.merge_toml("[task_queues.known]\nexchange = 'e'\nrouting_key = 'k'", "test.toml").unwrap();
        let consumed: Consumed = Arc::new(watch::Sender::new(vec![Queue::direct("first")]));
        (Queues::new(&Arc::new(App::new("test").with_config(config)), &consumed), consumed)
    }

    fn names(consumed: &Consumed) -> Vec<String> {
        consumed.borrow().iter().map(|queue| queue.name.to_string()).collect()
    }

    #[test]
    fn queues_are_consumed_once_as_they_are_known_and_cancelled() {
        let (mut queues, consumed) = queues();
        let mut changes = consumed.subscribe();
        for name in ["first", "known", "new", "new"] {
            queues.add(name, &Map::from([("exchange", "other"), ("exchange_type", "topic")])).unwrap();
        }
        assert_eq!(names(&consumed), ["first", "known", "new"]);
        let shown = consumed.borrow().iter().map(|queue| queue.exchange.clone()).collect::<Vec<_>>();
        assert_eq!(shown, ["first", "e", "other"]);
        queues.cancel("new");
        queues.add("new", &Map::from([("exchange", "a third")])).unwrap();
        assert_eq!(consumed.borrow().last().unwrap().exchange, "other", "as it was declared first");
        changes.mark_unchanged();
        queues.cancel("nobody's");
        queues.add("first", &Map::default()).unwrap();
        assert!(!changes.has_changed().unwrap());
        for name in ["first", "known", "new"] {
            queues.cancel(name);
        }
        assert!(names(&consumed).is_empty());
    }

    #[test]
    fn a_queue_is_declared_as_the_client_says() {
        let declared = |options: Map| declared("q", &options, &Config::default());
        assert_eq!(declared(Map::default()), Ok(Queue::direct("q")));
        let options = [("exchange", ""), ("exchange_type", "topic"), ("routing_key", "k"), ("binding_key", "b")];
        let expected = Queue { exchange: "celery".into(), routing_key: "b".into(), ..Queue::direct("q") };
        assert_eq!(declared(Map::from(options)), Ok(expected));
        let options = Map::from([("durable", false), ("queue_auto_delete", true), ("no_ack", true)]);
        let expected =
            Queue { durable: false, exchange_durable: false, auto_delete: true, no_ack: true, ..Queue::direct("q") };
        assert_eq!(declared(options), Ok(expected));
        let arguments = Map::from([("x-max-priority", 5)]);
        let options = Map::from([("queue_arguments", Value::from(arguments.clone()))]);
        assert_eq!(declared(options), Ok(Queue { arguments, ..Queue::direct("q") }));
        let options = Map::from([("max_priority", Value::from(9)), ("message_ttl", 1.5.into())]);
        let arguments = Map::from([("x-message-ttl", 1500), ("x-max-priority", 9)]);
        assert_eq!(declared(options), Ok(Queue { arguments, ..Queue::direct("q") }));
        let options = Map::from([("exclusive", true), ("auto_delete", false)]);
        let exclusive = Queue { exclusive: true, auto_delete: true, exchange_auto_delete: false, ..Queue::direct("q") };
        assert_eq!(declared(options), Ok(exclusive));
        for (options, expected) in [
            (Map::from([("exchange_type", "sideways")]), "expected direct, topic or fanout, and not 'sideways'"),
            (Map::from([("durable", "yes")]), "durable: expected true or false, and not 'yes'"),
        ] {
            assert!(declared(options).unwrap_err().to_string().contains(expected), "{expected}");
        }
    }

    #[test]
    fn dead_letters_are_not_consumed() {
        let (mut queues, consumed) = queues();
        let refused = queues.add("celeriac.dead-letters", &Map::default()).unwrap_err();
        assert!(refused.to_string().starts_with("ValueError('a worker cannot consume"), "{refused}");
        assert_eq!(names(&consumed), ["first"]);
    }
}
