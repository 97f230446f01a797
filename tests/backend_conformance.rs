//! What every result backend promises, asked of each of them, and what Redis promises beside it.
//!
//! The tests with Redis start a private `redis-server`, `memcached` or `postgres` each, those with RabbitMQ share a private node; they say so and
//! pass where it is not installed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "backend_conformance/chords.rs"]
mod chords;
#[path = "backend_conformance/databases.rs"]
mod database_promises;
#[path = "backend_conformance/django.rs"]
mod django_promises;
#[path = "backend_conformance/encrypted.rs"]
mod encrypted;
#[path = "backend_conformance/file.rs"]
mod file_promises;
#[path = "backend_conformance/fleet.rs"]
mod fleet;
#[path = "backend_conformance/large.rs"]
mod large;
#[path = "backend_conformance/memcached.rs"]
mod memcached_promises;
#[path = "backend_conformance/peer.rs"]
mod peer;
#[path = "backend_conformance/python.rs"]
mod python;
#[path = "backend_conformance/redis.rs"]
mod redis_promises;
#[path = "backend_conformance/suite.rs"]
mod suite;
mod support;
#[path = "backend_conformance/values.rs"]
mod values;

use std::sync::Arc;

use celeriac::ErrorKind;
use celeriac::backend::{BackendOptions, CacheOptions, ResultBackend, RpcOptions, from_url};
use support::memcached_server::MemcachedServer;
use support::postgres_server::PostgresServer;
use support::rabbitmq_server::RabbitServer;
use support::redis_server::RedisServer;

/// A test of each promise, run by a function that knows the backend.
macro_rules! keeps {
    ($module:ident, $run:ident: $($suite:ident: $($promise:ident)*;)*) => {
        mod $module {
            $($(#[tokio::test]
            async fn $promise() {
                super::$run(super::$suite::$promise).await;
            })*)*
        }
    };
}

macro_rules! every_backend_keeps {
    ($($promises:tt)*) => {
        keeps! { memory, on_memory: $($promises)* }
        keeps! { redis, on_redis: $($promises)* }
        keeps! { rpc, on_rpc: $($promises)* }
        keeps! { memcached, on_memcached: $($promises)* }
        keeps! { file, on_file: $($promises)* }
        keeps! { sqlite, on_sqlite: $($promises)* }
        keeps! { postgres, on_postgres: $($promises)* }
        keeps! { django_sqlite, on_django_sqlite: $($promises)* }
        keeps! { django_postgres, on_django_postgres: $($promises)* }
    };
}

/// `rpc://` saves no groups.
macro_rules! backends_that_save_keep {
    ($($promises:tt)*) => {
        keeps! { memory_groups, on_memory: $($promises)* }
        keeps! { redis_groups, on_redis: $($promises)* }
        keeps! { memcached_groups, on_memcached: $($promises)* }
        keeps! { file_groups, on_file: $($promises)* }
        keeps! { sqlite_groups, on_sqlite: $($promises)* }
        keeps! { postgres_groups, on_postgres: $($promises)* }
        keeps! { django_sqlite_groups, on_django_sqlite: $($promises)* }
        keeps! { django_postgres_groups, on_django_postgres: $($promises)* }
    };
}

/// Where chords are counted; elsewhere `celery.chord_unlock` looks.
macro_rules! backends_with_chords_keep {
    ($($promises:tt)*) => {
        keeps! { memory_chords, on_memory: $($promises)* }
        keeps! { redis_chords, on_redis: $($promises)* }
    };
}

every_backend_keeps! {
    suite: state_rules_hold_in_one_batch_and_over_several
    an_unknown_id_is_none
    values_come_back_as_they_were
    thousands_are_stored_in_order
    waiting_ends_when_the_task_is_ready
    waiting_for_what_is_ready_does_not_wait
    waiting_has_a_limit
    a_forgotten_result_is_gone
    a_result_needs_an_id
    a_writer_keeps_the_order_of_each_task;

    chords: waiting_for_many_ends_with_the_last_or_the_first_failure
    a_group_is_joined_in_its_shape;
}

