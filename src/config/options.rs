//! The settings that are tables: transport options and retry policies.

use std::time::Duration;

use toml::{Table, Value};

use super::fields::settings;
use super::names;
use super::parser::{
    BOOL, COUNT, Kind, LIMIT, Mismatch, OPTIONAL_BOOL, OPTIONAL_COUNT, OPTIONAL_TEXT, Parser, SECONDS, SECONDS_OR_OFF,
    Settings, TEXT,
};

settings! {
    /// `broker_transport_options`, as the Redis transport reads them (kombu/transport/redis.py
    /// `Channel.from_transport_options`), and those that py-amqp takes.
    pub struct BrokerTransportOptions {
        /// How long a reserved message may stay unsettled before others take it back.
        visibility_timeout: Duration = Duration::from_secs(3600), SECONDS;
        /// Where reserved messages are kept.
        unacked_key: String = "unacked".to_owned(), TEXT;
        /// Where the times of reservation are kept.
        unacked_index_key: String = "unacked_index".to_owned(), TEXT;
        /// The lock of those who restore others' messages.
        unacked_mutex_key: String = "unacked_mutex".to_owned(), TEXT;
        /// How long that lock is held at most.
        unacked_mutex_expire: Duration = Duration::from_secs(300), SECONDS;
        /// How many messages one restore looks at.
        unacked_restore_limit: Option<u32> = None, LIMIT;
        /// How often a restore is due, before the throttle.
        unacked_restore_interval: Duration = Duration::from_secs(10), SECONDS;
        /// Only each n-th restore that is due looks at Redis.
        unacked_restore_throttle: u32 = 10, COUNT;
        /// The priorities that have a list of their own.
        priority_steps: Vec<u8> = vec![0, 3, 6, 9], PRIORITIES;
        /// What stands between a queue's name and its priority.
        sep: String = "\x06\x16".to_owned(), TEXT;
        /// `round_robin`, `sorted` or `priority`.
        queue_order_strategy: String = "round_robin".to_owned(), ORDER;
        /// What every key begins with.
        global_keyprefix: String = String::new(), TEXT;
        /// What the names of fanout channels begin with; `{db}` stands for the database's number. `true` is this default,
        /// `false` nothing.
        fanout_prefix: String = DEFAULT_FANOUT_PREFIX.to_owned(), FANOUT_PREFIX;
        /// Whether fanout exchanges honour routing keys.
        fanout_patterns: bool = true, BOOL;
        /// How long a command may take.
        socket_timeout: Option<Duration> = None, SECONDS_OR_OFF;
        /// How long connecting may take.
        socket_connect_timeout: Option<Duration> = None, SECONDS_OR_OFF;
        /// TCP keepalive.
        socket_keepalive: Option<bool> = None, OPTIONAL_BOOL;
        /// After how long an idle connection is proved to be alive.
        health_check_interval: Duration = Duration::from_secs(25), SECONDS;
        /// The connections that a process keeps.
        max_connections: Option<u32> = Some(10), OPTIONAL_COUNT;
        /// The name given with `CLIENT SETNAME`.
        client_name: Option<String> = None, OPTIONAL_TEXT;
        /// Whether an AMQP broker confirms what is published; here it always does.
        confirm_publish: bool = false, BOOL;
        /// What an AMQP broker is told of us: `connection_name`.
        client_properties: Table = Table::new(), TABLE;
        /// The folder that messages are read from, where the broker is `filesystem://`.
        data_folder_in: String = "data_in".to_owned(), TEXT;
        /// The folder that they are published into.
        data_folder_out: String = "data_out".to_owned(), TEXT;
        /// Whether what is done with is kept.
        store_processed: bool = false, BOOL;
        /// Where it is kept.
        processed_folder: String = "processed".to_owned(), TEXT;
        /// Where the tables of exchanges are.
        control_folder: String = "control".to_owned(), TEXT;
        /// How often those folders are looked through though nobody told of a change.
        polling_interval: Option<Duration> = None, SECONDS_OR_OFF;
        /// Keys that are not listed here: other transports read them.
        other: Table = Table::new(), TABLE;
    }
}

settings! {
    /// `result_backend_transport_options`.
    pub struct ResultTransportOptions {
        /// What every key begins with; `_` is added when it ends in none of `:_-.`
        /// (celery/backends/base.py `KeyValueStoreBackend._add_global_keyprefix`).
        global_keyprefix: String = String::new(), TEXT;
        /// Whether the body of a chord gets the results in the order of the header, or in that of their coming.
        result_chord_ordered: bool = true, BOOL;
        /// How a lost connection is tried again.
        retry_policy: Option<RetryPolicy> = None, OPTIONAL_RETRY_POLICY;
        /// Keys that are not listed here.
        other: Table = Table::new(), TABLE;
    }
}

settings! {
    /// `cache_backend_options`: those of pymemcache's client that are not Python's alone (celery/backends/cache.py
    /// `DEFAULT_CLIENT_OPTIONS`).
    pub struct CacheBackendOptions {
        /// How long connecting to a memcached may take.
        connect_timeout: Option<Duration> = Some(Duration::from_secs(5)), SECONDS_OR_OFF;
        /// How long it may be silent.
        timeout: Option<Duration> = Some(Duration::from_secs(5)), SECONDS_OR_OFF;
        /// Keys that are not listed here.
        other: Table = Table::new(), TABLE;
    }
}

