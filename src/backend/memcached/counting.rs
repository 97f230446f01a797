//! What counting the members of a chord comes to, decided from what is stored; pure.
//!
//! Stock workers add one to the chord's number for each member that reports, and who brings it to the number of members
//! publishes the body (celery/backends/base.py `BaseKeyValueStoreBackend.on_chord_part_return`). Here the number is changed by
//! comparing and swapping, so that nothing is added twice, and who would complete it writes a claim: until when the chord is
//! its own, in milliseconds by that worker's clock, far above what any chord has for members. A stock worker that counts a copy
//! of a member then adds one to that, which is seen to be none of ours and harms nothing. After the body another number says
//! that all is done.
//!
//! A member counts if its result found none in its place. A copy may have been counted or not, as its worker may have died
//! between the two. It was, if as many are counted as are ready. If not, it may be another that is not counted yet: the copy
//! adds to the chord's doubts, and comes again after a while; if nothing has changed meanwhile, it counts. A chord that is
//! complete but for its doubts is complete if all of its members are ready.

use std::time::Duration;

use jiff::Timestamp;

use super::memory::{CLAIMS, DONE, Doubt, Member, Memory, Own, PATIENCE, QUIET, claim_number, left, passed};
use crate::backend::{ChordClaim, ChordProgress};

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
    /// How many members are ready, once somebody has looked.
    pub(super) ready: Option<u64>,
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
            Some(number) if number >= DONE => {
                self.is_over(group_id);
                Decision::Is(all(members, ChordProgress::Late))
            }
            Some(number) if number >= CLAIMS => Decision::Is(self.of_claimed(group_id, members, known, number)),
            None if !known.is_certain => Decision::NeedsHeader,
            _ if known.is_certain && known.size.is_none() => Decision::Is(self.of_gone(group_id, members, known)),
            None if let Some(number) = self.claimed(group_id, known.now) => {
                // Who has the claim knows it, whatever memcached has thrown out.
                Decision::Is(Verdict { number: Some(number), ..self.of_claimed(group_id, members, known, number) })
            }
            number => self.counted(group_id, members, known, number),
        }
    }

    /// Without a header the chord is over for who has reported; others fail it, as a stock worker does.
    fn of_gone(&mut self, group_id: &str, members: &[Member<'_>], known: Known) -> Verdict {
        self.is_over(group_id);
        let claimed = self.claimed(group_id, known.now);
        match members.iter().find(|member| member.has_result && !member.is_copy) {
            // Who has it finds out.
            Some(_) if let Some(number) = claimed => all(members, ChordProgress::Busy(left(number, known.now))),
            Some(member) => self.claim(group_id, members, member, known),
            None => all(members, ChordProgress::Late),
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

    fn counted(&mut self, group_id: &str, members: &[Member<'_>], known: Known, number: Option<u64>) -> Decision {
        if let Some(verdict) = self.still_doubted(members, known, number) {
            return Decision::Is(verdict);
        }
        let has_copies = members.iter().any(|member| member.is_copy);
        let size = known.size.filter(|_| known.is_certain || !has_copies);
        let Some(size) = size else { return Decision::NeedsHeader };
        let was = number.unwrap_or(0);
        let reported = was + members.iter().filter(|member| !member.is_copy).count() as u64;
        if reported >= size && !known.is_certain {
            return Decision::NeedsHeader;
        }
        if size > 0
            && was >= size
            && let Some(left) = self.left_to_stock(group_id, known)
        {
            return Decision::Is(all(members, ChordProgress::Busy(left)));
        }
        if has_copies && reported < size && known.ready.is_none() {
            return Decision::NeedsReadiness;
        }
        let copies = self.doubt(members, known, reported);
        // A number that memcached has thrown out says nothing: from then on it is looked who is ready.
        let more = copies.new + if number.is_none() { size } else { 0 };
        let (reported, doubts) = (reported + copies.counted, known.doubts.saturating_add(more));
        let may_be_complete = reported.saturating_add(doubts) >= size;
        if may_be_complete && !known.is_certain {
            return Decision::NeedsHeader;
        }
        let is_complete = match known.ready {
            _ if !may_be_complete => false,
            // Where there were doubts, one may have been counted in the place of another.
            _ if doubts == 0 => true,
            None => return Decision::NeedsReadiness,
            Some(ready) => ready >= size,
        };
        let last = if is_complete { members.iter().rev().find(|one| !one.is_copy).or(members.last()) } else { None };
        Decision::Is(match last {
            Some(last) => self.claim(group_id, members, last, known),
            None => {
                // Where there are only doubts it is written as it was, and is another one to whoever has read it before.
                let number = (reported > was || more > 0 || number.is_none()).then_some(reported);
                Verdict { progress: copies.progress, number, doubts: more }
            }
        })
    }

    /// What copies are told that come again soon, when nobody has been counted since: that can be said without a look.
    fn still_doubted(&self, members: &[Member<'_>], known: Known, number: Option<u64>) -> Option<Verdict> {
        let progress = members.iter().map(|member| {
            let doubt = self.doubted.get(&member.part.token).filter(|doubt| member.is_copy && doubt.is_written)?;
            let left = QUIET.saturating_sub(passed(doubt.since, known.now));
            (number == Some(doubt.seen.0) && !left.is_zero()).then_some(ChordProgress::Busy(left))
        });
        progress.collect::<Option<_>>().map(|progress| Verdict { progress, ..Verdict::nothing() })
    }

    /// For how long a stock worker is left to complete a chord whose number says that all have reported; `None`: it took
    /// too long.
    fn left_to_stock(&mut self, group_id: &str, known: Known) -> Option<Duration> {
        let until = known.now.checked_add(known.lease).unwrap_or(Timestamp::MAX);
        let until = *self.seen.entry(group_id.to_owned()).or_insert(until);
        Duration::try_from(until.duration_since(known.now)).ok().filter(|left| !left.is_zero())
    }

    /// What becomes of copies; `reported` is the chord's number with the members that are none.
    fn doubt(&mut self, members: &[Member<'_>], known: Known, reported: u64) -> Copies {
        let mut copies = Copies { progress: vec![ChordProgress::Waiting; members.len()], new: 0, counted: 0 };
        let (ready, now) = (known.ready.unwrap_or(0), known.now);
        let mut open = Vec::new();
        for (place, member) in members.iter().enumerate().filter(|(_, member)| member.is_copy) {
            if ready <= reported + copies.counted {
                // All that are ready are counted.
                continue;
            }
            match self.doubted.get(&member.part.token) {
                Some(doubt) if doubt.seen == (reported, ready) && passed(doubt.since, now) >= QUIET => {
                    copies.counted += 1
                }
                Some(doubt) if passed(doubt.first, now) >= PATIENCE => {}
                _ => open.push(place),
            }
        }
        let seen = (reported + copies.counted, ready);
        for place in open {
            let first = Doubt { seen, since: now, first: now, is_written: false };
            let doubt = self.doubted.entry(members[place].part.token.clone()).or_insert(first);
            if doubt.seen != seen {
                (doubt.seen, doubt.since) = (seen, now);
            }
            copies.new += u64::from(!doubt.is_written);
            copies.progress[place] = ChordProgress::Busy(QUIET.saturating_sub(passed(doubt.since, now)));
        }
        copies
    }

    fn claim(&mut self, group_id: &str, members: &[Member<'_>], by: &Member<'_>, known: Known) -> Verdict {
        let token = by.part.token.clone();
        let number = claim_number(known.now, known.lease, &token);
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

/// What becomes of copies.
struct Copies {
    /// What each member is told as long as the chord is not complete.
    progress: Vec<ChordProgress>,
    /// How many doubts there are more.
    new: u64,
    /// How many of them were not counted, and are now.
    counted: u64,
}

impl Verdict {
    fn nothing() -> Self {
        Verdict { progress: Vec::new(), number: None, doubts: 0 }
    }
}

fn all(members: &[Member<'_>], progress: ChordProgress) -> Verdict {
    Verdict { progress: vec![progress; members.len()], ..Verdict::nothing() }
}

#[cfg(test)]
mod tests {
    use super::super::memory::TIME;
    use super::*;
    use crate::backend::EncodedPart;

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

    fn known(number: Option<u64>, doubts: u64, ready: Option<u64>) -> Known {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        Known { number, doubts, size: Some(3), is_certain: true, ready, now, lease: LEASE }
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

    fn after_its_lease(known: Known) -> Known {
        Known { now: known.now + LEASE, ..known }
    }

    #[test]
    fn members_are_added_and_so_are_copies_that_nobody_has_counted() {
        const WAITS: ChordProgress = ChordProgress::Waiting;
        const COMES_AGAIN: ChordProgress = ChordProgress::Busy(QUIET);
        for (tokens, number, ready, progress, next, doubts) in [
            (&["a"][..], 0, 1, vec![WAITS], Some(1), 0),
            (&["a", "b"], 0, 2, vec![WAITS, WAITS], Some(2), 0),
            // As many are counted as are ready: the copy is one of them.
            (&["c1"], 1, 1, vec![WAITS], None, 0),
            (&["a", "c1"], 1, 2, vec![WAITS, WAITS], Some(2), 0),
            // It may be another that is not.
            (&["c1"], 1, 2, vec![COMES_AGAIN], Some(1), 1),
            (&["a", "c1"], 0, 2, vec![WAITS, COMES_AGAIN], Some(1), 1),
        ] {
            let decided = decide(&mut Memory::default(), tokens, known(Some(number), 0, Some(ready)));
            let expected = Verdict { progress, number: next, doubts };
            assert_eq!(verdict(decided), expected, "{tokens:?} {number} {ready}");
        }
    }

    #[test]
    fn a_doubt_is_written_once_and_counts_if_nothing_has_changed_for_a_while() {
        const WAITS: [ChordProgress; 1] = [ChordProgress::Waiting];
        const COMES_AGAIN: [ChordProgress; 1] = [ChordProgress::Busy(QUIET)];
        let copy = [part("c1")];
        let member = [Member { place: 0, part: &copy[0], is_copy: true, has_result: true }];
        let first = known(Some(0), 0, Some(1));
        let later = |known: Known, quiet: u32| Known { now: first.now + QUIET * quiet, doubts: 1, ..known };
        for (then, progress, number) in [
            (later(first, 1), WAITS, Some(1)),
            // Another was counted, and all that are ready are.
            (later(known(Some(1), 1, Some(1)), 1), WAITS, None),
            // Another has become ready: that may be one that is about to be counted.
            (later(known(Some(0), 1, Some(2)), 1), COMES_AGAIN, None),
            // There is no end of that.
            (later(known(Some(0), 1, Some(2)), 10), WAITS, None),
        ] {
            let mut memory = Memory::default();
            let decided = |memory: &mut Memory, known| verdict(memory.decide("g", &member, known));
            assert_eq!(decided(&mut memory, first).doubts, 1);
            // It was refused.
            assert_eq!(decided(&mut memory, first).doubts, 1);
            memory.was_doubted(&member);
            // It is seen at once that nothing has changed.
            let again = Known { is_certain: false, ready: None, ..later(first, 0) };
            assert_eq!(decided(&mut memory, again), Verdict { progress: COMES_AGAIN.to_vec(), ..Verdict::nothing() });
            memory.answered("c1", true);
            assert!(memory.is_copy("c1"), "it comes again without its result");
            let expected = Verdict { progress: progress.to_vec(), number, doubts: 0 };
            assert_eq!(decided(&mut memory, then), expected, "{then:?}");
            memory.answered("c1", false);
            assert!(!memory.is_copy("c1"));
        }
    }

    #[test]
    fn a_number_that_may_be_too_high_does_not_complete_a_chord() {
        for (doubts, is_complete) in [(0, true), (1, false)] {
            let decided = verdict(decide(&mut Memory::default(), &["a"], known(Some(2), doubts, Some(2))));
            assert_eq!(matches!(decided.progress[..], [ChordProgress::Complete(_)]), is_complete, "{doubts}");
        }
    }

    #[test]
    fn who_completes_it_claims_and_who_comes_later_waits() {
        let mut memory = Memory::default();
        let done = verdict(decide(&mut memory, &["a", "b", "c1"], known(Some(1), 0, None)));
        let until = done.number.unwrap();
        assert_eq!((until >> TIME, memory.own["g"].token.as_str()), (1_800_000_006_000, "b"));
        assert_ne!(claim_number(known(None, 0, None).now, LEASE, "a"), until);
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
        // Its number alone was thrown out: it is written once more, and nobody else gets the claim.
        let back = verdict(decide(&mut memory, &["c1"], known(None, 0, None)));
        assert_eq!((back.number, &back.progress[..]), (Some(until), &[ChordProgress::Busy(LEASE)][..]));
        let mut other = Memory::default();
        let taken = verdict(decide(&mut other, &["c1"], after_its_lease(known(Some(until), 0, None))));
        assert!(matches!(taken.progress[..], [ChordProgress::Complete(_)]));
        assert!(!memory.own["g"].holds(taken.number.unwrap()) && other.own["g"].holds(taken.number.unwrap()));
        let over = verdict(decide(&mut other, &["c1"], known(Some(DONE + 1), 0, None)));
        assert_eq!(over.progress, [ChordProgress::Late]);
    }

    #[test]
    fn a_chord_that_is_complete_but_for_its_doubts_is_looked_at() {
        for (number, doubts, tokens) in [(1, 1, &["a"][..]), (2, 0, &["c1"])] {
            let counted = |ready| decide(&mut Memory::default(), tokens, known(Some(number), doubts, ready));
            assert_eq!(counted(None), Decision::NeedsReadiness);
            assert_eq!(verdict(counted(Some(2))).progress, [ChordProgress::Waiting]);
            assert!(matches!(verdict(counted(Some(3))).progress[..], [ChordProgress::Complete(_)]));
        }
        let uncertain = Known { is_certain: false, ..known(Some(2), 0, None) };
        assert_eq!(decide(&mut Memory::default(), &["a"], uncertain), Decision::NeedsHeader);
    }

    #[test]
    fn who_is_stock_and_completes_it_is_waited_for_and_replaced_if_that_takes_too_long() {
        let mut memory = Memory::default();
        let complete = known(Some(3), 0, Some(3));
        assert_eq!(verdict(decide(&mut memory, &["c1"], complete)).progress, [ChordProgress::Busy(LEASE)]);
        assert!(matches!(
            verdict(decide(&mut memory, &["c1"], after_its_lease(complete))).progress[..],
            [ChordProgress::Complete(_)]
        ));
    }

    #[test]
    fn what_is_gone_is_over_for_copies_and_fails_with_the_others() {
        // Also where a stock worker has just deleted the header, and not yet the number.
        for number in [None, Some(3)] {
            let gone = Known { size: None, ..known(number, 0, None) };
            assert_eq!(verdict(decide(&mut Memory::default(), &["c1"], gone)).progress, [ChordProgress::Late]);
            let failed = verdict(decide(&mut Memory::default(), &["a"], gone));
            assert!(matches!(failed.progress[..], [ChordProgress::Complete(_)]) && failed.number.is_some());
        }
        // The number alone was thrown out.
        let counted = |ready| decide(&mut Memory::default(), &["a"], known(None, 0, ready));
        assert_eq!(counted(None), Decision::NeedsReadiness);
        let waiting = Verdict { progress: vec![ChordProgress::Waiting], number: Some(1), doubts: 3 };
        assert_eq!(verdict(counted(Some(2))), waiting);
    }
}
