//! The body of a chord: called with the results, or failed with the header
//! (celery/backends/redis.py `on_chord_part_return`, celery/backends/base.py `chord_error_from_stack`).

use std::sync::Arc;

use super::{BodyFailure, ChordFailure, FailedMember, failed_members};
use crate::Result;
use crate::canvas::freeze::Freezing;
use crate::canvas::node::{Node, Parts, append_links, listed};
use crate::canvas::{Given, Plan, Planner};
use crate::protocol::{Map, Signature, Value};

impl Planner<'_> {
    /// Plans the call of a chord's body with the results of its header: `callback.delay(results)`. The planner's parent is
    /// the member that completed the chord.
    ///
    /// # Errors
    /// Those of [`Planner::apply`]: the chord fails with `Callback error: …` then.
    pub fn chord_body(&mut self, body: Value, results: Vec<Value>) -> Result<Plan> {
        self.apply_node(Node::from_value(body)?, Given::argument(Value::List(results)))
    }

    /// What a failed chord does to its body. `is_inline` as in [`Planner::errbacks`].
    ///
    /// Unlike Celery, which leaves its result pending for ever, the body of a body that is a chord itself fails too.
    ///
    /// # Errors
    /// Those of [`Planner::apply`].
    pub fn chord_failed(&mut self, body: Value, is_inline: &mut dyn FnMut(&Signature) -> bool) -> Result<ChordFailure> {
        let mut body = Node::from_value(body)?;
        let mut failure = ChordFailure {
            chain: failed_members(body.chain.take().map(|chain| Value::List(Arc::unwrap_or_clone(chain))))?,
            ..ChordFailure::default()
        };
        if body.is_group() {
            self.fail_group(body, &mut failure, is_inline)?;
            return Ok(failure);
        }
        let id = result_id(&body).unwrap_or_else(|| self.ids.next_id());
        let errbacks = body.options.remove("link_error");
        failure.bodies.push(BodyFailure { errbacks: self.errbacks(&id, None, errbacks, is_inline)?, id });
        failure.chain.splice(0..0, inner_body(body)?);
        Ok(failure)
    }

    /// Each task of a group body calls its own errbacks and the group's, each once
    /// (celery/backends/base.py `_handle_group_chord_error`).
    fn fail_group(
        &mut self,
        mut group: Node,
        failure: &mut ChordFailure,
        is_inline: &mut dyn FnMut(&Signature) -> bool,
    ) -> Result<()> {
        let of_group = listed(group.options.get("link_error").cloned());
        let mut draft = self.draft();
        let (group_id, results) = draft.freeze_members(&mut group, Freezing::default())?;
        let ids: Vec<String> = results.iter().map(|&result| draft.results.id(result).to_owned()).collect();
        let Parts::Group(tasks) = group.parts else { return Ok(()) };
        for (id, task) in ids.iter().zip(&tasks) {
            let mut errbacks = Map::new();
            append_links(&mut errbacks, "link_error", &errbacks_of(task));
            append_links(&mut errbacks, "link_error", &of_group);
            let errbacks = self.errbacks(id, None, errbacks.remove("link_error"), is_inline)?;
            failure.bodies.push(BodyFailure { id: id.clone(), errbacks });
        }
        failure.is_group = true;
        failure.group_id = Some(group_id);
        failure.revoke = ids;
        Ok(())
    }
}

/// The id of what clients wait for. Before 5.6 a chain had none itself: it is that of its last step.
fn result_id(node: &Node) -> Option<String> {
    node.option("task_id").or_else(|| match &node.parts {
        Parts::Chain(tasks) => result_id(tasks.last()?),
        _ => None,
    })
}

/// The errbacks of what a signature's result is the result of: a chord's own and its body's; those of a group's tasks
/// along with its own (celery/backends/base.py `_result_errbacks`).
fn errbacks_of(node: &Node) -> Vec<Value> {
    let mut errbacks = listed(node.options.get("link_error").cloned());
    match &node.parts {
        Parts::Chord(parts) => errbacks.extend(parts.body.iter().flat_map(errbacks_of)),
        Parts::Group(tasks) => errbacks.extend(tasks.iter().flat_map(errbacks_of)),
        Parts::Task | Parts::Chain(_) => {}
    }
    errbacks
}

/// What fails with a body that is a chord.
fn inner_body(body: Node) -> Result<Vec<FailedMember>> {
    match body.parts {
        Parts::Chord(parts) => failed_members(parts.body.map(|body| Value::List(vec![body.into()]))),
        _ => Ok(Vec::new()),
    }
}
