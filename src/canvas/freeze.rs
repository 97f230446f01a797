//! Freezing: giving each signature of a canvas its id before it is sent (celery/canvas.py `freeze`).

use std::collections::VecDeque;
use std::sync::Arc;

use super::draft::Draft;
use super::node::{ChordParts, Node, Parts, malformed};
use super::results::ResultId;
use super::steps::{Preparing, Use};
use crate::Result;
use crate::protocol::{Map, Value};

/// What is frozen into a signature: the arguments of Celery's `freeze`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Freezing<'f> {
    pub(super) id: Option<&'f str>,
    pub(super) group_id: Option<&'f str>,
    pub(super) group_index: Option<i64>,
    pub(super) chord: Option<&'f Arc<Value>>,
    pub(super) root_id: Option<&'f str>,
    pub(super) parent_id: Option<&'f str>,
}

impl Draft<'_> {
    pub(super) fn freeze(&mut self, node: &mut Node, freezing: Freezing<'_>) -> Result<ResultId> {
        match &mut node.parts {
            Parts::Task => Ok(self.freeze_task(node, freezing)),
            Parts::Chain(_) => self.freeze_chain(node, freezing),
            Parts::Group(_) => self.freeze_group(node, freezing),
            Parts::Chord(_) => self.freeze_chord(node, freezing),
        }
    }

    /// The id that a signature has under `task_id`, or `id`, or a new one.
    pub(super) fn id_of(&mut self, options: &mut Map, id: Option<&str>) -> String {
        let own = options.get("task_id").cloned().and_then(super::rules::as_text).filter(|id| !id.is_empty());
        own.unwrap_or_else(|| {
            let id = id.map(str::to_owned).unwrap_or_else(|| self.ids.next_id());
            options.insert("task_id", id.as_str());
            id
        })
    }

    fn freeze_task(&mut self, node: &mut Node, freezing: Freezing<'_>) -> ResultId {
        let id = self.id_of(&mut node.options, freezing.id);
        let options = &mut node.options;
        for (name, value) in [("root_id", freezing.root_id), ("parent_id", freezing.parent_id)] {
            if let Some(value) = value {
                options.insert(name, value);
            }
        }
        options.get_or_insert_with("reply_to", || self.rules.reply_to.as_str().into());
        if let Some(group_id) = freezing.group_id {
            options.get_or_insert_with("group_id", || group_id.into());
        }
        if let Some(index) = freezing.group_index {
            options.insert("group_index", index);
        }
        if let Some(chord) = freezing.chord {
            node.chord = Some(Arc::clone(chord));
        }
        self.results.task(id)
    }

    /// The steps are left as they will be sent: nested chains spliced, and a group before a step made its header.
    fn freeze_chain(&mut self, node: &mut Node, freezing: Freezing<'_>) -> Result<ResultId> {
        let Parts::Chain(tasks) = &mut node.parts else { return Err(malformed("is no chain")) };
        let tasks = std::mem::take(tasks);
        let preparing = Preparing { freezing, usage: Use::Freeze, ..Preparing::default() };
        let prepared = self.prepare_steps(tasks.into(), preparing)?;
        let last = *prepared.results.first().ok_or_else(|| malformed("is an empty chain, which has no result"))?;
        node.options.insert("task_id", self.results.id(last));
        node.parts = Parts::Chain(prepared.steps.into_iter().rev().collect());
        Ok(last)
    }

    fn freeze_group(&mut self, node: &mut Node, freezing: Freezing<'_>) -> Result<ResultId> {
        let (id, children) = self.freeze_members(node, freezing)?;
        Ok(self.results.group(id, children))
    }

    /// The group's id and its members' results (celery/canvas.py `group._freeze_group_tasks`).
    pub(super) fn freeze_members(
        &mut self,
        node: &mut Node,
        freezing: Freezing<'_>,
    ) -> Result<(String, Vec<ResultId>)> {
        let id = self.id_of(&mut node.options, None);
        let options = &mut node.options;
        if let Some(group_id) = freezing.group_id {
            options.insert("group_id", group_id);
        }
        if let Some(index) = freezing.group_index {
            options.insert("group_index", index);
        }
        if let Some(chord) = freezing.chord {
            node.chord = Some(Arc::clone(chord));
        }
        options.get_or_insert_with("root_id", || freezing.root_id.into());
        options.get_or_insert_with("parent_id", || freezing.parent_id.into());
        let (root_id, parent_id) = (node.option("root_id"), node.option("parent_id"));
        let freezing = Freezing { root_id: root_id.as_deref(), parent_id: parent_id.as_deref(), id: None, ..freezing };
        let Parts::Group(tasks) = &mut node.parts else { return Err(malformed("is no group")) };
        *tasks = flattened(std::mem::take(tasks));
        let mut children = Vec::with_capacity(tasks.len());
        for (index, task) in (0..).zip(tasks) {
            children.push(self.freeze(task, Freezing { group_index: Some(index), ..freezing })?);
        }
        Ok((id, children))
    }

    /// The header's group, then the body, whose first result comes after the header's.
    ///
    /// Celery puts the body into each header task as well, and takes it out again of all that is sent
    /// (`_strip_chord_header_links`).
    fn freeze_chord(&mut self, node: &mut Node, freezing: Freezing<'_>) -> Result<ResultId> {
        let Parts::Chord(parts) = &mut node.parts else { return Err(malformed("is no chord")) };
        let ChordParts { header, group, body } = &mut **parts;
        let options = group.take().unwrap_or_default();
        let mut members = Node { options, ..Node::group(std::mem::take(header)) };
        let header_freezing =
            Freezing { root_id: freezing.root_id, parent_id: freezing.parent_id, ..Freezing::default() };
        let header_result = self.freeze_group(&mut members, header_freezing)?;
        node.options.insert("task_id", self.results.id(header_result));
        let body_result = match body {
            Some(body) => self.freeze(body, Freezing { parent_id: None, ..freezing })?,
            None => return Err(malformed("is a chord without a body")),
        };
        let first = self.results.first(body_result);
        self.results.set_parent(first, Some(header_result));
        if let Parts::Group(tasks) = members.parts {
            *header = tasks;
        }
        *group = Some(members.options);
        Ok(body_result)
    }
}

