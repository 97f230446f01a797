//! [`Config`]: the settings that this worker honours.

use std::collections::BTreeMap;
use std::time::Duration;

use toml::Value;

use super::annotations::{ANNOTATIONS, Annotation};
use super::fields::settings;
use super::options::{
    BROKER_OPTIONS, BrokerTransportOptions, CACHE_OPTIONS, CacheBackendOptions, RESULT_OPTIONS, RETRY_POLICY,
    ResultTransportOptions, RetryPolicy,
};
use super::parser::{
    BOOL, COUNT, Kind, LIMIT, MILLISECONDS, OPTIONAL_BOOL, OPTIONAL_SECONDS, OPTIONAL_TEXT, OPTIONAL_TEXTS, Parser,
    SECONDS, SECONDS_OR_OFF, TEXT, TEXTS, URLS,
};
use super::periodic::{PERIODIC_TASKS, PeriodicTask};
use super::queues::{EXCHANGE_TYPE, OPTIONAL_EXCHANGE_TYPE, QUEUE_TYPE, QUEUES, QueueDefinition};
use super::routes::{ROUTES, RouteMap};

settings! {
    /// The settings under Celery's lower-case names, with Celery's defaults (celery/app/defaults.py `NAMESPACES`).
    ///
    /// ```
    /// use celeriac::config::Config;
    ///
    /// let config = Config { task_acks_late: true, ..Config::default() };
    /// assert_eq!(config.task_default_queue, "celery");
    /// ```
    pub struct Config {
        /// The serializers that may be decoded: names or content types.
        accept_content: Vec<String> = vec!["json".to_owned()], TEXTS;
        /// The same for results; `None`: as `accept_content`.
        result_accept_content: Option<Vec<String>> = None, OPTIONAL_TEXTS;
        /// Whether times are UTC; if not, an eta that is sent is naive and local.
        enable_utc: bool = true, BOOL;
        /// The name of the time zone in which times are shown; `None`: UTC.
        timezone: Option<String> = None, OPTIONAL_TEXT;

        /// What beat sends, by name; a Python app has its own.
        beat_schedule: Vec<PeriodicTask> = Vec::new(), PERIODIC_TASKS;
        /// Where beat keeps what ran last; `-S`.
        beat_scheduler: String = "celery.beat:PersistentScheduler".to_owned(), TEXT;
        /// The file in which it does, where it is one; `-s`.
        beat_schedule_filename: String = "celerybeat-schedule".to_owned(), TEXT;
        /// How long beat sleeps at most; zero: as long as its store allows.
        beat_max_loop_interval: Duration = Duration::ZERO, SECONDS;
        /// How long ago a crontab's run may be that is made up for; `None`: as long as it may be.
        beat_cron_starting_deadline: Option<Duration> = None, OPTIONAL_SECONDS;
        /// The file that beat logs to; `None`: standard error.
        beat_logfile: Option<String> = None, OPTIONAL_TEXT;
        /// The file with the process id of beat; `None`: none.
        beat_pidfile: Option<String> = None, OPTIONAL_TEXT;

        /// The broker; several, separated by `;`, are tried in turn.
        broker_url: Option<String> = None, URLS;
        /// The broker to consume from, when it is another.
        broker_read_url: Option<String> = None, URLS;
        /// The broker to publish to, when it is another.
        broker_write_url: Option<String> = None, URLS;
        /// How the transport works.
        broker_transport_options: BrokerTransportOptions = BrokerTransportOptions::default(), BROKER_OPTIONS;
        /// Whether a lost connection is opened again.
        broker_connection_retry: bool = true, BOOL;
        /// The same for the first connection; `None`: as `broker_connection_retry`.
        broker_connection_retry_on_startup: Option<bool> = None, OPTIONAL_BOOL;
        /// How often connecting is tried again; `None`: for ever.
        broker_connection_max_retries: Option<u32> = Some(100), LIMIT;
        /// How long one try to connect may take.
        broker_connection_timeout: Duration = Duration::from_secs(4), SECONDS;
        /// How often an AMQP broker and we say something at least; `None`: as often as the broker asks for.
        broker_heartbeat: Option<Duration> = Some(Duration::from_secs(120)), SECONDS_OR_OFF;
        /// Which of several brokers is tried next: `round-robin` or `shuffle`.
        broker_failover_strategy: String = "round-robin".to_owned(), FAILOVER;
        /// The type of the queues in which RabbitMQ keeps messages until their time: `quorum` or `classic`.
        broker_native_delayed_delivery_queue_type: String = "quorum".to_owned(), QUEUE_TYPE;
        /// After how long RabbitMQ closes a channel for a message that is not acknowledged, its `consumer_timeout`; what
        /// comes near is warned about. `None`: never. Not one of Celery's settings.
        broker_consumer_timeout: Option<Duration> = Some(Duration::from_secs(1800)), SECONDS_OR_OFF;
        /// How to log in to an AMQP broker: `PLAIN`, `AMQPLAIN` or `EXTERNAL`; `None`: `PLAIN`.
        broker_login_method: Option<String> = None, OPTIONAL_TEXT;
        /// Whether the connection to the broker is encrypted, and with which options (`ca_certs`, `certfile`, `keyfile`,
        /// `cert_reqs`, `server_hostname`); `None`: as its URL says.
        broker_use_ssl: Option<BTreeMap<String, String>> = None, USE_SSL;

        /// Where results go: a URL, `rpc://`, `disabled://`; `None`: nowhere.
        result_backend: Option<String> = None, OPTIONAL_TEXT;
        /// How the backend works.
        result_backend_transport_options: ResultTransportOptions = ResultTransportOptions::default(), RESULT_OPTIONS;
        /// Whether a backend that fails is tried again at all.
        result_backend_always_retry: bool = false, BOOL;
        /// How often; `None`: for ever.
        result_backend_max_retries: Option<u32> = None, LIMIT;
        /// The first pause between tries.
        result_backend_base_sleep_between_retries_ms: Duration = Duration::from_millis(10), MILLISECONDS;
        /// The longest pause between tries.
        result_backend_max_sleep_between_retries_ms: Duration = Duration::from_secs(10), MILLISECONDS;
        /// How long results are kept; `None`: for ever.
        result_expires: Option<Duration> = Some(Duration::from_secs(86_400)), SECONDS_OR_OFF;
        /// The same for failures; `None`: as `result_expires`, zero: for ever.
        result_failure_expires: Option<Duration> = None, OPTIONAL_SECONDS;
        /// Whether name, arguments, worker, retries and queue are stored with the result.
        result_extended: bool = false, BOOL;
        /// How results are encoded.
        result_serializer: String = "json".to_owned(), TEXT;
        /// How results are compressed.
        result_compression: Option<String> = None, OPTIONAL_TEXT;
        /// Whether results that `rpc://` sends survive a restart of the broker; `None`: no.
        result_persistent: Option<bool> = None, OPTIONAL_BOOL;
        /// How long the keys of a chord that is not finished are kept; `None`: as `result_expires`, zero: for ever.
        result_chord_expires: Option<Duration> = None, OPTIONAL_SECONDS;
        /// How long a chord waits for the results of its members when they have all reported.
        result_chord_join_timeout: Duration = Duration::from_secs(3), SECONDS;
        /// How often `celery.chord_unlock` looks, where the backend cannot count.
        result_chord_retry_interval: Duration = Duration::from_secs(1), SECONDS;
        /// Where the results are when `result_backend` is only `cache`: `memcached://host:11211/`.
        cache_backend: Option<String> = None, OPTIONAL_TEXT;
        /// How long a memcached is waited for.
        cache_backend_options: CacheBackendOptions = CacheBackendOptions::default(), CACHE_OPTIONS;
        /// How long a command to a Redis backend may take.
        redis_socket_timeout: Option<Duration> = Some(Duration::from_secs(120)), SECONDS_OR_OFF;
        /// How long connecting to it may take.
        redis_socket_connect_timeout: Option<Duration> = None, SECONDS_OR_OFF;
        /// TCP keepalive to it.
        redis_socket_keepalive: bool = false, BOOL;
        /// After how long an idle connection to it is proved to be alive; `None`: 25 s.
        redis_backend_health_check_interval: Option<Duration> = None, SECONDS_OR_OFF;
        /// The name that connections to it are given.
        redis_client_name: Option<String> = None, OPTIONAL_TEXT;

        /// What the names of the remote control's exchanges and queues begin with.
        control_exchange: String = "celery".to_owned(), NAME;
        /// Whether those queues survive a restart of the broker.
        control_queue_durable: bool = false, BOOL;
        /// Whether they are their connection's alone.
        control_queue_exclusive: bool = true, BOOL;
        /// After how long without a consumer they are deleted.
        control_queue_expires: Option<Duration> = Some(Duration::from_secs(10)), SECONDS_OR_OFF;
        /// How long a command waits in them.
        control_queue_ttl: Option<Duration> = Some(Duration::from_secs(300)), SECONDS_OR_OFF;
        /// The exchange of events.
        event_exchange: String = "celeryev".to_owned(), NAME;
        /// What the names of the queues of those who receive events begin with.
        event_queue_prefix: String = "celeryev".to_owned(), NAME;
        /// Whether those queues survive a restart of the broker.
        event_queue_durable: bool = false, BOOL;
        /// Whether they are their connection's alone.
        event_queue_exclusive: bool = true, BOOL;
        /// After how long without a consumer they are deleted.
        event_queue_expires: Option<Duration> = Some(Duration::from_secs(60)), SECONDS_OR_OFF;
        /// How long an event waits in them.
        event_queue_ttl: Option<Duration> = Some(Duration::from_secs(5)), SECONDS_OR_OFF;
        /// How events are encoded.
        event_serializer: String = "json".to_owned(), TEXT;

        /// Acknowledge after the run, not before.
        task_acks_late: bool = false, BOOL;
        /// Whether a late-acknowledged task that failed is acknowledged; `None`: as `task_acks_on_failure_or_timeout`.
        task_acks_on_failure: Option<bool> = None, OPTIONAL_BOOL;
        /// Whether one that hit its hard limit is acknowledged; `None`: as `task_acks_on_failure_or_timeout`.
        task_acks_on_timeout: Option<bool> = None, OPTIONAL_BOOL;
        /// What both are when neither the setting nor the task says anything.
        task_acks_on_failure_or_timeout: bool = true, BOOL;
        /// Whether a task is requeued when its worker is lost.
        task_reject_on_worker_lost: Option<bool> = None, OPTIONAL_BOOL;
        /// Whether it is tried again instead.
        task_retry_on_worker_lost: bool = false, BOOL;
        /// What tasks are given over their own options, by name and by `*`.
        task_annotations: Vec<Annotation> = Vec::new(), ANNOTATIONS;
        /// Where tasks go by their names: the first of the maps that knows a name decides.
        task_routes: Vec<RouteMap> = Vec::<RouteMap>::new(), ROUTES;
        /// The queue of tasks that are not routed, and that a worker without `-Q` consumes.
        task_default_queue: String = "celery".to_owned(), NAME;
        /// The exchange of queues that name none; `None`: the default queue's name.
        task_default_exchange: Option<String> = None, OPTIONAL_TEXT;
        /// Its type.
        task_default_exchange_type: String = "direct".to_owned(), EXCHANGE_TYPE;
        /// The routing key of queues that name none; `None`: the default queue's name.
        task_default_routing_key: Option<String> = None, OPTIONAL_TEXT;
        /// The type of the default queue when `task_queues` names none: `classic` or `quorum`.
        task_default_queue_type: String = "classic".to_owned(), QUEUE_TYPE;
        /// The priority of messages that are sent without one.
        task_default_priority: Option<u8> = None, PRIORITY;
        /// Whether a task that a task sends has its priority, if no other is given.
        task_inherit_parent_priority: bool = false, BOOL;
        /// The `x-max-priority` of queues that name none.
        task_queue_max_priority: Option<u8> = None, PRIORITY;
        /// 2: messages survive a restart of the broker; 1: they do not.
        task_default_delivery_mode: u8 = 2, DELIVERY_MODE;
        /// The queues of this project; empty: the default queue alone.
        task_queues: Vec<QueueDefinition> = Vec::new(), QUEUES;
        /// Whether `-Q` and routes may name queues that `task_queues` does not have.
        task_create_missing_queues: bool = true, BOOL;
        /// The type of such queues: `classic` or `quorum`.
        task_create_missing_queue_type: String = "classic".to_owned(), QUEUE_TYPE;
        /// The type of their exchanges; `None`: direct.
        task_create_missing_queue_exchange_type: Option<String> = None, OPTIONAL_EXCHANGE_TYPE;
        /// Store no results.
        task_ignore_result: bool = false, BOOL;
        /// Store failures although results are ignored.
        task_store_errors_even_if_ignored: bool = false, BOOL;
        /// Store STARTED when a task starts.
        task_track_started: bool = false, BOOL;
        /// Whether a chord's `link_error` is given to the members of its header, too.
        task_allow_error_cb_on_chord_header: bool = false, BOOL;
        /// How deep arguments are shown in logs and events.
        task_repr_maxlevels: u32 = 3, COUNT;
        /// Whether a producer sends the event `task-sent`.
        task_send_sent_event: bool = false, BOOL;
        /// The version of the messages that are sent.
        task_protocol: u8 = 2, PROTOCOL;
        /// How the arguments of messages that are sent are encoded.
        task_serializer: String = "json".to_owned(), TEXT;
        /// How messages that are sent are compressed.
        task_compression: Option<String> = None, OPTIONAL_TEXT;
        /// After how long a task is asked to end.
        task_soft_time_limit: Option<Duration> = None, SECONDS_OR_OFF;
        /// After how long a task is ended.
        task_time_limit: Option<Duration> = None, SECONDS_OR_OFF;
        /// How often tasks may start that say nothing themselves: `"10/m"`.
        task_default_rate_limit: Option<String> = None, RATE;
        /// Whether publishing is tried again when the connection is lost.
        task_publish_retry: bool = true, BOOL;
        /// How.
        task_publish_retry_policy: RetryPolicy = RetryPolicy::default(), RETRY_POLICY;

        /// How many tasks run at a time; `None` (and `"auto"`): as many as suit the pool.
        worker_concurrency: Option<u32> = None, CONCURRENCY;
        /// How many messages are reserved for each task that runs; 0: no bound.
        worker_prefetch_multiplier: u32 = 4, COUNT;
        /// How wide the window of reserved messages may grow for those that are held for their ETA; `None`: no bound.
        worker_eta_task_limit: Option<u32> = None, LIMIT;
        /// Take no message before there is room to run it.
        worker_disable_prefetch: bool = false, BOOL;
        /// After a lost connection, reserve fewer messages until what ran is done.
        worker_enable_prefetch_count_reduction: bool = true, BOOL;
        /// When the connection is lost, end the late-acknowledged tasks that run.
        worker_cancel_long_running_tasks_on_connection_loss: bool = false, BOOL;
        /// Do not run a redelivered, late-acknowledged task whose result is a SUCCESS already.
        worker_deduplicate_successful_tasks: bool = false, BOOL;
        /// Consume a queue of the worker's own as well.
        worker_direct: bool = false, BOOL;
        /// Answer remote control commands.
        worker_enable_remote_control: bool = true, BOOL;
        /// Send events about tasks.
        worker_send_task_events: bool = false, BOOL;
        /// The file that keeps the revoked ids; `None`: they are forgotten when the worker ends.
        worker_state_db: Option<String> = None, OPTIONAL_TEXT;
        /// How many revoked ids are remembered: `CELERY_WORKER_REVOKES_MAX`.
        worker_revokes_max: u32 = 50_000, COUNT;
        /// For how long: `CELERY_WORKER_REVOKE_EXPIRES`.
        worker_revoke_expires: Duration = Duration::from_secs(10_800), SECONDS;
        /// How many ids of successful tasks are remembered: `CELERY_WORKER_SUCCESSFUL_MAX`.
        worker_successful_max: u32 = 1_000, COUNT;
        /// For how long: `CELERY_WORKER_SUCCESSFUL_EXPIRES`.
        worker_successful_expires: Duration = Duration::from_secs(10_800), SECONDS;
        /// Ignore all rate limits.
        worker_disable_rate_limits: bool = false, BOOL;
        /// How long a cold shutdown waits for running tasks first.
        worker_soft_shutdown_timeout: Duration = Duration::ZERO, SECONDS;
        /// Wait although no task runs.
        worker_enable_soft_shutdown_on_idle: bool = false, BOOL;
        /// The form of log lines, with Python's `%(…)s` fields.
        worker_log_format: String = "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s".to_owned(), TEXT;
        /// The form of `%(asctime)s`, for strftime; `None`: `2026-11-22 16:08:09,738`.
        worker_log_datefmt: Option<String> = None, OPTIONAL_TEXT;
        /// Whether log lines are coloured; `None`: on a terminal.
        worker_log_color: Option<bool> = None, OPTIONAL_BOOL;
        /// Whether a log line is a text or a JSON object. Not one of Celery's settings.
        worker_log_lines: LogLines = LogLines::Text, LOG_LINES;
        /// Where log lines go when `-f` is not given; `None`: standard error.
        worker_logfile: Option<String> = None, OPTIONAL_TEXT;
        /// Where the process id is kept when `--pidfile` is not given.
        worker_pidfile: Option<String> = None, OPTIONAL_TEXT;

        /// The queue that keeps messages which Celery would throw away, with the reason in their headers; `None`: they
        /// are thrown away here too. Not one of Celery's settings.
        dead_letter_queue: Option<String> = Some("celeriac.dead-letters".to_owned()), OPTIONAL_TEXT;
        /// Within how long another of several beats on one schedule sends what a killed one would have sent. Not one of
        /// Celery's settings.
        beat_lease: Duration = Duration::from_secs(10), SECONDS;
        /// The Redis that they share; `None`: the broker. Not one of Celery's settings.
        beat_redis_url: Option<String> = None, OPTIONAL_TEXT;
        /// What their keys there begin with, behind the broker's `global_keyprefix`; each schedule has its own. Not one of
        /// Celery's settings.
        beat_redis_key_prefix: String = "celeriac-beat:".to_owned(), TEXT;
        /// What becomes of a message whose task this worker does not know. Not one of Celery's settings.
        unknown_tasks: UnknownTasks = UnknownTasks::Fail, UNKNOWN_TASKS;
        /// Where the worker shows metrics and probes over HTTP, as `host:port`; `None`: nowhere. Not one of Celery's settings.
        worker_http: Option<String> = None, OPTIONAL_TEXT;
        /// How far away a task's ETA may be for it to be held here: what is to run later is handed to RabbitMQ, to be
        /// delivered again at its time; `None`: everything is held, as in Celery. Not one of Celery's settings.
        worker_park_eta_after: Option<Duration> = None, SECONDS_OR_OFF;
        /// How many workers a message may have killed before it is failed with `WorkerLostError` and kept as a dead
        /// letter; `None`: any number, as in Celery. Not one of Celery's settings.
        worker_lost_limit: Option<u32> = None, LIMIT;
        /// How many Rust tasks run at a time in a worker that runs Python tasks too, whose processes are what
        /// `worker_concurrency` counts; `None`: as many as in a worker of Rust tasks alone. Not one of Celery's settings.
        worker_rust_concurrency: Option<u32> = None, CONCURRENCY;
    }
}

