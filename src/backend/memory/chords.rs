//! Chords in this process: the rules of the Redis scripts, on maps.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use super::MemoryBackend;
use crate::Result;
use crate::backend::chord::outcome_of_parts;
use crate::backend::join::join_header;
use crate::backend::{
    BackendOptions, ChordClaim, ChordOutcome, ChordPart, ChordProgress, EncodedPart, EncodedResult, NativeChords,
    ResultBackend,
};
use crate::protocol::ResultTuple;

/// All chords that are counted.
#[derive(Default)]
pub(super) struct Chords {
    chords: HashMap<String, Chord>,
    /// At how many chords the expired ones are next looked for.
    next_purge: usize,
}

#[derive(Default)]
struct Chord {
    /// In the order in which the body gets them.
    parts: BTreeMap<Place, Bytes>,
    /// Who has been counted, by id and place in the header: a reused signature stands there under one id twice.
    counted: HashSet<(String, Option<i64>)>,
    size: Option<u64>,
    /// Members added while the chord ran, by id and place, too.
    added: HashSet<(String, Option<i64>)>,
    claim: Option<Claim>,
    expires_at: Option<Instant>,
}

struct Claim {
    /// `None`: the chord is done.
    token: Option<String>,
    expires_at: Instant,
}

/// Where a part stands: those without an index last, and else in the order of their coming.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    has_none: bool,
    index: i64,
    arrival: usize,
}

impl Chords {
    fn chord(&mut self, group_id: &str, now: Instant) -> &mut Chord {
        self.purge(now);
        let chord = self.chords.entry(group_id.to_owned()).or_default();
        if chord.is_expired(now) {
            *chord = Chord::default();
        }
        chord
    }

    fn purge(&mut self, now: Instant) {
        if self.chords.len() >= self.next_purge.max(1024) {
            self.chords.retain(|_, chord| !chord.is_expired(now));
            self.next_purge = self.chords.len() * 2;
        }
    }

    fn count(&mut self, part: &EncodedPart, now: Instant, options: &BackendOptions) -> ChordProgress {
        let chord = self.chord(&part.group_id, now);
        if chord.claim.as_ref().is_some_and(|claim| claim.token.is_none()) {
            return ChordProgress::Late;
        }
        chord.add(part, options.chord_ordered);
        chord.expires_at = options.kept_for_chord().and_then(|time| now.checked_add(time));
        let count = chord.parts.len() as u64;
        if chord.size.is_none_or(|size| count != size.saturating_add(chord.added.len() as u64)) {
            return ChordProgress::Waiting;
        }
        let lease = options.claim_lease();
        match &chord.claim {
            Some(claim) if claim.token.as_ref() != Some(&part.token) => ChordProgress::Busy(claim.expires_at - now),
            _ => {
                chord.claim = Some(Claim { token: Some(part.token.clone()), expires_at: now + lease });
                let (group_id, token) = (part.group_id.clone(), part.token.clone());
                ChordProgress::Complete(ChordClaim { group_id, token, count, lease })
            }
        }
    }
}

impl Chord {
    /// A claim that has expired is taken away as well.
    fn is_expired(&mut self, now: Instant) -> bool {
        if self.claim.as_ref().is_some_and(|claim| claim.expires_at <= now) {
            self.claim = None;
        }
        self.claim.is_none() && self.expires_at.is_some_and(|expires_at| expires_at <= now)
    }

    fn add(&mut self, part: &EncodedPart, is_ordered: bool) {
        if !self.counted.insert((part.task_id.clone(), part.group_index)) {
            return;
        }
        let index = part.group_index.filter(|_| is_ordered);
        let place = Place { has_none: index.is_none(), index: index.unwrap_or(0), arrival: self.parts.len() };
        self.parts.insert(place, part.payload.clone());
    }

    fn is_claimed_by(&self, claim: &ChordClaim) -> bool {
        self.claim.as_ref().is_some_and(|held| held.token.as_ref() == Some(&claim.token))
    }
}

#[async_trait]
impl NativeChords for MemoryBackend {
    async fn start_chord(&self, group_id: &str, size: u64) -> Result<()> {
        let now = Instant::now();
        let mut kept = self.kept();
        let chord = kept.chords.chord(group_id, now);
        if chord.size.is_some_and(|known| known > size) {
            return Ok(());
        }
        chord.claim = None;
        chord.size = Some(size);
        chord.expires_at = self.options.kept_for_chord().and_then(|time| now.checked_add(time));
        Ok(())
    }

    async fn save_header(&self, header: &ResultTuple) -> Result<()> {
        self.keep_group(header, self.options.kept_for_chord())
    }

    async fn add_to_chord(&self, group_id: &str, task_id: &str, group_index: Option<i64>) -> Result<()> {
        let mut kept = self.kept();
        kept.chords.chord(group_id, Instant::now()).added.insert((task_id.to_owned(), group_index));
        Ok(())
    }

    fn encode_part(&self, part: &ChordPart) -> Result<EncodedPart> {
        self.codec.encode_part(part)
    }

    async fn store_with_parts(
        &self,
        results: &[EncodedResult],
        parts: &[EncodedPart],
    ) -> Result<Vec<Result<ChordProgress>>> {
        self.store_encoded(results).await?;
        let now = Instant::now();
        let mut kept = self.kept();
        Ok(parts.iter().map(|part| Ok(kept.chords.count(part, now, &self.options))).collect())
    }

    async fn claimed(&self, claim: &ChordClaim) -> Result<ChordOutcome> {
        if let Some(header) = self.restore_group(&claim.group_id).await? {
            return join_header(self, &header, self.options.chord_join_timeout).await;
        }
        let parts: Vec<Bytes> = {
            let mut kept = self.kept();
            kept.chords.chord(&claim.group_id, Instant::now()).parts.values().cloned().collect()
        };
        Ok(outcome_of_parts(&self.codec, parts.iter().map(|part| &part[..])))
    }

    async fn extend_claim(&self, claim: &ChordClaim, lease: Duration) -> Result<bool> {
        let now = Instant::now();
        let mut kept = self.kept();
        let chord = kept.chords.chord(&claim.group_id, now);
        let is_ours = chord.is_claimed_by(claim) || (chord.claim.is_none() && chord.size.is_some());
        if is_ours {
            chord.claim = Some(Claim { token: Some(claim.token.clone()), expires_at: now + lease });
        }
        Ok(is_ours)
    }

    async fn complete_chord(&self, claim: &ChordClaim) -> Result<bool> {
        let now = Instant::now();
        let mut kept = self.kept();
        let chord = kept.chords.chord(&claim.group_id, now);
        let is_ours = chord.is_claimed_by(claim);
        if is_ours {
            let done = Claim { token: None, expires_at: now + self.options.done_lease() };
            *chord = Chord { claim: Some(done), expires_at: Some(now), ..Chord::default() };
        }
        Ok(is_ours)
    }

    async fn fail_chord(&self, group_id: &str) -> Result<()> {
        self.kept().chords.chord(group_id, Instant::now()).size = None;
        Ok(())
    }
}
