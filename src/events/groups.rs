//! [`Groups`]: which events are wanted.

use std::sync::atomic::{AtomicBool, Ordering};

/// Which events a worker sends (celery/events/dispatcher.py `EventDispatcher.groups`): always those of workers, and
/// those of tasks while somebody wants them.
#[derive(Debug)]
pub struct Groups {
    /// Remote control does not change what is sent: all, Celery's empty set, or nothing at all.
    is_fixed: bool,
    task: AtomicBool,
}

impl Groups {
    /// The groups of a worker that was started with `-E`, or without it.
    pub fn new(task_events: bool) -> Self {
        Groups { is_fixed: task_events, task: AtomicBool::new(task_events) }
    }

    /// Those of a worker that nobody is to hear: it has no heartbeat, no gossip and no task events
    /// (celery/worker/consumer/events.py `Events.__init__`).
    pub fn none() -> Self {
        Groups { is_fixed: true, task: AtomicBool::new(false) }
    }

    /// Whether task events are wanted.
    pub fn has_task(&self) -> bool {
        self.task.load(Ordering::Relaxed)
    }

    /// Wants task events; whether that is news (celery/worker/control.py `enable_events`).
    pub fn enable_task(&self) -> bool {
        !self.is_fixed && !self.task.swap(true, Ordering::Relaxed)
    }

    /// Wants them no more; whether that is news. A worker that was started with `-E` goes on, and so it does in Celery
    /// (celery/worker/control.py `disable_events`).
    pub fn disable_task(&self) -> bool {
        !self.is_fixed && self.task.swap(false, Ordering::Relaxed)
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
        let none = Groups::none();
        assert!(!none.enable_task() && !none.disable_task() && !none.has_task());
    }
}
