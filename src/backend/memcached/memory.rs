//! What a process remembers of the chords that it counts: parts that are under way, copies in doubt, and its claims.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::backend::{ChordProgress, EncodedPart};

/// Below this a number counts members.
pub(super) const CLAIMS: u64 = 1 << 40;

/// From here on the chord is over.
pub(super) const DONE: u64 = 1 << 63;

/// Below its time a claim has a few bits of who has made it, and below those what stock workers add to it.
pub(super) const TIME: u32 = 20;
const OWNER: u32 = 12;

/// For how long nothing may change before a copy is counted.
pub(super) const QUIET: Duration = Duration::from_secs(6);

/// For how long that is waited for: whoever waits has the place of another task. The doubt stays.
pub(super) const PATIENCE: Duration = QUIET.saturating_mul(10);

/// Of how much is remembered at most; what is forgotten costs a look at the members.
const MOST: usize = 10_000;

/// What a process knows of chords beside what is stored.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// The claims that it has written.
    pub(super) own: HashMap<String, Own>,
    /// The tokens of parts that have not been answered.
    pending: HashMap<String, Pending>,
    /// Those of copies that may not have been counted.
    pub(super) doubted: HashMap<String, Doubt>,
    /// How many members chords had when that was last looked at: some may have been added.
    pub(super) sizes: HashMap<String, u64>,
    /// Chords that a stock worker seems to complete, and for how long that is believed.
    pub(super) seen: HashMap<String, Timestamp>,
}

/// What is known of a part that has not been answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pending {
    Expected,
    /// It may have been counted.
    Copy,
    /// It was, and others of its batch could not be.
    Counted,
}

/// A copy that may not have been counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Doubt {
    /// Its chord's number, and how many members were ready, since when that is so.
    pub(super) seen: (u64, u64),
    pub(super) since: Timestamp,
    /// When it came first.
    pub(super) first: Timestamp,
    /// Whether it is among the chord's doubts.
    pub(super) is_written: bool,
}

/// A claim of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Own {
    pub(super) token: String,
    /// What it was stored as.
    pub(super) number: u64,
    /// What it may have been stored as since, by a renewal whose answer is not known.
    pub(super) renewed: Option<u64>,
}

/// A part that is to be counted.
#[derive(Debug, Clone)]
pub(super) struct Member<'a> {
    /// Its place in the batch.
    pub(super) place: usize,
    pub(super) part: &'a EncodedPart,
    /// Whether it may have been counted before.
    pub(super) is_copy: bool,
    /// Whether its result was stored along with it.
    pub(super) has_result: bool,
}

impl Own {
    /// Whether the number that is stored is this claim, whatever stock workers have added to it.
    pub(super) fn holds(&self, stored: u64) -> bool {
        let is = |number: u64| number >> OWNER == stored >> OWNER;
        is(self.number) || self.renewed.is_some_and(is)
    }

    /// The claim when it is about to be renewed: it may be stored as either number.
    pub(super) fn renewed_as(self, number: u64) -> Self {
        Own { renewed: Some(number), ..self }
    }

    /// The claim once that is known.
    pub(super) fn stored_as(self, number: u64) -> Self {
        Own { number, renewed: None, ..self }
    }
}

impl Memory {
    /// Remembers parts that are to be answered; whether each was known before.
    pub(super) fn expect(&mut self, parts: &[EncodedPart], now: Timestamp) -> Vec<bool> {
        self.forget_some(now);
        let known = parts.iter().map(|part| self.pending.contains_key(&part.token)).collect();
        for part in parts {
            self.pending.entry(part.token.clone()).or_insert(Pending::Expected);
        }
        known
    }

    /// Whether it may have been counted, as far as this process remembers.
    pub(super) fn is_copy(&self, token: &str) -> bool {
        self.pending.get(token).is_some_and(|pending| *pending != Pending::Expected) || self.doubted.contains_key(token)
    }

    /// Whether it was counted, in a batch in which others could not be.
    pub(super) fn is_counted(&self, token: &str) -> bool {
        self.pending.get(token) == Some(&Pending::Counted)
    }

