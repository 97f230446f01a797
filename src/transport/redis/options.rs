//! [`RedisOptions`]: the names of `broker_transport_options`, with Kombu's defaults.

use std::time::Duration;

use crate::config::BrokerTransportOptions;
use crate::transport::QueueOrder;

/// How the Redis transport works (kombu/transport/redis.py `Channel.from_transport_options`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisOptions {
    /// How long a reserved message may stay unsettled, and its lease unrenewed, before others take it back.
    pub visibility_timeout: Duration,
    /// The hash of reserved messages.
    pub unacked_key: String,
    /// The sorted set of when they were reserved.
    pub unacked_index_key: String,
    /// The lock of those who restore others' messages.
    pub unacked_mutex_key: String,
    /// How long that lock is held at most.
    pub unacked_mutex_expire: Duration,
    /// How many messages one restore brings back at most.
    pub unacked_restore_limit: Option<u32>,
    /// With the throttle, how often others' messages are looked after: interval × throttle.
    pub unacked_restore_interval: Duration,
    /// See `unacked_restore_interval`.
    pub unacked_restore_throttle: u32,
    /// The priorities that have a list of their own; the first is the queue itself.
    pub priority_steps: Vec<u8>,
    /// What stands between a queue's name and its priority.
    pub sep: String,
    /// `queue_order_strategy`.
    pub queue_order: QueueOrder,
    /// What every key begins with; no separator is added.
    pub global_keyprefix: String,
    /// What the names of fanout channels begin with; `{db}` stands for the database's number.
    pub fanout_prefix: String,
    /// Whether fanout channels carry routing keys.
    pub fanout_patterns: bool,
    /// After how long of silence it is proved that a subscription is alive; zero: never.
    pub health_check_interval: Duration,
    /// How long an answer may take before the connection counts as lost.
    pub socket_timeout: Duration,
    /// How long connecting may take.
    pub socket_connect_timeout: Duration,
    /// The name given with `CLIENT SETNAME`.
    pub client_name: Option<String>,
    /// How a consumer learns of messages while its queues are empty.
    pub waiting: Waiting,
}

/// How a consumer learns of messages while its queues are empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Waiting {
    /// By tracking where the server has it, else blocking.
    #[default]
    Automatic,
    /// `CLIENT TRACKING`: the server says when an empty queue changes. Nothing is popped while waiting. Redis 6 and later.
    Tracking,
    /// `BRPOP`, as Kombu does. A message that wakes an idle consumer is popped before it is registered: if the process
    /// dies, or the connection breaks, between the two, that one message is lost.
    Blocking,
    /// Asking again after a pause of up to a fifth of a second. Loses nothing, and is the slowest.
    Polling,
}

impl Default for RedisOptions {
    fn default() -> Self {
        RedisOptions {
            visibility_timeout: Duration::from_secs(3600),
            unacked_key: "unacked".to_owned(),
            unacked_index_key: "unacked_index".to_owned(),
            unacked_mutex_key: "unacked_mutex".to_owned(),
            unacked_mutex_expire: Duration::from_secs(300),
            unacked_restore_limit: None,
            unacked_restore_interval: Duration::from_secs(10),
            unacked_restore_throttle: 10,
            priority_steps: vec![0, 3, 6, 9],
            sep: "\x06\x16".to_owned(),
            queue_order: QueueOrder::RoundRobin,
            global_keyprefix: String::new(),
            fanout_prefix: "/{db}.".to_owned(),
            fanout_patterns: true,
            health_check_interval: Duration::from_secs(25),
            socket_timeout: Duration::from_secs(15),
            socket_connect_timeout: Duration::from_secs(4),
            client_name: None,
            waiting: Waiting::Automatic,
        }
    }
}

impl From<&BrokerTransportOptions> for RedisOptions {
    fn from(settings: &BrokerTransportOptions) -> Self {
        let default = RedisOptions::default();
        RedisOptions {
            visibility_timeout: settings.visibility_timeout,
            unacked_key: settings.unacked_key.clone(),
            unacked_index_key: settings.unacked_index_key.clone(),
            unacked_mutex_key: settings.unacked_mutex_key.clone(),
            unacked_mutex_expire: settings.unacked_mutex_expire,
            unacked_restore_limit: settings.unacked_restore_limit,
            unacked_restore_interval: settings.unacked_restore_interval,
            unacked_restore_throttle: settings.unacked_restore_throttle,
            priority_steps: settings.priority_steps.clone(),
            sep: settings.sep.clone(),
            queue_order: match settings.queue_order_strategy.as_str() {
                "priority" => QueueOrder::Priority,
                "sorted" => QueueOrder::Sorted,
                _ => QueueOrder::RoundRobin,
            },
            global_keyprefix: settings.global_keyprefix.clone(),
            fanout_prefix: settings.fanout_prefix.clone(),
            fanout_patterns: settings.fanout_patterns,
            health_check_interval: settings.health_check_interval,
            socket_timeout: settings.socket_timeout.unwrap_or(default.socket_timeout),
            socket_connect_timeout: settings.socket_connect_timeout.unwrap_or(default.socket_connect_timeout),
            client_name: settings.client_name.clone(),
            waiting: default.waiting,
        }
    }
}
