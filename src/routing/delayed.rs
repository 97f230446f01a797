//! [`DelayLevels`]: native delayed delivery, by which RabbitMQ keeps a message until its time has come
//! (kombu/transport/native_delayed_delivery.py).
//!
//! A delay in seconds has 28 binary digits, and for each there is an exchange and a queue. A message goes through the
//! exchanges from the highest to the lowest; where its digit is one it waits in the level's queue for as long as that
//! digit means. Its routing key is the digits, and after them the key that it had. Behind the last level stands an exchange
//! that tasks' exchanges are bound to.
//!
//! All of it is data here: `transport` declares it. `testdata/delayed.json` holds what Kombu says.

use crate::config::{Config, QueueDefinition};
use crate::protocol::{Map, Value};

/// How many binary digits a delay has.
const DIGITS: usize = 28;

/// The longest delay in seconds: more than eight years.
const LONGEST: u64 = (1 << DIGITS) - 1;

/// Exchanges and queues of one family: Celery's own, or another beside it.
///
/// ```
/// use celeriac::routing::DelayLevels;
///
/// assert_eq!(DelayLevels::CELERY.entrance(), "celery_delayed_27");
/// let key = DelayLevels::routing_key(6, "celery");
/// assert_eq!(DelayLevels::without_delay(&key), "celery");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DelayLevels {
    prefix: &'static str,
}

/// Something to declare, in the order in which it can be.
#[derive(Debug, Clone, PartialEq)]
pub enum Declaration {
    /// A durable topic exchange.
    Exchange(String),
    /// A durable queue and its arguments.
    Queue(String, Map),
    /// A queue takes what an exchange has for a key.
    QueueBinding {
        /// Who takes.
        queue: String,
        /// From where.
        exchange: String,
        /// What.
        routing_key: String,
    },
    /// An exchange takes what another has for a key.
    ExchangeBinding {
        /// Who takes.
        exchange: String,
        /// From where.
        source: String,
        /// What.
        routing_key: String,
    },
}

impl DelayLevels {
    /// Those that Celery's workers and producers share.
    pub const CELERY: DelayLevels = DelayLevels { prefix: "" };
    /// Those that this worker parks messages at: see `worker_park_eta_after`.
    pub const PARKING: DelayLevels = DelayLevels { prefix: "celeriac_" };

    /// Where delayed messages are published to: the exchange of the highest level.
    pub fn entrance(self) -> String {
        self.level(DIGITS - 1)
    }

    /// The exchange that messages come to when their time has come.
    pub fn delivery(self) -> String {
        format!("{}celery_delayed_delivery", self.prefix)
    }

    fn level(self, level: usize) -> String {
        format!("{}celery_delayed_{level}", self.prefix)
    }

    /// All levels, with queues of `queue_type`: `quorum` or `classic`
    /// (`declare_native_delayed_delivery_exchanges_and_queues`).
    pub fn declarations(self, queue_type: &str) -> Vec<Declaration> {
        let levels = || (0..DIGITS).rev();
        let waiting = levels().flat_map(|level| {
            let (name, routing_key) = (self.level(level), digit_key(level, '1'));
            let binding = Declaration::QueueBinding { queue: name.clone(), exchange: name.clone(), routing_key };
            let queue = Declaration::Queue(name.clone(), self.arguments(level, queue_type));
            [Declaration::Exchange(name), queue, binding]
        });
        let passing = levels().map(|level| Declaration::ExchangeBinding {
            exchange: self.next(level),
            source: self.level(level),
            routing_key: digit_key(level, '0'),
        });
        let mut all: Vec<_> = waiting.chain(passing).collect();
        // What is bound must be there.
        all.insert(all.len() - 1, Declaration::Exchange(self.delivery()));
        all
    }

    /// Where a message goes on to from a level.
    fn next(self, level: usize) -> String {
        level.checked_sub(1).map_or_else(|| self.delivery(), |lower| self.level(lower))
    }

    fn arguments(self, level: usize, queue_type: &str) -> Map {
        let mut arguments = Map::from([
            ("x-queue-type", Value::from(queue_type)),
            ("x-overflow", "reject-publish".into()),
            ("x-message-ttl", (1000_i64 << level).into()),
            ("x-dead-letter-exchange", self.next(level).into()),
        ]);
        if queue_type == "quorum" {
            arguments.insert("x-dead-letter-strategy", "at-least-once");
        }
        arguments
    }

