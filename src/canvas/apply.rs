//! Sending each kind of signature but a chord (celery/canvas.py `apply_async`).

use std::sync::Arc;

use super::draft::Draft;
use super::freeze::Freezing;
use super::node::{Node, Parts, listed, merge};
use super::results::ResultId;
use super::rules::as_text;
use super::steps::{Preparing, Use};
use super::{Call, Chords, Given, Step};
use crate::protocol::{Map, Value};
use crate::{Error, ErrorKind, Result};

/// What a signature is called with, the parts that messages share apart.
#[derive(Debug, Clone, Default)]
pub(super) struct Applied {
    pub(super) args: Vec<Value>,
    pub(super) kwargs: Map,
    /// Without `chord` and `chain`.
    pub(super) options: Map,
    pub(super) chord: Option<Arc<Value>>,
    pub(super) chain: Option<Arc<Vec<Value>>>,
}

impl From<Given> for Applied {
    fn from(given: Given) -> Self {
        let Given { args, kwargs, mut options } = given;
        let chord = options.remove("chord").filter(Value::is_truthy).map(Arc::new);
        let chain = options.remove("chain").and_then(Value::into_list).map(Arc::new);
        Applied { args, kwargs, options, chord, chain }
    }
}

/// Takes an option's text; null is none.
pub(super) fn take_text(options: &mut Map, name: &str) -> Option<String> {
    options.remove(name).and_then(as_text)
}

impl Draft<'_> {
    pub(super) fn apply(&mut self, node: Node, given: Applied) -> Result<Option<ResultId>> {
        match node.parts {
            Parts::Task => self.apply_task(node, given).map(Some),
            Parts::Chain(_) => self.apply_chain(node, given),
            Parts::Group(_) => self.apply_group(node, given).map(Some),
            Parts::Chord(_) => self.apply_chord(node, given).map(Some),
        }
    }

    /// Nulls among the given options say nothing (celery/canvas.py `Signature.apply_async`).
    fn apply_task(&mut self, mut node: Node, given: Applied) -> Result<ResultId> {
        let route_name = route_name(&node);
        if !node.immutable {
            let own = std::mem::replace(&mut node.args, given.args);
            node.args.extend(own);
            node.kwargs.extend(given.kwargs);
        }
        node.merge_options(given.options.into_iter().filter(|(_, value)| !value.is_null()).collect());
        let Node { task, args, kwargs, mut options, chord, chain, .. } = node;
        let id = take_text(&mut options, "task_id").filter(|id| !id.is_empty());
        let id = id.unwrap_or_else(|| self.ids.next_id());
        let root_id = take_text(&mut options, "root_id").filter(|id| !id.is_empty());
        let parent_id = take_text(&mut options, "parent_id").filter(|id| !id.is_empty());
        let add_to_parent = options.remove("add_to_parent").is_none_or(|add| add.is_truthy());
        let route_name = take_text(&mut options, "route_name").or(route_name);
        let (chord, chain) = (given.chord.or(chord), given.chain.or(chain));
        let inherited_priority = None;
        let mut call =
            Call { task, id, args, kwargs, root_id, parent_id, chord, chain, route_name, inherited_priority, options };
        self.inherit(&mut call);
        let result = self.results.task(call.id.clone());
        if add_to_parent {
            self.add_trail(result);
        }
        self.step(Step::Send(Box::new(call)));
        Ok(result)
    }

    /// What a call takes from the task that sends it, if it says not all itself (celery/app/base.py `Celery.send_task`).
    fn inherit(&self, call: &mut Call) {
        let Some(parent) = self.parent.filter(|_| call.root_id.is_none() || call.parent_id.is_none()) else { return };
        call.root_id.get_or_insert_with(|| parent.root_id.clone().unwrap_or_else(|| parent.id.clone()));
        call.parent_id.get_or_insert_with(|| parent.id.clone());
        call.inherited_priority = parent.priority.filter(|_| self.rules.inherit_parent_priority);
    }

    /// Sends the first step with the others as its `chain` (celery/canvas.py `_chain.run`).
    fn apply_chain(&mut self, mut node: Node, given: Applied) -> Result<Option<ResultId>> {
        let Parts::Chain(tasks) = std::mem::take(&mut node.parts) else { return Ok(None) };
        let mut options = node.options;
        options.extend(given.options);
        let mut args = given.args;
        if args.is_empty() || node.immutable {
            args = node.args;
        } else {
            args.extend(node.args);
        }
        let [id, root_id, group_id] = ["task_id", "root_id", "group_id"].map(|name| take_text(&mut options, name));
        options.remove("parent_id");
        let link = listed(options.remove("link"));
        let link_error = listed(options.remove("link_error"));
        let chord = given.chord.or(node.chord);
        let freezing = Freezing {
            id: id.as_deref(),
            root_id: root_id.as_deref(),
            group_id: group_id.as_deref(),
            group_index: options.remove("group_index").and_then(|index| index.as_i64()),
            chord: chord.as_ref(),
            parent_id: None,
        };
        let preparing =
            Preparing { freezing, args: &args, kwargs: Some(&given.kwargs), link_error: &link_error, usage: Use::Send };
        let mut prepared = self.prepare_steps(tasks.into(), preparing)?;
        let Some(&last) = prepared.results.first() else { return Ok(None) };
        extend_links(prepared.steps.first_mut(), link);
        let Some(first) = prepared.steps.pop() else { return Ok(None) };
        let only = prepared.steps.is_empty();
        let chain = joined(given.chain.or(node.chain), prepared.steps);
        let result = self.apply(first, Applied { options, chain: Some(chain), ..Applied::default() })?;
        Ok(if only { result } else { Some(last) })
    }

    /// Sends each member (celery/canvas.py `group.apply_async`, `_apply_tasks`).
    pub(super) fn apply_group(&mut self, mut node: Node, given: Applied) -> Result<ResultId> {
        check_no_links(&given.options)?;
        if node.is_empty_group() {
            return self.freeze(&mut node, Freezing::default());
        }
        let add_to_parent = given.options.get("add_to_parent").is_none_or(Value::is_truthy);
        let Parts::Group(tasks) = node.parts else { return Err(super::node::malformed("is no group")) };
        let mut options = node.options;
        merge(&mut options, given.options);
        let group_id = take_text(&mut options, "task_id").unwrap_or_else(|| self.ids.next_id());
        options.insert("group_id", group_id.as_str());
        options.insert("add_to_parent", false);
        options.remove("group_index");
        let root_id = options.get("root_id").cloned().and_then(as_text);
        let applied = Applied {
            options,
            chord: given.chord.or(node.chord),
            chain: given.chain.or(node.chain),
            args: given.args,
            kwargs: given.kwargs,
        };
        let members = self.prepared_members(tasks, &group_id, root_id.as_deref())?;
        let results: Vec<ResultId> = members.iter().map(|(_, result)| *result).collect();
        self.send_members(members, &group_id, applied)?;
        let result = match results[..] {
            [only] if self.results.is_group(only) => only,
            _ => self.results.group(group_id, results),
        };
        if add_to_parent {
            self.add_trail(result);
        }
        Ok(result)
    }

    /// The members, groups among them put in their place, frozen (celery/canvas.py `group._prepared`).
    fn prepared_members(
        &mut self,
        tasks: Vec<Node>,
        group_id: &str,
        root_id: Option<&str>,
    ) -> Result<Vec<(Node, ResultId)>> {
        let mut members = Vec::with_capacity(tasks.len());
        for (index, mut task) in (0..).zip(tasks) {
            if let Parts::Group(tasks) = task.parts {
                members.extend(self.prepared_members(tasks, group_id, root_id)?);
            } else if !task.is_empty_chain() {
                let group_index = Some(index);
                let freezing = Freezing { group_id: Some(group_id), root_id, group_index, ..Freezing::default() };
                let result = self.freeze(&mut task, freezing)?;
                members.push((task, result));
            }
        }
        Ok(members)
    }

    fn send_members(&mut self, members: Vec<(Node, ResultId)>, group_id: &str, mut applied: Applied) -> Result<()> {
        let chord = applied.chord.take();
        let mut size = 0;
        let mut left = members.len();
        for (member, _) in members {
            left -= 1;
            let chord = chord.clone().or_else(|| member.chord.clone());
            size += member.chord_size();
            if left == 0 && chord.is_some() && self.rules.chords == Chords::Native {
                self.step(Step::StartChord { group_id: group_id.to_owned(), size });
            }
            self.apply(member, Applied { chord, ..applied.clone() })?;
        }
        Ok(())
    }
}

