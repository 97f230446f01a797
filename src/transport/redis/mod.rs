//! Redis as the broker, with the keys and values of kombu/transport/redis.py, so that stock workers, producers and tools
//! share the queues with us.
//!
//! [`RedisTransport`] owns what outlives a connection: the `Ledger` of reserved messages and of settlements still to be
//! written. A connection runs three background parts until it is lost or closed: the *flusher* writes settlements, the
//! *keeper* renews leases and restores what dead workers left, and a *driver* for each consumer reserves messages.
//! Broadcasts come over a connection of their own (`fanout`), so that their trouble stays theirs.
//!
//! A message leaves its list and is registered in `unacked` in one script, and it leaves `unacked` together with what
//! replaces it in another: at no instant is it nowhere. Nothing here decides when to connect again; that is for the
//! caller, with [`Backoff`](super::Backoff).

mod bindings;
mod browse;
mod claimed;
mod connection;
mod consumer;
mod fanout;
mod flush;
mod inbox;
mod keeper;
mod keys;
mod ledger;
mod misfits;
mod notes;
mod options;
mod publish;
mod reserve;
mod unacked;
mod wake;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use uuid::Uuid;

use super::{Capabilities, Connection, Transport};
use crate::Result;
use crate::redis_client::{RedisUrl, Script};
use crate::time::Clock;
use connection::RedisConnection;
use keys::Keys;
use ledger::Ledger;
pub use options::{RedisOptions, Waiting};

/// Redis as the broker.
pub struct RedisTransport {
    shared: Arc<Shared>,
}

impl RedisTransport {
    /// A transport to the servers of `url`. `clock` gives the times in `unacked_index`, which other workers compare with
    /// their own; `rng` makes pauses differ from worker to worker.
    pub fn new(url: RedisUrl, options: RedisOptions, clock: Clock, rng: fastrand::Rng) -> Self {
        for name in url.endpoint().option_names() {
            tracing::warn!("the option {name} of {url} is not heeded");
        }
        // Tags must differ from those of every other process, so they do not come from a generator that can be seeded.
        let ledger = Ledger::new(format!("celeriac-{}-", Uuid::new_v4().simple()));
        let shared = Shared {
            keys: Keys::new(&options, url.endpoint().db()),
            ledger: Arc::new(ledger),
            scripts: Scripts::new(),
            rng: Mutex::new(rng),
            url,
            options,
            clock,
        };
        RedisTransport { shared: Arc::new(shared) }
    }
}

#[async_trait]
impl Transport for RedisTransport {
    fn uri(&self) -> String {
        self.shared.url.to_string()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            heeds_priorities: true,
            lowest_priority_first: true,
            redelivers_by_timeout: true,
            settles_across_connections: true,
            keeps_place_of_origin: true,
            requeues_to_the_end: true,
            browses_in_place: true,
            sends_ahead: false,
            delays_natively: false,
            has_neighbours: true,
            retries_refused_logins: true,
        }
    }

    /// Of several servers another may be in use here than there.
    fn keeps_claims(&self, server: &str) -> bool {
        self.shared.url.is_single() && server == self.uri()
    }

    async fn connect(&self) -> Result<Arc<dyn Connection>> {
        Ok(Arc::new(RedisConnection::open(Arc::clone(&self.shared)).await?))
    }
}

impl fmt::Debug for RedisTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisTransport({})", self.shared.url)
    }
}

/// What all connections of a transport share.
struct Shared {
    url: RedisUrl,
    options: RedisOptions,
    keys: Keys,
    clock: Clock,
    ledger: Arc<Ledger>,
    scripts: Scripts,
    rng: Mutex<fastrand::Rng>,
}

impl Shared {
    /// The time that is written into `unacked_index`: a quarter of the visibility timeout ago. What a dead worker held is
    /// then back within the timeout, with the rest left for whoever looks after it and for moving it; what a living one
    /// holds is renewed each third of the timeout, long before.
    fn lease(&self) -> f64 {
        self.clock.epoch_seconds() - self.options.visibility_timeout.as_secs_f64() / 4.0
    }

    /// A generator of its own for one background part.
    fn fork_rng(&self) -> fastrand::Rng {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner).fork()
    }
}

#[derive(Debug)]
struct Scripts {
    reserve: Script,
    moving: Script,
    wrap: Script,
    release: Script,
    take: Script,
    claimed: Script,
}

impl Scripts {
    fn new() -> Self {
        Scripts {
            reserve: Script::new(include_str!("reserve.lua")),
            moving: Script::new(include_str!("move.lua")),
            wrap: Script::new(include_str!("wrap.lua")),
            release: Script::new(include_str!("release.lua")),
            take: Script::new(include_str!("take.lua")),
            claimed: Script::new(include_str!("claimed.lua")),
        }
    }
}
