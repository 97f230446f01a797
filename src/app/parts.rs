//! The parts of a worker or a producer that its settings name: broker, backend, queues, time zone.

use std::sync::Arc;

use jiff::tz::TimeZone;

use crate::backend::{self, BackendOptions, ResultBackend};
use crate::config::{Config, QueueDefinition};
use crate::protocol::{Value, to_value};
use crate::redis_client::{RedisUrl, UrlPolicy};
use crate::time::Clock;
use crate::transport::{ExchangeType, MemoryTransport, Queue, RedisOptions, RedisTransport, Transport};
use crate::{Error, ErrorKind, Result};

/// The broker URLs that the Redis transport takes.
const REDIS_SCHEMES: [&str; 5] = ["redis", "rediss", "redis+socket", "socket", "sentinel"];

/// The zone of the setting `timezone`; UTC without one, or local time with `enable_utc` off as well.
pub(crate) fn timezone(config: &Config) -> Result<TimeZone> {
    match &config.timezone {
        Some(name) => TimeZone::get(name).map_err(|error| {
            Error::new(ErrorKind::Configuration, format!("timezone: there is no zone '{name}'")).with_source(error)
        }),
        None if config.enable_utc => Ok(TimeZone::UTC),
        None => Ok(TimeZone::system()),
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
    };
    backend::from_url(config.result_backend.as_deref(), &options)
}

/// The broker to consume from.
///
/// # Errors
/// `Configuration`: a URL that cannot be read, or a broker that is not supported.
pub(crate) fn transport(config: &Config, clock: Clock, seed: u64) -> Result<Arc<dyn Transport>> {
    transport_to(config.read_url(), config, clock, seed)
}

/// The broker to publish to.
///
/// # Errors
/// As [`transport`].
pub(crate) fn write_transport(config: &Config, clock: Clock, seed: u64) -> Result<Arc<dyn Transport>> {
    transport_to(config.write_url(), config, clock, seed)
}

fn transport_to(url: &str, config: &Config, clock: Clock, seed: u64) -> Result<Arc<dyn Transport>> {
    let scheme = url.split_once(':').map_or(url, |(scheme, _)| scheme);
    if scheme == "memory" {
        return Ok(Arc::new(MemoryTransport::new()));
    }
    if !REDIS_SCHEMES.contains(&scheme) {
        let why = match config.broker_url {
            None => {
                "no broker is configured, and Celery's default is amqp://: set CELERY_BROKER_URL or broker_url".into()
            }
            Some(_) => format!("the broker {scheme}:// is not supported"),
        };
        let known = "supported are redis://, rediss://, redis+socket:// and memory://";
        return Err(Error::new(ErrorKind::Configuration, format!("{why}; {known}")));
    }
    let mut options = RedisOptions::from(&config.broker_transport_options);
    if config.broker_transport_options.socket_connect_timeout.is_none() {
        options.socket_connect_timeout = config.broker_connection_timeout;
    }
    let url = RedisUrl::parse(url, UrlPolicy::Broker)?;
    Ok(Arc::new(RedisTransport::new(url, options, clock, fastrand::Rng::with_seed(seed))))
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
    queue.exchange_type = match definition.exchange_type.as_deref() {
        Some("topic") => ExchangeType::Topic,
        Some("fanout") => ExchangeType::Fanout,
        _ => ExchangeType::Direct,
    };
    // A TOML table has a form in every serializer.
    let arguments = to_value(&definition.queue_arguments).ok().and_then(Value::into_map);
    queue.arguments = arguments.unwrap_or_default();
    queue
}
