//! The settings that Celery has and this worker does not honour yet, with their defaults.

use std::sync::LazyLock;

use toml::{Table, Value};

use super::options::BrokerTransportOptions;
use super::parser::Settings;
use super::settings::Config;

/// Whether Celery has a setting of that name that [`Config`] lacks.
pub(super) fn is_unsupported(name: &str) -> bool {
    UNSUPPORTED.binary_search_by_key(&name, |(known, _)| known).is_ok()
}

/// Whether `value` is what Celery does by default anyway.
pub(super) fn is_default(name: &str, value: &Value) -> bool {
    match DEFAULTS.get(name) {
        Some(default) => same(default, value),
        None => value.as_str() == Some(""),
    }
}

/// The names of settings in [`Config`] that differ from their defaults and have no effect yet.
pub(super) fn without_effect(config: &Config) -> Vec<String> {
    let changed = NOT_YET.iter().filter(|name| !config.is_default(name)).map(|name| (*name).to_owned());
    let (broker, result) = (&config.broker_transport_options, &config.result_backend_transport_options);
    let broker_options = NOT_YET_BROKER_OPTIONS.iter().copied().filter(|name| !broker.is_default(name));
    let broker_options = broker_options.chain(broker.other.keys().map(String::as_str));
    let broker_options = broker_options.map(|name| format!("broker_transport_options.{name}"));
    let result_options = result.other.keys().map(|name| format!("result_backend_transport_options.{name}"));
    let cache_options = config.cache_backend_options.other.keys().map(|name| format!("cache_backend_options.{name}"));
    changed.chain(broker_options).chain(result_options).chain(cache_options).collect()
}

/// Read for the sake of what comes next: a name leaves this list when something heeds it. What becomes of a task whose
/// process is lost (`task_…_on_worker_lost`) the tasks of a pool say themselves; handlers in Rust have none to lose.
const NOT_YET: &[&str] = &[
    "event_queue_durable",
    "event_queue_exclusive",
    "event_queue_expires",
    "event_queue_prefix",
    "event_queue_ttl",
    "redis_socket_keepalive",
    "result_accept_content",
    "result_backend_base_sleep_between_retries_ms",
    "result_backend_max_sleep_between_retries_ms",
    "result_chord_retry_interval",
    "task_protocol",
    "task_reject_on_worker_lost",
    "task_retry_on_worker_lost",
    "worker_direct",
    "worker_enable_prefetch_count_reduction",
    "worker_enable_soft_shutdown_on_idle",
];

const NOT_YET_BROKER_OPTIONS: &[&str] = &["max_connections", "socket_keepalive"];

/// Whether the numbers of that setting are milliseconds, and not seconds.
pub(super) fn is_in_milliseconds(name: &str) -> bool {
    name.ends_with("_ms")
}

/// Whether Celery's documentation or ours names that setting, or that key of a table.
pub(super) fn is_known(name: &str) -> bool {
    match name.split_once('.') {
        Some((_, key)) => BrokerTransportOptions::NAMES.contains(&key),
        None => Config::NAMES.contains(&name) || is_unsupported(name),
    }
}