settings! {
    /// How often and after which pauses something is tried again (kombu/utils/functional.py `retry_over_time`).
    pub struct RetryPolicy {
        /// How often at most; `None`: for ever.
        max_retries: Option<u32> = Some(3), OPTIONAL_COUNT;
        /// The first pause.
        interval_start: Duration = Duration::ZERO, SECONDS;
        /// What each pause is longer than the one before.
        interval_step: Duration = Duration::from_millis(200), SECONDS;
        /// The longest pause.
        interval_max: Duration = Duration::from_secs(1), SECONDS;
        /// How long to go on in all, if the retries do not end it before.
        timeout: Option<Duration> = None, SECONDS_OR_OFF;
    }
}

pub(super) const BROKER_OPTIONS: super::parser::NestedParser<BrokerTransportOptions> =
    super::parser::NestedParser::new(Kind::Table, |value| {
        let mut options = BrokerTransportOptions::default();
        options.other = others::<BrokerTransportOptions>(fill(&mut options, value)?)?;
        Ok(options)
    });

pub(super) const RESULT_OPTIONS: super::parser::NestedParser<ResultTransportOptions> =
    super::parser::NestedParser::new(Kind::Table, |value| {
        let mut options = ResultTransportOptions::default();
        options.other = others::<ResultTransportOptions>(fill(&mut options, value)?)?;
        Ok(options)
    });

pub(super) const CACHE_OPTIONS: super::parser::NestedParser<CacheBackendOptions> =
    super::parser::NestedParser::new(Kind::Table, |value| {
        let mut options = CacheBackendOptions::default();
        options.other = others::<CacheBackendOptions>(fill(&mut options, value)?)?;
        Ok(options)
    });

pub(super) const RETRY_POLICY: super::parser::NestedParser<RetryPolicy> =
    super::parser::NestedParser::new(Kind::Table, |value| retry_policy(RetryPolicy::default(), value));

/// What it does not say is as without it: results are waited for without an end.
const OPTIONAL_RETRY_POLICY: super::parser::NestedParser<Option<RetryPolicy>> =
    super::parser::NestedParser::new(Kind::Table, |value| {
        retry_policy(RetryPolicy { max_retries: None, ..RetryPolicy::default() }, value).map(Some)
    });

const TABLE: Parser<Table> = Parser::new(Kind::Table, "a table", |value| value.as_table().cloned());

const PRIORITIES: Parser<Vec<u8>> = Parser::new(Kind::List, "a list of priorities from 0 to 255, ascending", |value| {
    let steps: Vec<u8> =
        value.as_array()?.iter().map(|step| u8::try_from(step.as_integer()?).ok()).collect::<Option<_>>()?;
    (!steps.is_empty() && steps.is_sorted()).then_some(steps)
});

/// kombu/transport/redis.py `Channel.keyprefix_fanout`.
const DEFAULT_FANOUT_PREFIX: &str = "/{db}.";

const FANOUT_PREFIX: Parser<String> =
    Parser::new(Kind::Text, "true, false or a prefix", |value| match (value.as_bool(), value.as_str()) {
        (Some(true), _) | (_, Some("true" | "True" | "1")) => Some(DEFAULT_FANOUT_PREFIX.to_owned()),
        (Some(false), _) | (_, Some("false" | "False" | "0" | "")) => Some(String::new()),
        (_, text) => text.map(str::to_owned),
    });

const ORDER: Parser<String> = Parser::new(Kind::Text, "round_robin, sorted or priority", |value| {
    value.as_str().filter(|text| ["round_robin", "sorted", "priority"].contains(text)).map(str::to_owned)
});

fn retry_policy(mut policy: RetryPolicy, value: &Value) -> Result<RetryPolicy, Mismatch> {
    let unknown = fill(&mut policy, value)?;
    match unknown.keys().next() {
        Some(key) => Err(Mismatch::new(format!("only {}", RetryPolicy::NAMES.join(", "))).within(key)),
        None => Ok(policy),
    }
}

/// Sets the fields that the table names and returns the rest of it.
fn fill<S: Settings>(settings: &mut S, value: &Value) -> Result<Table, Mismatch> {
    let table = value.as_table().ok_or_else(|| Mismatch::new("a table"))?;
    let mut other = Table::new();
    for (key, value) in table {
        let known = key != "other" && settings.assign(key, value).map_err(|mismatch| mismatch.within(key))?;
        if !known {
            other.insert(key.clone(), value.clone());
        }
    }
    Ok(other)
}

/// Keys that others may read, none of which is a slip of one of ours.
fn others<S: Settings>(keys: Table) -> Result<Table, Mismatch> {
    match keys.keys().find_map(|key| Some((key, names::misspelt(key, S::NAMES)?))) {
        Some((key, near)) => Err(Mismatch::misspelt(key, near)),
        None => Ok(keys),
    }
}
