//! Storing batches: [`STORE`] keeps the state rules where the results are.

use std::collections::{HashSet, VecDeque};

use redis::{Pipeline, Value};

use super::RedisBackend;
use crate::Result;
use crate::backend::EncodedResult;
use crate::backend::rules::{is_early, overwrites};
use crate::protocol::State;

/// Stores a chunk of a batch.
pub(super) const STORE: &str = include_str!("store.lua");

/// Replaces one result whose state the other script could not read.
pub(super) const REPLACE: &str = include_str!("replace.lua");

/// How many results one run of the script stores: few enough that other clients do not wait, and enough to make the
/// script's own cost small.
const CHUNK: usize = 100;

/// A stored result that Lua could not read: a compressed one, or another serializer's.
struct Unreadable<'a> {
    result: &'a EncodedResult,
    stored: Vec<u8>,
}

impl RedisBackend {
    pub(super) async fn store_batch(&self, batch: &[EncodedResult]) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let answers = self.link.query(&self.storing(batch)).await?;
        self.replace_unreadable(batch, answers).await
    }

    /// What stores the batch, one command for each chunk.
    pub(super) fn storing(&self, batch: &[EncodedResult]) -> Pipeline {
        let mut pipeline = Pipeline::with_capacity(batch.len().div_ceil(CHUNK));
        for chunk in batch.chunks(CHUNK) {
            self.store_chunk(chunk, &mut pipeline);
        }
        pipeline
    }

    /// Goes on with the answers to [`storing`](Self::storing).
    pub(super) async fn replace_unreadable(&self, batch: &[EncodedResult], answers: Vec<Value>) -> Result<()> {
        let unreadable = batch.chunks(CHUNK).zip(answers).flat_map(|(chunk, answer)| unreadable(chunk, answer));
        self.replace_all(unreadable.collect()).await
    }

    fn store_chunk(&self, chunk: &[EncodedResult], pipeline: &mut Pipeline) {
        let mut call = self.link.store.call(chunk.len());
        for result in chunk {
            call.arg(self.key(&result.task_id));
        }
        let letters: Vec<u8> = chunk.iter().map(|result| letter(&result.state)).collect();
        call.arg(self.seconds(&State::Success)).arg(self.seconds(&State::Failure)).arg(letters);
        for result in chunk {
            call.arg(&result.payload[..]);
        }
        pipeline.add_command(call);
    }

    /// How many seconds a result in `state` is kept; 0: for ever.
    fn seconds(&self, state: &State) -> u64 {
        self.options.expires(state).map_or(0, |expires| expires.as_secs())
    }

    /// Decides here what Lua could not, in rounds: what a task has more than one of takes more than one.
    async fn replace_all(&self, mut waiting: VecDeque<Unreadable<'_>>) -> Result<()> {
        while !waiting.is_empty() {
            let mut seen = HashSet::new();
            let (round, later): (Vec<_>, Vec<_>) =
                waiting.into_iter().partition(|one| seen.insert(one.result.task_id.as_str()));
            waiting = self.replace_round(round).await?;
            // What they would have replaced is gone now: nothing is expected there, so that the script tells what is.
            waiting.extend(later.into_iter().map(|one| Unreadable { stored: Vec::new(), ..one }));
        }
        Ok(())
    }

    /// Returns those whose place had been taken meanwhile, with what is there now.
    async fn replace_round<'a>(&self, mut round: Vec<Unreadable<'a>>) -> Result<VecDeque<Unreadable<'a>>> {
        round.retain(|one| overwrites(&self.state_of(one), &one.result.state));
        let mut pipeline = Pipeline::with_capacity(round.len());
        for Unreadable { result, stored } in &round {
            let mut call = self.link.replace.call(1);
            call.arg(self.key(&result.task_id)).arg(self.seconds(&result.state)).arg(&result.payload[..]).arg(stored);
            pipeline.add_command(call);
        }
        if round.is_empty() {
            return Ok(VecDeque::new());
        }
        let answers = self.link.query(&pipeline).await?;
        let raced = round.into_iter().zip(answers).filter_map(|(one, answer)| match answer {
            Value::BulkString(stored) => Some(Unreadable { stored, ..one }),
            _ => None,
        });
        Ok(raced.collect())
    }

    /// What nobody can read protects nothing: the new result would otherwise be lost.
    fn state_of(&self, one: &Unreadable<'_>) -> State {
        if one.stored.is_empty() {
            return State::Pending;
        }
        self.codec.decode(&one.stored).map(|meta| meta.status).unwrap_or_else(|error| {
            tracing::warn!("The stored result of {} is overwritten: {error}", one.result.task_id);
            State::Pending
        })
    }
}

/// What the script must know of a state.
fn letter(state: &State) -> u8 {
    match state {
        State::Failure => b'F',
        state if is_early(state) => b'E',
        _ => b'R',
    }
}

/// The script answers with indices from 1 and stored bytes, by turns.
fn unreadable(chunk: &[EncodedResult], answer: Value) -> Vec<Unreadable<'_>> {
    let Value::Array(parts) = answer else { return Vec::new() };
    let mut parts = parts.into_iter();
    let mut found = Vec::new();
    while let (Some(Value::Int(index)), Some(Value::BulkString(stored))) = (parts.next(), parts.next()) {
        let result = usize::try_from(index).ok().and_then(|index| chunk.get(index.checked_sub(1)?));
        found.extend(result.map(|result| Unreadable { result, stored }));
    }
    found
}
