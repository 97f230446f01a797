//! [`Relief`]: when a load is over. Whoever gives back what it needed waits for that.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// So many messages at a time take a few hundred kilobytes. Below that there is nothing to gain when they are done, and a
/// worker that is given one task after the other is not to be bothered after each.
const MUCH: usize = 100;

/// What is known of loads; clones know the same.
#[derive(Debug, Clone)]
pub(crate) struct Relief(watch::Sender<Loads>);

#[derive(Debug, Clone, Copy, Default)]
struct Loads {
    /// The most messages that were held at a time since nothing was.
    highest: usize,
    /// Nothing is held.
    is_idle: bool,
    /// How many are over.
    over: u64,
}

impl Default for Relief {
    fn default() -> Self {
        Relief(watch::Sender::new(Loads::default()))
    }
}

impl Relief {
    /// So many messages are held now.
    pub(super) fn held(&self, count: usize) {
        self.0.send_if_modified(|loads| loads.held(count));
    }

    /// Waits for a moment of `calm` after more than `seen` loads; how many there were.
    pub(crate) async fn after(&self, seen: u64, calm: Duration) -> u64 {
        let mut loads = self.0.subscribe();
        // The sender is `self`, so the channel cannot be closed while this waits.
        let _ = loads.wait_for(|loads| loads.over > seen).await;
        loop {
            let _ = loads.wait_for(|loads| loads.is_idle).await;
            if timeout(calm, loads.wait_for(|loads| !loads.is_idle)).await.is_err() {
                return self.0.borrow().over;
            }
        }
    }
}

impl Loads {
    /// Whether that is news: a load is over, or idleness is.
    fn held(&mut self, count: usize) -> bool {
        let was_idle = std::mem::replace(&mut self.is_idle, count == 0);
        if count > 0 {
            self.highest = self.highest.max(count);
            return was_idle;
        }
        let is_over = std::mem::take(&mut self.highest) >= MUCH;
        self.over += u64::from(is_over);
        is_over || !was_idle
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[test]
    fn a_load_is_over_once_when_nothing_is_left_of_it() {
        let mut loads = Loads::default();
        let rows: [(&[usize], u64); 6] = [
            (&[0, 1, 0, MUCH - 1, 1, 0], 0),
            (&[1, MUCH, 50, 1], 0),
            (&[0], 1),
            (&[0, 0, 99, 0], 1),
            (&[99, 1_000_000, 100, 99], 1),
            (&[0, 0], 2),
        ];
        for (held, over) in rows {
            for &count in held {
                loads.held(count);
            }
            assert_eq!(loads.over, over, "{held:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_waited_for_until_nothing_has_come_for_a_while() {
        let (relief, calm) = (Relief::default(), Duration::from_millis(10));
        let mut after = pin!(relief.after(0, calm));
        let mut is_over = async |counts: &[usize], pause| {
            counts.iter().for_each(|&count| relief.held(count));
            timeout(Duration::from_millis(pause), after.as_mut()).await.ok()
        };
        assert_eq!(is_over(&[0, 1, 0], 100).await, None, "there was no load");
        assert_eq!(is_over(&[MUCH, 0], 8).await, None, "it was over just now");
        assert_eq!(is_over(&[1], 100).await, None, "something has come");
        assert_eq!(is_over(&[0], 8).await, None);
        assert_eq!(is_over(&[MUCH, 0], 11).await, Some(2));
        assert!(timeout(Duration::from_secs(1), relief.after(2, calm)).await.is_err(), "both were seen");
    }
}
