//! [`Groups`]: which events are wanted.

use std::sync::atomic::{AtomicBool, Ordering};

/// Which events a worker sends (celery/events/dispatcher.py `EventDispatcher.groups`): always those of workers, and
/// those of tasks while somebody wants them.
#[derive(Debug)]
pub struct Groups {
    /// The worker was started with task events: Celery's empty set, which remote control does not change.
    everything: bool,
    task: AtomicBool,
}

impl Groups {
    /// The groups of a worker that was started with `-E`, or without it.
    pub fn new(task_events: bool) -> Self {
        Groups { everything: task_events, task: AtomicBool::new(task_events) }
    }

    /// Whether task events are wanted.
    pub fn has_task(&self) -> bool {
        self.task.load(Ordering::Relaxed)
    }

    /// Wants task events; whether that is news (celery/worker/control.py `enable_events`).
    pub fn enable_task(&self) -> bool {
        !self.everything && !self.task.swap(true, Ordering::Relaxed)
    }

    /// Wants them no more; whether that is news. A worker that was started with `-E` goes on, and so it does in Celery
    /// (celery/worker/control.py `disable_events`).
    pub fn disable_task(&self) -> bool {
        !self.everything && self.task.swap(false, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn task_events_come_and_go_by_command_unless_the_worker_was_started_with_them() {
        let groups = Groups::new(false);
        let steps = [
            (groups.has_task(), false),
            (groups.disable_task(), false),
            (groups.enable_task(), true),
            (groups.enable_task(), false),
            (groups.has_task(), true),
            (groups.disable_task(), true),
            (groups.has_task(), false),
        ];
        assert!(steps.iter().all(|(is, expected)| is == expected), "{steps:?}");
        let all = Groups::new(true);
        assert!(!all.enable_task() && !all.disable_task() && all.has_task());
    }
}
