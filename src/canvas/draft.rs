//! [`Planner`], which makes plans, and [`Draft`], one plan in the making.

use super::node::Node;
use super::results::{ResultId, Results};
use super::{Given, Ids, Parent, Plan, Rules, Step};
use crate::Result;
use crate::protocol::{Kind, Signature};

/// Makes plans: what one process sends, in the run of one task or of none.
pub struct Planner<'a> {
    pub(super) rules: &'a Rules,
    pub(super) parent: Option<&'a Parent>,
    pub(super) ids: &'a mut dyn Ids,
}

/// One plan in the making.
pub(super) struct Draft<'a> {
    pub(super) rules: &'a Rules,
    pub(super) parent: Option<&'a Parent>,
    pub(super) ids: &'a mut dyn Ids,
    pub(super) results: Results,
    pub(super) plan: Plan,
}

impl<'a> Planner<'a> {
    /// A planner for a program that sends outside of any task.
    pub fn new(rules: &'a Rules, ids: &'a mut dyn Ids) -> Self {
        Planner { rules, parent: None, ids }
    }

    /// The same within the run of `parent`.
    #[must_use]
    pub fn within<'b>(self, parent: &'b Parent) -> Planner<'b>
    where
        'a: 'b,
    {
        Planner { rules: self.rules, parent: Some(parent), ids: self.ids }
    }

    /// Plans what a producer's `signature.apply_async(given)` does. `celery.chunks` becomes its group.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`](crate::ErrorKind::Decode) for a signature of a wrong form, or nested beyond measure;
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) for what Celery refuses, such as a link of a group,
    /// and for a chord where the backend has none.
    pub fn apply(&mut self, signature: Signature, given: Given) -> Result<Plan> {
        match signature.kind() {
            Kind::Chunks => self.apply_node(super::build::expanded(signature)?, given),
            _ => self.apply_signature(signature, given),
        }
    }

    /// Plans what a worker does with a signature that a message carried.
    pub(super) fn apply_signature(&mut self, signature: Signature, given: Given) -> Result<Plan> {
        self.apply_node(Node::read(signature)?, given)
    }

    pub(super) fn apply_node(&mut self, node: Node, given: Given) -> Result<Plan> {
        let mut draft = self.draft();
        let result = draft.apply(node, given.into())?;
        draft.plan.result = result.map(|result| draft.results.tuple(result));
        Ok(draft.plan)
    }

    pub(super) fn draft(&mut self) -> Draft<'_> {
        Draft {
            rules: self.rules,
            parent: self.parent,
            ids: &mut *self.ids,
            results: Results::default(),
            plan: Plan::default(),
        }
    }
}

impl std::fmt::Debug for Planner<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Planner").field("rules", self.rules).field("parent", &self.parent).finish_non_exhaustive()
    }
}

impl Draft<'_> {
    pub(super) fn step(&mut self, step: Step) {
        self.plan.steps.push(step);
    }

    /// Adds a result to the children of the task that sends (celery/app/task.py `Task.add_trail`).
    pub(super) fn add_trail(&mut self, result: ResultId) {
        if self.parent.is_some() {
            self.plan.children.push(self.results.tuple(result));
        }
    }
}
