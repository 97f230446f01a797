//! Time as an input: wall-clock time comes from a [`Clock`], waiting is Tokio's so that tests can pause it.
//!
//! This is the only room that may read the machine's clocks; `clippy.toml` bans it elsewhere.

pub mod zone;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

/// Where a worker reads the wall clock.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System,
    Manual(Arc<Mutex<Timestamp>>),
    #[cfg(feature = "testing")]
    Runtime {
        start: Timestamp,
        since: tokio::time::Instant,
    },
}

impl Clock {
    /// The machine's own clock.
    pub fn system() -> Self {
        Clock(Source::System)
    }

    /// A clock that stands at `start` until [`Clock::advance`] moves it.
    pub fn manual(start: Timestamp) -> Self {
        Clock(Source::Manual(Arc::new(Mutex::new(start))))
    }

    /// A clock that stands at `start` now and goes as Tokio's time does, which a test can pause.
    #[cfg(feature = "testing")]
    pub fn of_runtime(start: Timestamp) -> Self {
        Clock(Source::Runtime { start, since: tokio::time::Instant::now() })
    }

    /// The present moment.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => Timestamp::now(),
            Source::Manual(now) => *now.lock().unwrap_or_else(PoisonError::into_inner),
            #[cfg(feature = "testing")]
            Source::Runtime { start, since } => *start + since.elapsed(),
        }
    }

    /// Seconds since the epoch, with microseconds as its fraction: the form of scores in `unacked_index`.
    pub fn epoch_seconds(&self) -> f64 {
        self.now().as_microsecond() as f64 / 1e6
    }

    /// How long the machine has been up: Python's `time.monotonic()`, which other processes on it read too.
    pub fn since_boot(&self) -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        Duration::try_from(now).unwrap_or_default()
    }

    /// Moves a manual clock forward; no other moves for anybody.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(now) = &self.0 {
            let mut now = now.lock().unwrap_or_else(PoisonError::into_inner);
            *now += by;
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::System => "Clock::system",
            Source::Manual(_) => "Clock::manual",
            #[cfg(feature = "testing")]
            Source::Runtime { .. } => "Clock::of_runtime",
        })
    }
}
