//! [`Router`]: from a task's name and a call's options to a [`Route`].

use super::table::{Table, merge};
use crate::config::{Config, QueueDefinition};
use crate::protocol::{Map, Value};
use crate::{Error, ErrorKind, Result};

/// Routes as Celery's producer does (celery/app/routes.py `Router`, celery/app/amqp.py `AMQP._create_task_sender`).
///
/// ```
/// use celeriac::config::Config;
/// use celeriac::protocol::Map;
/// use celeriac::routing::Router;
///
/// let mut config = Config::default();
/// config.merge_toml("[task_routes]\n'feeds.*' = { queue = 'feeds', priority = 3 }", "celeriac.toml")?;
/// let route = Router::new(&config)?.route("feeds.tasks.fetch", Map::new())?;
/// assert_eq!((route.exchange.as_str(), route.routing_key.as_str(), route.priority), ("", "feeds", Some(3)));
/// # Ok::<(), celeriac::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Router {
    table: Table,
    config: Config,
}

/// Where a message goes, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// The queue to declare before publishing, every field filled in; `None` when a route names an exchange alone.
    pub queue: Option<QueueDefinition>,
    /// The exchange; `""` is the default one, which routes by queue name.
    pub exchange: String,
    /// The routing key: on the default exchange, the queue's name.
    pub routing_key: String,
    /// Whether messages for later cannot be delayed by the broker, as the exchange is a direct one.
    pub is_direct: bool,
    /// 2: the message survives a restart of the broker; 1: it does not.
    pub delivery_mode: u8,
    /// The priority, if the options or the route give one.
    pub priority: Option<i64>,
    /// What else the options and the route say: `serializer`, `link` and so on. No null is among them.
    pub options: Map,
}

impl Router {
    /// A router for these settings.
    ///
    /// # Errors
    /// `Configuration`: a regular expression in `task_routes` that is none.
    pub fn new(config: &Config) -> Result<Self> {
        Ok(Router { table: Table::new(&config.task_routes)?, config: config.clone() })
    }

    /// Where a message of `task` goes that is sent with `options`: those of `apply_async`, which win over the routes.
    /// What is null counts as absent.
    ///
    /// # Errors
    /// `Configuration`: a queue is named that may not be made (Celery's `QueueNotFound`), or an option is of a type that
    /// it cannot have.
    pub fn route(&self, task: &str, options: Map) -> Result<Route> {
        let (queue, options) = self.merged(task, options)?;
        self.destination(queue, options)
    }

    /// celery/app/routes.py `Router.route`.
    fn merged(&self, task: &str, mut options: Map) -> Result<(Option<QueueDefinition>, Map)> {
        let own = self.take_queue(&mut options)?;
        let mut merged = Map::new();
        let Some(route) = self.table.options(task) else {
            merge(&mut merged, options);
            return Ok((Some(own.map_or_else(|| self.default_queue(), Ok)?), merged));
        };
        merge(&mut merged, route.clone());
        let routed = self.take_queue(&mut merged)?;
        merge(&mut merged, options);
        Ok((own.or(routed), merged))
    }

    /// celery/app/amqp.py `send_task_message`: messages to a direct exchange go to their queue by its name.
    fn destination(&self, queue: Option<QueueDefinition>, mut options: Map) -> Result<Route> {
        let exchange = take_text(&mut options, "exchange")?;
        let routing_key = take_text(&mut options, "routing_key")?.filter(|key| !key.is_empty());
        let queue = match queue {
            None if exchange.is_none() => Some(self.default_queue()?),
            queue => queue,
        };
        let own_type = take_text(&mut options, "exchange_type")?;
        let queues_type = queue.as_ref().and_then(|queue| queue.exchange_type.clone());
        let direct =
            |exchange_type: Option<String>| exchange_type.is_none_or(|exchange_type| exchange_type == "direct");
        let is_direct = direct(own_type.clone().or(queues_type));
        let delivery_mode = take_delivery_mode(&mut options)?.or_else(|| queue.as_ref()?.delivery_mode);
        let priority = take_priority(&mut options)?;
        let incomplete = exchange.as_ref().is_none_or(String::is_empty) || routing_key.is_none();
        let (exchange, routing_key) = match &queue {
            Some(queue) if incomplete && is_direct => (None, Some(queue.name.clone())),
            Some(queue) if exchange.is_none() => (queue.exchange.clone(), routing_key.or(queue.routing_key.clone())),
            _ => (exchange, routing_key),
        };
        Ok(Route {
            // For what is delayed the queue alone counts (celery/app/base.py `Celery.send_task`).
            is_direct: queue.as_ref().map_or_else(|| direct(own_type), super::is_direct),
            queue,
            exchange: exchange.unwrap_or_default(),
            routing_key: routing_key.unwrap_or_default(),
            delivery_mode: delivery_mode.unwrap_or(self.config.task_default_delivery_mode),
            priority,
            options,
        })
    }

