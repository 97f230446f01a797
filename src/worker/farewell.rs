//! [`Farewell`]: how long a warm shutdown waits when nothing runs any more, and results or settlements do not get through.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

/// As long as Celery goes on when its Redis backend is away: 20 tries, a second apart
/// (celery/backends/redis.py `RedisBackend.retry_policy`).
const PATIENCE: Duration = Duration::from_secs(20);

/// How often to look.
pub(crate) const LOOK: Duration = Duration::from_secs(1);

/// What is left when nothing runs any more, and since when it has been so much.
#[derive(Debug, Default)]
pub(crate) struct Farewell {
    stuck: Option<(usize, Instant)>,
}

impl Farewell {
    /// Whether it is time to give up: `left` runs have ended and cannot be settled, and `busy` still run.
    pub(crate) fn is_over(&mut self, left: usize, busy: usize, now: Instant) -> bool {
        match self.stuck {
            _ if busy > 0 => self.stuck = None,
            Some((before, since)) if before == left => {
                let is_over = now.duration_since(since) >= PATIENCE;
                if is_over {
                    warn!("Giving up on {left} result(s) or message(s): broker or backend do not answer");
                }
                return is_over;
            }
            None => {
                info!("Waiting for {left} result(s) to be stored and message(s) to be settled");
                self.stuck = Some((left, now));
            }
            Some(_) => self.stuck = Some((left, now)),
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn patience_ends_only_when_nothing_runs_and_nothing_gets_through() {
        let (mut farewell, start) = (Farewell::default(), Instant::now());
        let mut check = |second: u64, left: usize, busy: usize, expected: bool| {
            assert_eq!(farewell.is_over(left, busy, start + Duration::from_secs(second)), expected, "{second} s");
        };
        check(0, 3, 0, false);
        check(19, 3, 0, false);
        check(20, 2, 0, false);
        check(39, 2, 0, false);
        check(40, 2, 1, false);
        check(41, 2, 0, false);
        check(60, 2, 0, false);
        check(61, 2, 0, true);
    }
}
