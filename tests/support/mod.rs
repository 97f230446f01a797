//! What tests of several files share: brokers of their own.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod proxy;
pub(crate) mod redis_server;

use std::future::Future;
use std::time::Duration;

/// Waits until something outside of this process is so; fails the test if it is not within ten seconds.
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
    if tokio::time::timeout(Duration::from_secs(10), waiting).await.is_err() {
        panic!("waited ten seconds in vain: {what}");
    }
}
