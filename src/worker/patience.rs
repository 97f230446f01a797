//! [`Patience`]: how long an unreachable broker is waited for.

use std::time::Duration;

/// How long an unreachable broker is waited for: as long as Celery waits for so many tries.
///
/// `broker_connection_max_retries` counts Celery's tries, which are 2, 4, … 32 and then 32 seconds apart
/// (celery/worker/consumer/consumer.py `Consumer.ensure_connected`, kombu/connection.py `Connection.ensure_connection`).
/// Ours come faster; a hundred of them would give up within minutes where Celery waits for most of an hour.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    limit: Option<u32>,
}

/// Seconds between Celery's first tries, by which they grow.
const STEP: u64 = 2;

/// The longest of Celery's pauses, in seconds.
const LONGEST: u64 = 32;

impl Patience {
    /// `None`: for ever.
    pub(crate) fn new(limit: Option<u32>) -> Self {
        Patience { limit }
    }

    /// Whether it is at an end after so long a wait.
    pub(crate) fn is_spent(self, waited: Duration) -> bool {
        self.limit.is_some_and(|limit| celery_tries(waited) > u64::from(limit))
    }

    /// Which of Celery's tries the next one stands for: `3/100`.
    pub(crate) fn progress(self, waited: Duration) -> String {
        let limit = self.limit.map_or_else(|| "∞".to_owned(), |limit| limit.to_string());
        format!("{}/{limit}", celery_tries(waited))
    }
}

/// How many tries Celery has made when it has waited so long: one before the first pause.
fn celery_tries(waited: Duration) -> u64 {
    let growing = LONGEST / STEP;
    let (mut tries, mut left) = (1, waited.as_secs());
    while tries < growing && left >= tries * STEP {
        left -= tries * STEP;
        tries += 1;
    }
    if tries == growing { tries + left / LONGEST } else { tries }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_are_counted_as_celery_makes_them() {
        let check = |seconds: u64, expected: &str| {
            assert_eq!(Patience::new(Some(100)).progress(Duration::from_secs(seconds)), expected, "{seconds} s");
        };
        check(0, "1/100");
        check(1, "1/100");
        check(2, "2/100");
        check(5, "2/100");
        check(6, "3/100");
        check(239, "15/100");
        check(240, "16/100");
        check(272, "17/100");
        check(2960, "101/100");
        assert_eq!(Patience::new(None).progress(Duration::from_secs(6)), "3/∞");
    }

    #[test]
    fn patience_ends_when_celerys_would() {
        let check = |limit: Option<u32>, seconds: u64, expected: bool| {
            assert_eq!(Patience::new(limit).is_spent(Duration::from_secs(seconds)), expected, "{limit:?} {seconds} s");
        };
        check(Some(1), 1, false);
        check(Some(1), 2, true);
        check(Some(100), 2959, false);
        check(Some(100), 2960, true);
        check(None, u64::MAX, false);
    }
}
