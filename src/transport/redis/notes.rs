//! Notes: short texts beside the messages, each under a key of its own, so that each is forgotten in its own time.

use std::time::Duration;

use redis::Pipeline;

use super::connection::Link;
use super::flush::run;
use crate::Result;
use crate::transport::Note;

/// Reads notes; one round trip.
pub(super) async fn read(link: &Link, names: &[String]) -> Result<Vec<Option<String>>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let mut read = redis::cmd("MGET");
    for name in names {
        read.arg(link.shared.keys.note(name));
    }
    let notes: redis::RedisResult<Vec<Option<String>>> = read.query_async(&mut link.connection.clone()).await;
    notes.map_err(|error| link.refused("cannot read notes of", error))
}

/// Writes notes and removes those that are to be none; one round trip.
pub(super) async fn write(link: &Link, notes: &[Note], kept_for: Duration) -> Result<()> {
    let (keys, refused) = (&link.shared.keys, |error| link.refused("cannot write notes to", error));
    let milliseconds = u64::try_from(kept_for.as_millis()).unwrap_or(u64::MAX).max(1);
    let mut pipeline = Pipeline::with_capacity(notes.len());
    for Note { name, text } in notes {
        match text {
            Some(text) => pipeline.cmd("SET").arg(keys.note(name)).arg(text).arg("PX").arg(milliseconds),
            None => pipeline.cmd("DEL").arg(keys.note(name)),
        };
    }
    let answers = run(&mut link.connection.clone(), &pipeline).await.map_err(refused)?;
    answers.into_iter().try_for_each(|answer| answer.extract_error().map(drop)).map_err(refused)
}
