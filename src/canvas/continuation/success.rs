//! What follows a success: callbacks and the next step of the chain
//! (celery/app/trace.py `_dispatch_callbacks_and_chain`).

use crate::Result;
use crate::canvas::node::{Node, listed};
use crate::canvas::{Given, Plan, Planner};
use crate::protocol::{Embed, Map, Value};

impl Planner<'_> {
    /// Plans what follows the success of the planner's parent: its callbacks, then the next step of its chain.
    ///
    /// # Errors
    /// Those of [`Planner::apply`]: a stock worker turns the task into a FAILURE then.
    pub fn on_success(&mut self, embed: Embed, result: &Value) -> Result<Plan> {
        let mut plan = self.callbacks(embed.callbacks, result)?;
        plan.append(self.next_step(embed.chain, result)?);
        Ok(plan)
    }

    /// Plans the calls of callbacks with `result`: groups by themselves, the others, if there are several, as one group.
    ///
    /// # Errors
    /// Those of [`Planner::apply`].
    pub fn callbacks(&mut self, callbacks: Option<Value>, result: &Value) -> Result<Plan> {
        let callbacks = listed(callbacks).into_iter().map(Node::from_value).collect::<Result<Vec<_>>>()?;
        if callbacks.len() <= 1 {
            return self.each(callbacks, result);
        }
        let (groups, others): (Vec<_>, Vec<_>) = callbacks.into_iter().partition(Node::is_group);
        let mut plan = self.each(groups, result)?;
        if !others.is_empty() {
            plan.append(self.apply_node(Node::group(others), self.following(result))?);
        }
        Ok(plan)
    }

    fn each(&mut self, nodes: Vec<Node>, result: &Value) -> Result<Plan> {
        let mut plan = Plan::default();
        for node in nodes {
            plan.append(self.apply_node(node, self.following(result))?);
        }
        Ok(plan)
    }

    /// Plans the next step of a chain, which stands last in `chain`, and hands the others on as they are.
    ///
    /// # Errors
    /// Those of [`Planner::apply`].
    pub fn next_step(&mut self, chain: Option<Value>, result: &Value) -> Result<Plan> {
        let mut chain = listed(chain);
        let Some(next) = chain.pop() else { return Ok(Plan::default()) };
        let mut given = self.following(result);
        given.options.insert("chain", Value::List(chain));
        self.apply_node(Node::from_value(next)?, given)
    }

    /// What everything is called with that follows the parent.
    fn following(&self, result: &Value) -> Given {
        let mut options = Map::new();
        if let Some(parent) = self.parent {
            options.insert("parent_id", parent.id.as_str());
            options.insert("root_id", parent.root_id.as_deref().unwrap_or(&parent.id));
            if let Some(priority) = parent.priority.filter(|_| self.rules.inherit_parent_priority) {
                options.insert("priority", priority);
            }
        }
        Given { args: vec![result.clone()], kwargs: Map::new(), options }
    }
}
