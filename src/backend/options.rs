//! [`BackendOptions`]: the settings that say how a backend stores.

use std::fmt;
use std::time::Duration;

use crate::amqp_client::{AmqpConnectOptions, Failover};
use crate::protocol::State;
use crate::tls::TlsOptions;
use crate::url::unshown;

/// How a backend stores results. The default is Celery's.
#[derive(Debug, Clone, PartialEq)]
pub struct BackendOptions {
    /// `result_expires`: how long results are kept, in whole seconds; `None` or less than a second: for ever.
    pub result_expires: Option<Duration>,
    /// `result_failure_expires`: the same for failures; `None`: as `result_expires`, zero: for ever.
    pub result_failure_expires: Option<Duration>,
    /// `result_serializer`: `json`, `msgpack` or `yaml`.
    pub serializer: String,
    /// `result_compression`: `gzip`, `bzip2`, `lzma`, `brotli`, `zstd` or another of Kombu's names; `None`: none.
    /// Compressed results are read whether or not it is set.
    pub compression: Option<String>,
    /// `result_backend_transport_options["global_keyprefix"]`: what every key begins with; `_` is added when it ends in
    /// none of `:_-.`.
    pub global_keyprefix: String,
    /// `result_chord_expires`: how long what a chord is counted with is kept, in whole seconds; `None`: as
    /// `result_expires`, zero: for ever.
    pub chord_expires: Option<Duration>,
    /// `result_chord_join_timeout`: how long the worker that completes a chord waits for results that are not there yet;
    /// `None`: for ever.
    pub chord_join_timeout: Option<Duration>,
    /// `result_backend_transport_options["result_chord_ordered"]`: whether a chord's body gets the results in the order
    /// of the header, and not in that of their coming.
    pub chord_ordered: bool,
    /// `redis_socket_timeout`: how long an answer may take before the connection counts as lost; `None`: for ever.
    pub socket_timeout: Option<Duration>,
    /// `redis_socket_connect_timeout`: how long connecting and logging in may take.
    pub socket_connect_timeout: Duration,
    /// `redis_backend_health_check_interval`: after how long without a word the connection that waits for results is
    /// asked whether it still lives.
    pub health_check_interval: Duration,
    /// `redis_client_name`: the name given with `CLIENT SETNAME`.
    pub client_name: Option<String>,
    /// `result_extended`: whether Celery's tables of results have the columns for it.
    pub extended: bool,
    /// What a memcached needs beside these.
    pub cache: CacheOptions,
    /// What `rpc://` needs beside these.
    pub rpc: RpcOptions,
}

/// Which memcached, and how long it is waited for (celery/backends/cache.py `DEFAULT_CLIENT_OPTIONS`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheOptions {
    /// `cache_backend`: the server where `result_backend` is only `cache`: `memcached://host:11211/`.
    pub backend: Option<String>,
    /// `cache_backend_options["connect_timeout"]`: how long connecting may take; `None`: for ever.
    pub connect_timeout: Option<Duration>,
    /// `cache_backend_options["timeout"]`: how long the server may be silent; `None`: for ever.
    pub timeout: Option<Duration>,
}

impl Default for CacheOptions {
    fn default() -> Self {
        let five = Some(Duration::from_secs(5));
        CacheOptions { backend: None, connect_timeout: five, timeout: five }
    }
}

/// Where `rpc://` sends results, and how: the application's own broker, which the URL does not say again.
#[derive(Clone, PartialEq)]
pub struct RpcOptions {
    /// `broker_url`, or `broker_write_url`; several, separated by `;`, are tried in turn.
    pub broker_url: String,
    /// `broker_failover_strategy`: the order in which several are tried.
    pub failover: Failover,
    /// `broker_use_ssl`: how encrypted connections are verified; `None`: as the URL says.
    pub tls: Option<TlsOptions>,
    /// How connections are opened.
    pub connect: AmqpConnectOptions,
    /// `result_persistent`: whether results survive a restart of the broker.
    pub persistent: bool,
}

