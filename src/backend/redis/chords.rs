//! Chords in Redis, under the keys and with the effects of celery/backends/redis.py: `.j` the parts, `.s` how many there
//! shall be, `.t` how many more, `.d` who has been counted, `.c` who may publish the body.
//!
//! A part counts once. Whoever completes the chord holds a claim that expires, so that a killed worker's member, delivered
//! again, publishes the body; a copy that finds another's claim waits for its end before it is acknowledged. Workers older
//! than Celery 5.7 know the first three keys alone; they and we complete each other's chords. A copy of what one of them
//! counted last waits as long as a claim, for that worker is publishing the body.
//!
//! What remains: a worker killed between publishing the body and completing the chord. Its member, if it is delivered
//! again before the keys expire, publishes once more, as under stock Celery.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use redis::{Pipeline, Value};

use super::RedisBackend;
use crate::backend::chord::outcome_of_parts;
use crate::backend::join::join_header;
use crate::backend::{
    ChordClaim, ChordOutcome, ChordPart, ChordProgress, EncodedPart, EncodedResult, NativeChords, ResultBackend,
};
use crate::protocol::ResultTuple;
use crate::{Error, ErrorKind, Result};

/// Announces a chord.
pub(super) const START: &str = include_str!("start.lua");

/// Counts parts.
pub(super) const PART: &str = include_str!("part.lua");

/// Ends a chord.
pub(super) const COMPLETE: &str = include_str!("complete.lua");

/// Makes a chord wait for one more.
pub(super) const ADD: &str = include_str!("add.lua");

/// Holds a claim for longer.
pub(super) const EXTEND: &str = include_str!("extend.lua");

/// How many parts one run of the script counts, so that other clients do not wait.
const CHUNK: usize = 100;

/// How many parts of a claimed chord are read at a time.
const READ: u64 = 1000;

/// The parts of one chord in one run of the script: the last one claims for all.
struct Members<'a> {
    parts: Vec<(usize, &'a EncodedPart)>,
}

#[async_trait]
impl NativeChords for RedisBackend {
    async fn start_chord(&self, group_id: &str, size: u64) -> Result<()> {
        let mut call = self.link.start.call(2);
        for suffix in [".c", ".s"] {
            call.arg(self.group_key(group_id, suffix));
        }
        call.arg(size).arg(seconds(self.options.kept_for_chord()));
        self.asked(call).await.map(|_| ())
    }

    async fn save_header(&self, header: &ResultTuple) -> Result<()> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("SET").arg(self.group_key(&header.id, "")).arg(self.codec.encode_group(header)?);
        expiring(&mut pipeline, self.options.kept_for_chord());
        self.link.query(&pipeline).await.map(|_| ())
    }

    async fn add_to_chord(&self, group_id: &str, task_id: &str, group_index: Option<i64>) -> Result<()> {
        let mut call = self.link.add.call(2);
        for suffix in [".t", ".d"] {
            call.arg(self.group_key(group_id, suffix));
        }
        call.arg(member(task_id, group_index)).arg(seconds(self.options.kept_for_chord()));
        self.asked(call).await.map(|_| ())
    }

    fn encode_part(&self, part: &ChordPart) -> Result<EncodedPart> {
        self.codec.encode_part(part)
    }

    async fn store_with_parts(
        &self,
        results: &[EncodedResult],
        parts: &[EncodedPart],
    ) -> Result<Vec<Result<ChordProgress>>> {
        let runs: Vec<Vec<Members<'_>>> = runs(parts);
        let mut pipeline = self.storing(results);
        let stores = pipeline.len();
        for chords in &runs {
            self.count(chords, &mut pipeline);
        }
        let mut answers = self.link.query(&pipeline).await?;
        let counted = answers.split_off(stores);
        self.replace_unreadable(results, answers).await?;
        self.progress(parts.len(), &runs, counted)
    }

    async fn claimed(&self, claim: &ChordClaim) -> Result<ChordOutcome> {
        if let Some(header) = self.restore_group(&claim.group_id).await? {
            return join_header(self, &header, self.options.chord_join_timeout).await;
        }
        let mut payloads = Vec::new();
        for start in (0..claim.count).step_by(READ as usize) {
            let last = claim.count.min(start.saturating_add(READ)) - 1;
            let Some(Value::Array(read)) = self.link.query(&self.reading(claim, start, last)).await?.pop() else {
                return Err(self.link.unexpected());
            };
            payloads.extend(read.into_iter().filter_map(|part| match part {
                Value::BulkString(part) => Some(part),
                _ => None,
            }));
        }
        Ok(outcome_of_parts(&self.codec, payloads.iter().map(|part| &part[..])))
    }

    async fn extend_claim(&self, claim: &ChordClaim, lease: Duration) -> Result<bool> {
        let mut call = self.link.extend.call(2);
        for suffix in [".c", ".s"] {
            call.arg(self.group_key(&claim.group_id, suffix));
        }
        call.arg(&claim.token).arg(lease.as_secs().max(1));
        self.asked(call).await
    }

    async fn complete_chord(&self, claim: &ChordClaim) -> Result<bool> {
        let mut call = self.link.complete.call(5);
        for suffix in [".c", ".j", ".t", ".s", ".d"] {
            call.arg(self.group_key(&claim.group_id, suffix));
        }
        call.arg(&claim.token).arg(self.options.done_lease().as_secs());
        self.asked(call).await
    }

    async fn fail_chord(&self, group_id: &str) -> Result<()> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("DEL").arg(self.group_key(group_id, ".s"));
        self.link.query(&pipeline).await.map(|_| ())
    }
}

