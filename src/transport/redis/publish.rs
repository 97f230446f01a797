//! [`publish`]: hands messages to queues, [`answer`]: only to those that wait for it, and [`purge`]: throws them away.

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisError};

use super::Shared;
use super::bindings::{Bindings, exchanges};
use super::flush::run;
use crate::redis_client::failure;
use crate::transport::{Publication, Queue};
use crate::{Error, Result};

/// Publishes a batch: one round trip, and one before it if a message goes to a named exchange.
pub(super) async fn publish(
    shared: &Shared,
    connection: &mut MultiplexedConnection,
    batch: &[Publication],
) -> Result<()> {
    let failed = |error| failure("cannot publish to", &shared.url, error);
    let exchanges = exchanges(batch.iter().map(|publication| publication.exchange.as_str()));
    let bindings = Bindings::look_up(shared, connection, exchanges).await.map_err(failed)?;
    // All are encoded before the first is sent: one that cannot be fails the batch as a whole.
    let mut pipeline = Pipeline::with_capacity(batch.len());
    for publication in batch {
        let payload = shared.envelope(publication)?;
        let priority = publication.message.properties.priority.unwrap_or(0);
        for queue in bindings.queues(&publication.exchange, &publication.routing_key) {
            pipeline.cmd("LPUSH").arg(shared.keys.list_for(&queue, priority)).arg(&payload);
        }
    }
    let answers = run(connection, &pipeline).await.map_err(failed)?;
    answers.into_iter().try_for_each(|answer| answer.extract_error().map(drop)).map_err(failed)
}

/// Pushes an answer to the queues that are bound for it; with none, nobody waits for it any more.
pub(super) async fn answer(
    shared: &Shared,
    connection: &mut MultiplexedConnection,
    answer: &Publication,
) -> Result<()> {
    let failed = |error| failure("cannot answer at", &shared.url, error);
    let exchanges = exchanges([answer.exchange.as_str()].into_iter());
    let bindings = Bindings::look_up(shared, connection, exchanges).await.map_err(failed)?;
    let payload = shared.envelope(answer)?;
    let mut pipeline = Pipeline::new();
    for queue in bindings.bound(&answer.exchange, &answer.routing_key) {
        pipeline.cmd("LPUSH").arg(shared.keys.list(&queue, 0)).arg(&payload);
    }
    let answers = run(connection, &pipeline).await.map_err(failed)?;
    answers.into_iter().try_for_each(|answer| answer.extract_error().map(drop)).map_err(failed)
}

/// Empties queues and counts what was in them (kombu/transport/redis.py `Channel._purge`).
pub(super) async fn purge(shared: &Shared, connection: &mut MultiplexedConnection, queues: &[Queue]) -> Result<u64> {
    let purged = async {
        let mut pipeline = Pipeline::new();
        pipeline.atomic();
        for queue in queues {
            for step in shared.keys.steps() {
                let list = shared.keys.list(queue.name.as_str(), *step);
                pipeline.llen(&list).del(&list).ignore();
            }
        }
        let counts: Vec<u64> = pipeline.query_async(connection).await?;
        Ok(counts.into_iter().sum())
    };
    purged.await.map_err(|error: RedisError| -> Error { failure("cannot purge queues of", &shared.url, error) })
}