/// What a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLines {
    /// What `worker_log_format` says.
    #[default]
    Text,
    /// A JSON object.
    Json,
}

impl LogLines {
    /// By its name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "text" => Some(LogLines::Text),
            "json" => Some(LogLines::Json),
            _ => None,
        }
    }
}

const LOG_LINES: Parser<LogLines> =
    Parser::new(Kind::Text, "\"text\" or \"json\"", |value| LogLines::named(value.as_str()?));

/// What becomes of a message whose task a worker does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnknownTasks {
    /// As in Celery: FAILURE with `NotRegistered`; and the message is a dead letter.
    #[default]
    Fail,
    /// It goes back to its queue after a while, for a worker that knows the task.
    HandBack,
}

const UNKNOWN_TASKS: Parser<UnknownTasks> =
    Parser::new(Kind::Text, "\"fail\" or \"hand-back\"", |value| match value.as_str()? {
        "fail" => Some(UnknownTasks::Fail),
        "hand-back" => Some(UnknownTasks::HandBack),
        _ => None,
    });

const FAILOVER: Parser<String> = Parser::new(Kind::Text, "round-robin or shuffle", |value| {
    value.as_str().filter(|text| ["round-robin", "shuffle"].contains(text)).map(str::to_owned)
});

/// `true` is encryption without options.
const USE_SSL: Parser<Option<BTreeMap<String, String>>> =
    Parser::new(Kind::Bool, "true, false or a table of TLS options", |value| match value {
        Value::Boolean(false) => Some(None),
        Value::Boolean(true) => Some(Some(BTreeMap::new())),
        Value::Table(table) => table.iter().map(option).collect::<Option<_>>().map(Some),
        _ => None,
    });

