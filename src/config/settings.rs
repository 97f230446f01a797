//! [`Config`]: the settings that this worker honours.

use std::time::Duration;

use toml::Value;

use super::fields::settings;
use super::options::{
    BROKER_OPTIONS, BrokerTransportOptions, RESULT_OPTIONS, RETRY_POLICY, ResultTransportOptions, RetryPolicy,
};
use super::parser::{
    BOOL, COUNT, Kind, LIMIT, MILLISECONDS, OPTIONAL_BOOL, OPTIONAL_SECONDS, OPTIONAL_TEXT, OPTIONAL_TEXTS, Parser,
    SECONDS, SECONDS_OR_OFF, TEXT, TEXTS, URLS,
};
use super::queues::{EXCHANGE_TYPE, QUEUES, QueueDefinition};

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
        /// How long a command to a Redis backend may take.
        redis_socket_timeout: Option<Duration> = Some(Duration::from_secs(120)), SECONDS_OR_OFF;
        /// How long connecting to it may take.
        redis_socket_connect_timeout: Option<Duration> = None, SECONDS_OR_OFF;
        /// TCP keepalive to it.
        redis_socket_keepalive: bool = false, BOOL;

        /// Acknowledge after the run, not before.
        task_acks_late: bool = false, BOOL;
        /// Whether a late-acknowledged task that failed is acknowledged; see [`Config::acks_on_failure`].
        task_acks_on_failure: Option<bool> = None, OPTIONAL_BOOL;
        /// Whether one that hit its hard limit is acknowledged; see [`Config::acks_on_timeout`].
        task_acks_on_timeout: Option<bool> = None, OPTIONAL_BOOL;
        /// What both are when they are unset.
        task_acks_on_failure_or_timeout: bool = true, BOOL;
        /// Whether a task is requeued when its worker is lost.
        task_reject_on_worker_lost: Option<bool> = None, OPTIONAL_BOOL;
        /// The queue of tasks that are not routed, and that a worker without `-Q` consumes.
        task_default_queue: String = "celery".to_owned(), NAME;
        /// The exchange of queues that name none; `None`: the default queue's name.
        task_default_exchange: Option<String> = None, OPTIONAL_TEXT;
        /// Its type.
        task_default_exchange_type: String = "direct".to_owned(), EXCHANGE_TYPE;
        /// The routing key of queues that name none; `None`: the default queue's name.
        task_default_routing_key: Option<String> = None, OPTIONAL_TEXT;
        /// The priority of messages that are sent without one.
        task_default_priority: Option<u8> = None, PRIORITY;
        /// 2: messages survive a restart of the broker; 1: they do not.
        task_default_delivery_mode: u8 = 2, DELIVERY_MODE;
        /// The queues of this project; empty: the default queue alone.
        task_queues: Vec<QueueDefinition> = Vec::new(), QUEUES;
        /// Whether `-Q` may name queues that `task_queues` does not have.
        task_create_missing_queues: bool = true, BOOL;
        /// Store no results.
        task_ignore_result: bool = false, BOOL;
        /// Store failures although results are ignored.
        task_store_errors_even_if_ignored: bool = false, BOOL;
        /// Store STARTED when a task starts.
        task_track_started: bool = false, BOOL;
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
        /// How many ETA tasks may be held beside those; `None`: no bound.
        worker_eta_task_limit: Option<u32> = None, LIMIT;
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
        /// Where log lines go when `-f` is not given; `None`: standard error.
        worker_logfile: Option<String> = None, OPTIONAL_TEXT;
        /// Where the process id is kept when `--pidfile` is not given.
        worker_pidfile: Option<String> = None, OPTIONAL_TEXT;

        /// The queue that keeps messages which Celery would throw away, with the reason in their headers; `None`: they
        /// are thrown away here too. Not one of Celery's settings.
        dead_letter_queue: Option<String> = Some("celeriac.dead-letters".to_owned()), OPTIONAL_TEXT;
    }
}

const NAME: Parser<String> =
    Parser::new(Kind::Text, "a name", |value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned));

const PRIORITY: Parser<Option<u8>> = Parser::new(Kind::Integer, "a priority from 0 to 255", |value| {
    value.as_integer().and_then(|number| u8::try_from(number).ok()).map(Some)
});

const DELIVERY_MODE: Parser<u8> =
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
const RATE: Parser<Option<String>> = Parser::new(Kind::Text, "a rate, such as \"10/s\", \"100/m\" or 5", |value| {
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
