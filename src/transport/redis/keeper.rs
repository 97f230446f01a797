//! The keeper: renews the leases of what we hold, and restores what dead workers left.

use std::sync::Arc;
use std::time::Duration;

use redis::RedisError;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};
use uuid::Uuid;

use super::connection::Link;
use super::flush::{End, MOVES, Move, give_back};
use super::{RedisOptions, Shared};
use crate::redis_client::SharedConnection;
use crate::transport::Tag;

/// How many leases one command renews.
const LEASES: usize = 1000;
/// The most that one restore looks at, if no limit is configured.
const RESTORES: usize = 100_000;
/// The longest that the lock outlives a process that dies with it. Each move is made only while the message is there and
/// expired, so two who restore at a time do each other no harm.
const LOCK: Duration = Duration::from_secs(1);
/// The shortest pause between two rounds, whatever is configured.
const SHORTEST: Duration = Duration::from_millis(20);

/// Renews leases until the connection is lost: at a third of the visibility timeout, since whoever restores has read the
/// time before it acts on it. The first round is a third after the connection was opened, which renews them too: however
/// often connections are lost, no lease grows older than an outage and a third.
pub(super) async fn run_leases(link: Arc<Link>) {
    let period = (link.shared.options.visibility_timeout / 3).max(SHORTEST);
    let mut rounds = interval(period);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    rounds.tick().await;
    loop {
        tokio::select! {
            () = link.lost.cancelled() => return,
            _ = rounds.tick() => {}
        }
        link.shared.ledger.resolve_doubts();
        if let Err(error) = renew(&link.shared, &mut link.connection.clone(), period / 4).await {
            let error = link.failed("cannot renew leases at", error);
            tracing::debug!("{error}");
            return;
        }
    }
}

/// Writes a new lease for all that we hold and that is still there. What takes many commands is spread over `within`, so
/// that the server has time for others; always in the same order, so that no lease waits for two rounds of it.
pub(super) async fn renew(
    shared: &Shared,
    connection: &mut SharedConnection,
    within: Duration,
) -> Result<(), RedisError> {
    let mut held: Vec<Tag> = shared.ledger.held();
    held.sort_unstable();
    let pause = within / u32::try_from(held.len().div_ceil(LEASES).max(1)).unwrap_or(u32::MAX);
    for (nth, tags) in held.chunks(LEASES).enumerate() {
        if nth > 0 && !pause.is_zero() {
            sleep(pause).await;
        }
        let mut renewal = redis::cmd("ZADD");
        renewal.arg(&shared.keys.unacked_index).arg("XX");
        let lease = shared.lease();
        for tag in tags {
            renewal.arg(lease).arg(shared.ledger.field(*tag));
        }
        renewal.query_async::<()>(connection).await?;
    }
    Ok(())
}

/// Looks after others' messages as kombu/transport/redis.py `QoS.restore_visible` does, at once and then at each
/// interval × throttle, from the first consumer on and until the connection is lost.
pub(super) async fn run_restores(link: Arc<Link>, mut consuming: watch::Receiver<bool>) {
    let options = &link.shared.options;
    tokio::select! {
        () = link.lost.cancelled() => return,
        begun = consuming.wait_for(|begun| *begun) => if begun.is_err() { return },
    }
    let mut rounds = interval(pause(options));
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = link.lost.cancelled() => return,
            _ = rounds.tick() => {}
        }
        match restore(&link.shared, &mut link.connection.clone()).await {
            Ok(0) => {}
            Ok(restored) => tracing::info!("Restored {restored} message(s) that nobody settled in time"),
            Err(error) => {
                let error = link.failed("cannot restore messages at", error);
                tracing::debug!("{error}");
                return;
            }
        }
    }
}

/// How long it is from one look for expired messages to the next: as configured, and often enough that a dead worker's
/// messages are back within the visibility timeout, of which a lease leaves the last quarter for that.
fn pause(options: &RedisOptions) -> Duration {
    let configured = options.unacked_restore_interval.saturating_mul(options.unacked_restore_throttle.max(1));
    configured.min(options.visibility_timeout / 8).max(SHORTEST)
}

/// Restores expired messages while nobody else does; answers how many.
async fn restore(shared: &Shared, connection: &mut SharedConnection) -> Result<usize, RedisError> {
    let token = Uuid::new_v4().simple().to_string();
    let mut lock = redis::cmd("SET");
    lock.arg(&shared.keys.unacked_mutex).arg(&token).arg("NX").arg("PX");
    lock.arg(shared.options.unacked_mutex_expire.min(LOCK).as_millis().max(1) as u64);
    if lock.query_async::<Option<String>>(connection).await?.is_none() {
        return Ok(0);
    }
    let restored = restore_expired(shared, connection).await;
    let mut release = shared.scripts.release.call(1);
    release.arg(&shared.keys.unacked_mutex).arg(&token);
    shared.scripts.release.run(connection, &release).await?;
    restored
}

async fn restore_expired(shared: &Shared, connection: &mut SharedConnection) -> Result<usize, RedisError> {
    let ceiling = shared.clock.epoch_seconds() - shared.options.visibility_timeout.as_secs_f64();
    let most = shared.options.unacked_restore_limit.map_or(RESTORES, |limit| limit as usize);
    let mut find = redis::cmd("ZRANGEBYSCORE");
    find.arg(&shared.keys.unacked_index).arg(0).arg(ceiling).arg("LIMIT").arg(0).arg(most);
    let expired: Vec<String> = find.query_async(connection).await?;
    // A lease of our own that is late is renewed soon.
    let fields: Vec<_> = expired.into_iter().filter(|field| !shared.ledger.holds(field)).collect();
    let mut restored = 0;
    // The newest first: what is pushed to the front last, the oldest, is consumed first.
    for fields in fields.rchunks(MOVES) {
        let moves = fields.iter().rev().map(|field| Move { field, end: End::Front, ceiling: Some(ceiling) });
        restored += give_back(shared, connection, &moves.collect::<Vec<_>>()).await?;
    }
    Ok(restored)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_timeout_is_looked_after_more_often_than_configured() {
        // Interval, throttle, timeout; the pause in milliseconds.
        let rows = [(10.0, 10, 3600.0, 100_000), (10.0, 10, 60.0, 7500), (0.1, 1, 5.0, 100), (10.0, 0, 0.001, 20)];
        for (interval, throttle, timeout, expected) in rows {
            let options = RedisOptions {
                unacked_restore_interval: Duration::from_secs_f64(interval),
                unacked_restore_throttle: throttle,
                visibility_timeout: Duration::from_secs_f64(timeout),
                ..RedisOptions::default()
            };
            assert_eq!(pause(&options).as_millis(), expected, "{interval} x {throttle} of {timeout}");
        }
    }
}