/// Python's constants of `cert_reqs` are numbers.
fn option((name, value): (&String, &Value)) -> Option<(String, String)> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Boolean(truth) => truth.to_string(),
        _ => return None,
    };
    Some((name.clone(), text))
}

const PROTOCOL: Parser<u8> = Parser::new(Kind::Integer, "2 (or 1)", |value| match value.as_integer()? {
    number @ (1 | 2) => u8::try_from(number).ok(),
    _ => None,
});

const NAME: Parser<String> =
    Parser::new(Kind::Text, "a name", |value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned));

pub(super) const PRIORITY: Parser<Option<u8>> = Parser::new(Kind::Integer, "a priority from 0 to 255", |value| {
    value.as_integer().and_then(|number| u8::try_from(number).ok()).map(Some)
});

pub(super) const DELIVERY_MODE: Parser<u8> =
    Parser::new(Kind::Text, "2 (persistent) or 1 (transient)", |value| match (value.as_integer(), value.as_str()) {
        (Some(2), _) | (_, Some("2" | "persistent")) => Some(2),
        (Some(1), _) | (_, Some("1" | "transient")) => Some(1),
        _ => None,
    });

const CONCURRENCY: Parser<Option<u32>> =
    Parser::new(Kind::Text, "a whole number or \"auto\"", |value| match (value.as_integer(), value.as_str()) {
        (Some(number), _) => u32::try_from(number).ok().map(|number| (number > 0).then_some(number)),
        (_, Some("auto")) => Some(None),
        (_, Some(text)) => text.parse().ok().map(|number: u32| (number > 0).then_some(number)),
        _ => None,
    });

/// A rate limit (celery/utils/time.py `rate`): a number for each second, or `n/s`, `n/m`, `n/h`.
pub(super) const RATE: Parser<Option<String>> =
    Parser::new(Kind::Text, "a rate, such as \"10/s\", \"100/m\" or 5", |value| {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Integer(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            _ => return None,
        };
        let (number, unit) = text.split_once('/').unwrap_or((&text, "s"));
        let good =
            number.parse::<f64>().is_ok_and(|rate| rate.is_finite() && rate >= 0.0) && ["s", "m", "h"].contains(&unit);
        (good || text.is_empty()).then(|| good.then_some(text))
    });
