//! Ways to a server, and what is said when there is none.

use std::sync::Arc;
use std::time::Duration;

use celeriac::ErrorKind;
use celeriac::redis_client::{RedisUrl, UrlPolicy};
use celeriac::time::Clock;
use celeriac::transport::{RedisOptions, RedisTransport, Transport};

use crate::harness::{consume, names, send, take};
use crate::support::redis_server::RedisServer;
use crate::support::{LONG, eventually, free_port};

fn transport(url: &str) -> Arc<dyn Transport> {
    let url = RedisUrl::parse(url, UrlPolicy::Broker).expect("our own URL");
    Arc::new(RedisTransport::new(url, RedisOptions::default(), Clock::system(), fastrand::Rng::with_seed(3)))
}

async fn works(url: &str) {
    let (connection, mut consumer, _) = consume(&transport(url), &["q"], 1).await;
    send(&connection, "q", &["1"]).await;
    assert_eq!(names(&take(&mut *consumer, 1).await), ["1"], "{url}");
}

async fn refused(url: &str, kind: ErrorKind, words: &str) {
    let error = transport(url).connect().await.expect_err(url);
    assert_eq!(error.kind(), kind, "{error}");
    let text = error.to_string();
    assert!(text.contains(words) && !text.contains("secret"), "{text}");
}

#[tokio::test]
async fn by_socket_and_database() {
    let Some(server) = RedisServer::start().await else { return };
    works(&server.socket_url(3)).await;
    works(&server.url(5)).await;
    let mut redis = server.connection().await;
    let _: () = redis::cmd("SELECT").arg(3).query_async(&mut redis).await.unwrap();
    let bound: i64 = redis::cmd("EXISTS").arg("_kombu.binding.q").query_async(&mut redis).await.unwrap();
    assert_eq!(bound, 1);
    refused(&server.url(4711), ErrorKind::Configuration, "DB index is out of range").await;
}

#[tokio::test]
async fn with_a_password() {
    let Some(server) = RedisServer::start_with_password("s%p@c/").await else { return };
    let url = |password: &str| format!("redis://{password}127.0.0.1:{}/0", server.port());
    works(&url(":s%25p%40c%2F@")).await;
    works(&url("default:s%25p%40c%2F@")).await;
    refused(&url(":secret@"), ErrorKind::Authentication, "password was refused").await;
    refused(&url("somebody:secret@"), ErrorKind::Authentication, "password was refused").await;
    refused(&url(""), ErrorKind::Authentication, "it asks for a password, and the URL has none").await;
}

/// redis-py sends `AUTH`, which such a server refuses, where `HELLO` takes any password.
#[tokio::test]
async fn with_a_password_where_there_is_none() {
    let Some(server) = RedisServer::start().await else { return };
    let url = |login: &str| format!("redis://{login}@127.0.0.1:{}/0", server.port());
    refused(&url(":secret"), ErrorKind::Authentication, "a password is given, and the server has none").await;
    works(&url("default:secret")).await;
}

#[tokio::test]
async fn a_server_without_tls_that_is_asked_for_it() {
    let Some(server) = RedisServer::start().await else { return };
    let url = RedisUrl::parse(&server.url(0).replace("redis:", "rediss:"), UrlPolicy::Broker).expect("our own URL");
    let options = RedisOptions { socket_connect_timeout: Duration::from_millis(300), ..RedisOptions::default() };
    let transport = RedisTransport::new(url, options, Clock::system(), fastrand::Rng::with_seed(3));
    let error = transport.connect().await.expect_err("it speaks no TLS").to_string();
    assert!(error.contains("timed out (does the server speak TLS?)"), "{error}");
}

#[tokio::test]
async fn nowhere() {
    let closed = free_port();
    refused(&format!("redis://:secret@127.0.0.1:{closed}/0"), ErrorKind::Connection, "connection refused").await;
    refused("redis://:secret@no-such-host.invalid/0", ErrorKind::Connection, "no-such-host.invalid").await;
    refused("redis+socket:///no/such/redis.sock", ErrorKind::Connection, "/no/such/redis.sock").await;
}

#[tokio::test]
async fn the_next_of_several_servers() {
    let Some(server) = RedisServer::start().await else { return };
    let transport = transport(&format!("redis://127.0.0.1:{}/0;{}", free_port(), server.url(0)));
    assert!(transport.connect().await.unwrap_err().is_connection());
    transport.connect().await.unwrap();
    assert_eq!(transport.uri(), server.url(0));
}

#[tokio::test]
async fn encrypted() {
    let Some(server) = RedisServer::start_with_tls().await else { return };
    let authority = server.certificates().expect("it was asked for").authority.display().to_string();
    let url = |query: &str| format!("{}?{query}", server.url(0));
    works(&url("ssl_cert_reqs=none")).await;
    works(&server.url(0)).await;
    works(&url(&format!("ssl_cert_reqs=required&ssl_ca_certs={authority}"))).await;
    let local = url(&format!("ssl_ca_certs={authority}")).replace("127.0.0.1", "localhost");
    works(&local).await;
    refused(&url("ssl_cert_reqs=required"), ErrorKind::Connection, "certificate").await;
    let plain = server.url(0).replace("rediss", "redis");
    assert!(transport(&plain).connect().await.is_err());
}

/// The client library can lose a request that is handed to it in the instant in which its connection ends, and would
/// answer it never.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_asks_in_the_instant_in_which_a_connection_ends_is_answered() {
    let Some(server) = RedisServer::start().await else { return };
    let mut killer = server.connection().await;
    // The server may yet have to notice that whoever waited for it is gone.
    let is_alone = async || {
        let list =
            redis::cmd("CLIENT").arg(&["LIST", "TYPE", "normal"]).query_async::<String>(&mut killer.clone()).await;
        list.unwrap().lines().count() == 1
    };
    eventually("nobody else is connected", is_alone).await;
    for round in 0..ROUNDS {
        let asked = server.connection().await;
        let askers: Vec<_> = (0..ASKERS).map(|_| tokio::spawn(ask_until_it_ends(asked.clone()))).collect();
        tokio::time::sleep(Duration::from_micros(500)).await;
        let killed: redis::RedisResult<u32> =
            redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").query_async(&mut killer).await;
        assert_eq!(killed, Ok(1), "all but the killer's own");
        for asker in askers {
            let answered = tokio::time::timeout(LONG, asker).await;
            assert!(answered.is_ok(), "in round {round} somebody was not answered");
        }
    }
}

const ROUNDS: usize = 300;
const ASKERS: usize = 16;

async fn ask_until_it_ends(mut connection: impl redis::aio::ConnectionLike) {
    while redis::cmd("PING").query_async::<()>(&mut connection).await.is_ok() {}
}