    fn default_queue(&self) -> Result<QueueDefinition> {
        self.config.queue(&self.config.task_default_queue)
    }

    /// The queue that `options` name; an empty name is none (celery/app/routes.py `Router.expand_destination`).
    fn take_queue(&self, options: &mut Map) -> Result<Option<QueueDefinition>> {
        let name = take_text(options, "queue")?.filter(|name| !name.is_empty());
        name.map(|name| self.config.queue(&name)).transpose()
    }
}

fn take_text(options: &mut Map, name: &str) -> Result<Option<String>> {
    match options.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(unfit(name, "a name", &other)),
    }
}

fn take_delivery_mode(options: &mut Map) -> Result<Option<u8>> {
    match options.remove("delivery_mode") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Int(mode @ (1 | 2))) => Ok(Some(if mode == 1 { 1 } else { 2 })),
        Some(Value::String(mode)) if mode == "transient" => Ok(Some(1)),
        Some(Value::String(mode)) if mode == "persistent" => Ok(Some(2)),
        Some(other) => Err(unfit("delivery_mode", "2 (persistent) or 1 (transient)", &other)),
    }
}

fn take_priority(options: &mut Map) -> Result<Option<i64>> {
    match options.remove("priority") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Int(priority)) => Ok(Some(priority)),
        Some(other) => Err(unfit("priority", "a whole number", &other)),
    }
}

fn unfit(option: &str, expected: &str, value: &Value) -> Error {
    let message = format!("route a task: the option {option} is {expected}, not of type {}", value.type_name());
    Error::new(ErrorKind::Configuration, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{json, to_value};

    /// The file's form: `[configuration, task, options, answer]` (testdata/record.py).
    #[test]
    fn routes_are_celerys() {
        let rows = json::parse(include_bytes!("testdata/routes.json")).unwrap();
        let rows = rows.as_list().unwrap();
        assert!(rows.len() > 80);
        for row in rows {
            let [Value::String(toml), Value::String(task), Value::Map(options), expected] = row.as_list().unwrap()
            else {
                panic!("not a row: {row:?}")
            };
            let mut config = Config::default();
            config.merge_toml(toml, "test.toml").unwrap();
            let answer = Router::new(&config).unwrap().route(task, options.clone());
            assert_eq!(&shown(answer), expected, "{toml}\n{task} {options:?}");
        }
    }

    fn shown(answer: Result<Route>) -> Value {
        let route = match answer {
            Ok(route) => route,
            Err(error) => return Map::from([("error", error.to_string())]).into(),
        };
        assert_eq!(route.options, Map::new());
        let declare = route.queue.map(|queue| {
            let QueueDefinition { name, exchange, exchange_type, routing_key, queue_arguments, .. } = queue;
            let named: [Value; 4] = [name.into(), exchange.into(), exchange_type.into(), routing_key.into()];
            let arguments = to_value(&queue_arguments).unwrap();
            Value::List(named.into_iter().chain([arguments]).collect())
        });
        Value::Map(Map::from([
            ("exchange", Value::from(route.exchange)),
            ("routing_key", route.routing_key.into()),
            ("delivery_mode", route.delivery_mode.into()),
            ("priority", route.priority.into()),
            ("declare", declare.into()),
        ]))
    }

    #[test]
    fn what_is_not_for_routing_is_kept_and_what_is_null_is_not() {
        let mut config = Config::default();
        config.merge_toml("task_routes = { t = { serializer = 'yaml', expires = 5 } }", "test.toml").unwrap();
        let options = Map::from([("expires", Value::from(9)), ("eta", Value::Null), ("queue", "q".into())]);
        let route = Router::new(&config).unwrap().route("t", options).unwrap();
        assert_eq!(route.options, Map::from([("serializer", Value::from("yaml")), ("expires", 9.into())]));
    }

    #[test]
    fn options_of_the_wrong_type_are_refused() {
        let router = Router::new(&Config::default()).unwrap();
        for name in ["queue", "exchange", "routing_key", "exchange_type", "delivery_mode", "priority"] {
            let refused = router.route("t", Map::from([(name, 1.5)])).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Configuration, "{name}");
        }
    }
}
