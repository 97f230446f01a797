//! Links: which part of a canvas a callback or an errback is put on (celery/canvas.py `link`, `link_error`).

use super::Rules;
use super::node::{Node, Parts, append_links, listed, malformed};
use crate::Result;
use crate::protocol::{Map, Value};

/// Puts callbacks on a task or a chain, on a chord's body, and, made immutable, on a group's first task.
pub(super) fn link(node: &mut Node, callbacks: &[Value]) -> Result<()> {
    if callbacks.is_empty() {
        return Ok(());
    }
    match &mut node.parts {
        Parts::Task | Parts::Chain(_) => append_links(&mut node.options, "link", callbacks),
        Parts::Chord(parts) => link(parts.body.as_mut().ok_or_else(no_body)?, callbacks)?,
        Parts::Group(tasks) => {
            let first = tasks.first_mut().ok_or_else(|| malformed("is an empty group, which takes no callback"))?;
            let callbacks: Vec<Value> = callbacks.iter().cloned().map(immutable).collect();
            link(first, &callbacks)?;
        }
    }
    Ok(())
}

fn no_body() -> crate::Error {
    malformed("is a chord without a body")
}

fn immutable(mut callback: Value) -> Value {
    if let Value::Map(map) = &mut callback {
        map.insert("immutable", true);
    }
    callback
}

/// Puts errbacks on a task or a chain, on every task of a group, on a chord's body and those of chords in its header; on
/// its header too where `task_allow_error_cb_on_chord_header` says so.
pub(super) fn link_error(node: &mut Node, errbacks: &[Value], rules: &Rules) {
    if errbacks.is_empty() {
        return;
    }
    match &mut node.parts {
        Parts::Task | Parts::Chain(_) => append_links(&mut node.options, "link_error", errbacks),
        Parts::Group(tasks) => tasks.iter_mut().for_each(|task| link_error(task, errbacks, rules)),
        Parts::Chord(parts) => {
            if rules.allow_error_cb_on_chord_header {
                let errbacks: Vec<Value> = errbacks.iter().cloned().map(with_immutable_option).collect();
                parts.header.iter_mut().for_each(|task| link_error(task, &errbacks, rules));
            }
            let chords = parts.header.iter_mut().filter(|task| task.is_chord());
            chords.for_each(|task| link_error(task, errbacks, rules));
            parts.body.iter_mut().for_each(|body| link_error(body, errbacks, rules));
        }
    }
}

/// What `errback.clone(immutable=True)` does: it sets an option, and not the attribute of that name.
fn with_immutable_option(mut errback: Value) -> Value {
    if let Value::Map(map) = &mut errback
        && let Value::Map(options) = map.get_or_insert_with("options", || Map::new().into())
    {
        options.insert("immutable", true);
    }
    errback
}

/// Puts a chord's own links, out of its options, on its body (celery/canvas.py `_chord._add_body_callbacks`).
pub(super) fn move_to_body(options: &mut Map, body: &mut Node) -> Result<()> {
    let callbacks = listed(options.remove("link"));
    let errbacks = listed(options.remove("link_error"));
    if body.is_empty_group() {
        append_links(&mut body.options, "link", &callbacks);
    } else {
        link(body, &callbacks)?;
    }
    if errbacks.is_empty() {
        return Ok(());
    }
    if body.is_group() {
        link_error_to_tasks(body, &errbacks, true);
    } else {
        append_links(&mut body.options, "link_error", &errbacks);
    }
    Ok(())
}

/// Puts errbacks on each task of a group body; on the group itself if it runs as one and has its own, which replace those
/// of its tasks (celery/canvas.py `_link_error_to_body_tasks`).
fn link_error_to_tasks(node: &mut Node, errbacks: &[Value], runs_as_group: bool) {
    match &mut node.parts {
        Parts::Group(tasks) => {
            if runs_as_group && node.options.get("link_error").is_some_and(|own| !own.is_null()) {
                append_links(&mut node.options, "link_error", errbacks);
            } else {
                tasks.iter_mut().for_each(|task| link_error_to_tasks(task, errbacks, false));
            }
        }
        Parts::Chord(parts) => parts.body.iter_mut().for_each(|body| link_error_to_tasks(body, errbacks, true)),
        Parts::Task | Parts::Chain(_) => append_links(&mut node.options, "link_error", errbacks),
    }
}