backends_that_save_keep! {
    chords: groups_are_kept_with_their_structure;
}

backends_with_chords_keep! {
    chords: a_chord_completes_once_and_in_the_headers_order
    a_group_that_ends_a_chain_makes_its_chord_no_smaller
    members_of_many_chords_are_counted_in_one_batch
    a_chord_waits_for_members_that_were_added
    the_first_failure_in_order_fails_a_chord
    a_saved_header_gives_the_results_their_shape
    a_claim_is_one_workers_until_it_is_given_up
    a_copy_waits_for_the_worker_that_has_the_claim
    a_copy_takes_over_from_a_worker_that_died
    a_part_needs_its_ids;
}

async fn on_memory<F: Future<Output = ()>>(promise: fn(Arc<dyn ResultBackend>) -> F) {
    for options in forms() {
        promise(open("memory://", &options)).await;
    }
}

async fn on_redis<F: Future<Output = ()>>(promise: fn(Arc<dyn ResultBackend>) -> F) {
    let Some(server) = RedisServer::start().await else { return };
    for options in forms() {
        promise(open(&server.url(0), &options)).await;
        redis_promises::flush(&server);
    }
}

async fn on_memcached<F: Future<Output = ()>>(promise: fn(Arc<dyn ResultBackend>) -> F) {
    let Some(server) = MemcachedServer::start_with(&["-I", "8m"]).await else { return };
    for options in forms() {
        promise(open(&server.url(), &options)).await;
        assert_eq!(server.asked("flush_all"), "OK\r\n");
    }
}

async fn on_file<F: Future<Output = ()>>(promise: fn(Arc<dyn ResultBackend>) -> F) {
    for options in forms().into_iter().step_by(4) {
        let folder = tempfile::tempdir().unwrap();
        promise(open(&format!("file://{}", folder.path().display()), &options)).await;
    }
}

async fn on_sqlite<F: Future<Output = ()>>(promise: fn(Arc<dyn ResultBackend>) -> F) {
    for options in forms().into_iter().take(3) {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("db+sqlite:///{}/results.sqlite", folder.path().display());
        promise(open(&url, &BackendOptions { extended: true, ..options })).await;
    }
}

async fn on_postgres<F: Future<Output = ()>>(promise: fn(Arc<dyn ResultBackend>) -> F) {
    let Some(server) = PostgresServer::start().await else { return };
    for options in forms().into_iter().take(2) {
        promise(open(&server.url(), &BackendOptions { extended: true, ..options })).await;
        server.asked("DELETE FROM celery_taskmeta; DELETE FROM celery_tasksetmeta").expect("they are there");
    }
}

async fn on_django_sqlite<F: Future<Output = ()>>(promise: fn(Arc<dyn ResultBackend>) -> F) {
    for options in forms().into_iter().take(3) {
        let (_folder, url) = django_promises::sqlite();
        promise(open(&url, &BackendOptions { extended: true, ..options })).await;
    }
}

async fn on_django_postgres<F: Future<Output = ()>>(promise: fn(Arc<dyn ResultBackend>) -> F) {
    let Some((server, url)) = django_promises::postgres().await else { return };
    for options in forms().into_iter().take(2) {
        promise(open(&url, &BackendOptions { extended: true, ..options })).await;
        server
            .asked("TRUNCATE django_celery_results_taskresult, django_celery_results_groupresult")
            .expect("they are there");
    }
}

/// Each sends to itself.
async fn on_rpc<F: Future<Output = ()>>(promise: fn(Arc<dyn ResultBackend>) -> F) {
    let Some(server) = RabbitServer::shared().await else { return };
    let vhost = server.vhost();
    for options in forms() {
        let rpc = RpcOptions { broker_url: vhost.url(), ..RpcOptions::default() };
        let backend = open("rpc://", &BackendOptions { rpc, ..options });
        backend.expect_results().await.unwrap();
        promise(backend).await;
    }
}

