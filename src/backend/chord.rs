//! Chords: what a member reports, what counting it says, and who may publish the body ([`NativeChords`]).

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::codec::Codec;
use super::join::exception_of;
use super::{EncodedResult, ResultBackend};
use crate::Result;
use crate::config::RetryPolicy;
use crate::protocol::{Exception, MetaResult, ResultTuple, State, Value};

/// A backend that counts the members of a chord itself (celery/backends/redis.py `RedisBackend.on_chord_part_return`);
/// with the others the task `celery.chord_unlock` polls: [`poll_chord`](super::poll_chord).
///
/// The way of a chord: [`start_chord`](Self::start_chord) by whoever sends it; each member's part by
/// [`store_with_parts`](Self::store_with_parts), of which one answers [`ChordProgress::Complete`]; its worker reads the
/// results with [`claimed`](Self::claimed), extends the claim, publishes the body and completes the chord; or fails it.
/// A worker that dies on the way leaves a claim that expires, and the member that is delivered again claims anew.
#[async_trait]
pub trait NativeChords: ResultBackend {
    /// Whether a chord is announced by [`save_header`](Self::save_header) alone, whatever its header is made of, and
    /// [`start_chord`](Self::start_chord) has no effect.
    fn wants_header(&self) -> bool {
        false
    }

    /// Announces a chord of `size` members. Members may have reported already. A group that a header's chain ends in
    /// announces itself when the chain comes to it, under the chord's id: a larger size that is there counts those too,
    /// and stays.
    async fn start_chord(&self, group_id: &str, size: u64) -> Result<()>;

    /// Saves the structure of a header in which groups stand, so that [`claimed`](Self::claimed) can join it
    /// (`RedisBackend.apply_chord`). `header` is the whole group.
    async fn save_header(&self, header: &ResultTuple) -> Result<()>;

    /// Makes the chord wait for one more member, with this id and place in the header. A member is waited for once,
    /// however often it is added: an answer may be lost, and a task that adds one may be delivered again.
    async fn add_to_chord(&self, group_id: &str, task_id: &str, group_index: Option<i64>) -> Result<()>;

    /// A part as bytes, with a token of its own to claim the chord with.
    ///
    /// # Errors
    /// `Encode`: the serializer cannot write its result; `Backend`: it has no task or group, or is too large.
    fn encode_part(&self, part: &ChordPart) -> Result<EncodedPart>;

    /// Stores results as [`store_encoded`](ResultBackend::store_encoded) does, then counts parts, all in one round trip.
    /// A part counts once, however often it comes. The answers stand in the parts' order; a chord that cannot be counted
    /// is an error for its own parts only.
    ///
    /// # Errors
    /// Those of `store_encoded`. The same batch may be given again: a part that has claimed its chord claims it again.
    async fn store_with_parts(
        &self,
        results: &[EncodedResult],
        parts: &[EncodedPart],
    ) -> Result<Vec<Result<ChordProgress>>>;

    /// What the members of a claimed chord came to: the results in their order, or the first failure in it. A header that
    /// was saved is joined, for `result_chord_join_timeout` at most.
    ///
    /// # Errors
    /// Those of reading from the backend: the claim is still held, and expires.
    async fn claimed(&self, claim: &ChordClaim) -> Result<ChordOutcome>;

    /// Keeps the claim for `lease` from now on, or takes it again if it has expired and nobody else has it; `false`:
    /// another worker has it, or the chord is over, and its body must not be published.
    async fn extend_claim(&self, claim: &ChordClaim, lease: Duration) -> Result<bool>;

    /// Forgets a chord whose body is published, and remembers that it is done for copies of members that come late;
    /// `false`: the claim had been lost.
    async fn complete_chord(&self, claim: &ChordClaim) -> Result<bool>;

    /// Makes sure that copies of members that come late do not fail a failed chord again.
    async fn fail_chord(&self, group_id: &str) -> Result<()>;
}

/// What a member of a chord reports when it has succeeded or failed.
#[derive(Debug, Clone, PartialEq)]
pub struct ChordPart {
    /// The chord's header: the request's `group`.
    pub group_id: String,
    /// The member.
    pub task_id: String,
    /// The member's place in the header: the request's `group_index`.
    pub group_index: Option<i64>,
    /// SUCCESS, FAILURE or REVOKED.
    pub state: State,
    /// What it returned or raised.
    pub result: MetaResult,
}

