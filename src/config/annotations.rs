//! [`Annotation`]: what `task_annotations` says.

use std::time::Duration;

use toml::{Table, Value};

use super::fields::settings;
use super::parser::{Kind, Mismatch, NestedParser, OPTIONAL_BOOL, OPTIONAL_TEXT, Parser, SECONDS_OR_OFF, Settings};
use super::settings::{PRIORITY, RATE};

/// What tasks of one name are given, or with the name `*` all tasks (celery/app/annotations.py `MapAnnotation`).
#[derive(Debug, Clone, PartialEq)]
pub struct Annotation {
    /// The task's name, or `*`.
    pub task: String,
    /// What it is given.
    pub attributes: TaskAttributes,
}

settings! {
    /// The attributes of a task that an annotation can set; those that are `None` stay as they are.
    pub struct TaskAttributes {
        /// Acknowledge after the run.
        acks_late: Option<bool> = None, OPTIONAL_BOOL;
        /// Acknowledge a late-acknowledged task that failed.
        acks_on_failure: Option<bool> = None, OPTIONAL_BOOL;
        /// Acknowledge a late-acknowledged task that ran into its hard limit.
        acks_on_timeout: Option<bool> = None, OPTIONAL_BOOL;
        /// What both are when they are unset.
        acks_on_failure_or_timeout: Option<bool> = None, OPTIONAL_BOOL;
        /// How long a retry waits that names no countdown.
        default_retry_delay: Option<Duration> = None, SECONDS_OR_OFF;
        /// Store no result.
        ignore_result: Option<bool> = None, OPTIONAL_BOOL;
        /// How often the task may be run again; `Some(None)`, which is `inf`, is no limit.
        max_retries: Option<Option<u32>> = None, RETRIES;
        /// The priority of messages that are sent without one.
        priority: Option<u8> = None, PRIORITY;
        /// The queue of messages that are sent without one.
        queue: Option<String> = None, OPTIONAL_TEXT;
        /// How often the task may start: `"10/m"`.
        rate_limit: Option<String> = None, RATE;
        /// Requeue when the worker is lost.
        reject_on_worker_lost: Option<bool> = None, OPTIONAL_BOOL;
        /// Run again when the process that ran it is lost.
        retry_on_worker_lost: Option<bool> = None, OPTIONAL_BOOL;
        /// Send events about it.
        send_events: Option<bool> = None, OPTIONAL_BOOL;
        /// The serializer of messages.
        serializer: Option<String> = None, OPTIONAL_TEXT;
        /// The soft limit.
        soft_time_limit: Option<Duration> = None, SECONDS_OR_OFF;
        /// Store errors although results are ignored.
        store_errors_even_if_ignored: Option<bool> = None, OPTIONAL_BOOL;
        /// The hard limit.
        time_limit: Option<Duration> = None, SECONDS_OR_OFF;
        /// Store STARTED.
        track_started: Option<bool> = None, OPTIONAL_BOOL;
    }
}

impl TaskAttributes {
    /// What there is.
    pub fn names() -> &'static [&'static str] {
        Self::NAMES
    }
}

/// A table of tasks by name, or a list of such tables.
pub(super) const ANNOTATIONS: NestedParser<Vec<Annotation>> = NestedParser::new(Kind::Table, |value| match value {
    Value::String(text) if text.is_empty() => Ok(Vec::new()),
    Value::Table(table) => map(table),
    Value::Array(items) => {
        let listed =
            items.iter().enumerate().map(|(index, item)| listed(item).map_err(|m| m.within(&format!("[{index}]"))));
        Ok(listed.collect::<Result<Vec<_>, _>>()?.concat())
    }
    _ => Err(Mismatch::new(EXPECTED)),
});

const EXPECTED: &str = "a table of attributes by task name, or a list of such tables";

const RETRIES: Parser<Option<Option<u32>>> =
    Parser::new(Kind::Number, "a whole number, or inf for no limit", |value| match value.as_float() {
        Some(number) => (number.is_infinite() && number > 0.0).then_some(Some(None)),
        None => value.as_integer().and_then(|number| u32::try_from(number).ok()).map(|number| Some(Some(number))),
    });

fn listed(value: &Value) -> Result<Vec<Annotation>, Mismatch> {
    map(value.as_table().ok_or_else(|| Mismatch::new("a table of attributes by task name"))?)
}

fn map(table: &Table) -> Result<Vec<Annotation>, Mismatch> {
    let read = |(task, value): (&String, &Value)| {
        let attributes = attributes(value).map_err(|mismatch| mismatch.within(task))?;
        Ok(Annotation { task: task.clone(), attributes })
    };
    table.iter().map(read).collect()
}

fn attributes(value: &Value) -> Result<TaskAttributes, Mismatch> {
    let mut attributes = TaskAttributes::default();
    for (name, value) in value.as_table().ok_or_else(|| Mismatch::new("a table of attributes"))? {
        if !attributes.assign(name, value).map_err(|mismatch| mismatch.within(name))? {
            return Err(Mismatch::new(format!("only {}", TaskAttributes::NAMES.join(", "))).within(name));
        }
    }
    Ok(attributes)
}
