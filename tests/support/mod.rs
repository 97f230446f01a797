//! What tests of several files share: brokers of their own.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod cargo;
pub(crate) mod certificates;
pub(crate) mod memcached_server;
pub(crate) mod postgres_server;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod rabbitmq_server;
pub(crate) mod redis_server;

use std::future::Future;
use std::io::{self, Write as _};
use std::net::TcpListener;
use std::time::Duration;

/// For what is only waited for and not measured: the machine may be busy, and its disk may stand still for a while.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Waits until something outside of this process is so; fails the test if it is not in a [`LONG`] time.
pub(crate) async fn eventually<F, Fut>(what: &str, mut holds: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(LONG, waiting).await.is_err() {
        panic!("waited {LONG:?} in vain: {what}");
    }
}

pub(crate) fn skipped<T>(program: &str, error: &io::Error) -> Option<T> {
    // Not `eprintln`, which is shown for failing tests alone.
    let _ = writeln!(io::stderr(), "skipped: {program} is not installed ({error})");
    None
}

/// A port that nobody listens on at this moment.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").port()
}
