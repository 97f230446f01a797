//! [`Chores`]: what the loop does now and then.

use std::time::Duration;

use tokio::time::Instant;

/// Between two times of the same chore: each of them looks at everything that waits, or at all that is remembered.
const PACE: Duration = Duration::from_secs(1);

/// What is to be done soon.
#[derive(Debug, Default)]
pub(crate) struct Chores {
    /// Discard what was revoked while it waits.
    pub(crate) discard: Chore,
    /// Write the state file.
    pub(crate) remember: Chore,
}

/// Something that is done soon after it was asked for, and not too often.
#[derive(Debug, Default)]
pub(crate) struct Chore {
    due: Option<Instant>,
    last: Option<Instant>,
}

impl Chores {
    /// When the next chore is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        [self.discard.due, self.remember.due].into_iter().flatten().min()
    }
}

impl Chore {
    pub(crate) fn soon(&mut self, now: Instant) {
        let earliest = self.last.map_or(now, |last| now.max(last + PACE));
        self.due.get_or_insert(earliest);
    }

    /// Whether it is due, and if so that it is done now.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.due.is_some_and(|due| due <= now);
        if is_due {
            (self.due, self.last) = (None, Some(now));
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chore_is_done_soon_and_not_too_often() {
        let (mut chores, now) = (Chores::default(), Instant::now());
        assert_eq!(chores.next(), None);
        chores.discard.soon(now);
        assert!(chores.discard.is_due(now) && !chores.discard.is_due(now));
        chores.discard.soon(now);
        chores.discard.soon(now + PACE / 2);
        assert_eq!(chores.next(), Some(now + PACE));
        assert!(!chores.discard.is_due(now) && chores.discard.is_due(now + PACE));
    }
}
