//! [`Rig`]: a Redis, a clock that stands still, and transports to it.

use std::sync::Arc;
use std::time::Duration;

use celeriac::redis_client::SharedConnection;
use celeriac::redis_client::{RedisUrl, UrlPolicy};
use celeriac::time::Clock;
use celeriac::transport::{RedisOptions, RedisTransport, Transport};

use crate::support::redis_server::RedisServer;

pub(crate) struct Rig {
    pub(crate) server: RedisServer,
    pub(crate) clock: Clock,
}

/// The visibility timeout of these tests, by the rig's clock.
pub(crate) const VISIBILITY: Duration = Duration::from_millis(600);

/// Options with which others' messages are looked after all the time.
pub(crate) fn vigilant() -> RedisOptions {
    RedisOptions {
        visibility_timeout: VISIBILITY,
        unacked_restore_interval: Duration::from_millis(20),
        unacked_restore_throttle: 1,
        ..RedisOptions::default()
    }
}

impl Rig {
    pub(crate) async fn start() -> Option<Self> {
        let start = "2026-01-02T03:04:05.25Z".parse().expect("a time");
        Some(Rig { server: RedisServer::start().await?, clock: Clock::manual(start) })
    }

    pub(crate) fn transport(&self, options: RedisOptions) -> Arc<dyn Transport> {
        self.transport_at(&self.server.url(0), options)
    }

    pub(crate) fn transport_at(&self, url: &str, options: RedisOptions) -> Arc<dyn Transport> {
        let url = RedisUrl::parse(url, UrlPolicy::Broker).expect("our own URL");
        Arc::new(RedisTransport::new(url, options, self.clock.clone(), fastrand::Rng::with_seed(2)))
    }

    /// A connection to look behind the scenes.
    pub(crate) async fn redis(&self) -> SharedConnection {
        self.server.connection().await
    }

    /// How many messages are registered as reserved.
    pub(crate) async fn reserved(&self) -> usize {
        let mut redis = self.redis().await;
        redis::cmd("HLEN").arg("unacked").query_async(&mut redis).await.expect("it is up")
    }

    /// The texts in a list, the next to be consumed first.
    pub(crate) async fn list(&self, key: &str) -> Vec<String> {
        let mut redis = self.redis().await;
        let mut texts: Vec<String> =
            redis::cmd("LRANGE").arg(key).arg(0).arg(-1).query_async(&mut redis).await.expect("it is up");
        texts.reverse();
        texts
    }
}