/// Which of `known` a key is a slip of: it has two wrong letters at most. Keys that are merely alike may be another
/// transport's.
pub(super) fn misspelt(key: &str, known: &[&'static str]) -> Option<&'static str> {
    let slips = |name: &&str| strsim::osa_distance(key, name);
    let best = known.iter().copied().filter(|name| *name != "other").min_by_key(slips)?;
    (1..=2.min(key.len() / 3)).contains(&slips(&best)).then_some(best)
}

/// The known name that is most like `name`, if one is alike at all. In a Django project it is in capitals, with
/// `CELERY_` before it.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    let name = name.to_lowercase();
    let name = name.strip_prefix("celery_").unwrap_or(&name);
    let unsupported = UNSUPPORTED.iter().map(|(known, _)| *known);
    let alike = |known: &&str| strsim::jaro_winkler(name, known);
    let best = Config::NAMES.iter().copied().chain(unsupported).max_by(|a, b| alike(a).total_cmp(&alike(b)))?;
    (alike(&best) > 0.85).then_some(best)
}

/// The defaults that are not null, as values.
static DEFAULTS: LazyLock<Table> = LazyLock::new(|| {
    let lines = UNSUPPORTED.iter().filter(|(_, default)| !default.is_empty());
    let text: String = lines.map(|(name, default)| format!("{name} = {default}\n")).collect();
    text.parse().unwrap_or_default()
});

fn same(default: &Value, value: &Value) -> bool {
    let number = |value: &Value| value.as_float().or(value.as_integer().map(|number| number as f64));
    default == value || number(default).is_some_and(|default| number(value) == Some(default))
}

/// Name and default in TOML, empty for null; sorted by name. From celery/app/defaults.py `NAMESPACES` of 5.7.0, and
/// those that Celery reads without listing them there.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("arangodb_backend_settings", ""),
    ("azureblockblob_base_path", "''"),
    ("azureblockblob_connection_timeout", "20"),
    ("azureblockblob_container_name", "'celery'"),
    ("azureblockblob_read_timeout", "120"),
    ("azureblockblob_retry_increment_base", "2"),
    ("azureblockblob_retry_initial_backoff_sec", "2"),
    ("azureblockblob_retry_max_attempts", "3"),
    ("beat_enable_remote_control", "false"),
    ("beat_executable", ""),
    ("beat_gid", ""),
    ("beat_remote_control_max_tick_age", ""),
    ("beat_sync_every", "0"),
    ("beat_uid", ""),
    ("beat_umask", ""),
    ("broker_channel_error_retry", "false"),
    ("broker_heartbeat_checkrate", "3.0"),
    ("broker_host", ""),
    ("broker_password", ""),
    ("broker_pool_acquire_timeout", ""),
    ("broker_pool_limit", "10"),
    ("broker_port", ""),
    ("broker_transport", ""),
    ("broker_user", ""),
    ("broker_vhost", ""),
    ("cassandra_auth_kwargs", ""),
    ("cassandra_auth_provider", ""),
    ("cassandra_bundle_path", ""),
    ("cassandra_entry_ttl", ""),
    ("cassandra_keyspace", ""),
    ("cassandra_options", "{}"),
    ("cassandra_port", ""),
    ("cassandra_read_consistency", ""),
    ("cassandra_servers", ""),
    ("cassandra_table", ""),
    ("cassandra_write_consistency", ""),
    ("cosmosdbsql_collection_name", "'celerycol'"),
    ("cosmosdbsql_consistency_level", "'Session'"),
    ("cosmosdbsql_database_name", "'celerydb'"),
    ("cosmosdbsql_max_retry_attempts", "9"),
    ("cosmosdbsql_max_retry_wait_time", "30"),
    ("couchbase_backend_settings", ""),
    ("database_create_tables_at_setup", "true"),
    ("database_engine_callback", ""),
    ("database_engine_options", "{ pool_pre_ping = true, pool_recycle = 3600 }"),
    ("database_short_lived_sessions", "false"),
    ("database_table_names", ""),
    ("database_table_schemas", ""),
    ("database_url", ""),
    ("elasticsearch_max_retries", ""),
    ("elasticsearch_retry_on_timeout", ""),
    ("elasticsearch_save_meta_as_text", "true"),
    ("elasticsearch_timeout", ""),
    ("events_executable", ""),
    ("events_gid", ""),
    ("events_logfile", ""),
    ("events_pidfile", ""),
    ("events_uid", ""),
    ("events_umask", ""),
    ("gcs_base_path", "''"),
    ("gcs_bucket", ""),
    ("gcs_project", ""),
    ("gcs_ttl", "0"),
    ("imports", "[]"),
    ("include", "[]"),
    ("mongodb_backend_settings", ""),
    ("override_backends", "{}"),
    ("redis_backend_credential_provider", ""),
    ("redis_backend_use_ssl", ""),
    ("redis_db", ""),
    ("redis_host", ""),
    ("redis_max_connections", ""),
    ("redis_password", ""),
    ("redis_port", ""),
    ("redis_retry_on_timeout", "false"),
    ("redis_username", ""),
    ("result_backend_thread_safe", "false"),
    ("result_cache_max", "-1"),
    ("result_exchange", "'celeryresults'"),
    ("result_exchange_type", "'direct'"),
    ("s3_access_key_id", ""),
    ("s3_base_path", ""),
    ("s3_bucket", ""),
    ("s3_endpoint_url", ""),
    ("s3_region", ""),
    ("s3_secret_access_key", ""),
    ("security_cert_store", ""),
    ("security_certificate", ""),
    ("security_digest", "'sha256'"),
    ("security_key", ""),
    ("security_key_password", ""),
    ("task_always_eager", "false"),
    ("task_eager_propagates", "false"),
    ("task_remote_tracebacks", "false"),
    ("task_store_eager_result", "false"),
    ("worker_agent", ""),
    ("worker_autoscaler", "'celery.worker.autoscale:Autoscaler'"),
    ("worker_consumer", "'celery.worker.consumer:Consumer'"),
    ("worker_detect_quorum_queues", "true"),
    ("worker_executable", ""),
    ("worker_gid", ""),
    ("worker_hijack_root_logger", "true"),
    ("worker_lost_wait", "10.0"),
    ("worker_max_memory_per_child", ""),
    ("worker_max_tasks_per_child", ""),
    ("worker_pool", "'prefork'"),
    ("worker_pool_putlocks", "true"),
    ("worker_pool_restarts", "false"),
    ("worker_pool_start_method", "'fork'"),
    ("worker_proc_alive_timeout", "4.0"),
    ("worker_redirect_stdouts", "true"),
    ("worker_redirect_stdouts_level", "'WARNING'"),
    ("worker_task_log_datefmt", ""),
    (
        "worker_task_log_format",
        "'[%(asctime)s: %(levelname)s/%(processName)s] %(task_name)s[%(task_id)s]: %(message)s'",
    ),
    ("worker_timer", ""),
    ("worker_timer_precision", "1.0"),
    ("worker_uid", ""),
    ("worker_umask", ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_its_defaults_are_read() {
        assert!(UNSUPPORTED.is_sorted_by(|a, b| a.0 < b.0));
        let defaults = UNSUPPORTED.iter().filter(|(_, default)| !default.is_empty()).count();
        assert_eq!(DEFAULTS.len(), defaults);
        for name in NOT_YET {
            assert!(Config::NAMES.contains(name), "{name}");
        }
        for name in NOT_YET_BROKER_OPTIONS {
            assert!(BrokerTransportOptions::NAMES.contains(name), "{name}");
        }
        for (name, _) in UNSUPPORTED {
            assert!(!Config::NAMES.contains(name), "{name} is both honoured and not");
        }
    }

    #[test]
    fn names_that_are_nearly_right() {
        let check = |name: &str, expected: Option<&str>| assert_eq!(nearest(name), expected, "{name}");
        check("broker_ur", Some("broker_url"));
        check("task_ack_late", Some("task_acks_late"));
        check("worker_prefetch_multiplyer", Some("worker_prefetch_multiplier"));
        check("worker_max_task_per_child", Some("worker_max_tasks_per_child"));
        check("CELERY_BROKER_URL", Some("broker_url"));
        check("CELERY_RESULT_BACKEND", Some("result_backend"));
        check("zzz", None);
    }

    #[test]
    fn keys_with_a_slip() {
        let check = |key: &str, expected| assert_eq!(misspelt(key, BrokerTransportOptions::NAMES), expected, "{key}");
        check("visibility_timeot", Some("visibility_timeout"));
        check("visiblity_timout", Some("visibility_timeout"));
        check("clientname", Some("client_name"));
        check("seb", Some("sep"));
        // Kombu's own, for other transports.
        for other in ["socket_keepalive_options", "connect_timeout", "master_name", "region", "ssl"] {
            check(other, None);
        }
    }
}