/// A part as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedPart {
    /// The chord's header.
    pub group_id: String,
    /// The member.
    pub task_id: String,
    /// Its place in the header; without one it comes after those that have one.
    pub group_index: Option<i64>,
    /// The list `[1, task_id, state, result]`, serialized and perhaps compressed.
    pub payload: Bytes,
    /// What the chord is claimed with if this part completes it.
    pub token: String,
}

/// What counting a part said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChordProgress {
    /// The chord is not complete, or not announced yet: nothing is to be done.
    Waiting,
    /// The chord is done, and this was a copy of a member: nothing is to be done.
    Late,
    /// The chord is complete and claimed by another worker, for this long if nothing else happens. If that one dies the
    /// part must be counted again; [`ResultWriter::store_with_part`](super::ResultWriter::store_with_part) does.
    Busy(Duration),
    /// The chord is complete, and its body is the caller's to publish.
    Complete(ChordClaim),
}

/// The right to publish a chord's body, for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChordClaim {
    /// The chord's header.
    pub group_id: String,
    /// What tells this claim from others.
    pub token: String,
    /// How many parts there are.
    pub count: u64,
    /// For how long it was claimed.
    pub lease: Duration,
}

/// What the members of a chord came to.
#[derive(Debug, Clone, PartialEq)]
pub enum ChordOutcome {
    /// The first argument of the body.
    Results(Vec<Value>),
    /// Why there is nothing to call the body with.
    Failed(ChordFailure),
}

/// Why a chord failed: a `ChordError` and its cause.
#[derive(Debug, Clone, PartialEq)]
pub struct ChordFailure {
    /// The `ChordError`'s text: `Dependency <id> raised ValueError('bad')`.
    pub message: String,
    /// What the member raised, where the `ChordError` has it as its `__cause__`.
    pub cause: Option<Exception>,
}

impl ChordClaim {
    /// For how long to extend the claim before publishing: an estimate of the time that publishing takes with all its
    /// retries (celery/backends/redis.py `RedisBackend._chord_publish_claim_expires`), in whole seconds. `retries` is
    /// `None` when publishing is tried once; `connection_timeout` is `broker_connection_timeout`.
    pub fn publish_lease(&self, retries: Option<&RetryPolicy>, connection_timeout: Option<Duration>) -> Duration {
        let Some(timeout) = connection_timeout else { return self.lease * 2 };
        // Celery too counts a policy without a limit as a small one: a lease must end (`_callback_publish_max_retries`).
        let tries = retries.map_or(0, |policy| policy.max_retries.unwrap_or(3)).min(10_000);
        let pause = |policy: &RetryPolicy, number: u32| {
            policy.interval_start.saturating_add(policy.interval_step.saturating_mul(number)).min(policy.interval_max)
        };
        let waits = retries.map_or(Duration::ZERO, |policy| {
            (0..tries).fold(Duration::ZERO, |sum, number| sum.saturating_add(pause(policy, number)))
        });
        let connecting = timeout.saturating_mul(tries + 1).saturating_add(timeout.max(Duration::from_secs(1)));
        let whole = Duration::from_secs(connecting.saturating_add(waits).as_secs_f64().ceil() as u64);
        whole.max(self.lease)
    }
}

impl ChordFailure {
    /// What a member raised, in Celery's words.
    pub(super) fn dependency(task_id: &str, raised: Option<Exception>) -> Self {
        let shown = raised.as_ref().map_or_else(|| "None".to_owned(), Exception::to_string);
        ChordFailure { message: format!("Dependency {task_id} raised {shown}"), cause: raised }
    }

    /// What kept the results from being gathered, in Celery's words.
    pub(super) fn join(raised: &Exception) -> Self {
        ChordFailure { message: format!("Join error: {raised}"), cause: None }
    }

    /// The `ChordError` itself.
    pub fn exception(&self) -> Exception {
        Exception::celery("ChordError", self.message.as_str())
    }
}

