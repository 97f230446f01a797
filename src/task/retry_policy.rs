//! [`RetryPolicy`]: when a task is run again, and when it has failed for good.

use std::time::Duration;

use fastrand::Rng;
use jiff::Timestamp;

use super::{Arguments, Request, Retry, TaskOptions};
use crate::protocol::{DateTime, Exception, Value, repr};

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

impl RetryTime {
    /// What Celery says of a retry at this time (celery/exceptions.py `Retry.__str__`): `Retry in 1s: KeyError('k')`.
    pub fn message(&self, exception: Option<&Exception>) -> String {
        let time = match self {
            RetryTime::In(delay) if delay.subsec_nanos() == 0 => format!("in {}s", delay.as_secs()),
            RetryTime::In(delay) => format!("in {}s", repr::repr(&Value::Float(delay.as_secs_f64()))),
            RetryTime::At(moment) => format!("at {}", DateTime::from(*moment).to_string().replacen('T', " ", 1)),
        };
        match exception {
            Some(exception) => format!("Retry {time}: {exception}"),
            None => format!("Retry {time}"),
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

    /// What a task raises that has no retries left: what it said went wrong, or `MaxRetriesExceededError`. `arguments`
    /// are those that the next run would have had.
    pub fn exhausted(retry: Retry, request: &Request, arguments: &Arguments) -> Exception {
        let Request { id, task, .. } = request;
        retry.exception.unwrap_or_else(|| {
            let args = repr::tuple(&arguments.args);
            let kwargs = repr::repr(&Value::Map(arguments.kwargs.clone()));
            Exception::celery(
                "MaxRetriesExceededError",
                format!("Can't retry {task}[{id}] args:{args} kwargs:{kwargs}"),
            )
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(options: TaskOptions) -> RetryPolicy {
        RetryPolicy::from(&options)
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn backoff(factor: Duration) -> TaskOptions {
        TaskOptions { retry_backoff: Some(factor), retry_jitter: Some(false), ..Default::default() }
    }

    #[test]
    fn waits_as_long_as_the_first_that_says_so() {
        let check = |options: TaskOptions, retry: Retry, retries: u32, expected: RetryTime| {
            let policy = RetryPolicy { max_retries: None, ..policy(options) };
            let decision = policy.decide(&retry, retries, &mut Rng::with_seed(1));
            assert_eq!(decision, RetryDecision::Again { retries: retries + 1, time: expected });
        };
        let none = TaskOptions::default;
        let plain = Retry::default;
        let eta = Timestamp::UNIX_EPOCH;
        let delay = TaskOptions { default_retry_delay: Some(seconds(7)), ..none() };
        let capped = TaskOptions { retry_backoff_max: Some(seconds(100)), ..backoff(seconds(1)) };
        check(none(), plain(), 0, RetryTime::In(seconds(180)));
        check(delay.clone(), plain(), 0, RetryTime::In(seconds(7)));
        check(delay, plain().countdown(Duration::ZERO), 0, RetryTime::In(Duration::ZERO));
        check(backoff(seconds(9)), plain().countdown(seconds(5)), 3, RetryTime::In(seconds(5)));
        check(none(), plain().countdown(seconds(5)).eta(eta), 0, RetryTime::At(eta));
        check(backoff(seconds(1)), plain(), 0, RetryTime::In(seconds(1)));
        check(backoff(seconds(1)), plain(), 3, RetryTime::In(seconds(8)));
        check(backoff(seconds(3)), plain(), 2, RetryTime::In(seconds(12)));
        check(backoff(Duration::from_millis(200)), plain(), 1, RetryTime::In(seconds(2)));
        check(backoff(seconds(1)), plain(), 10, RetryTime::In(seconds(600)));
        check(capped.clone(), plain(), 7, RetryTime::In(seconds(100)));
        for retries in [63, 64, 65, u32::MAX - 1] {
            check(capped.clone(), plain(), retries, RetryTime::In(seconds(100)));
        }
    }

    #[test]
    fn says_what_celery_says() {
        let check = |time: RetryTime, exception: Option<Exception>, expected: &str| {
            assert_eq!(time.message(exception.as_ref()), expected);
        };
        let moment: Timestamp = "2026-11-22T16:07:42.089562Z".parse().unwrap();
        check(RetryTime::In(seconds(1)), Some(Exception::new("KeyError", "k")), "Retry in 1s: KeyError('k')");
        check(RetryTime::In(seconds(0)), None, "Retry in 0s");
        check(RetryTime::In(Duration::from_millis(1500)), None, "Retry in 1.5s");
        check(RetryTime::At(moment), None, "Retry at 2026-11-22 16:07:42.089562+00:00");
        check(RetryTime::At(Timestamp::UNIX_EPOCH), None, "Retry at 1970-01-01 00:00:00+00:00");
    }

    #[test]
    fn the_last_retry_raises_what_went_wrong() {
        let request = Request { id: "an-id".to_owned(), task: "shop.add".to_owned(), ..Default::default() };
        let arguments = Arguments { args: vec![1.into()], kwargs: [("y", "two")].into_iter().collect() };
        let exhausted = |retry| RetryPolicy::exhausted(retry, &request, &arguments);
        let wrong = Exception::new("KeyError", "k");
        assert_eq!(exhausted(Retry::default().exception(wrong.clone())), wrong);
        let text = "Can't retry shop.add[an-id] args:(1,) kwargs:{'y': 'two'}";
        assert_eq!(exhausted(Retry::default()), Exception::celery("MaxRetriesExceededError", text));
    }

    #[test]
    fn jitter_draws_from_nothing_to_the_whole_delay() {
        let policy = policy(TaskOptions { retry_jitter: None, max_retries: Some(None), ..backoff(seconds(1)) });
        let mut rng = Rng::with_seed(7);
        let mut drawn = [false; 5];
        for _ in 0..200 {
            let RetryDecision::Again { time: RetryTime::In(delay), .. } = policy.decide(&Retry::default(), 2, &mut rng)
            else {
                panic!("no retries left")
            };
            drawn[usize::try_from(delay.as_secs()).unwrap()] = true;
        }
        assert_eq!(drawn, [true; 5]);
    }

    #[test]
    fn retries_run_out() {
        let check = |task: Option<Option<u32>>, run: Option<Option<u32>>, retries: u32, expected: bool| {
            let policy = policy(TaskOptions { max_retries: task, ..Default::default() });
            let retry = Retry { max_retries: run, ..Default::default() };
            let left = policy.decide(&retry, retries, &mut Rng::with_seed(1)) != RetryDecision::Exhausted;
            assert_eq!(left, expected, "task {task:?}, run {run:?}, retries {retries}");
        };
        check(None, None, 2, true);
        check(None, None, 3, false);
        check(Some(Some(0)), None, 0, false);
        check(Some(Some(5)), None, 4, true);
        check(Some(Some(5)), None, 5, false);
        check(Some(None), None, u32::MAX, true);
        check(Some(Some(5)), Some(Some(1)), 1, false);
        check(Some(Some(1)), Some(None), 100, true);
    }
}
