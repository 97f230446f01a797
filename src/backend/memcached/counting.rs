//! What counting the members of a chord comes to, decided from what is stored; pure.
//!
//! Stock workers add one to the chord's number for each member that reports, and who brings it to the number of members
//! publishes the body (celery/backends/base.py `BaseKeyValueStoreBackend.on_chord_part_return`). Here the number is changed by
//! comparing and swapping, so that nothing is added twice, and who would complete it writes a claim: until when the chord is
//! its own, in milliseconds, far above what any chord has for members. A stock worker that counts a copy of a member then adds
//! one to that, which is seen to be none of ours and harms nothing. After the body another number says that all is done.
//!
//! A member counts if its result found none in its place. A copy may have been counted or not, as its worker may have died
//! between the two: it adds to the chord's doubts instead. A chord that is complete but for its doubts is complete if all of
//! its members are ready.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::backend::{ChordClaim, ChordProgress, EncodedPart};

/// Below this a number counts members.
const CLAIMS: u64 = 1 << 40;

/// From here on the chord is over.
pub(super) const DONE: u64 = 1 << 63;

/// What stock workers add to a claim stays below its time.
const NOISE: u32 = 20;

/// Of how much is remembered at most; what is forgotten costs a look at the members.
const MOST: usize = 10_000;

/// What a process knows of chords beside what is stored.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// The claims that it has written.
    pub(super) own: HashMap<String, Own>,
    /// The tokens of parts that have not been answered, and whether they may have been counted.
    pub(super) pending: HashMap<String, bool>,
    /// How many members chords had when that was last looked at: some may have been added.
    pub(super) sizes: HashMap<String, u64>,
    /// Chords that a stock worker seems to complete, and for how long that is believed.
    seen: HashMap<String, Timestamp>,
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

/// What is known of a chord at the moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    /// Its number.
    pub(super) number: Option<u64>,
    /// How many copies of members have come.
    pub(super) doubts: u64,
    /// How many members it has; `None`: not known.
    pub(super) size: Option<u64>,
    /// Whether the header has just been looked at; one that is gone has no members.
    pub(super) is_certain: bool,
    /// Whether all members are ready, once somebody has looked.
    pub(super) is_ready: Option<bool>,
    pub(super) now: Timestamp,
    /// For how long a chord is claimed.
    pub(super) lease: Duration,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// The header must be looked at first.
    NeedsHeader,
    /// The members must.
    NeedsReadiness,
    Is(Verdict),
}

/// What becomes of a chord and of the parts that were counted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// What each part is told, in their order.
    pub(super) progress: Vec<ChordProgress>,
    /// What its number becomes.
    pub(super) number: Option<u64>,
    /// How many doubts there are more.
    pub(super) doubts: u64,
}

