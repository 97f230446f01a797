//! A task that puts another in its place, or adds one to its chord (celery/app/task.py `Task.replace`, `add_to_chord`).

use std::sync::Arc;

use super::{Added, Replaced};
use crate::canvas::freeze::Freezing;
use crate::canvas::link::{link, link_error};
use crate::canvas::node::{Node, Parts, listed};
use crate::canvas::pipe::pipe;
use crate::canvas::{Given, Plan, Planner};
use crate::protocol::{Map, Signature, Value};
use crate::{Error, ErrorKind, Result};

impl Planner<'_> {
    /// Plans the replacement of the planner's parent by `signature`, which takes over its id, its links, its place in a
    /// group or a chord and the rest of its chain. The task itself ends as ignored.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] for a signature that has a chord already and for an empty chain; those of
    /// [`Planner::apply`].
    pub fn replace(&mut self, request: Replaced, signature: Signature) -> Result<Plan> {
        let mut node = Node::read(signature)?;
        check(&node)?;
        node = self.with_one_result(node)?;
        let embed = request.embed.clone();
        link(&mut node, &listed(embed.callbacks))?;
        link_error(&mut node, &listed(embed.errbacks), self.rules);
        move_links_to_last(&mut node)?;
        self.draft().freeze(&mut node, Freezing { id: Some(&request.id), ..Freezing::default() })?;
        let nesting = request.replaced_task_nesting.saturating_add(1);
        take_place(&mut node, &request, embed.chord.map(Arc::new), nesting);
        for step in listed(embed.chain).into_iter().rev() {
            let mut step = Node::from_value(step)?;
            step.options.insert("replaced_task_nesting", nesting);
            node = pipe(node, step, self.rules)?;
        }
        self.apply_node(node, Given::default())
    }

    /// A group gets a body that returns its results, so that something has the replaced task's id.
    fn with_one_result(&self, mut node: Node) -> Result<Node> {
        if node.is_group() {
            return pipe(node, accumulate(), self.rules);
        }
        if let Parts::Chain(tasks) = &mut node.parts
            && let Some(last) = tasks.pop_if(|last| last.is_group())
        {
            tasks.push(pipe(last, accumulate(), self.rules)?);
        }
        Ok(node)
    }

    /// Plans the addition of `signature` to the chord of the planner's parent: the backend is to count one part more
    /// before the plan is done (celery/backends/redis.py `RedisBackend.add_to_chord`).
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] outside of a chord; those of [`Planner::apply`].
    pub fn add_to_chord(&mut self, request: Replaced, signature: Signature) -> Result<Added> {
        let (Some(chord), Some(group_id)) = (request.embed.chord, request.group) else {
            return Err(refused("Current task is not member of any chord"));
        };
        let mut node = Node::read(signature)?;
        node.options.insert("group_id", group_id.as_str());
        node.options.insert("group_index", request.group_index);
        node.options.insert("root_id", request.root_id);
        node.chord = Some(Arc::new(chord));
        self.draft().freeze(&mut node, Freezing::default())?;
        let signature = node.clone().into();
        Ok(Added { group_id, signature, plan: self.apply_node(node, Given::default())? })
    }
}

fn refused(why: &str) -> Error {
    Error::new(ErrorKind::Configuration, why)
}

fn check(node: &Node) -> Result<()> {
    if node.chord.is_some() {
        return Err(refused("A signature replacing a task must not be part of a chord"));
    }
    if node.is_empty_chain() {
        return Err(refused("Cannot replace with an empty chain"));
    }
    Ok(())
}

fn accumulate() -> Node {
    Node { kwargs: Map::from([("index", 0)]), ..Node::task("celery.accumulate") }
}

/// So that they run at the right time, whatever else follows.
fn move_links_to_last(node: &mut Node) -> Result<()> {
    if let Parts::Chain(tasks) = &mut node.parts
        && let Some(last) = tasks.last_mut()
    {
        let mut links = listed(last.options.remove("link"));
        links.extend(listed(node.options.remove("link")));
        if !links.is_empty() {
            last.options.insert("link", Value::List(links));
        }
    }
    Ok(())
}

/// Sets what the replaced task had and the replacement is to have.
fn take_place(node: &mut Node, request: &Replaced, chord: Option<Arc<Value>>, nesting: i64) {
    node.chord = chord;
    node.options.insert("group_id", request.group.as_deref());
    node.options.insert("group_index", request.group_index);
    node.options.insert("root_id", request.root_id.as_deref());
    node.options.insert("replaced_task_nesting", nesting);
    if let Parts::Chain(tasks) = &mut node.parts {
        for task in tasks {
            task.options.insert("replaced_task_nesting", nesting);
        }
    }
}
