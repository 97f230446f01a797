//! [`QueueDefinition`]: what `task_queues` says, and which queues a worker consumes.

use toml::{Table, Value};

use super::Config;
use super::parser::{Kind, Mismatch, NestedParser, Parser};
use super::settings::DELIVERY_MODE;
use crate::{Error, ErrorKind, Result};

/// A queue of `task_queues` (kombu/entity.py `Queue`).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct QueueDefinition {
    /// The queue's name.
    pub name: String,
    /// The exchange that it is bound to; `None`: `task_default_exchange`.
    pub exchange: Option<String>,
    /// `direct`, `topic` or `fanout`; `None`: direct, or with the default exchange `task_default_exchange_type`.
    pub exchange_type: Option<String>,
    /// The binding's key; `None`: `task_default_routing_key`.
    pub routing_key: Option<String>,
    /// Arguments such as `x-max-priority`.
    pub queue_arguments: Table,
    /// Arguments of its binding.
    pub binding_arguments: Table,
    /// Arguments of those who consume it, such as `x-priority`.
    pub consumer_arguments: Table,
    /// Whether it survives a restart of the broker; `None`: yes.
    pub durable: Option<bool>,
    /// Whether it is its connection's alone; `None`: no.
    pub exclusive: Option<bool>,
    /// Whether it is gone with its last consumer; `None`: only if it is exclusive.
    pub auto_delete: Option<bool>,
    /// Whether its messages are done with when they are sent to a consumer; `None`: no.
    pub no_ack: Option<bool>,
    /// 2 or 1: that of messages to the exchange; `None`: `task_default_delivery_mode`.
    pub delivery_mode: Option<u8>,
}

impl QueueDefinition {
    /// A queue of which only the name is given.
    pub fn named(name: impl Into<String>) -> Self {
        QueueDefinition { name: name.into(), ..QueueDefinition::default() }
    }
}

/// A queue that is named and may not be made (celery.exceptions.QueueNotFound).
#[derive(Debug, thiserror::Error)]
#[error("Queue '{0}' missing from task_queues")]
pub(crate) struct QueueNotFound(String);

impl QueueNotFound {
    /// Whether this is why.
    pub(crate) fn caused(error: &Error) -> bool {
        std::error::Error::source(error).is_some_and(|source| source.is::<QueueNotFound>())
    }
}

impl From<QueueNotFound> for Error {
    fn from(missing: QueueNotFound) -> Self {
        Error::new(ErrorKind::Configuration, missing.to_string()).with_source(missing)
    }
}

impl Config {
    /// The queues to consume: those of `task_queues` (the default queue when there are none), only `select` (`-Q`) when
    /// it names any, never those of `exclude` (`-X`); every field of the definitions is filled in
    /// (celery/app/amqp.py `Queues.select`, `deselect`, `new_missing`).
    ///
    /// # Errors
    /// `Configuration`: a name that `task_queues` does not have while `task_create_missing_queues` is off, or nothing
    /// is left to consume.
    pub fn consume_from(&self, select: &[String], exclude: &[String]) -> Result<Vec<QueueDefinition>> {
        let mut queues: Vec<QueueDefinition> = Vec::new();
        for queue in self.selected(select)? {
            let taken = queues.iter().any(|other| other.name == queue.name);
            if !taken && !exclude.contains(&queue.name) {
                queues.push(queue);
            }
        }
        if queues.is_empty() {
            return Err(Error::new(ErrorKind::Configuration, "no queue is left to consume from: all are excluded"));
        }
        Ok(queues)
    }

    fn selected(&self, select: &[String]) -> Result<Vec<QueueDefinition>> {
        if select.is_empty() {
            return Ok(self.defined_queues());
        }
        select.iter().map(|name| self.queue(name).map_err(|_| unknown_queue(name))).collect()
    }

    /// The queue of that name with every field filled in: that of `task_queues`, or one that is made for its name
    /// (celery/app/amqp.py `Queues.__missing__`).
    ///
    /// # Errors
    /// `Configuration`: `task_queues` does not have it and `task_create_missing_queues` is off.
    pub fn queue(&self, name: &str) -> Result<QueueDefinition> {
        match self.task_queues.iter().find(|queue| queue.name == name) {
            Some(queue) => Ok(self.with_defaults(queue)),
            None if self.task_queues.is_empty() && name == self.task_default_queue => Ok(self.default_queue()),
            None if self.task_create_missing_queues => Ok(self.missing_queue(name)),
            None => Err(QueueNotFound(name.to_owned()).into()),
        }
    }

