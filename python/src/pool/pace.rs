//! [`Pace`]: how long tasks take, by their names.

use std::collections::HashMap;
use std::time::Duration;

/// A task that takes no longer may have others wait behind it in the same child.
const SHORT: Duration = Duration::from_millis(2);
/// How much the last run counts.
const LAST: f64 = 0.2;

/// How long tasks take.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// In seconds, the last runs counting most.
    by_task: HashMap<String, f64>,
}

impl Pace {
    /// A task has run for so long.
    pub(super) fn note(&mut self, task: &str, took: Duration) {
        let took = took.as_secs_f64();
        match self.by_task.get_mut(task) {
            Some(known) => *known += (took - *known) * LAST,
            None => drop(self.by_task.insert(task.to_owned(), took)),
        }
    }

    /// Whether a task has been short lately. Of one that never ran nothing is assumed.
    pub(super) fn is_short(&self, task: &str) -> bool {
        self.by_task.get(task).is_some_and(|known| *known <= SHORT.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_short_when_its_last_runs_were() {
        let mut pace = Pace::default();
        assert!(!pace.is_short("t"));
        pace.note("t", Duration::from_micros(50));
        assert!(pace.is_short("t") && !pace.is_short("u"));
        pace.note("t", Duration::from_secs(1));
        assert!(!pace.is_short("t"));
        (0..40).for_each(|_| pace.note("t", Duration::from_micros(50)));
        assert!(pace.is_short("t"));
    }
}