    /// By what a task's queue gets messages that were delayed; nothing for one behind a direct exchange, which cannot
    /// tell the key from the digits before it (`bind_queue_to_native_delayed_delivery_exchange`).
    pub fn bindings(self, queue: &QueueDefinition) -> Vec<Declaration> {
        if is_direct(queue) {
            return Vec::new();
        }
        let key = queue.routing_key.as_deref().unwrap_or_default();
        let routing_key = if key.starts_with('#') { key.to_owned() } else { format!("#.{key}") };
        let exchange = queue.exchange.clone().unwrap_or_default();
        let (source, queue) = (self.delivery(), queue.name.clone());
        vec![
            Declaration::ExchangeBinding { exchange: exchange.clone(), source, routing_key: routing_key.clone() },
            Declaration::QueueBinding { queue, exchange, routing_key },
        ]
    }

    /// By what a queue alone gets messages that were delayed with its own name as their key, whatever its exchange;
    /// `None` for a name that is a pattern, or is too long to stand behind the digits.
    pub fn own_binding(self, queue: &str) -> Option<Declaration> {
        let is_pattern = queue.split('.').any(|word| word == "*" || word == "#");
        let routing_key = format!("{}{queue}", "*.".repeat(DIGITS));
        (!is_pattern && routing_key.len() <= LONGEST_KEY).then(|| Declaration::QueueBinding {
            queue: queue.to_owned(),
            exchange: self.delivery(),
            routing_key,
        })
    }

    /// The routing key of a message that waits for so many seconds, 1 at least: an older delay in front of `key` counts
    /// no more (`calculate_routing_key`). What is longer than eight years waits for as long as can be.
    pub fn routing_key(seconds: u64, key: &str) -> String {
        let digits = format!("{:028b}", seconds.min(LONGEST));
        let digits: String = digits.chars().flat_map(|digit| [digit, '.']).collect();
        digits + Self::without_delay(key)
    }

    /// The routing key that a message had before it was delayed.
    pub fn without_delay(key: &str) -> &str {
        let is_delayed = key.len() >= 2 * DIGITS
            && key.as_bytes()[..2 * DIGITS].chunks(2).all(|pair| matches!(pair, [b'0' | b'1', b'.']));
        if is_delayed { &key[2 * DIGITS..] } else { key }
    }

    /// Whether an exchange is one of a family's: where a delayed message came from last, and no place of its own.
    pub fn has_exchange(self, name: &str) -> bool {
        let Some(rest) = name.strip_prefix(self.prefix).and_then(|name| name.strip_prefix("celery_delayed_")) else {
            return false;
        };
        rest == "delivery" || rest.parse().is_ok_and(|level: usize| level < DIGITS)
    }
}

/// The most bytes that AMQP has for a routing key.
const LONGEST_KEY: usize = 255;

/// Whose digit of that level is `digit`: whatever stands before and behind it.
fn digit_key(level: usize, digit: char) -> String {
    format!("{}{digit}.#", "*.".repeat(DIGITS - 1 - level))
}

/// Whether the queue's exchange is a direct one.
pub fn is_direct(queue: &QueueDefinition) -> bool {
    queue.exchange_type.as_deref().is_none_or(|exchange_type| exchange_type == "direct")
}

/// Whether the queue is a quorum queue by its arguments, the one way that stock Celery knows
/// (celery/utils/quorum_queues.py `detect_quorum_queues`).
pub fn is_quorum(queue: &QueueDefinition) -> bool {
    queue.queue_arguments.get("x-queue-type").and_then(toml::Value::as_str) == Some("quorum")
}

