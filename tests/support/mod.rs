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

use std::fmt::Debug;
use std::future::Future;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpSocket;
use tokio::time::{Instant, sleep};

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
            sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(LONG, waiting).await.is_err() {
        panic!("waited {LONG:?} in vain: {what}");
    }
}

/// What comes of an attempt that is given less time than a busy machine may take: it is made again until it is in time.
pub(crate) async fn at_last<T, E: Debug, Fut: Future<Output = Result<T, E>>>(attempt: impl Fn() -> Fut) -> T {
    let deadline = Instant::now() + LONG;
    loop {
        match attempt().await {
            Ok(made) => return made,
            Err(error) if Instant::now() > deadline => panic!("tried for {LONG:?} in vain: {error:?}"),
            Err(_) => sleep(Duration::from_millis(5)).await,
        }
    }
}

pub(crate) fn skipped<T>(program: &str, error: &io::Error) -> Option<T> {
    // Not `eprintln`, which is shown for failing tests alone.
    let _ = writeln!(io::stderr(), "skipped: {program} is not installed ({error})");
    None
}

/// A port that nobody listens on, and that nobody else is given before the tests end.
///
/// A socket stays bound to it, and never listens: the kernel then gives the port neither to who asks for any nor to an
/// outgoing connection, and yet lets a server listen there that asks for it (with `SO_REUSEADDR`, as all of ours do).
pub(crate) fn free_port() -> u16 {
    let kept = TcpSocket::new_v4().expect("a socket");
    kept.set_reuseaddr(true).expect("it is not yet bound");
    kept.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a free port");
    let port = kept.local_addr().expect("it is bound").port();
    std::mem::forget(kept);
    port
}