/// Plain JSON, and what the script that keeps Redis's state rules can look into only in part or not at all.
fn forms() -> Vec<BackendOptions> {
    let form = |serializer: &str, compression: Option<&str>| BackendOptions {
        serializer: serializer.into(),
        compression: compression.map(str::to_owned),
        ..BackendOptions::default()
    };
    vec![
        form("json", None),
        form("msgpack", None),
        form("yaml", None),
        form("json", Some("gzip")),
        form("msgpack", Some("zstd")),
    ]
}

fn open(url: &str, options: &BackendOptions) -> Arc<dyn ResultBackend> {
    from_url(Some(url), options).unwrap()
}

#[test]
fn settings_name_a_backend() {
    let rows = [
        (None, "disabled://"),
        (Some(""), "disabled://"),
        (Some("disabled"), "disabled://"),
        (Some("disabled://"), "disabled://"),
        (Some("memory://"), "memory://"),
        (Some("rpc"), "rpc://"),
        (Some("rpc://"), "rpc://"),
        (Some("rpc://u:secret@h/v"), "rpc://"),
        (Some("cache+memory://"), "memory://"),
        (Some("cache+memcached://h:1/"), "memcached://h:1/"),
        (Some("cache+memcache://h"), "memcache://h/"),
        (Some("cache+pymemcache:///run/m.sock"), "pymemcache:///run/m.sock/"),
        (Some("file:///var/results"), "file:///var/results"),
        (Some("file://localhost/var/results"), "file:///var/results"),
        (Some("db+sqlite:///results.sqlite"), "sqlite:///results.sqlite"),
        (Some("db+sqlite:////var/results.sqlite?timeout=3"), "sqlite:////var/results.sqlite"),
        (Some("db+postgresql+psycopg://u:secret@h/db"), "postgresql://u:**@h:5432/db"),
        (Some("django-db+sqlite:////var/db.sqlite3?timeout=3"), "django-db+sqlite:////var/db.sqlite3"),
        (Some("django-db+sqlite:////d?time_zone=Europe/Berlin&timeout=3"), "django-db+sqlite:////d"),
        (Some("django-db+sqlite:////d?time_zone=Etc%2FGMT%2B3"), "django-db+sqlite:////d"),
        (Some("django-db+sqlite:////d?time_zone=Mars&time_zone=Asia/Tokyo"), "django-db+sqlite:////d"),
        (Some("django-db+postgresql://u:secret@h/db"), "django-db+postgresql://u:**@h:5432/db"),
        (Some("redis"), "redis://localhost:6379/0"),
        (Some("redis://h:1/2"), "redis://h:1/2"),
        (Some("redis://u:secret@h/2"), "redis://u:**@h:6379/2"),
        (Some("rediss://:secret@h/2?ssl_cert_reqs=none"), "rediss://:**@h:6379/2"),
        (Some("redis+socket:///tmp/r.sock?virtual_host=3"), "redis+socket:///tmp/r.sock?virtual_host=3"),
        (Some("redis+socket:///r.sock?virtual_host=3&virtual_host=4"), "redis+socket:///r.sock?virtual_host=4"),
    ];
    for (url, shown) in rows {
        let backend = from_url(url, &BackendOptions::default()).unwrap();
        assert_eq!(backend.uri(), shown);
        assert!(!format!("{backend:?}").contains("secret"), "{backend:?}");
        assert_eq!(backend.is_enabled(), shown != "disabled://");
    }
}

#[test]
fn a_memcached_may_stand_in_a_setting_of_its_own() {
    for (backend, shown) in [("memcached://h:1/", "memcached://h:1/"), ("memory://", "memory://")] {
        let cache = CacheOptions { backend: Some(backend.into()), ..CacheOptions::default() };
        assert_eq!(open("cache", &BackendOptions { cache, ..BackendOptions::default() }).uri(), shown);
    }
}

