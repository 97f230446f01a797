//! [`publish`]: hands messages to queues, [`answer`]: only to those that wait for it, and [`purge`]: throws them away.

use redis::{Pipeline, RedisError, Value};

use super::bindings::{Bindings, exchanges};
use super::connection::Link;
use super::flush::run;
use crate::Result;
use crate::redis_client::is_refusal;
use crate::transport::{Publication, Queue};

const PUBLISH: &str = "cannot publish to";

/// Publishes a batch: one round trip, and one before it if a message goes to a named exchange. Says of each whether it
/// was accepted; fails if the connection does.
pub(super) async fn publish(link: &Link, batch: &[Publication]) -> Result<Vec<Result<()>>> {
    let connection = &mut link.connection.clone();
    let exchanges = exchanges(batch.iter().map(|publication| publication.exchange.as_str()));
    let bindings = Bindings::look_up(&link.shared, connection, exchanges).await;
    let bindings = bindings.map_err(|error| link.failed(PUBLISH, error))?;
    let mut pipeline = Pipeline::with_capacity(batch.len());
    let pushes: Vec<_> = batch.iter().map(|publication| push(link, &bindings, publication, &mut pipeline)).collect();
    let answers = run(connection, &pipeline).await.map_err(|error| link.failed(PUBLISH, error))?;
    let mut answers = answers.into_iter();
    pushes.into_iter().map(|pushes| accepted(link, pushes, &mut answers)).collect()
}

/// Adds what brings a message to its queues, and says how many commands that is.
fn push(link: &Link, bindings: &Bindings, publication: &Publication, pipeline: &mut Pipeline) -> Result<usize> {
    let payload = link.shared.envelope(publication)?;
    let queues = bindings.queues(&publication.exchange, &publication.routing_key);
    let queues = queues.map_err(|error| link.refused(PUBLISH, error))?;
    let priority = publication.message.properties.priority.unwrap_or(0);
    for queue in &queues {
        pipeline.cmd("LPUSH").arg(link.shared.keys.list_for(queue, priority)).arg(&payload);
    }
    Ok(queues.len())
}

/// What the answers to a message's commands come to. They are all taken, whatever they are.
fn accepted(link: &Link, pushes: Result<usize>, answers: &mut impl Iterator<Item = Value>) -> Result<Result<()>> {
    let pushes = match pushes {
        Ok(pushes) => pushes,
        Err(error) => return Ok(Err(error)),
    };
    let answers = answers.by_ref().take(pushes).map(Value::extract_error);
    let refused = answers.fold(None, |refused, answer| refused.or(answer.err()));
    match refused {
        None => Ok(Ok(())),
        Some(error) if is_refusal(&error) => Ok(Err(link.refused(PUBLISH, error))),
        Some(error) => Err(link.failed(PUBLISH, error)),
    }
}

/// Pushes an answer to the queues that are bound for it; with none, nobody waits for it any more.
pub(super) async fn answer(link: &Link, answer: &Publication) -> Result<()> {
    let refused = |error| link.refused("cannot answer at", error);
    let (shared, connection) = (&link.shared, &mut link.connection.clone());
    let exchanges = exchanges([answer.exchange.as_str()].into_iter());
    let bindings = Bindings::look_up(shared, connection, exchanges).await.map_err(refused)?;
    let payload = shared.envelope(answer)?;
    let mut pipeline = Pipeline::new();
    for queue in bindings.bound(&answer.exchange, &answer.routing_key).map_err(refused)? {
        pipeline.cmd("LPUSH").arg(shared.keys.list(&queue, 0)).arg(&payload);
    }
    let answers = run(connection, &pipeline).await.map_err(refused)?;
    answers.into_iter().try_for_each(|answer| answer.extract_error().map(drop)).map_err(refused)
}

/// Empties queues and counts what was in them (kombu/transport/redis.py `Channel._purge`).
pub(super) async fn purge(link: &Link, queues: &[Queue]) -> Result<u64> {
    let keys = &link.shared.keys;
    let mut pipeline = Pipeline::new();
    pipeline.atomic();
    for queue in queues {
        for step in keys.steps() {
            let list = keys.list(queue.name.as_str(), *step);
            pipeline.llen(&list).del(&list).ignore();
        }
    }
    let counts: Result<Vec<u64>, RedisError> = pipeline.query_async(&mut link.connection.clone()).await;
    Ok(counts.map_err(|error| link.refused("cannot purge queues of", error))?.into_iter().sum())
}
