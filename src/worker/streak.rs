//! [`Streak`]: how many messages of handlers a worker takes ahead that has a pool's tasks as well.
//!
//! A pool of a few processes has a window of a few messages, and a handler runs in no time: asked for so few at a time,
//! handlers would wait for the broker. What a message is for is seen when it has come. So the worker takes no more ahead of
//! the pool's window than it has just had handlers' messages in a row, and nothing once one of the pool's has come.

/// So many in a row begin a streak: a window is not changed for less.
const LEAST: usize = 64;

/// Messages of handlers in a row.
#[derive(Debug)]
pub(crate) struct Streak {
    /// So many may be out beside the pools' window.
    most: usize,
    /// Nothing is taken ahead: one message was asked for at a time.
    is_strict: bool,
    length: usize,
}

impl Streak {
    /// `handlers`: how many run at a time beside pools, 0 for none; `multiplier`: how many messages are reserved for each, 0
    /// for no limit.
    pub(crate) fn new(handlers: usize, multiplier: u32, is_strict: bool) -> Self {
        Streak {
            most: handlers.saturating_mul(multiplier.max(1) as usize),
            is_strict: is_strict || multiplier == 1,
            length: 0,
        }
    }

    /// A message has come, of a handler or of a pool's task.
    pub(crate) fn came(&mut self, is_handlers: bool) {
        self.length = if is_handlers { self.length.saturating_add(1) } else { 0 };
    }

    /// How many may be out beside the window.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// How many may be taken ahead: a power of two, for a broker may have to be told of each change.
    pub(crate) fn ahead(&self) -> usize {
        let length = self.length.min(self.most);
        if self.is_strict || length < LEAST { 0 } else { 1 << length.ilog2() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_ahead_than_has_come_in_a_row() {
        let mut streak = Streak::new(250, 4, false);
        assert_eq!(streak.most(), 1000);
        let mut came = |count: usize| {
            (0..count).for_each(|_| streak.came(true));
            streak.ahead()
        };
        let ahead = [63, 1, 63, 1, 10_000].map(&mut came);
        assert_eq!(ahead, [0, 64, 64, 128, 512]);
        streak.came(false);
        assert_eq!(streak.ahead(), 0);
    }

    #[test]
    fn who_asks_for_one_at_a_time_gets_no_more() {
        for (handlers, multiplier, is_strict) in [(250, 1, false), (250, 4, true), (0, 4, false)] {
            let mut streak = Streak::new(handlers, multiplier, is_strict);
            (0..1000).for_each(|_| streak.came(true));
            assert_eq!(streak.ahead(), 0, "{handlers} {multiplier} {is_strict}");
        }
    }
}