impl Default for RpcOptions {
    fn default() -> Self {
        RpcOptions {
            broker_url: "amqp://".to_owned(),
            failover: Failover::default(),
            tls: None,
            connect: AmqpConnectOptions::default(),
            persistent: false,
        }
    }
}

/// The URL may hold a password.
impl fmt::Debug for RpcOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RpcOptions")
            .field("broker_url", &unshown(&self.broker_url, "broker"))
            .field("persistent", &self.persistent)
            .finish_non_exhaustive()
    }
}

impl Default for BackendOptions {
    fn default() -> Self {
        BackendOptions {
            result_expires: Some(Duration::from_secs(86_400)),
            result_failure_expires: None,
            serializer: "json".to_owned(),
            compression: None,
            global_keyprefix: String::new(),
            chord_expires: None,
            chord_join_timeout: Some(Duration::from_secs(3)),
            chord_ordered: true,
            socket_timeout: Some(Duration::from_secs(120)),
            socket_connect_timeout: Duration::from_secs(5),
            health_check_interval: Duration::from_secs(25),
            client_name: None,
            extended: false,
            cache: CacheOptions::default(),
            rpc: RpcOptions::default(),
        }
    }
}

/// Ten thousand years: what is longer is too long for Redis's milliseconds.
const LONGEST: Duration = Duration::from_secs(315_360_000_000);

impl BackendOptions {
    /// How long a result in `state` is kept; `None`: for ever. Only FAILURE counts as a failure
    /// (celery/backends/redis.py `RedisBackend._set_with_state`).
    pub(super) fn expires(&self, state: &State) -> Option<Duration> {
        let expires = match (state, self.result_failure_expires) {
            (State::Failure, Some(expires)) => Some(expires),
            _ => self.result_expires,
        };
        whole(expires?)
    }

    /// How long what a chord is counted with is kept; `None`: for ever (celery/backends/base.py
    /// `BaseKeyValueStoreBackend.chord_expires`).
    pub(super) fn kept_for_chord(&self) -> Option<Duration> {
        whole(self.chord_expires.or(self.result_expires)?)
    }

    /// How long a saved header is kept: users read it as well (`BaseKeyValueStoreBackend._chord_result_expires`).
    pub(super) fn kept_for_header(&self) -> Option<Duration> {
        Some(self.kept_for_chord()?.max(whole(self.result_expires?)?))
    }

    /// How long a claim holds at first: it must outlive the join (celery/backends/redis.py
    /// `RedisBackend.on_chord_part_return`).
    pub(super) fn claim_lease(&self) -> Duration {
        let join = self.chord_join_timeout.filter(|timeout| !timeout.is_zero()).unwrap_or(Duration::from_secs(5));
        let twice = join.saturating_mul(2).min(LONGEST);
        Duration::from_secs(twice.as_secs().max(5))
    }

    /// How long it is remembered that a chord is done.
    pub(super) fn done_lease(&self) -> Duration {
        self.claim_lease().saturating_mul(2).clamp(Duration::from_secs(300), LONGEST)
    }

    /// What the key of a task's result begins with (celery/backends/base.py
    /// `BaseKeyValueStoreBackend._add_global_keyprefix`).
    pub(super) fn task_keyprefix(&self) -> String {
        self.keyprefix("celery-task-meta-")
    }

    /// What the keys of a group begin with.
    pub(super) fn group_keyprefix(&self) -> String {
        self.keyprefix("celery-taskset-meta-")
    }

    /// What the key of the number begins with in which a memcached counts a chord's members.
    pub(super) fn chord_keyprefix(&self) -> String {
        self.keyprefix("chord-unlock-")
    }

    /// How many milliseconds a queue of results is kept that nobody uses; `None`: for ever. RabbitMQ counts to ten years
    /// (celery/backends/rpc.py `RPCBackend.binding`).
    pub(super) fn queue_expires(&self) -> Option<i64> {
        let expires = self.result_expires?.as_millis().min(315_360_000_000);
        i64::try_from(expires).ok().filter(|expires| *expires > 0)
    }

