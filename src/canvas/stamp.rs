//! Stamps: options that tell the workers' `revoke_by_stamped_headers` and the users' code what a task belongs to
//! (celery/canvas.py `stamp`).

use super::node::{Node, Parts, listed};
use crate::protocol::{Map, Value};

/// Puts stamps on a task and its links, and on the tasks of a canvas. A chord's body is stamped by visitors only.
pub(super) fn stamp(node: &mut Node, given: &Map) {
    match &mut node.parts {
        Parts::Task => {
            stamp_links(&mut node.options, &with_names(given));
            let stamps = with_own(with_names(given), &node.options);
            node.options.extend(stamps);
        }
        Parts::Chain(tasks) | Parts::Group(tasks) => {
            let stamps = with_own(with_names(given), &node.options);
            stamp_links(&mut node.options, &stamps);
            tasks.iter_mut().for_each(|task| stamp(task, &stamps));
        }
        Parts::Chord(parts) => {
            let stamps = with_own(with_names(given), &node.options);
            stamp_links(&mut node.options, &stamps);
            parts.header.iter_mut().for_each(|task| stamp(task, &stamps));
        }
    }
}

const NAMES: &str = "stamped_headers";

/// The stamps with the list of their names.
fn with_names(given: &Map) -> Map {
    let mut stamps = given.clone();
    if !stamps.contains_key(NAMES) {
        let names = given.keys().collect::<Value>();
        stamps.insert(NAMES, names);
    }
    stamps
}

/// The stamps with those that `options` holds; where both are lists, one list (celery/canvas.py `_stamp_headers`).
fn with_own(mut stamps: Map, options: &Map) -> Map {
    let mut names = listed(stamps.remove(NAMES));
    let mut seen: ahash::HashSet<String> = names.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    for name in listed(options.get(NAMES).cloned()) {
        if name.as_str().is_some_and(|name| seen.insert(name.to_owned())) {
            names.push(name);
        }
    }
    for name in names.iter().filter_map(Value::as_str) {
        let Some(own) = options.get(name) else { continue };
        match (stamps.get_mut(name), own) {
            (None, own) => {
                stamps.insert(name, own.clone());
            }
            (Some(Value::List(values)), Value::List(own)) => values.extend(own.iter().cloned()),
            (Some(Value::Map(values)), Value::Map(own)) => {
                for (name, value) in own.iter().filter(|(name, _)| values.get(name).is_none()).collect::<Vec<_>>() {
                    values.insert(name, value.clone());
                }
            }
            _ => {}
        }
    }
    stamps.insert(NAMES, Value::List(names));
    stamps
}

fn stamp_links(options: &mut Map, stamps: &Map) {
    for name in ["link", "link_error"] {
        match options.get_mut(name) {
            Some(Value::List(links)) => links.iter_mut().for_each(|link| stamp_link(link, stamps)),
            Some(link @ Value::Map(_)) => stamp_link(link, stamps),
            _ => {}
        }
    }
}

fn stamp_link(link: &mut Value, stamps: &Map) {
    if let Ok(mut node) = Node::from_value(link.clone()) {
        stamp(&mut node, stamps);
        *link = node.into();
    }
}
