//! [`Counting`]: what counting the members of chords comes to, decided from what is stored; pure.
//!
//! The table has one number for a chord: how many members have not reported yet. Who brings it to nothing publishes the body
//! (django_celery_results/backends/database.py `DatabaseBackend.on_chord_part_return`); stock workers delete the row before
//! they do. Here the row stays until the body is published, and its number, far beyond what any chord has for members, says
//! until when a worker has claimed that: a stock worker that counts a copy of a member meanwhile makes it smaller by one,
//! which harms nothing. A worker that dies leaves a claim that runs out, and the member that is delivered again takes over.
//!
//! The table does not say who has reported. A member counts where its result is stored, in one transaction: one whose
//! SUCCESS or FAILURE was stored before is a copy.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;

use crate::backend::{ChordClaim, ChordProgress, EncodedPart};

/// Numbers from here on are claims: so many seconds after [`EPOCH`] they run out. PostgreSQL's integers hold them until 2060.
const CLAIMS: i64 = 1_000_000_000;

/// 2024-01-01.
const EPOCH: i64 = 1_704_067_200;

/// A claim of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Own {
    pub(super) token: String,
    /// What it was stored as.
    pub(super) number: i64,
    /// What it may have been stored as since, by a renewal whose answer is not known.
    pub(super) renewed: Option<i64>,
}

/// What is known of some chords, and what they become.
pub(super) struct Counting {
    /// The number of each chord that is there.
    pub(super) counts: HashMap<String, i64>,
    /// The members that have reported already.
    pub(super) reported: HashSet<String>,
    /// What this process has claimed.
    pub(super) own: HashMap<String, Own>,
    pub(super) now: Timestamp,
    /// For how long a chord is claimed.
    pub(super) lease: Duration,
    /// The tokens of parts that are copies, of chords that are not complete.
    pub(super) copies: HashSet<String>,
}

impl Counting {
    /// Counts a part; `has_result`: its result is stored along with that.
    pub(super) fn count(&mut self, part: &EncodedPart, has_result: bool) -> ChordProgress {
        let is_copy = has_result && !self.reported.insert(part.task_id.clone());
        let Some(count) = self.counts.get(&part.group_id).copied() else {
            if is_copy {
                return ChordProgress::Late;
            }
            tracing::warn!("Can't find ChordCounter for Group {}", part.group_id);
            return ChordProgress::Waiting;
        };
        if count >= CLAIMS {
            let left = self.left(count);
            return match self.own.get(&part.group_id) {
                Some(own) if own.token == part.token && holds(own, count) => self.complete(part, count),
                _ if left.is_zero() => self.claim(part),
                _ => ChordProgress::Busy(left),
            };
        }
        if is_copy {
            self.copies.insert(part.token.clone());
            return ChordProgress::Waiting;
        }
        if count <= 1 {
            return self.claim(part);
        }
        self.counts.insert(part.group_id.clone(), count - 1);
        ChordProgress::Waiting
    }

    /// Claims a chord that is complete.
    pub(super) fn claim(&mut self, part: &EncodedPart) -> ChordProgress {
        let number = number(self.now, self.lease);
        self.counts.insert(part.group_id.clone(), number);
        self.own.insert(part.group_id.clone(), Own { token: part.token.clone(), number, renewed: None });
        self.complete(part, number)
    }

    fn complete(&self, part: &EncodedPart, number: i64) -> ChordProgress {
        let (group_id, token) = (part.group_id.clone(), part.token.clone());
        ChordProgress::Complete(ChordClaim { group_id, token, count: 0, lease: self.left(number) })
    }

    fn left(&self, number: i64) -> Duration {
        let seconds = number - CLAIMS + EPOCH - self.now.as_second();
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    }
}

/// Whether a chord's number is a claim.
pub(super) fn is_claimed(count: i64) -> bool {
    count >= CLAIMS
}

/// The number of a claim that is made now.
pub(super) fn number(now: Timestamp, lease: Duration) -> i64 {
    let lease = i64::try_from(lease.as_secs()).unwrap_or(i64::MAX).clamp(1, 31_536_000);
    CLAIMS + (now.as_second() - EPOCH).max(0) + lease
}

/// Whether a claim still holds by the number that is stored: one that was made later has a larger one, and counting a copy
/// makes it smaller.
pub(super) fn holds(own: &Own, stored: i64) -> bool {
    is_claimed(stored) && (stored <= own.number || own.renewed == Some(stored))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(task_id: &str, token: &str) -> EncodedPart {
        EncodedPart {
            group_id: "g".into(),
            task_id: task_id.into(),
            group_index: None,
            payload: "".into(),
            token: token.into(),
        }
    }

    fn counting(count: i64) -> Counting {
        Counting {
            counts: HashMap::from([("g".to_owned(), count)]),
            reported: HashSet::new(),
            own: HashMap::new(),
            now: Timestamp::from_second(EPOCH + 100).unwrap(),
            lease: Duration::from_secs(6),
            copies: HashSet::new(),
        }
    }

    #[test]
    fn copies_count_once_and_the_last_member_claims() {
        let mut counting = counting(3);
        for (task_id, expected) in [("a", 2), ("a", 2), ("b", 1), ("a", 1)] {
            assert_eq!(counting.count(&part(task_id, "t"), true), ChordProgress::Waiting, "{task_id}");
            assert_eq!(counting.counts["g"], expected);
        }
        assert!(matches!(counting.count(&part("c", "t"), true), ChordProgress::Complete(_)));
        assert_eq!(counting.counts["g"], CLAIMS + 106);
    }

    #[test]
    fn a_claim_is_taken_again_by_who_has_it_and_by_others_when_it_has_run_out() {
        let mut counting = counting(1);
        counting.count(&part("a", "ours"), true);
        assert!(matches!(counting.count(&part("a", "ours"), true), ChordProgress::Complete(_)), "the answer was lost");
        assert_eq!(counting.count(&part("a", "copy"), true), ChordProgress::Busy(Duration::from_secs(6)));
        // A stock worker has counted a copy.
        *counting.counts.get_mut("g").unwrap() -= 1;
        assert!(matches!(counting.count(&part("a", "ours"), true), ChordProgress::Complete(_)));
        let first = counting.own["g"].clone();
        assert!(holds(&first, counting.counts["g"]));
        counting.now = Timestamp::from_second(EPOCH + 107).unwrap();
        assert!(matches!(counting.count(&part("a", "copy"), true), ChordProgress::Complete(_)));
        assert!(!holds(&first, counting.counts["g"]), "another has it now");
    }

    #[test]
    fn a_chord_that_is_not_there_is_over_for_who_has_reported() {
        let mut counting = counting(2);
        counting.counts.clear();
        assert_eq!(counting.count(&part("a", "t"), true), ChordProgress::Waiting);
        assert_eq!(counting.count(&part("a", "t"), true), ChordProgress::Late);
    }
}