    fn keyprefix(&self, rest: &str) -> String {
        let prefix = &self.global_keyprefix;
        let separator = if prefix.is_empty() || prefix.ends_with([':', '_', '-', '.']) { "" } else { "_" };
        format!("{prefix}{separator}{rest}")
    }
}

/// Redis counts whole seconds; less than one is for ever, as nought is.
fn whole(time: Duration) -> Option<Duration> {
    let whole = Duration::from_secs(time.as_secs()).min(LONGEST);
    (!whole.is_zero()).then_some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_begin_with_the_prefix_and_a_separator() {
        let rows = [
            ("", "celery-task-meta-"),
            ("shop", "shop_celery-task-meta-"),
            ("shop:", "shop:celery-task-meta-"),
            ("shop_", "shop_celery-task-meta-"),
            ("shop-", "shop-celery-task-meta-"),
            ("shop.", "shop.celery-task-meta-"),
            ("{shop}", "{shop}_celery-task-meta-"),
        ];
        for (prefix, expected) in rows {
            let options = BackendOptions { global_keyprefix: prefix.into(), ..Default::default() };
            assert_eq!(options.task_keyprefix(), expected);
        }
    }

    #[test]
    fn failures_may_be_kept_for_another_time() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let rows = [
            (seconds(60), None, State::Success, seconds(60)),
            (seconds(60), None, State::Failure, seconds(60)),
            (seconds(60), seconds(5), State::Failure, seconds(5)),
            (seconds(60), seconds(5), State::Revoked, seconds(60)),
            (seconds(60), seconds(0), State::Failure, None),
            (None, seconds(5), State::Failure, seconds(5)),
            (None, None, State::Success, None),
            (seconds(0), None, State::Success, None),
            (Some(Duration::from_millis(1900)), None, State::Success, seconds(1)),
            (Some(Duration::from_millis(900)), None, State::Success, None),
            (Some(Duration::MAX), None, State::Success, Some(LONGEST)),
        ];
        for (result_expires, result_failure_expires, state, expected) in rows {
            let options = BackendOptions { result_expires, result_failure_expires, ..Default::default() };
            assert_eq!(options.expires(&state), expected, "{options:?} {state:?}");
        }
    }

    #[test]
    fn queues_of_results_are_kept_for_milliseconds() {
        let rows = [
            (None, None),
            (Some(Duration::ZERO), None),
            (Some(Duration::from_millis(1900)), Some(1900)),
            (Some(Duration::from_secs(86_400)), Some(86_400_000)),
            (Some(Duration::MAX), Some(315_360_000_000)),
        ];
        for (result_expires, expected) in rows {
            let options = BackendOptions { result_expires, ..Default::default() };
            assert_eq!(options.queue_expires(), expected, "{result_expires:?}");
        }
    }

    #[test]
    fn chords_are_kept_as_long_as_celery_keeps_them() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        // result_expires, result_chord_expires: the counters', the header's.
        let rows = [
            (seconds(60), None, seconds(60), seconds(60)),
            (seconds(60), seconds(5), seconds(5), seconds(60)),
            (seconds(60), seconds(90), seconds(90), seconds(90)),
            (seconds(60), seconds(0), None, None),
            (None, seconds(5), seconds(5), None),
            (None, None, None, None),
        ];
        for (result_expires, chord_expires, chord, header) in rows {
            let options = BackendOptions { result_expires, chord_expires, ..Default::default() };
            assert_eq!((options.kept_for_chord(), options.kept_for_header()), (chord, header), "{options:?}");
        }
        for (join, claim, done) in
            [(Some(3.0), 6, 300), (Some(2.6), 5, 300), (Some(1.0), 5, 300), (Some(200.0), 400, 800), (None, 10, 300)]
        {
            let options =
                BackendOptions { chord_join_timeout: join.map(Duration::from_secs_f64), ..Default::default() };
            assert_eq!((options.claim_lease().as_secs(), options.done_lease().as_secs()), (claim, done), "{join:?}");
        }
    }
}