    /// Its task had ended before: whatever becomes of its batch, it is a copy.
    pub(super) fn had_ended(&mut self, token: &str) {
        self.pending.insert(token.to_owned(), Pending::Copy);
    }

    /// These are about to be counted, and the answer may be lost.
    pub(super) fn may_be_counted(&mut self, members: &[Member<'_>]) {
        members.iter().for_each(|member| _ = self.pending.insert(member.part.token.clone(), Pending::Copy));
    }

    /// They were not: somebody else has changed the number.
    pub(super) fn was_not_counted(&mut self, members: &[Member<'_>]) {
        for member in members {
            let pending = if member.is_copy { Pending::Copy } else { Pending::Expected };
            self.pending.insert(member.part.token.clone(), pending);
            self.own.remove(&member.part.group_id);
        }
    }

    /// They were, and those that wait need not be counted once more if the rest of the batch comes again.
    pub(super) fn was_counted(&mut self, members: &[Member<'_>], progress: &[ChordProgress]) {
        for (member, _) in members.iter().zip(progress).filter(|(_, progress)| **progress == ChordProgress::Waiting) {
            self.pending.insert(member.part.token.clone(), Pending::Counted);
        }
    }

    /// The doubts about these are among the chord's.
    pub(super) fn was_doubted(&mut self, members: &[Member<'_>]) {
        for member in members {
            self.doubted.get_mut(&member.part.token).into_iter().for_each(|doubt| doubt.is_written = true);
        }
    }

    /// The part has been answered; unless it is to come again, it does so as a copy alone.
    pub(super) fn answered(&mut self, token: &str, comes_again: bool) {
        self.pending.remove(token);
        if !comes_again {
            self.doubted.remove(token);
        }
    }

    /// The claim of this process, if it has one that lasts.
    pub(super) fn claimed(&self, group_id: &str, now: Timestamp) -> Option<u64> {
        self.own.get(group_id).map(|own| own.number).filter(|number| !left(*number, now).is_zero())
    }

    /// What was known of a chord that is over is not true of one that has its id after it.
    pub(super) fn is_over(&mut self, group_id: &str) {
        self.sizes.remove(group_id);
        self.seen.remove(group_id);
    }

    /// A chord is over, and nobody asks for its claim any more.
    pub(super) fn forget(&mut self, group_id: &str) {
        self.own.remove(group_id);
        self.is_over(group_id);
    }

    /// Chords that never end would be remembered for ever.
    fn forget_some(&mut self, now: Timestamp) {
        if self.own.len() > MOST {
            self.own.retain(|_, own| own.number < DONE && !left(own.number, now).is_zero());
        }
        if self.pending.len() > MOST {
            self.pending.retain(|_, pending| *pending != Pending::Expected);
        }
        if self.pending.len() > MOST {
            self.pending.clear();
        }
        if self.doubted.len() > MOST {
            self.doubted.retain(|_, doubt| passed(doubt.first, now) < PATIENCE * 2);
        }
        if self.sizes.len() > MOST {
            self.sizes.clear();
        }
        if self.seen.len() > MOST {
            self.seen.clear();
        }
    }
}

/// The number of a claim that is made now.
pub(super) fn claim_number(now: Timestamp, lease: Duration, token: &str) -> u64 {
    let lease = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX).clamp(1, 31_536_000_000);
    let until = u64::try_from(now.as_millisecond()).unwrap_or(0).saturating_add(lease);
    // Tokens are random: two claims of one millisecond are still told apart most often.
    let owner = token.bytes().fold(0, |mixed: u64, byte| mixed.wrapping_mul(31).wrapping_add(byte.into()));
    let owner = (owner << OWNER) & ((1 << TIME) - 1);
    ((until << TIME) | owner).clamp(CLAIMS, DONE - 1)
}

pub(super) fn passed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

pub(super) fn left(number: u64, now: Timestamp) -> Duration {
    let now = u64::try_from(now.as_millisecond()).unwrap_or(0);
    Duration::from_millis((number >> TIME).saturating_sub(now))
}
