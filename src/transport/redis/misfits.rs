//! [`Misfits`]: keys of queues that hold no list, because somebody else has written there.
//!
//! Such a queue is not consumed until its key is a list again, or gone; all others are. Nobody connects anew for it.

use std::collections::HashMap;
use std::fmt::Display;
use std::time::Duration;

use tokio::time::Instant;

use crate::transport::QueueName;

/// How soon it is told again of a key that stays as it is, and how seldom in the end.
const PAUSE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));

/// What the last looks have found.
#[derive(Debug, Default)]
pub(super) struct Misfits {
    told: HashMap<String, Told>,
}

#[derive(Debug)]
struct Told {
    again: Instant,
    pause: Duration,
}

impl Misfits {
    pub(super) fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    pub(super) fn contains(&self, key: &str) -> bool {
        self.told.contains_key(key)
    }

    /// Keys that a look has found to hold no list, with their queues; `all`: it has looked at all keys. Logs what is new,
    /// and what is old once in a while.
    pub(super) fn looked(&mut self, found: &[(QueueName, String)], all: bool, place: impl Display, now: Instant) {
        for (queue, key) in found.iter().filter(|(_, key)| self.is_to_be_told(key, now)) {
            tracing::error!(
                "Cannot consume from the queue {queue}: its key {key:?} at {place} holds something else than a list \
                 (WRONGTYPE). Rename or delete that key; other queues are consumed meanwhile."
            );
        }
        if all {
            self.forget(|key| found.iter().any(|(_, other)| other == key), place);
        }
    }

    fn is_to_be_told(&mut self, key: &str, now: Instant) -> bool {
        let told = self.told.entry(key.to_owned()).or_insert(Told { again: now, pause: PAUSE.0 });
        let is_due = told.again <= now;
        if is_due {
            (told.again, told.pause) = (now + told.pause, (told.pause * 2).min(PAUSE.1));
        }
        is_due
    }

    fn forget(&mut self, stays: impl Fn(&str) -> bool, place: impl Display) {
        self.told.retain(|key, _| {
            let stays = stays(key);
            if !stays {
                tracing::info!("The key {key:?} at {place} is in nobody's way any more: its queue is consumed again.");
            }
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_at_growing_intervals_and_anew_when_it_comes_again() {
        let (mut misfits, began) = (Misfits::default(), Instant::now());
        let rows = [(0, true), (9, false), (10, true), (29, false), (30, true), (69, false), (70, true)];
        for (seconds, expected) in rows {
            let now = began + Duration::from_secs(seconds);
            assert_eq!(misfits.is_to_be_told("tasks", now), expected, "after {seconds} s");
        }
        assert!(misfits.contains("tasks"));
        misfits.looked(&[], false, "redis://h", began);
        assert!(!misfits.is_empty(), "not all were looked at");
        misfits.looked(&[], true, "redis://h", began);
        assert!(misfits.is_empty() && misfits.is_to_be_told("tasks", began));
    }
}