    /// The project's queues: those of `task_queues`, or else the default one; every field is filled in.
    pub fn defined_queues(&self) -> Vec<QueueDefinition> {
        if self.task_queues.is_empty() {
            return vec![self.default_queue()];
        }
        self.task_queues.iter().map(|queue| self.with_defaults(queue)).collect()
    }

    /// The only queue of a project that names none (celery/app/amqp.py `AMQP.Queues`).
    fn default_queue(&self) -> QueueDefinition {
        let queue = QueueDefinition::named(&self.task_default_queue);
        self.with_defaults(&of_type(queue, &self.task_default_queue_type))
    }

    /// What a queue lacks (celery/app/amqp.py `Queues._add`, `Queues.__setitem__`): without an exchange of its own it is
    /// bound to the default one, whatever its type and delivery mode.
    fn with_defaults(&self, queue: &QueueDefinition) -> QueueDefinition {
        let filled = |value: &Option<String>| value.clone().filter(|text| !text.is_empty());
        let default = |value: &Option<String>| filled(value).unwrap_or_else(|| self.task_default_queue.clone());
        let own = filled(&queue.exchange);
        let (exchange_type, delivery_mode) = match own {
            Some(_) => (queue.exchange_type.as_deref().unwrap_or("direct"), queue.delivery_mode),
            None => (self.task_default_exchange_type.as_str(), None),
        };
        self.with_max_priority(QueueDefinition {
            exchange_type: Some(exchange_type.to_owned()),
            exchange: Some(own.unwrap_or_else(|| default(&self.task_default_exchange))),
            routing_key: filled(&queue.routing_key).or_else(|| Some(default(&self.task_default_routing_key))),
            delivery_mode,
            ..queue.clone()
        })
    }

    /// A queue that is made for its name alone has an exchange and a key of the same name
    /// (celery/app/amqp.py `Queues.new_missing`).
    fn missing_queue(&self, name: &str) -> QueueDefinition {
        let exchange_type = self.task_create_missing_queue_exchange_type.as_deref().unwrap_or("direct");
        let queue = QueueDefinition {
            exchange: Some(name.to_owned()),
            routing_key: Some(name.to_owned()),
            exchange_type: Some(exchange_type.to_owned()),
            ..QueueDefinition::named(name)
        };
        self.with_max_priority(of_type(queue, &self.task_create_missing_queue_type))
    }

    fn with_max_priority(&self, mut queue: QueueDefinition) -> QueueDefinition {
        if let Some(priority) = self.task_queue_max_priority {
            queue.queue_arguments.entry("x-max-priority").or_insert_with(|| Value::from(i64::from(priority)));
        }
        queue
    }
}

/// What `-Q` is told (celery/apps/worker.py `Worker.setup_queues`).
fn unknown_queue(name: &str) -> Error {
    let message =
        format!("queue '{name}' is not in the task_queues setting; turn on task_create_missing_queues to have it made");
    Error::new(ErrorKind::Configuration, message)
}

fn of_type(mut queue: QueueDefinition, queue_type: &str) -> QueueDefinition {
    if queue_type != "classic" {
        queue.queue_arguments.insert("x-queue-type".to_owned(), Value::from(queue_type));
    }
    queue
}

pub(super) const EXCHANGE_TYPE: Parser<String> = Parser::new(Kind::Text, "direct, topic or fanout", |value| {
    value.as_str().filter(|text| ["direct", "topic", "fanout"].contains(text)).map(str::to_owned)
});

pub(super) const OPTIONAL_EXCHANGE_TYPE: Parser<Option<String>> =
    Parser::new(Kind::Text, "direct, topic or fanout", |value| EXCHANGE_TYPE.parse(value).ok().map(Some));

pub(super) const QUEUE_TYPE: Parser<String> = Parser::new(Kind::Text, "classic or quorum", |value| {
    value.as_str().filter(|text| ["classic", "quorum"].contains(text)).map(str::to_owned)
});

/// A list of names and tables, or Celery's mapping from name to table.
pub(super) const QUEUES: NestedParser<Vec<QueueDefinition>> = NestedParser::new(Kind::List, |value| match value {
    Value::Array(items) => items.iter().enumerate().map(|(index, item)| listed(index, item)).collect(),
    Value::Table(table) => table.iter().map(|(name, value)| mapped(name, value)).collect(),
    _ => Err(Mismatch::new("a list of queues, or a table of queues by name")),
});

