//! [`Cycle`]: in which order a consumer looks at its queues.

use super::QueueName;

/// `queue_order_strategy` (kombu/utils/scheduling.py).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QueueOrder {
    /// A queue that was just used comes last (`round_robin_cycle`).
    #[default]
    RoundRobin,
    /// As declared, always (`priority_cycle`): an earlier queue is emptied before a later one.
    Priority,
    /// By name, always (`sorted_cycle`).
    Sorted,
}

/// A consumer's queues, in the order in which it looks at them next.
#[derive(Debug, Clone)]
pub(super) struct Cycle {
    queues: Vec<QueueName>,
    order: QueueOrder,
}

impl Cycle {
    pub(super) fn new(queues: impl IntoIterator<Item = QueueName>, order: QueueOrder) -> Self {
        let mut distinct = Vec::new();
        for queue in queues {
            if !distinct.contains(&queue) {
                distinct.push(queue);
            }
        }
        if order == QueueOrder::Sorted {
            distinct.sort();
        }
        Cycle { queues: distinct, order }
    }

    /// Other queues; those that stay keep their turns, and new ones come last.
    pub(super) fn change(&mut self, queues: impl IntoIterator<Item = QueueName>) {
        let wanted = Cycle::new(queues, self.order).queues;
        if self.is_fair() {
            let new = wanted.iter().filter(|queue| !self.queues.contains(queue)).cloned().collect::<Vec<_>>();
            self.queues.retain(|queue| wanted.contains(queue));
            self.queues.extend(new);
        } else {
            self.queues = wanted;
        }
    }

    /// The queues, the one to look at first in front.
    pub(super) fn queues(&self) -> &[QueueName] {
        &self.queues
    }

    /// Whether every queue gets its share of a batch.
    pub(super) fn is_fair(&self) -> bool {
        self.order == QueueOrder::RoundRobin
    }

    /// A message was taken from this queue.
    pub(super) fn used(&mut self, queue: &QueueName) {
        if self.is_fair()
            && let Some(at) = self.queues.iter().position(|name| name == queue)
        {
            self.queues[at..].rotate_left(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_that_stay_keep_their_turns() {
        let rows = [
            (QueueOrder::RoundRobin, ["c", "b", "d"]),
            (QueueOrder::Priority, ["d", "b", "c"]),
            (QueueOrder::Sorted, ["b", "c", "d"]),
        ];
        for (order, expected) in rows {
            let mut cycle = Cycle::new(["a", "b", "c"].map(QueueName::from), order);
            cycle.used(&"a".into());
            cycle.used(&"b".into());
            cycle.change(["d", "b", "c"].map(QueueName::from));
            assert_eq!(cycle.queues(), expected.map(QueueName::from), "{order:?}");
        }
    }

    #[test]
    fn strategies_order_as_kombus_cycles() {
        let rows = [
            (QueueOrder::RoundRobin, ["b", "c", "a"], ["c", "a", "b"]),
            (QueueOrder::Priority, ["b", "c", "a"], ["b", "c", "a"]),
            (QueueOrder::Sorted, ["a", "b", "c"], ["a", "b", "c"]),
        ];
        for (order, before, after) in rows {
            let mut cycle = Cycle::new(["b", "c", "a", "b"].map(QueueName::from), order);
            assert_eq!(cycle.queues(), before.map(QueueName::from), "{order:?}");
            cycle.used(&"b".into());
            cycle.used(&"unknown".into());
            assert_eq!(cycle.queues(), after.map(QueueName::from), "{order:?}");
        }
    }
}