/// `celery.map` is routed as the task that it calls (celery/canvas.py `_basemap.apply_async`).
fn route_name(node: &Node) -> Option<String> {
    if !matches!(node.task.as_str(), "celery.map" | "celery.starmap") {
        return None;
    }
    node.kwargs.get("task")?.as_map()?.get("task")?.as_str().map(str::to_owned)
}

fn check_no_links(options: &Map) -> Result<()> {
    let refused = |why: &str| Err(Error::new(ErrorKind::Configuration, format!("cannot add link to group: {why}")));
    let given = |name: &str| options.get(name).is_some_and(|value| !value.is_null());
    match (given("link"), given("link_error")) {
        (true, _) => refused("use a chord"),
        (_, true) => refused("do that on individual tasks"),
        _ => Ok(()),
    }
}

/// Unlike [`append_links`](super::node::append_links), twice the same link is there twice
/// (celery/canvas.py `Signature.extend_list_option`).
fn extend_links(last: Option<&mut Node>, links: Vec<Value>) {
    if let Some(last) = last.filter(|_| !links.is_empty()) {
        let mut all = listed(last.options.remove("link"));
        all.extend(links);
        last.options.insert("link", Value::List(all));
    }
}

/// The rest of the outer chain comes after that of this one, so it stands before it
/// (celery/canvas.py `_prepare_chain_from_options`).
fn joined(outer: Option<Arc<Vec<Value>>>, steps: Vec<Node>) -> Arc<Vec<Value>> {
    let steps = steps.into_iter().map(Value::from);
    match outer {
        None => Arc::new(steps.collect()),
        Some(outer) => {
            let mut all = Arc::unwrap_or_clone(outer);
            all.extend(steps);
            Arc::new(all)
        }
    }
}
