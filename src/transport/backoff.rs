//! [`Backoff`]: how long to wait before the next try to connect.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
/// While the loss is fresh, so that work resumes soon after a broker's restart.
const SHORT_CAP: Duration = Duration::from_secs(1);
/// When the broker has been away for long.
const LONG_CAP: Duration = Duration::from_secs(5);
/// What a [`Backoff::patient`] comes to.
const PATIENT_CAP: Duration = Duration::from_secs(60);
/// How many tries count as fresh: about a minute of them.
const FRESH_TRIES: u32 = 80;
/// After how many tries the pauses are at their first cap.
const GROWING_TRIES: u32 = 5;

/// Pauses between tries to connect: they double, end at a cap, and are shortened at random by up to a half, so that a
/// fleet that lost its broker in one moment does not come back in one moment.
///
/// The first minute's pauses are at most one second, later ones at most five. Celery waits 2, 4, … 32 seconds
/// (celery/worker/consumer/consumer.py `Consumer.ensure_connected`).
#[derive(Debug, Clone)]
pub struct Backoff {
    rng: fastrand::Rng,
    tries: u32,
    patient: bool,
}

impl Backoff {
    /// A fresh series of pauses; the same seed makes the same series.
    pub fn new(seed: u64) -> Self {
        Backoff { rng: fastrand::Rng::with_seed(seed), tries: 0, patient: false }
    }

    /// The same for what the worker can do without: its pauses grow to a minute.
    pub fn patient(seed: u64) -> Self {
        Backoff { patient: true, ..Backoff::new(seed) }
    }

    /// The pause before the next try.
    pub fn next_pause(&mut self) -> Duration {
        let cap = match self.tries {
            _ if self.patient => PATIENT_CAP,
            ..FRESH_TRIES => SHORT_CAP,
            _ => LONG_CAP,
        };
        let full = FIRST.saturating_mul(1 << self.tries.min(11)).min(cap);
        self.tries = self.tries.saturating_add(1);
        full.mul_f64(0.5 + self.rng.f64() / 2.0)
    }

    /// A try succeeded, and not for long: the loss is fresh again, and the pauses are no shorter.
    pub fn freshen(&mut self) {
        self.tries = self.tries.min(GROWING_TRIES);
    }

    /// Begins again with the shortest pause: a try succeeded.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_cap_and_start_again() {
        let mut backoff = Backoff::new(7);
        let rows = [(0, 25, 50), (1, 50, 100), (2, 100, 200), (4, 400, 800), (5, 500, 1000), (79, 500, 1000)];
        let pauses: Vec<_> = (0..100).map(|_| backoff.next_pause().as_millis()).collect();
        for (nth, least, most) in rows {
            assert!((least..=most).contains(&pauses[nth]), "pause {nth} is {}", pauses[nth]);
        }
        assert!((2500..=5000).contains(&pauses[85]));
        backoff.freshen();
        assert!((500..=1000).contains(&backoff.next_pause().as_millis()));
        backoff.reset();
        assert!(backoff.next_pause() <= FIRST);
    }

    #[test]
    fn patience_comes_to_a_minute() {
        let mut backoff = Backoff::patient(7);
        let pauses: Vec<_> = (0..20).map(|_| backoff.next_pause().as_secs_f64()).collect();
        assert!(pauses[0] <= 0.05 && pauses[5] > 0.5 && pauses[5] <= 1.6, "{pauses:?}");
        assert!(pauses[11..].iter().all(|pause| (30.0..=60.0).contains(pause)), "{pauses:?}");
    }

    #[test]
    fn a_seed_makes_the_same_series() {
        let series = |seed| {
            let mut backoff = Backoff::new(seed);
            (0..10).map(|_| backoff.next_pause()).collect::<Vec<_>>()
        };
        assert_eq!(series(1), series(1));
        assert_ne!(series(1), series(2));
    }
}