fn listed(index: usize, value: &Value) -> Result<QueueDefinition, Mismatch> {
    let part = format!("[{index}]");
    match value {
        Value::String(name) => Ok(QueueDefinition { routing_key: Some(name.clone()), ..QueueDefinition::named(name) }),
        Value::Table(table) => match table.get("name").and_then(Value::as_str).filter(|name| !name.is_empty()) {
            Some(name) => definition(name, table).map_err(|mismatch| mismatch.within(&part)),
            None => Err(Mismatch::new("a name").within("name").within(&part)),
        },
        _ => Err(Mismatch::new("a queue's name, or a table with its name").within(&part)),
    }
}

/// Queues by name are bound with their own name (celery/app/amqp.py `Queues.add_compat`).
fn mapped(name: &str, value: &Value) -> Result<QueueDefinition, Mismatch> {
    let table = value.as_table().ok_or_else(|| Mismatch::new("a table").within(name))?;
    let mut queue = definition(name, table).map_err(|mismatch| mismatch.within(name))?;
    queue.routing_key.get_or_insert_with(|| name.to_owned());
    Ok(queue)
}

const KEYS: &str = "name, exchange, exchange_type, routing_key, queue_arguments, binding_arguments, consumer_arguments, \
     durable, exclusive, auto_delete, no_ack, delivery_mode";

fn definition(name: &str, table: &Table) -> Result<QueueDefinition, Mismatch> {
    let mut queue = QueueDefinition::named(name);
    for (key, value) in table {
        let text = || value.as_str().map(str::to_owned).ok_or_else(|| Mismatch::new("a string").within(key));
        let arguments = || value.as_table().cloned().ok_or_else(|| Mismatch::new("a table").within(key));
        let truth = || value.as_bool().map(Some).ok_or_else(|| Mismatch::new("true or false").within(key));
        match key.as_str() {
            "name" => {}
            "exchange" => queue.exchange = Some(text()?),
            "exchange_type" => {
                queue.exchange_type = Some(EXCHANGE_TYPE.parse(value).map_err(|mismatch| mismatch.within(key))?);
            }
            "routing_key" => queue.routing_key = Some(text()?),
            // The older name of the same thing; a routing key wins.
            "binding_key" if table.contains_key("routing_key") => {}
            "binding_key" => queue.routing_key = Some(text()?),
            "queue_arguments" => queue.queue_arguments = arguments()?,
            "binding_arguments" => queue.binding_arguments = arguments()?,
            "consumer_arguments" => queue.consumer_arguments = arguments()?,
            "durable" => queue.durable = truth()?,
            "exclusive" => queue.exclusive = truth()?,
            "auto_delete" => queue.auto_delete = truth()?,
            "no_ack" => queue.no_ack = truth()?,
            "delivery_mode" => {
                queue.delivery_mode = Some(DELIVERY_MODE.parse(value).map_err(|mismatch| mismatch.within(key))?);
            }
            _ => return Err(Mismatch::new(KEYS).within(key)),
        }
    }
    Ok(queue)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(toml: &str, select: &[&str], exclude: &[&str], expected: &[&str]) {
        let mut config = Config::default();
        config.merge_toml(toml, "test.toml").unwrap();
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let shown: Vec<String> = match config.consume_from(&own(select), &own(exclude)) {
            Ok(queues) => queues.iter().map(show).collect(),
            Err(error) => vec![error.to_string()],
        };
        assert_eq!(shown, expected, "{toml} -Q {select:?} -X {exclude:?}");
    }

    fn show(queue: &QueueDefinition) -> String {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        format!("{} {}({}) {}", queue.name, text(&queue.exchange), text(&queue.exchange_type), text(&queue.routing_key))
    }

    #[test]
    fn the_queues_to_consume() {
        check("", &[], &[], &["celery celery(direct) celery"]);
        check("", &["hi", "lo", "hi"], &["lo"], &["hi hi(direct) hi"]);
        check("task_default_queue = 'q'", &[], &[], &["q q(direct) q"]);
        check("task_default_exchange = 'x'\ntask_default_routing_key = 'k'", &[], &[], &["celery x(direct) k"]);
        check("task_queues = ['a', 'b']", &[], &["a"], &["b celery(direct) b"]);
        check("[task_queues.a]\nbinding_key = 'k'", &["a", "c"], &[], &["a celery(direct) k", "c c(direct) c"]);
        check(
            "[[task_queues]]\nname = 'a'\nexchange = 'e'\nexchange_type = 'topic'\nrouting_key = 'a.#'",
            &[],
            &[],
            &["a e(topic) a.#"],
        );
        check("", &[], &["celery"], &["no queue is left to consume from: all are excluded"]);
        check(
            "task_create_missing_queues = false",
            &["x"],
            &[],
            &["queue 'x' is not in the task_queues setting; turn on task_create_missing_queues to have it made"],
        );
    }
}
