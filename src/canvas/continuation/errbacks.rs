//! What follows a failure: errbacks (celery/backends/base.py `Backend._call_task_errbacks`).

use super::Errbacks;
use crate::Result;
use crate::canvas::node::{Node, listed};
use crate::canvas::{Given, Planner};
use crate::protocol::{Map, Signature, Value};

impl Planner<'_> {
    /// Plans the calls of the errbacks of the task `id`.
    ///
    /// `is_inline` says of each whether this worker calls it itself, as Celery does with a registered function that is not
    /// bound and takes more than the one argument `id`; all others are sent, as one group, with that argument.
    ///
    /// # Errors
    /// Those of [`Planner::apply`].
    pub fn errbacks(
        &mut self,
        id: &str,
        root_id: Option<&str>,
        errbacks: Option<Value>,
        is_inline: &mut dyn FnMut(&Signature) -> bool,
    ) -> Result<Errbacks> {
        let signatures = listed(errbacks).into_iter().map(Signature::try_from).collect::<Result<Vec<_>>>()?;
        let (inline, sent): (Vec<_>, Vec<_>) = signatures.into_iter().partition(|errback| is_inline(errback));
        let mut errbacks = Errbacks { inline, ..Errbacks::default() };
        if !sent.is_empty() {
            let group = Node::group(sent.into_iter().map(Node::read).collect::<Result<_>>()?);
            let options = Map::from([("parent_id", id), ("root_id", root_id.unwrap_or(id))]);
            errbacks.plan = self.apply_node(group, Given { options, ..Given::argument(id) })?;
        }
        Ok(errbacks)
    }
}
