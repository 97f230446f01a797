//! [`LamportClock`]: the logical clock that orders what nodes tell each other.

use std::sync::atomic::{AtomicU64, Ordering};

/// A logical clock (kombu/clocks.py `LamportClock`).
#[derive(Debug, Default)]
pub struct LamportClock(AtomicU64);

/// What others say is believed up to here, so that nobody can turn the clock over.
const FURTHEST: u64 = 1 << 62;

impl LamportClock {
    /// A clock that stands at `value`.
    pub fn new(value: u64) -> Self {
        LamportClock(AtomicU64::new(value.min(FURTHEST)))
    }

    /// The time now.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Moves it on by one, and returns the new time.
    pub fn forward(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Moves it beyond the time that another node tells, and returns the new time.
    pub fn adjust(&self, other: u64) -> u64 {
        self.0.fetch_max(other.min(FURTHEST), Ordering::Relaxed);
        self.forward()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_goes_back() {
        let clock = LamportClock::new(5);
        assert_eq!(clock.forward(), 6);
        assert_eq!(clock.adjust(2), 7);
        assert_eq!(clock.adjust(40), 41);
        assert!(clock.adjust(u64::MAX) < clock.forward());
    }
}