#[test]
fn settings_that_name_none_are_refused_with_what_is_supported() {
    let rows = [
        ("amqp://u:secret@h", "`amqp` is not supported: use one of redis://"),
        ("db+mysql://u:secret@h/db", "the database db+mysql is not supported"),
        ("db+sqlite://", "a SQLite database in memory"),
        ("db+sqlite:////tmp/x?odd=1", "option \"odd\""),
        ("db+postgresql://u:secret@h/db?sslmode=always", "sslmode is one of disable"),
        ("db+postgresql://u:secret@h/db?sslmode=verify-full", "need sslrootcert"),
        ("db+postgresql://h/db", "names no user"),
        ("django-db", "`django-db` alone says not where the tables are: django-db+sqlite:///"),
        ("django-db+mysql://u:secret@h/db", "the database django-db+mysql is not supported"),
        ("django-db+sqlite:////d?time_zone=Mars", "there is no time_zone \"Mars\""),
        ("cache+memcached://", "result_backend: no memcached is named: cache+memcached://host:11211/"),
        ("cache", "result_backend: no memcached is named"),
        ("cache+memcached://a:1;b:2/", "several memcached servers are not supported by Rust workers"),
        ("cache+memcached://u:secret@h:1/", "a memcached takes no user and no password"),
        ("cache+memcached://h:port/", "a memcached is named as in"),
        ("cache+memcached://h/secret", "a memcached is named as in"),
        ("cache+odd://h", "`cache+odd` is not supported: use one of redis://"),
        ("file://", "result_backend: a folder is named as in file:///"),
        ("u:secret@h", "is not supported: use one of"),
        ("://secret", "is not supported"),
        ("redis://:secret@h/x", "database"),
        ("rediss://:secret@h", "ssl_cert_reqs"),
        ("redis://:secret@h?ssl_cert_reqs=none", "rediss://"),
    ];
    for (url, text) in rows {
        let error = from_url(Some(url), &BackendOptions::default()).unwrap_err();
        let message = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{message}");
        assert!(message.contains(text) && !message.contains("secret"), "{url}: {message}");
    }
    let pickle = BackendOptions { serializer: "pickle".into(), ..BackendOptions::default() };
    for url in ["redis://h", "rpc://", "memory://"] {
        assert_eq!(from_url(Some(url), &pickle).unwrap_err().kind(), ErrorKind::Refused);
    }
}

#[test]
fn rpc_needs_rabbitmq_as_the_broker() {
    for url in ["redis://:secret@h", "memory://", "amqp://u:secret@h:port"] {
        let rpc = RpcOptions { broker_url: url.into(), ..RpcOptions::default() };
        let options = BackendOptions { rpc, ..BackendOptions::default() };
        assert!(!format!("{options:?}").contains("secret"), "{options:?}");
        let error = from_url(Some("rpc://"), &options).unwrap_err();
        let message = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{message}");
        assert!(message.contains("has to be RabbitMQ") && !message.contains("secret"), "{message}");
    }
}

#[tokio::test]
async fn a_disabled_backend_stores_nothing_and_says_so() {
    let backend = open("disabled", &BackendOptions::default());
    backend.store(&[suite::success("a", 1)]).await.unwrap();
    backend.forget("a").await.unwrap();
    for error in [backend.fetch("a").await.unwrap_err(), backend.wait("a", None).await.unwrap_err()] {
        assert!(error.to_string().contains("no result backend is configured"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn memory_keeps_results_as_long_as_it_is_told() {
    use std::time::Duration;

    let (long, short) = (Duration::from_secs(60), Duration::from_secs(5));
    let options =
        BackendOptions { result_expires: Some(long), result_failure_expires: Some(short), ..BackendOptions::default() };
    let backend = open("memory://", &options);
    backend.store(&[suite::success("a", 1), suite::meta("b", "FAILURE", 1)]).await.unwrap();
    tokio::time::advance(short - Duration::from_millis(1)).await;
    assert!(backend.fetch("b").await.unwrap().is_some());
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(backend.fetch("b").await.unwrap().is_none());
    assert!(backend.fetch("a").await.unwrap().is_some());
    tokio::time::advance(long).await;
    assert!(backend.fetch("a").await.unwrap().is_none());
}
