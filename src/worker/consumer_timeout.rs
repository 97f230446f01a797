//! [`ConsumerTimeout`]: warns of messages that stay unacknowledged for nearly as long as RabbitMQ bears it.
//!
//! When a message is not acknowledged within the server's `consumer_timeout`, the server closes the channel: all that came
//! over it is delivered again, and what runs late-acknowledged is run twice. So whoever holds a message for that long, or
//! runs it, is named in the log before (`broker_consumer_timeout`).

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::warn;

use super::request::Work;
use super::running::Running;

/// So much of the timeout may pass before somebody hears of it.
const NEAR: f64 = 0.8;
/// Of held messages there may be thousands: one of them is named in so long a time.
const PACE: Duration = Duration::from_secs(60);

/// How long the server waits for an acknowledgement.
#[derive(Debug)]
pub(crate) struct ConsumerTimeout {
    /// `None`: for ever, or it is not known.
    near: Option<Duration>,
    /// When to look at what runs.
    look: Option<Instant>,
    /// When a held message was named.
    named: Option<Instant>,
}

impl ConsumerTimeout {
    pub(crate) fn new(timeout: Option<Duration>) -> Self {
        ConsumerTimeout { near: timeout.map(|timeout| timeout.mul_f64(NEAR)), look: None, named: None }
    }

    /// Work is about to be held.
    pub(crate) fn hold(&mut self, work: &Work, eta: Timestamp, now: Timestamp) {
        if self.names(eta, now, Instant::now()) {
            warn!(
                "Task {}[{}] is held until {eta}, which is longer than RabbitMQ may wait for its acknowledgement \
                 (broker_consumer_timeout): worker_park_eta_after lets the broker keep such tasks",
                work.name, work.request.id
            );
        }
    }

    fn names(&mut self, eta: Timestamp, now: Timestamp, at: Instant) -> bool {
        let wait = Duration::try_from(eta.duration_since(now)).unwrap_or_default();
        let named = self.near.is_some_and(|near| wait >= near) && self.named.is_none_or(|last| last + PACE <= at);
        if named {
            self.named = Some(at);
        }
        named
    }

    /// Something begins to run whose message is acknowledged when it is done.
    pub(crate) fn begin(&mut self, now: Instant) {
        if let Some(near) = self.near {
            self.look.get_or_insert(now + near);
        }
    }

    /// When to look at what runs.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.look
    }

    /// Names what has been running for too long, each run once.
    pub(crate) fn look(&mut self, running: &mut Running, now: Instant) {
        let Some(near) = self.near.filter(|_| self.look.is_some_and(|look| look <= now)) else { return };
        self.look = None;
        for run in running.late_ones() {
            if run.since + near <= now {
                run.is_named = true;
                warn!(
                    "Task {}[{}] has been running for {:.0} seconds and is not acknowledged: RabbitMQ closes the \
                     channel after {:.0} (broker_consumer_timeout), and delivers it again",
                    run.request.task,
                    run.request.id,
                    (now - run.since).as_secs_f64(),
                    near.div_f64(NEAR).as_secs_f64()
                );
            } else {
                let due = run.since + near;
                self.look = Some(self.look.map_or(due, |look| look.min(due)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::worker::running::Start;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_long_eta_is_named_once_in_a_while() {
        let (now, at) = (Timestamp::from_second(1_000_000).unwrap(), Instant::now());
        let eta = |seconds| now + Duration::from_secs(seconds);
        let mut timeout = ConsumerTimeout::new(Some(10 * MINUTE));
        assert!(!timeout.names(eta(479), now, at));
        assert!(timeout.names(eta(480), now, at) && !timeout.names(eta(9999), now, at + PACE / 2));
        assert!(timeout.names(eta(9999), now, at + PACE));
        assert!(!ConsumerTimeout::new(None).names(eta(99_999), now, at));
    }

    #[test]
    fn a_long_run_is_named_once() {
        let (events, _freed) = mpsc::unbounded_channel();
        let mut running = Running::new(events);
        let mut timeout = ConsumerTimeout::new(Some(10 * MINUTE));
        let _slots = [true, false].map(|is_late| running.begin(Start { is_late, ..Start::default() }, None));
        let began = Instant::now();
        timeout.begin(began);
        timeout.look(&mut running, began + 7 * MINUTE);
        assert_eq!((running.late_ones().count(), timeout.next()), (1, Some(began + 8 * MINUTE)));
        timeout.look(&mut running, began + 9 * MINUTE);
        assert_eq!((running.late_ones().count(), timeout.next()), (0, None));
    }
}
