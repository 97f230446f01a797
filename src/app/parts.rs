//! The parts of a worker or a producer that its settings name: broker, backend, queues, time zone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;

use crate::amqp_client::{AmqpConnectOptions, AmqpUrl, AmqpUrls, Failover, LoginMethod};
use crate::backend::{self, BackendOptions, CacheOptions, ResultBackend, RpcOptions};
use crate::config::{Config, QueueDefinition};
use crate::protocol::{Map, Value, to_value};
use crate::redis_client::{RedisUrl, UrlPolicy};
use crate::time::{Clock, zone};
use crate::tls::TlsOptions;
use crate::transport::{
    AmqpTransport, ExchangeType, FilesystemTransport, MemoryTransport, Queue, RedisOptions, RedisTransport, Transport,
};
use crate::{Error, ErrorKind, Result};

/// The broker URLs that the Redis transport takes.
const REDIS_SCHEMES: [&str; 5] = ["redis", "rediss", "redis+socket", "socket", "sentinel"];

/// The zone of the setting `timezone`; UTC without one, or local time with `enable_utc` off as well.
pub(crate) fn timezone(config: &Config) -> Result<TimeZone> {
    match &config.timezone {
        Some(name) => zone::named(name)
            .ok_or_else(|| Error::new(ErrorKind::Configuration, format!("timezone: there is no zone '{name}'"))),
        None if config.enable_utc => Ok(TimeZone::UTC),
        None => Ok(zone::local()),
    }
}

/// The backend that `result_backend` names.
pub(crate) fn backend(config: &Config) -> Result<Arc<dyn ResultBackend>> {
    let defaults = BackendOptions::default();
    let options = BackendOptions {
        result_expires: config.result_expires,
        result_failure_expires: config.result_failure_expires,
        serializer: config.result_serializer.clone(),
        compression: config.result_compression.clone(),
        global_keyprefix: config.result_backend_transport_options.global_keyprefix.clone(),
        socket_timeout: config.redis_socket_timeout,
        socket_connect_timeout: config.redis_socket_connect_timeout.unwrap_or(config.broker_connection_timeout),
        health_check_interval: config.redis_backend_health_check_interval.unwrap_or(defaults.health_check_interval),
        client_name: config.redis_client_name.clone(),
        chord_expires: config.result_chord_expires,
        chord_join_timeout: Some(config.result_chord_join_timeout),
        chord_ordered: config.result_backend_transport_options.result_chord_ordered,
        extended: config.result_extended,
        cache: CacheOptions {
            backend: config.cache_backend.clone(),
            connect_timeout: config.cache_backend_options.connect_timeout,
            timeout: config.cache_backend_options.timeout,
        },
        rpc: rpc(config)?,
    };
    backend::from_url(config.result_backend.as_deref(), &options)
}

/// Results go where the application's messages go (celery/app/base.py `Celery.connection`).
fn rpc(config: &Config) -> Result<RpcOptions> {
    Ok(RpcOptions {
        broker_url: config.write_url().to_owned(),
        failover: Failover::parse(&config.broker_failover_strategy)?,
        tls: use_ssl(config)?,
        connect: amqp_options(config, None)?,
        persistent: config.result_persistent.unwrap_or(false),
    })
}

/// The broker to consume from, which shows our connections under `name`.
///
/// # Errors
/// `Configuration`: a URL that cannot be read, or a broker that is not supported.
pub(crate) fn transport(config: &Config, name: Option<&str>, clock: Clock, seed: u64) -> Result<Arc<dyn Transport>> {
    transport_to(config.read_url(), config, name, clock, seed)
}

/// The broker to publish to.
///
/// # Errors
/// As [`transport`].
pub(crate) fn write_transport(config: &Config, clock: Clock, seed: u64) -> Result<Arc<dyn Transport>> {
    transport_to(config.write_url(), config, None, clock, seed)
}

fn transport_to(url: &str, config: &Config, name: Option<&str>, clock: Clock, seed: u64) -> Result<Arc<dyn Transport>> {
    let scheme = url.split_once(':').map_or(url, |(scheme, _)| scheme).trim().to_ascii_lowercase();
    let (scheme, rng) = (scheme.as_str(), fastrand::Rng::with_seed(seed));
    if scheme == "memory" {
        Ok(Arc::new(MemoryTransport::new()))
    } else if scheme == "filesystem" {
        Ok(Arc::new(FilesystemTransport::new((&config.broker_transport_options).into(), clock)))
    } else if REDIS_SCHEMES.contains(&scheme) {
        redis(url, config, clock, rng)
    } else if AmqpUrl::SCHEMES.contains(&scheme) {
        amqp(url, config, name, rng)
    } else {
        let known =
            "supported are amqp://, amqps://, redis://, rediss://, redis+socket://, filesystem:// and memory://";
        let problem = match url.contains("://") {
            true => format!("the broker {scheme}:// is not supported"),
            // Not shown: it may hold a password anywhere.
            false => "the broker's URL has no ://, as in redis://localhost:6379/0".to_owned(),
        };
        Err(Error::new(ErrorKind::Configuration, format!("{problem}; {known}")))
    }
}