/// What parts come to, in their order (`RedisBackend._unpack_chord_result`).
pub(super) fn outcome_of_parts<'a>(codec: &Codec, parts: impl Iterator<Item = &'a [u8]>) -> ChordOutcome {
    match parts.map(|part| value_of_part(codec, part)).collect() {
        Ok(values) => ChordOutcome::Results(values),
        Err(failure) => ChordOutcome::Failed(failure),
    }
}

fn value_of_part(codec: &Codec, part: &[u8]) -> Result<Value, ChordFailure> {
    let unreadable = |error: crate::Error| {
        ChordFailure::join(&Exception::with_args("DecodeError", "kombu.exceptions", [error.to_string()]))
    };
    let (task_id, state, result) = codec.decode_part(part).map_err(unreadable)?;
    if state.is_propagated() {
        let raised = exception_of(&result).map_err(|exception| ChordFailure::join(&exception))?;
        return Err(ChordFailure::dependency(&task_id, raised));
    }
    Ok(match result {
        MetaResult::Value(value) => value,
        MetaResult::Exception(exception) => exception.to_map().into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::BackendOptions;

    #[test]
    fn a_lease_for_publishing_is_celerys_estimate() {
        let seconds = Duration::from_secs;
        let policy = |max_retries, start, step, interval_max| RetryPolicy {
            max_retries,
            interval_start: Duration::from_secs_f64(start),
            interval_step: Duration::from_secs_f64(step),
            interval_max: Duration::from_secs_f64(interval_max),
            timeout: None,
        };
        let usual = policy(Some(3), 0.0, 0.2, 1.0);
        let rows = [
            (6, Some(&usual), Some(seconds(4)), 21),
            (30, Some(&usual), Some(seconds(4)), 30),
            (6, None, Some(seconds(4)), 8),
            (6, None, Some(Duration::ZERO), 6),
            (6, Some(&usual), None, 12),
            (6, Some(&policy(None, 0.0, 0.2, 1.0)), Some(seconds(4)), 21),
            (6, Some(&policy(Some(10), 1.0, 1.0, 3.0)), Some(seconds(1)), 39),
        ];
        for (lease, retries, timeout, expected) in rows {
            let claim =
                ChordClaim { group_id: "g".into(), token: "t".into(), count: 1, lease: Duration::from_secs(lease) };
            assert_eq!(claim.publish_lease(retries, timeout).as_secs(), expected, "{lease} {retries:?} {timeout:?}");
        }
        let endless = policy(Some(u32::MAX), f64::from(u32::MAX), 1e12, 1e12);
        let claim = ChordClaim { group_id: "g".into(), token: "t".into(), count: 1, lease: seconds(6) };
        assert!(claim.publish_lease(Some(&endless), Some(Duration::MAX)) > seconds(1_000_000));
    }

    #[test]
    fn parts_that_stock_workers_could_not_unpack_fail_the_chord_as_there() {
        let codec = Codec::new(&BackendOptions::default()).unwrap();
        let rows = [
            (r#"[1, "a", "FAILURE", null]"#, "Dependency a raised None"),
            (r#"[1, "a", "FAILURE", {"exc_type": "E", "exc_message": "m"}]"#, "Dependency a raised E('m')"),
            (r#"[1, "a", "REVOKED", {"exc_type": "E", "exc_message": []}]"#, "Dependency a raised E()"),
            (r#"[1, "a", "FAILURE", {"exc_message": 1}]"#, "Join error: ValueError('Exception information must"),
            (r#"[1, "a", "FAILURE", 5]"#, "Join error: TypeError("),
            (r#"[1, "a", "SUCCESS"]"#, "Join error: "),
            (r#"{"a": 1}"#, "Join error: "),
            ("[1, 2, 3, 4]", "Join error: "),
            ("", "Join error: "),
            ("\u{0}celery-compressed\u{0}application/x-gzip\u{0}x", "Join error: DecodeError("),
        ];
        for (part, expected) in rows {
            let good: &[u8] = br#"[1, "b", "SUCCESS", 1]"#;
            let ChordOutcome::Failed(failure) = outcome_of_parts(&codec, [good, part.as_bytes()].into_iter()) else {
                panic!("{part}")
            };
            assert!(failure.message.starts_with(expected), "{part}: {}", failure.message);
        }
    }
}