/// Groups among the tasks are put in their place, the last of their tasks first, and empty chains left out
/// (celery/canvas.py `group._freeze_unroll`).
fn flattened(tasks: Vec<Node>) -> Vec<Node> {
    let mut stack: VecDeque<Node> = tasks.into();
    let mut flat = Vec::with_capacity(stack.len());
    while let Some(task) = stack.pop_front() {
        match task.parts {
            Parts::Group(tasks) => tasks.into_iter().for_each(|task| stack.push_front(task)),
            Parts::Chain(tasks) if tasks.is_empty() => {}
            _ => flat.push(task),
        }
    }
    flat
}

/// Takes the body out of the header tasks of each chord inside (celery/canvas.py `_strip_chord_header_links`).
pub(super) fn strip_header_links(node: &mut Node) {
    match &mut node.parts {
        Parts::Task => {}
        Parts::Chain(tasks) | Parts::Group(tasks) => tasks.iter_mut().for_each(strip_header_links),
        Parts::Chord(parts) => {
            for task in &mut parts.header {
                clear_chord(task);
                strip_header_links(task);
            }
            if let Some(body) = &mut parts.body {
                strip_header_links(body);
            }
        }
    }
}

fn clear_chord(node: &mut Node) {
    node.chord = None;
    match &mut node.parts {
        Parts::Task => {}
        Parts::Group(tasks) => tasks.iter_mut().for_each(clear_chord),
        Parts::Chain(tasks) => tasks.last_mut().into_iter().for_each(clear_chord),
        Parts::Chord(parts) => parts.body.iter_mut().for_each(clear_chord),
    }
}