fn redis(url: &str, config: &Config, clock: Clock, rng: fastrand::Rng) -> Result<Arc<dyn Transport>> {
    let mut options = RedisOptions::from(&config.broker_transport_options);
    if config.broker_transport_options.socket_connect_timeout.is_none() {
        options.socket_connect_timeout = config.broker_connection_timeout;
    }
    Ok(Arc::new(RedisTransport::new(redis_url(url, config)?, options, clock, rng)))
}

/// A Redis that is the broker, or is spoken to as the broker is.
///
/// # Errors
/// `Configuration`: a URL that cannot be read, or is not a Redis's.
pub(crate) fn redis_url(url: &str, config: &Config) -> Result<RedisUrl> {
    let url = RedisUrl::parse(url, UrlPolicy::Broker)?;
    Ok(match use_ssl(config)? {
        Some(tls) => url.with_tls(&tls),
        None => url,
    })
}

fn amqp(url: &str, config: &Config, name: Option<&str>, rng: fastrand::Rng) -> Result<Arc<dyn Transport>> {
    let urls = AmqpUrls::parse(url, Failover::parse(&config.broker_failover_strategy)?, rng)?;
    let urls = match use_ssl(config)? {
        Some(tls) => urls.with_tls(&tls),
        None => urls,
    };
    Ok(Arc::new(AmqpTransport::new(urls, amqp_options(config, name)?)))
}

/// How to connect to a RabbitMQ, which shows the connection under `name` unless the settings have another.
fn amqp_options(config: &Config, name: Option<&str>) -> Result<AmqpConnectOptions> {
    let own_name = config.broker_transport_options.client_properties.get("connection_name");
    let own_name = own_name.and_then(toml::Value::as_str);
    Ok(AmqpConnectOptions {
        connect_timeout: config.broker_connection_timeout,
        heartbeat: config.broker_heartbeat.unwrap_or_default(),
        login_method: config.broker_login_method.as_deref().map_or(Ok(LoginMethod::Plain), LoginMethod::parse)?,
        connection_name: own_name.or(name).map(str::to_owned),
    })
}

/// `broker_use_ssl`, where it is on.
fn use_ssl(config: &Config) -> Result<Option<TlsOptions>> {
    let options = config.broker_use_ssl.as_ref();
    let read = |options: &BTreeMap<String, String>| {
        TlsOptions::from_pairs(options.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    };
    options.map(read).transpose()
}

/// A queue of which every field is filled in.
pub(crate) fn queue(definition: &QueueDefinition) -> Queue {
    let mut queue = Queue::direct(definition.name.as_str());
    if let Some(exchange) = &definition.exchange {
        queue.exchange.clone_from(exchange);
    }
    if let Some(routing_key) = &definition.routing_key {
        queue.routing_key.clone_from(routing_key);
    }
    let exchange_type = definition.exchange_type.as_deref().and_then(ExchangeType::named);
    queue.exchange_type = exchange_type.unwrap_or(ExchangeType::Direct);
    // A TOML table has a form in every serializer.
    let table = |table: &toml::Table| to_value(table).ok().and_then(Value::into_map).unwrap_or_default();
    queue.arguments = table(&definition.queue_arguments);
    queue.consumer_arguments = table(&definition.consumer_arguments);
    queue.binding_arguments = table(&definition.binding_arguments);
    queue.durable = definition.durable.unwrap_or(true);
    queue.exclusive = definition.exclusive.unwrap_or(false);
    // kombu/entity.py `Queue.__init__`: what is one connection's alone goes with it.
    queue.auto_delete = definition.auto_delete.unwrap_or(queue.exclusive);
    queue.no_ack = definition.no_ack.unwrap_or(false);
    queue
}

/// A node's own queue on the exchange of all mailboxes (kombu/pidbox.py `Mailbox.get_queue`).
pub(crate) fn control_queue(hostname: &str, config: &Config) -> Queue {
    let exchange = &config.control_exchange;
    let times = [("x-expires", config.control_queue_expires), ("x-message-ttl", config.control_queue_ttl)];
    Queue {
        exchange: format!("{exchange}.pidbox"),
        exchange_type: ExchangeType::Fanout,
        exchange_durable: false,
        routing_key: String::new(),
        arguments: milliseconds(times),
        durable: config.control_queue_durable,
        exclusive: config.control_queue_exclusive,
        auto_delete: !config.control_queue_durable,
        ..Queue::direct(format!("{hostname}.{exchange}.pidbox"))
    }
}

/// A queue of one's own for events of all kinds (celery/events/receiver.py `EventReceiver.__init__`).
pub(crate) fn event_queue(id: &str, config: &Config) -> Queue {
    let times = [("x-expires", config.event_queue_expires), ("x-message-ttl", config.event_queue_ttl)];
    Queue {
        exchange: config.event_exchange.clone(),
        exchange_type: ExchangeType::Topic,
        routing_key: "#".to_owned(),
        arguments: milliseconds(times),
        durable: config.event_queue_durable,
        exclusive: config.event_queue_exclusive,
        auto_delete: !config.event_queue_durable,
        ..Queue::direct(format!("{}.{id}", config.event_queue_prefix))
    }
}

/// The times that are set, as arguments of a queue.
fn milliseconds<const N: usize>(times: [(&str, Option<Duration>); N]) -> Map {
    let set =
        times.into_iter().filter_map(|(name, time)| Some((name, i64::try_from(time?.as_millis()).unwrap_or(i64::MAX))));
    set.collect()
}
