//! [`RetryPolicy`]: when a task is run again, and when it has failed for good.

use std::time::Duration;

use fastrand::Rng;
use jiff::Timestamp;

use super::{Retry, TaskOptions};

/// What a task's options say of retries, with Celery's defaults for what they leave open.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// How often the task may be run again; `None` is no limit.
    pub max_retries: Option<u32>,
    /// How long a retry waits for which nothing else says so.
    pub default_delay: Duration,
    /// The factor of exponential back-off; `None`: no back-off.
    pub backoff: Option<Duration>,
    /// The longest back-off.
    pub backoff_max: Duration,
    /// Whether back-off is randomised.
    pub jitter: bool,
}

/// What a wish to be run again comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryDecision {
    /// Publish the task again.
    Again {
        /// The new message's `retries`.
        retries: u32,
        /// When it is to run.
        time: RetryTime,
    },
    /// No retries are left: the task fails, see [`RetryPolicy::exhausted`].
    Exhausted,
}

/// When a retry is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryTime {
    /// So long after now.
    In(Duration),
    /// At that moment.
    At(Timestamp),
}

impl From<&TaskOptions> for RetryPolicy {
    fn from(options: &TaskOptions) -> Self {
        RetryPolicy {
            max_retries: options.max_retries.unwrap_or(Some(3)),
            default_delay: options.default_retry_delay.unwrap_or(Duration::from_secs(180)),
            backoff: options.retry_backoff,
            backoff_max: options.retry_backoff_max.unwrap_or(Duration::from_secs(600)),
            jitter: options.retry_jitter.unwrap_or(true),
        }
    }
}

impl RetryPolicy {
    /// What `retry` comes to in a run that was retried `retries` times before.
    pub fn decide(&self, retry: &Retry, retries: u32, rng: &mut Rng) -> RetryDecision {
        let next = retries.saturating_add(1);
        let limit = retry.max_retries.unwrap_or(self.max_retries);
        if limit.is_some_and(|limit| next > limit) {
            return RetryDecision::Exhausted;
        }
        RetryDecision::Again { retries: next, time: self.time(retry, retries, rng) }
    }

    fn time(&self, retry: &Retry, retries: u32, rng: &mut Rng) -> RetryTime {
        match (retry.eta, retry.countdown, self.backoff) {
            (Some(eta), _, _) => RetryTime::At(eta),
            (None, Some(countdown), _) => RetryTime::In(countdown),
            (None, None, Some(factor)) => RetryTime::In(self.backoff_delay(factor, retries, rng)),
            (None, None, None) => RetryTime::In(self.default_delay),
        }
    }

    /// celery/utils/time.py `get_exponential_backoff_interval`: whole seconds, and jitter draws from nothing to all.
    fn backoff_delay(&self, factor: Duration, retries: u32, rng: &mut Rng) -> Duration {
        let factor = factor.as_secs().max(1);
        let growth = 1_u64.checked_shl(retries).unwrap_or(u64::MAX);
        let longest = factor.saturating_mul(growth).min(self.backoff_max.as_secs());
        Duration::from_secs(if self.jitter { rng.u64(0..=longest) } else { longest })
    }
}
