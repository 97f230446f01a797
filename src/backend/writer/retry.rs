//! [`Retry`]: a batch is tried again until the backend has it, and one outage is logged once.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::backend::{ChordProgress, EncodedPart, EncodedResult, ResultBackend};
use crate::config::RetryPolicy;
use crate::{Error, ErrorKind, Result};

/// Tries again after lost connections.
pub(super) struct Retry {
    policy: RetryPolicy,
    /// Spreads the tries of many workers that lost the same server.
    jitter: Mutex<fastrand::Rng>,
    /// Whether the present outage has been logged: batches under way side by side share it.
    is_lost: AtomicBool,
}

impl Retry {
    pub(super) fn new(policy: RetryPolicy, jitter: fastrand::Rng) -> Self {
        Retry { policy, jitter: Mutex::new(jitter), is_lost: AtomicBool::new(false) }
    }

    /// Stores results and counts parts; an error is one that trying again does not help, or the last one that the policy allows.
    pub(super) async fn store(
        &self,
        backend: &dyn ResultBackend,
        results: &[EncodedResult],
        parts: &[EncodedPart],
    ) -> Result<Vec<Result<ChordProgress>>> {
        let (mut retries, began) = (0, Instant::now());
        loop {
            match store(backend, results, parts).await {
                Err(error) if can_pass(&error) && self.allows(retries, began.elapsed()) => {
                    let pause = self.pause(retries);
                    self.log_lost(backend, &error, retries, pause);
                    tokio::time::sleep(pause).await;
                    retries = retries.saturating_add(1);
                }
                outcome => {
                    self.log_restored(backend, outcome.is_ok());
                    return outcome;
                }
            }
        }
    }

    fn allows(&self, retries: u32, elapsed: Duration) -> bool {
        let RetryPolicy { max_retries, timeout, .. } = self.policy;
        max_retries.is_none_or(|limit| retries < limit) && timeout.is_none_or(|timeout| elapsed < timeout)
    }

    /// The pause before a retry: `interval_start` + n × `interval_step`, of which jitter takes away up to a half.
    fn pause(&self, retries: u32) -> Duration {
        let RetryPolicy { interval_start, interval_step, interval_max, .. } = self.policy;
        let longest = interval_start.saturating_add(interval_step.saturating_mul(retries)).min(interval_max);
        longest.mul_f64(1.0 - self.jitter.lock().unwrap_or_else(PoisonError::into_inner).f64() / 2.0)
    }

    /// A lost connection in the words of celery/backends/redis.py `E_LOST`. A server that is there, and is out of memory
    /// for example, is not called lost.
    fn log_lost(&self, backend: &dyn ResultBackend, error: &Error, retries: u32, pause: Duration) {
        if self.is_lost.swap(true, Ordering::Relaxed) {
            tracing::debug!("{} stores no results: retry {retries}: {error}", backend.service());
            return;
        }
        let limit = self.policy.max_retries.map_or_else(|| "Inf".to_owned(), |limit| limit.to_string());
        let when = if pause.is_zero() { "now".to_owned() } else { format!("in {:.2} seconds", pause.as_secs_f64()) };
        let what = match error.kind() {
            ErrorKind::Unready => format!("{} takes no results for now", backend.service()),
            _ => format!("Connection to {} lost", backend.service()),
        };
        tracing::warn!("{what}: Retry ({retries}/{limit}) {when}. ({error})");
    }

    fn log_restored(&self, backend: &dyn ResultBackend, stored: bool) {
        if stored && self.is_lost.swap(false, Ordering::Relaxed) {
            tracing::info!("{} is there again: results are stored.", backend.service());
        }
    }
}

async fn store(
    backend: &dyn ResultBackend,
    results: &[EncodedResult],
    parts: &[EncodedPart],
) -> Result<Vec<Result<ChordProgress>>> {
    match backend.native_chords() {
        Some(chords) if !parts.is_empty() => chords.store_with_parts(results, parts).await,
        _ => backend.store_encoded(results).await.map(|()| Vec::new()),
    }
}

/// Credentials that are refused count as a lost connection: they may be changed on either side, and results wait
/// (kombu/transport/redis.py `get_redis_error_classes`).
pub(super) fn can_pass(error: &Error) -> bool {
    error.can_pass() || error.kind() == ErrorKind::Authentication
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_limit_and_jitter_takes_at_most_half() {
        let policy = RetryPolicy {
            max_retries: None,
            interval_start: Duration::ZERO,
            interval_step: Duration::from_millis(200),
            interval_max: Duration::from_secs(1),
            timeout: Some(Duration::from_secs(5)),
        };
        let retry = Retry::new(policy, fastrand::Rng::with_seed(7));
        for (retries, longest) in [(0, 0), (1, 200), (2, 400), (5, 1000), (6, 1000), (u32::MAX, 1000)] {
            let (pause, longest) = (retry.pause(retries), Duration::from_millis(longest));
            assert!(pause <= longest && pause >= longest / 2, "{retries}: {pause:?}");
        }
        assert!(retry.allows(u32::MAX, Duration::from_secs(4)) && !retry.allows(0, Duration::from_secs(5)));
    }
}
