//! [`Plan`]: what is to be done, in order, to send a signature.

use super::Call;
use crate::protocol::ResultTuple;

/// What is to be done to send a signature, and where its result will be found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// To be done in this order. A step that fails ends the plan.
    pub steps: Vec<Step>,
    /// What Celery's `apply_async` returns, as `as_tuple()` writes it; `None` where it returns `None`, as an empty chain
    /// does. Of a long chain it names the last 300 steps only.
    pub result: Option<ResultTuple>,
    /// What is added to the `children` of the task that sends it (celery/app/task.py `Task.add_trail`), in order; empty
    /// without a parent.
    pub children: Vec<ResultTuple>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Send a message.
    Send(Box<Call>),
    /// Store the shape of a header whose members are groups themselves, under the group's key
    /// (celery/backends/redis.py `RedisBackend.apply_chord`).
    SaveGroup {
        /// The header's id.
        group_id: String,
        /// The header's result: `{"result": …}` is stored.
        result: ResultTuple,
    },
    /// Tell the backend how many parts the chord has, before its last member is sent
    /// (celery/backends/redis.py `RedisBackend.set_chord_size`).
    StartChord {
        /// The header's id.
        group_id: String,
        /// How many tasks will report.
        size: u64,
    },
}

impl Plan {
    /// The calls among the steps, in order.
    pub fn calls(&self) -> impl Iterator<Item = &Call> {
        self.steps.iter().filter_map(|step| match step {
            Step::Send(call) => Some(&**call),
            _ => None,
        })
    }

    /// Appends what another plan does; the result becomes the other's.
    pub fn append(&mut self, other: Plan) {
        self.steps.extend(other.steps);
        self.children.extend(other.children);
        self.result = other.result;
    }
}
