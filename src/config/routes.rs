//! [`RouteMap`]: what `task_routes` says.

use regex::Regex;
use toml::{Table, Value};

use super::parser::{Kind, Mismatch, NestedParser};

/// One of the maps of `task_routes`, in its order (celery/app/routes.py `MapRoute`).
pub type RouteMap = Vec<RouteDefinition>;

/// Where tasks of some names go.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteDefinition {
    /// A task's name, or with a `*` in it a glob (`feeds.*`), or between slashes a regular expression that the name
    /// must begin with (`/(video|image)\.tasks\./`; the syntax is that of the crate `regex`).
    pub pattern: String,
    /// Options of the message: `queue`, `exchange`, `routing_key`, `priority`, `delivery_mode` and so on. A queue's
    /// name alone is `queue`.
    pub options: Table,
}

impl RouteDefinition {
    /// The regular expression, when the pattern is one.
    pub fn expression(&self) -> Option<&str> {
        self.pattern.strip_prefix('/')?.strip_suffix('/')
    }
}

/// A map, or a list of maps and of lists of pairs.
pub(super) const ROUTES: NestedParser<Vec<RouteMap>> = NestedParser::new(Kind::Table, |value| match value {
    // As empty as Celery's null.
    Value::String(text) if text.is_empty() => Ok(Vec::new()),
    Value::Table(table) => Ok(vec![map(table)?]),
    Value::Array(items) => items.iter().enumerate().map(|(index, item)| listed(index, item)).collect(),
    _ => Err(Mismatch::new("a table of routes by task name, or a list of such tables")),
});

fn listed(index: usize, value: &Value) -> Result<RouteMap, Mismatch> {
    let read = match value {
        Value::Table(table) => map(table),
        Value::Array(items) => items.iter().map(pair).collect(),
        _ => Err(Mismatch::new("a table of routes, or a list of pairs of name and route")),
    };
    read.map_err(|mismatch| mismatch.within(&format!("[{index}]")))
}

fn map(table: &Table) -> Result<RouteMap, Mismatch> {
    table.iter().map(|(pattern, route)| definition(pattern, route)).collect()
}

fn pair(value: &Value) -> Result<RouteDefinition, Mismatch> {
    match value.as_array().map(Vec::as_slice) {
        Some([Value::String(pattern), route]) => definition(pattern, route),
        _ => Err(Mismatch::new("a pair of name and route")),
    }
}

fn definition(pattern: &str, route: &Value) -> Result<RouteDefinition, Mismatch> {
    let options = match route {
        Value::String(queue) => Table::from_iter([("queue".to_owned(), Value::from(queue.as_str()))]),
        Value::Table(options) => checked(options).map_err(|mismatch| mismatch.within(pattern))?,
        _ => return Err(Mismatch::new("a queue's name, or a table of options").within(pattern)),
    };
    let route = RouteDefinition { pattern: pattern.to_owned(), options };
    match route.expression().map(Regex::new) {
        Some(Err(_)) => Err(Mismatch::new("a regular expression between the slashes").within(pattern)),
        _ => Ok(route),
    }
}

/// What says where a message goes can be used there: a mistake would fail the first task that sends one.
fn checked(options: &Table) -> Result<Table, Mismatch> {
    for (name, value) in options {
        let expected = match name.as_str() {
            "queue" | "exchange" | "exchange_type" | "routing_key" if !value.is_str() => "a name",
            "priority" if !value.is_integer() => "a whole number",
            "delivery_mode" if !is_delivery_mode(value) => "2 (persistent) or 1 (transient)",
            _ => continue,
        };
        return Err(Mismatch::new(expected).within(name));
    }
    Ok(options.clone())
}

fn is_delivery_mode(value: &Value) -> bool {
    matches!(value.as_integer(), Some(1 | 2)) || matches!(value.as_str(), Some("transient" | "persistent"))
}
