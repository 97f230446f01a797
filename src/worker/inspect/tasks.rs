//! Which tasks can be run (celery/worker/control.py `registered`).

use std::time::Duration;

use crate::protocol::Value;
use crate::worker::intake::{KnownTask, Tasks};

/// The tasks by name, with those of the attributes that they have. Those that every worker has are told only if
/// `builtins` says so.
pub(super) fn registered(tasks: &Tasks, attributes: &[String], builtins: bool) -> Value {
    let mut known: Vec<_> = tasks.iter().filter(|(name, _)| builtins || !name.starts_with("celery.")).collect();
    known.sort_by_key(|(name, _)| *name);
    known.into_iter().map(|(name, task)| described(name, task, attributes)).collect()
}

fn described(name: &str, task: &KnownTask, attributes: &[String]) -> String {
    let had = attributes.iter().filter_map(|attribute| Some(format!("{attribute}={}", text(name, task, attribute)?)));
    let had: Vec<_> = had.collect();
    match had.is_empty() {
        true => name.to_owned(),
        false => format!("{name} [{}]", had.join(" ")),
    }
}

/// Python's `str()` of an attribute of Celery's `Task`; `None`: the task has none.
fn text(name: &str, task: &KnownTask, attribute: &str) -> Option<String> {
    let KnownTask { policy, retries, options, .. } = task;
    let truth = |value| Some(if value { "True" } else { "False" }.to_owned());
    match attribute {
        "name" => Some(name.to_owned()),
        "rate_limit" => policy.rate_limit.clone(),
        "acks_late" => truth(policy.acks_late),
        "ignore_result" => truth(policy.ignore_result),
        "store_errors_even_if_ignored" => truth(policy.store_errors_even_if_ignored),
        "track_started" => truth(policy.track_started),
        "send_events" => truth(policy.send_events),
        "time_limit" => policy.limits.hard.map(seconds),
        "soft_time_limit" => policy.limits.soft.map(seconds),
        "max_retries" => retries.max_retries.map(|retries| retries.to_string()),
        "default_retry_delay" => Some(seconds(retries.default_delay)),
        "serializer" => options.serializer.clone(),
        "queue" => options.queue.clone(),
        "priority" => options.priority.map(|priority| priority.to_string()),
        "expires" => options.expires.map(seconds),
        _ => None,
    }
}

/// A whole number where it is one.
fn seconds(time: Duration) -> String {
    match time.subsec_nanos() {
        0 => time.as_secs().to_string(),
        _ => time.as_secs_f64().to_string(),
    }
}