impl RedisBackend {
    fn count(&self, chords: &[Members<'_>], pipeline: &mut Pipeline) {
        let mut call = self.link.part.call(chords.len() * 6);
        for Members { parts } in chords {
            let group_id = parts.first().map_or("", |(_, part)| &part.group_id);
            for suffix in [".j", ".t", ".s", ".d", "", ".c"] {
                call.arg(self.group_key(group_id, suffix));
            }
        }
        call.arg(u8::from(self.options.chord_ordered));
        call.arg(seconds(self.options.kept_for_chord())).arg(seconds(self.options.kept_for_header()));
        call.arg(self.options.claim_lease().as_secs());
        for Members { parts } in chords {
            call.arg(parts.last().map_or("", |(_, part)| &part.token)).arg(parts.len());
            for (_, part) in parts {
                let score = score(part.group_index);
                call.arg(member(&part.task_id, part.group_index)).arg(score).arg(&part.payload[..]);
            }
        }
        pipeline.add_command(call);
    }

    /// What the script said, for each part in its place.
    fn progress(
        &self,
        count: usize,
        runs: &[Vec<Members<'_>>],
        counted: Vec<Value>,
    ) -> Result<Vec<Result<ChordProgress>>> {
        let mut progress: Vec<_> = (0..count).map(|_| Ok(ChordProgress::Waiting)).collect();
        for (chords, answer) in runs.iter().zip(counted) {
            let Value::Array(answers) = answer else { return Err(self.link.unexpected()) };
            for (Members { parts }, answer) in chords.iter().zip(answers) {
                let (code, ready, lease) = answered(answer).ok_or_else(|| self.link.unexpected())?;
                for (at, part) in parts {
                    let is_last = parts.last().is_some_and(|(last, _)| last == at);
                    progress[*at] = match &code {
                        Err(error) => Err(self.cannot_count(&part.group_id, error)),
                        Ok(-1) => Ok(ChordProgress::Late),
                        Ok(1) if is_last => Ok(ChordProgress::Complete(self.claim(part, ready))),
                        // A claim that never expires is not one of ours or Celery's.
                        Ok(2) if is_last && lease >= 0 => Ok(ChordProgress::Busy(Duration::from_millis(lease as u64))),
                        Ok(_) => Ok(ChordProgress::Waiting),
                    };
                }
            }
        }
        Ok(progress)
    }

    fn claim(&self, part: &EncodedPart, ready: i64) -> ChordClaim {
        ChordClaim {
            group_id: part.group_id.clone(),
            token: part.token.clone(),
            count: u64::try_from(ready).unwrap_or(0),
            lease: self.options.claim_lease(),
        }
    }

    fn cannot_count(&self, group_id: &str, error: &str) -> Error {
        Error::new(ErrorKind::Backend, format!("{} cannot count the chord {group_id}: {error}", self.link))
    }

    fn reading(&self, claim: &ChordClaim, start: u64, last: u64) -> Pipeline {
        let mut pipeline = Pipeline::new();
        let command = if self.options.chord_ordered { "ZRANGE" } else { "LRANGE" };
        pipeline.cmd(command).arg(self.group_key(&claim.group_id, ".j")).arg(start).arg(last);
        pipeline
    }

    async fn asked(&self, call: redis::Cmd) -> Result<bool> {
        let mut pipeline = Pipeline::new();
        pipeline.add_command(call);
        Ok(self.link.query(&pipeline).await? == [Value::Int(1)])
    }
}

/// A member's name among those that have been counted: a reused signature stands in a header under one id twice.
fn member(task_id: &str, group_index: Option<i64>) -> String {
    format!("{task_id}:{}", score(group_index))
}

fn score(group_index: Option<i64>) -> String {
    group_index.map_or_else(|| "+inf".to_owned(), |index| index.to_string())
}

fn seconds(time: Option<Duration>) -> u64 {
    time.map_or(0, |time| time.as_secs())
}

/// Parts in runs of the script, in each of them by chord. A chord's parts keep their order.
fn runs(parts: &[EncodedPart]) -> Vec<Vec<Members<'_>>> {
    let mut runs = Vec::with_capacity(parts.len().div_ceil(CHUNK));
    for (number, chunk) in parts.chunks(CHUNK).enumerate() {
        let mut chords: Vec<Members<'_>> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        for (at, part) in chunk.iter().enumerate() {
            let place = *places.entry(&part.group_id).or_insert(chords.len());
            if place == chords.len() {
                chords.push(Members { parts: Vec::new() });
            }
            chords[place].parts.push((number * CHUNK + at, part));
        }
        runs.push(chords);
    }
    runs
}

/// One chord's answer: a code or an error's text, how many parts there are, another claim's milliseconds.
fn answered(answer: Value) -> Option<(std::result::Result<i64, String>, i64, i64)> {
    let Value::Array(parts) = answer else { return None };
    match <[Value; 3]>::try_from(parts).ok()? {
        [Value::Int(code), Value::Int(ready), Value::Int(lease)] => Some((Ok(code), ready, lease)),
        [Value::BulkString(error), ..] => Some((Err(String::from_utf8_lossy(&error).into_owned()), 0, 0)),
        _ => None,
    }
}

/// Makes what the pipeline's last command sets expire.
pub(super) fn expiring(pipeline: &mut Pipeline, time: Option<Duration>) {
    if let Some(time) = time {
        pipeline.arg("EX").arg(time.as_secs());
    }
}