impl Memory {
    /// What counting these parts of one chord comes to.
    pub(super) fn decide(&mut self, group_id: &str, members: &[Member<'_>], known: Known) -> Decision {
        match known.number {
            Some(number) if number >= DONE => Decision::Is(all(members, ChordProgress::Late)),
            Some(number) if number >= CLAIMS => Decision::Is(self.of_claimed(group_id, members, known, number)),
            Some(number) => self.counted(group_id, members, known, number),
            None if !known.is_certain => Decision::NeedsHeader,
            None if known.size.is_some() => self.counted(group_id, members, known, 0),
            // The chord is over for who has reported; others fail it, as a stock worker does.
            None => match members.iter().find(|member| member.has_result && !member.is_copy) {
                Some(member) => Decision::Is(self.claim(group_id, members, member, known)),
                None => Decision::Is(all(members, ChordProgress::Late)),
            },
        }
    }

    fn of_claimed(&mut self, group_id: &str, members: &[Member<'_>], known: Known, number: u64) -> Verdict {
        let left = left(number, known.now);
        if left.is_zero() {
            return members.last().map_or_else(Verdict::nothing, |last| self.claim(group_id, members, last, known));
        }
        let own = self.own.get(group_id).filter(|own| own.holds(number));
        let tell = |member: &Member<'_>| match own {
            Some(own) if own.token == member.part.token => ChordProgress::Complete(ChordClaim {
                group_id: group_id.to_owned(),
                token: own.token.clone(),
                count: known.size.unwrap_or(0),
                lease: left,
            }),
            _ => ChordProgress::Busy(left),
        };
        Verdict { progress: members.iter().map(tell).collect(), ..Verdict::nothing() }
    }

    fn counted(&mut self, group_id: &str, members: &[Member<'_>], known: Known, number: u64) -> Decision {
        let copies = members.iter().filter(|member| member.is_copy).count() as u64;
        let new = members.len() as u64 - copies;
        let Some(size) = known.size.or(known.is_certain.then_some(0)) else { return Decision::NeedsHeader };
        // A number that memcached has thrown out says nothing: from then on it is looked who is ready.
        let more = copies + if known.number.is_none() { size } else { 0 };
        let (reported, doubts) = (number + new, known.doubts.saturating_add(more));
        if reported.saturating_add(doubts) >= size && !known.is_certain {
            return Decision::NeedsHeader;
        }
        if size > 0 && number >= size {
            let until = known.now.checked_add(known.lease).unwrap_or(Timestamp::MAX);
            let until = *self.seen.entry(group_id.to_owned()).or_insert(until);
            let left = Duration::try_from(until.duration_since(known.now)).unwrap_or_default();
            if !left.is_zero() {
                return Decision::Is(all(members, ChordProgress::Busy(left)));
            }
        }
        let is_complete = reported >= size
            || match known.is_ready {
                _ if reported.saturating_add(doubts) < size => false,
                None => return Decision::NeedsReadiness,
                Some(is_ready) => is_ready,
            };
        let last = if is_complete { members.iter().rev().find(|one| !one.is_copy).or(members.last()) } else { None };
        Decision::Is(match last {
            Some(last) => self.claim(group_id, members, last, known),
            None => {
                // Where there are only doubts it is written as it was, and is another one to whoever has read it before.
                let number = (new > 0 || more > 0 || known.number.is_none()).then_some(reported);
                Verdict { number, doubts: more, ..all(members, ChordProgress::Waiting) }
            }
        })
    }

    fn claim(&mut self, group_id: &str, members: &[Member<'_>], by: &Member<'_>, known: Known) -> Verdict {
        let number = claim_number(known.now, known.lease);
        let token = by.part.token.clone();
        self.own.insert(group_id.to_owned(), Own { token: token.clone(), number, renewed: None });
        self.seen.remove(group_id);
        let claim =
            ChordClaim { group_id: group_id.to_owned(), token, count: known.size.unwrap_or(0), lease: known.lease };
        let tell = |member: &Member<'_>| match member.place.cmp(&by.place) {
            std::cmp::Ordering::Less => ChordProgress::Waiting,
            std::cmp::Ordering::Equal => ChordProgress::Complete(claim.clone()),
            std::cmp::Ordering::Greater => ChordProgress::Busy(known.lease),
        };
        Verdict { progress: members.iter().map(tell).collect(), number: Some(number), doubts: 0 }
    }
}

impl Own {
    /// Whether the number that is stored is this claim, whatever stock workers have added to it.
    pub(super) fn holds(&self, stored: u64) -> bool {
        let is = |number: u64| number >> NOISE == stored >> NOISE;
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
            self.pending.entry(part.token.clone()).or_insert(false);
        }
        known
    }

    /// These are about to be counted, and the answer may be lost.
    pub(super) fn may_be_counted(&mut self, members: &[Member<'_>]) {
        members.iter().for_each(|member| _ = self.pending.insert(member.part.token.clone(), true));
    }

    /// They were not: somebody else has changed the number.
    pub(super) fn was_not_counted(&mut self, members: &[Member<'_>]) {
        members.iter().for_each(|member| _ = self.pending.insert(member.part.token.clone(), member.is_copy));
        members.iter().for_each(|member| _ = self.own.remove(&member.part.group_id));
    }

    /// The part has been answered: it comes no more, but as a copy.
    pub(super) fn answered(&mut self, token: &str) {
        self.pending.remove(token);
    }

    /// A chord is over.
    pub(super) fn forget(&mut self, group_id: &str) {
        self.own.remove(group_id);
        self.sizes.remove(group_id);
        self.seen.remove(group_id);
    }

    /// Chords that never end would be remembered for ever.
    fn forget_some(&mut self, now: Timestamp) {
        if self.own.len() > MOST {
            self.own.retain(|_, own| !left(own.number, now).is_zero());
        }
        if self.pending.len() > MOST {
            self.pending.clear();
        }
        if self.sizes.len() > MOST {
            self.sizes.clear();
        }
        if self.seen.len() > MOST {
            self.seen.clear();
        }
    }
}

impl Verdict {
    fn nothing() -> Self {
        Verdict { progress: Vec::new(), number: None, doubts: 0 }
    }
}

fn all(members: &[Member<'_>], progress: ChordProgress) -> Verdict {
    Verdict { progress: vec![progress; members.len()], ..Verdict::nothing() }
}

/// The number of a claim that is made now.
pub(super) fn claim_number(now: Timestamp, lease: Duration) -> u64 {
    let lease = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX).clamp(1, 31_536_000_000);
    let until = u64::try_from(now.as_millisecond()).unwrap_or(0).saturating_add(lease);
    (until << NOISE).clamp(CLAIMS, DONE - 1)
}

fn left(number: u64, now: Timestamp) -> Duration {
    let now = u64::try_from(now.as_millisecond()).unwrap_or(0);
    Duration::from_millis((number >> NOISE).saturating_sub(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(6);

    fn part(token: &str) -> EncodedPart {
        EncodedPart {
            group_id: "g".into(),
            task_id: token.into(),
            group_index: None,
            payload: "".into(),
            token: token.into(),
        }
    }

    fn known(number: Option<u64>, doubts: u64, is_ready: Option<bool>) -> Known {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        Known { number, doubts, size: Some(3), is_certain: true, is_ready, now, lease: LEASE }
    }

    /// What counting parts comes to; `copy` are those whose names begin with `c`.
    fn decide(memory: &mut Memory, tokens: &[&str], known: Known) -> Decision {
        let parts: Vec<EncodedPart> = tokens.iter().map(|token| part(token)).collect();
        let members = parts.iter().enumerate().map(|(place, part)| {
            let is_copy = part.token.starts_with('c');
            Member { place, part, is_copy, has_result: true }
        });
        memory.decide("g", &members.collect::<Vec<_>>(), known)
    }

    fn verdict(decision: Decision) -> Verdict {
        match decision {
            Decision::Is(verdict) => verdict,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn members_are_added_and_copies_are_doubts() {
        let waiting = |count, number, doubts| Verdict { progress: vec![ChordProgress::Waiting; count], number, doubts };
        for (tokens, number, doubts, expected) in [
            (&["a"][..], 0, 0, waiting(1, Some(1), 0)),
            (&["a", "b"], 0, 0, waiting(2, Some(2), 0)),
            (&["a", "c1"], 0, 0, waiting(2, Some(1), 1)),
            (&["c1"], 1, 0, waiting(1, Some(1), 1)),
        ] {
            let decided = decide(&mut Memory::default(), tokens, known(Some(number), doubts, None));
            assert_eq!(verdict(decided), expected, "{tokens:?} {number}");
        }
    }

    #[test]
    fn who_completes_it_claims_and_who_comes_later_waits() {
        let mut memory = Memory::default();
        let done = verdict(decide(&mut memory, &["a", "b", "c1"], known(Some(1), 0, None)));
        let until = 1_800_000_006_000 << NOISE;
        assert_eq!((done.number, memory.own["g"].token.as_str()), (Some(until), "b"));
        assert!(matches!(&done.progress[..], [
            ChordProgress::Waiting,
            ChordProgress::Complete(claim),
            ChordProgress::Busy(LEASE)
        ] if claim.count == 3 && claim.lease == LEASE));
        // The answer was lost, or a stock worker has counted a copy meanwhile.
        for stored in [until, until + 2] {
            let again = verdict(decide(&mut memory, &["b"], known(Some(stored), 0, None)));
            assert!(matches!(again.progress[..], [ChordProgress::Complete(_)]) && again.number.is_none());
            let other = verdict(decide(&mut Memory::default(), &["c1"], known(Some(stored), 0, None)));
            assert_eq!(other.progress, [ChordProgress::Busy(LEASE)]);
        }
        let mut late = known(Some(until), 0, None);
        late.now += LEASE;
        let mut other = Memory::default();
        let taken = verdict(decide(&mut other, &["c1"], late));
        assert!(matches!(taken.progress[..], [ChordProgress::Complete(_)]));
        assert!(!memory.own["g"].holds(taken.number.unwrap()) && other.own["g"].holds(taken.number.unwrap()));
        let over = verdict(decide(&mut other, &["c1"], known(Some(DONE + 1), 0, None)));
        assert_eq!(over.progress, [ChordProgress::Late]);
    }

    #[test]
    fn a_chord_that_is_complete_but_for_its_doubts_is_looked_at() {
        for (number, doubts, tokens) in [(1, 1, &["a"][..]), (2, 0, &["c1"])] {
            let counted = |is_ready| decide(&mut Memory::default(), tokens, known(Some(number), doubts, is_ready));
            assert_eq!(counted(None), Decision::NeedsReadiness);
            assert_eq!(verdict(counted(Some(false))).progress, [ChordProgress::Waiting]);
            assert!(matches!(verdict(counted(Some(true))).progress[..], [ChordProgress::Complete(_)]));
        }
        let uncertain = Known { is_certain: false, ..known(Some(2), 0, None) };
        assert_eq!(decide(&mut Memory::default(), &["a"], uncertain), Decision::NeedsHeader);
    }

    #[test]
    fn who_is_stock_and_completes_it_is_waited_for_and_replaced_if_that_takes_too_long() {
        let mut memory = Memory::default();
        let complete = known(Some(3), 0, Some(true));
        assert_eq!(verdict(decide(&mut memory, &["c1"], complete)).progress, [ChordProgress::Busy(LEASE)]);
        let later = Known { now: complete.now + LEASE, ..complete };
        assert!(matches!(verdict(decide(&mut memory, &["c1"], later)).progress[..], [ChordProgress::Complete(_)]));
    }

    #[test]
    fn what_is_gone_is_over_for_copies_and_fails_with_the_others() {
        let gone = Known { size: None, ..known(None, 0, None) };
        assert_eq!(verdict(decide(&mut Memory::default(), &["c1"], gone)).progress, [ChordProgress::Late]);
        let failed = verdict(decide(&mut Memory::default(), &["a"], gone));
        assert!(matches!(failed.progress[..], [ChordProgress::Complete(_)]) && failed.number.is_some());
        // The number alone was thrown out.
        let counted = |is_ready| decide(&mut Memory::default(), &["a"], known(None, 0, is_ready));
        assert_eq!(counted(None), Decision::NeedsReadiness);
        let waiting = Verdict { progress: vec![ChordProgress::Waiting], number: Some(1), doubts: 3 };
        assert_eq!(verdict(counted(Some(false))), waiting);
    }
}
