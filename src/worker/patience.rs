//! [`Patience`]: how long an unreachable broker is waited for.

use std::time::Duration;

/// How long an unreachable broker is waited for: as long as Celery waits for so many tries.
///
/// `broker_connection_max_retries` counts Celery's tries, which are 2, 4, … 32 and then 32 seconds apart
/// (celery/worker/consumer/consumer.py `Consumer.ensure_connected`, kombu/connection.py `Connection.ensure_connection`).
/// Ours come faster; a hundred of them would give up within minutes where Celery waits for most of an hour.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    limit: Option<Duration>,
}

/// Seconds between Celery's first tries, by which they grow.
const STEP: u64 = 2;

/// The longest of Celery's pauses, in seconds.
const LONGEST: u64 = 32;

impl Patience {
    /// `None`: for ever.
    pub(crate) fn new(tries: Option<u32>) -> Self {
        Patience { limit: tries.map(|tries| Duration::from_secs(celery_waits(tries.into()))) }
    }

    /// Whether it is at an end after so long a wait.
    pub(crate) fn is_spent(self, waited: Duration) -> bool {
        self.limit.is_some_and(|limit| waited >= limit)
    }

    /// Which try has failed, and for how long there will be others.
    pub(crate) fn progress(self, tries: u32) -> String {
        match self.limit {
            Some(limit) => format!("try {tries}; gives up after {}", in_words(limit)),
            None => format!("try {tries}"),
        }
    }
}

/// How many seconds Celery waits between so many tries and one more.
fn celery_waits(tries: u64) -> u64 {
    let growing = tries.min(LONGEST / STEP);
    STEP * growing * (growing + 1) / 2 + (tries - growing) * LONGEST
}

/// Whole minutes from two on, whole hours from two on.
fn in_words(time: Duration) -> String {
    match time.as_secs() {
        seconds @ ..120 => format!("{seconds} seconds"),
        seconds @ ..7200 => format!("{} minutes", seconds / 60),
        seconds => format!("{} hours", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_are_counted_and_the_end_is_told() {
        let check = |limit: Option<u32>, expected: &str| assert_eq!(Patience::new(limit).progress(7), expected);
        check(Some(1), "try 7; gives up after 2 seconds");
        check(Some(15), "try 7; gives up after 4 minutes");
        check(Some(100), "try 7; gives up after 49 minutes");
        check(Some(1000), "try 7; gives up after 8 hours");
        check(None, "try 7");
    }

    #[test]
    fn patience_ends_when_celerys_would() {
        let check = |limit: Option<u32>, seconds: u64, expected: bool| {
            assert_eq!(Patience::new(limit).is_spent(Duration::from_secs(seconds)), expected, "{limit:?} {seconds} s");
        };
        check(Some(1), 1, false);
        check(Some(1), 2, true);
        check(Some(2), 5, false);
        check(Some(2), 6, true);
        check(Some(16), 271, false);
        check(Some(16), 272, true);
        check(Some(17), 303, false);
        check(Some(17), 304, true);
        check(Some(100), 2959, false);
        check(Some(100), 2960, true);
        check(None, u64::MAX, false);
    }
}
