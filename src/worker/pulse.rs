//! [`Pulse`]: what the loop shows of itself to who watches from outside, without being asked.
//!
//! The loop beats at each of its turns, and once a second when nothing happens. Who watches reads numbers and waits for
//! nobody, so that the answer comes also when the loop is busy, or never moves again.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// From one beat of an idle loop to the next.
pub(crate) const BEAT: Duration = Duration::from_secs(1);

/// A loop that has not moved for so long is stuck: it awaits nothing slow, so handlers hold all threads, or it is broken.
const STUCK: Duration = Duration::from_secs(5);

/// How the loop is, and what it holds.
#[derive(Debug)]
pub(crate) struct Pulse {
    began: Instant,
    /// When it last moved, in milliseconds since `began`.
    moved: AtomicU64,
    is_connected: AtomicBool,
    was_connected: AtomicBool,
    is_stopping: AtomicBool,
    /// The loop is done, and beats no more.
    has_ended: AtomicBool,
    running: AtomicUsize,
    reserved: AtomicUsize,
    scheduled: AtomicUsize,
    limited: AtomicUsize,
    concurrency: AtomicUsize,
}

/// What a loop holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Load {
    /// Places in the pool that are taken.
    pub(crate) running: usize,
    /// Wait for a place in the pool.
    pub(crate) reserved: usize,
    /// Wait for their ETA.
    pub(crate) scheduled: usize,
    /// Wait for their turn.
    pub(crate) limited: usize,
    /// Places in the pool.
    pub(crate) concurrency: usize,
}

impl Pulse {
    pub(crate) fn new(now: Instant) -> Self {
        Pulse {
            began: now,
            moved: AtomicU64::new(0),
            is_connected: AtomicBool::new(false),
            was_connected: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            running: AtomicUsize::new(0),
            reserved: AtomicUsize::new(0),
            scheduled: AtomicUsize::new(0),
            limited: AtomicUsize::new(0),
            concurrency: AtomicUsize::new(0),
        }
    }

    /// The loop moves, and holds this.
    pub(crate) fn beat(&self, now: Instant, load: Load) {
        let milliseconds = u64::try_from(now.duration_since(self.began).as_millis()).unwrap_or(u64::MAX);
        self.moved.store(milliseconds, Ordering::Relaxed);
        self.running.store(load.running, Ordering::Relaxed);
        self.reserved.store(load.reserved, Ordering::Relaxed);
        self.scheduled.store(load.scheduled, Ordering::Relaxed);
        self.limited.store(load.limited, Ordering::Relaxed);
        self.concurrency.store(load.concurrency, Ordering::Relaxed);
    }

    /// It consumes, or its connection is lost.
    pub(crate) fn connected(&self, is_connected: bool) {
        self.is_connected.store(is_connected, Ordering::Relaxed);
        if is_connected {
            self.was_connected.store(true, Ordering::Relaxed);
        }
    }

    /// It takes nothing more.
    pub(crate) fn stopping(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    /// It is done.
    pub(crate) fn ended(&self) {
        self.stopping();
        self.has_ended.store(true, Ordering::Relaxed);
    }

    pub(crate) fn load(&self) -> Load {
        Load {
            running: self.running.load(Ordering::Relaxed),
            reserved: self.reserved.load(Ordering::Relaxed),
            scheduled: self.scheduled.load(Ordering::Relaxed),
            limited: self.limited.load(Ordering::Relaxed),
            concurrency: self.concurrency.load(Ordering::Relaxed),
        }
    }

    /// For how long the loop has not moved.
    pub(crate) fn still(&self, now: Instant) -> Duration {
        now.duration_since(self.began).saturating_sub(Duration::from_millis(self.moved.load(Ordering::Relaxed)))
    }

    /// Whether it consumes over a connection that is up.
    pub(crate) fn is_connected(&self) -> bool {
        self.is_connected.load(Ordering::Relaxed)
    }

    /// Whether the process is to be left alone. The broker has no say in it: to start anew brings back no broker.
    ///
    /// # Errors
    /// Why it is not.
    pub(crate) fn live(&self, now: Instant) -> Result<(), String> {
        let still = self.still(now);
        if still < STUCK || self.has_ended.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(format!("the loop has not moved for {:.1} seconds", still.as_secs_f64()))
    }

    /// Whether deliveries arrive here, and are run.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn ready(&self, now: Instant) -> Result<(), String> {
        if self.is_stopping.load(Ordering::Relaxed) {
            return Err("the worker is stopping".to_owned());
        }
        if !self.is_connected() {
            return Err("there is no connection to the broker".to_owned());
        }
        self.live(now)
    }

    /// Whether it has ever been ready.
    ///
    /// # Errors
    /// That it has not.
    pub(crate) fn started(&self) -> Result<(), String> {
        let was_connected = self.was_connected.load(Ordering::Relaxed);
        was_connected.then_some(()).ok_or_else(|| "the worker has not consumed yet".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// live, ready, started
    fn signs(pulse: &Pulse, now: Instant) -> [bool; 3] {
        [pulse.live(now).is_ok(), pulse.ready(now).is_ok(), pulse.started().is_ok()]
    }

    #[test]
    fn who_moves_is_live_and_who_is_connected_and_stays_is_ready() {
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        let pulse = Pulse::new(began);
        assert_eq!(signs(&pulse, after(1)), [true, false, false]);
        pulse.connected(true);
        assert_eq!(signs(&pulse, after(4)), [true, true, true]);
        assert_eq!(signs(&pulse, after(5)), [false, false, true]);
        let load = Load { running: 1, reserved: 2, scheduled: 3, limited: 4, concurrency: 5 };
        pulse.beat(after(100), load);
        assert_eq!((signs(&pulse, after(104)), pulse.load()), ([true, true, true], load));
        pulse.connected(false);
        assert_eq!(signs(&pulse, after(104)), [true, false, true]);
        pulse.connected(true);
        pulse.stopping();
        assert_eq!(signs(&pulse, after(104)), [true, false, true]);
        assert_eq!(signs(&pulse, after(106)), [false, false, true]);
        pulse.ended();
        assert_eq!(signs(&pulse, after(200)), [true, false, true]);
    }
}
