//! Notes: short texts beside the messages, each under a key of its own, so that each is forgotten in its own time.

use std::time::Duration;

use redis::Pipeline;
use redis::aio::MultiplexedConnection;

use super::Shared;
use super::flush::run;
use crate::Result;
use crate::redis_client::failure;
use crate::transport::Note;

/// Reads notes; one round trip.
pub(super) async fn read(
    shared: &Shared,
    connection: &mut MultiplexedConnection,
    names: &[String],
) -> Result<Vec<Option<String>>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let mut read = redis::cmd("MGET");
    for name in names {
        read.arg(shared.keys.note(name));
    }
    let notes: redis::RedisResult<Vec<Option<String>>> = read.query_async(connection).await;
    notes.map_err(|error| failure("cannot read notes of", &shared.url, error))
}

/// Writes notes and removes those that are to be none; one round trip.
pub(super) async fn write(
    shared: &Shared,
    connection: &mut MultiplexedConnection,
    notes: &[Note],
    kept_for: Duration,
) -> Result<()> {
    let failed = |error| failure("cannot write notes to", &shared.url, error);
    let milliseconds = u64::try_from(kept_for.as_millis()).unwrap_or(u64::MAX).max(1);
    let mut pipeline = Pipeline::with_capacity(notes.len());
    for Note { name, text } in notes {
        match text {
            Some(text) => pipeline.cmd("SET").arg(shared.keys.note(name)).arg(text).arg("PX").arg(milliseconds),
            None => pipeline.cmd("DEL").arg(shared.keys.note(name)),
        };
    }
    let answers = run(connection, &pipeline).await.map_err(failed)?;
    answers.into_iter().try_for_each(|answer| answer.extract_error().map(drop)).map_err(failed)
}