/// Whether messages with an ETA are delayed by the broker, if it can: when one of the project's queues is a quorum queue.
pub fn delays_natively(config: &Config) -> bool {
    config.defined_queues().iter().any(is_quorum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::json;

    fn recorded(part: &str) -> Vec<Value> {
        let all = json::parse(include_bytes!("testdata/delayed.json")).unwrap();
        all.as_map().unwrap().get(part).unwrap().as_list().unwrap().to_vec()
    }

    /// As testdata/record_delayed.py writes it.
    fn shown(declaration: &Declaration) -> Value {
        let texts = |texts: &[&str]| Value::List(texts.iter().map(|text| Value::from(*text)).collect());
        match declaration {
            Declaration::Exchange(name) => texts(&["exchange", name, "topic"]),
            Declaration::Queue(name, arguments) => {
                Value::List(vec!["queue".into(), name.as_str().into(), arguments.clone().into()])
            }
            Declaration::QueueBinding { queue, exchange, routing_key } => {
                texts(&["bind queue", queue, exchange, routing_key])
            }
            Declaration::ExchangeBinding { exchange, source, routing_key } => {
                texts(&["bind exchange", exchange, source, routing_key])
            }
        }
    }

    #[test]
    fn levels_are_kombus() {
        for queue_type in ["quorum", "classic"] {
            let shown: Vec<_> = DelayLevels::CELERY.declarations(queue_type).iter().map(shown).collect();
            assert_eq!(shown, recorded(queue_type), "{queue_type}");
        }
    }

    #[test]
    fn routing_keys_are_kombus() {
        let keys = recorded("keys");
        assert!(keys.len() > 60);
        for row in keys {
            let [Value::Int(seconds), Value::String(key), Value::String(expected)] = row.as_list().unwrap() else {
                panic!("not a row: {row:?}")
            };
            assert_eq!(&DelayLevels::routing_key(u64::try_from(*seconds).unwrap(), key), expected, "{seconds} {key}");
        }
        for row in recorded("stripped") {
            let [Value::String(key), Value::String(expected)] = row.as_list().unwrap() else { panic!("{row:?}") };
            assert_eq!(DelayLevels::without_delay(key), expected);
        }
    }

    #[test]
    fn delays_that_are_too_long_are_the_longest() {
        let longest = DelayLevels::routing_key(LONGEST, "k");
        assert_eq!(longest, "1.".repeat(DIGITS) + "k");
        assert_eq!(DelayLevels::routing_key(u64::MAX, "k"), longest);
        assert_eq!(DelayLevels::without_delay("é".repeat(DIGITS).as_str()), "é".repeat(DIGITS));
    }

    #[test]
    fn bindings_are_kombus() {
        for row in recorded("queues") {
            let [Value::String(name), Value::String(exchange), Value::String(kind), Value::String(key), expected] =
                row.as_list().unwrap()
            else {
                panic!("not a row: {row:?}")
            };
            let queue = QueueDefinition {
                exchange: Some(exchange.clone()),
                exchange_type: Some(kind.clone()),
                routing_key: Some(key.clone()),
                ..QueueDefinition::named(name)
            };
            let bindings = DelayLevels::CELERY.bindings(&queue).iter().map(shown).collect();
            assert_eq!(&Value::List(bindings), expected, "{row:?}");
        }
    }

    #[test]
    fn a_queues_own_binding_takes_what_has_its_name() {
        let binding = |name: &str| DelayLevels::PARKING.own_binding(name);
        let own = |key: &str| {
            let (queue, exchange) = ("a.b".to_owned(), "celeriac_celery_delayed_delivery".to_owned());
            Declaration::QueueBinding { queue, exchange, routing_key: key.to_owned() }
        };
        assert_eq!(binding("a.b"), Some(own(&("*.".repeat(28) + "a.b"))));
        assert_eq!([binding("a.#"), binding("*"), binding(&"q".repeat(200))], [None, None, None]);
        assert!(binding("a#b").is_some() && binding(&"q".repeat(199)).is_some());
    }

    #[test]
    fn exchanges_of_delays_are_known() {
        for (name, celerys, parking) in [
            ("celery_delayed_delivery", true, false),
            ("celery_delayed_0", true, false),
            ("celery_delayed_28", false, false),
            ("celery_delayed_x", false, false),
            ("celeriac_celery_delayed_27", false, true),
            ("celery", false, false),
            ("", false, false),
        ] {
            let known = [DelayLevels::CELERY, DelayLevels::PARKING].map(|levels| levels.has_exchange(name));
            assert_eq!(known, [celerys, parking], "{name}");
        }
    }

    #[test]
    fn one_quorum_queue_is_enough() {
        for (toml, expected) in [
            ("", false),
            ("task_default_queue_type = 'quorum'", true),
            ("task_default_queue_type = 'quorum'\ntask_queues = ['a']", false),
            ("task_queues = ['a', { name = 'b', queue_arguments = { x-queue-type = 'quorum' } }]", true),
            ("task_queues = [{ name = 'b', queue_arguments = { x-queue-type = 'classic' } }]", false),
        ] {
            let mut config = Config::default();
            config.merge_toml(toml, "test.toml").unwrap();
            assert_eq!(delays_natively(&config), expected, "{toml}");
        }
    }
}
