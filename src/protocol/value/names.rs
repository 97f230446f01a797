//! The names that the maps of messages and results bear.

/// The known names by their length.
const NAMES: [&[&str]; 22] = [
    &[],
    &["n"],
    &["id", "it"],
    &["eta", "pid", "hex"],
    &["lang", "task", "body", "args", "name", "type", "uuid", "link", "meth"],
    &["group", "chain", "chord", "tasks", "queue", "clock"],
    &["stamps", "shadow", "origin", "kwargs", "status", "result", "worker", "header"],
    &["expires", "retries", "root_id", "headers", "options", "task_id"],
    &[
        "priority", "exchange", "hostname", "errbacks", "children", "group_id", "argsrepr", "reply_to", "exc_type",
        "__type__",
    ],
    &[
        "timelimit",
        "parent_id",
        "callbacks",
        "date_done",
        "immutable",
        "traceback",
        "timestamp",
        "utcoffset",
        "countdown",
        "__value__",
    ],
    &["kwargsrepr", "link_error", "chord_size", "exc_module", "properties", "expiration", "time_limit", "serializer"],
    &["routing_key", "group_index", "exc_message", "redelivered", "compression"],
    &["content-type", "subtask_type", "delivery_tag"],
    &["delivery_info", "delivery_mode", "ignore_result", "body_encoding"],
    &["correlation_id"],
    &["stamped_headers", "soft_time_limit"],
    &["content-encoding", "celery_beat_task"],
    &[],
    &["periodic_task_name"],
    &[],
    &[],
    &["replaced_task_nesting"],
];

/// The known name that `key` is, so that it need not be copied.
pub(in crate::protocol) fn known(key: &str) -> Option<&'static str> {
    let first = key.as_bytes().first()?;
    // Among names of one length the first letter tells nearly all apart.
    NAMES.get(key.len())?.iter().find(|name| name.as_bytes().first() == Some(first) && **name == key).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_stands_under_its_length() {
        for (length, names) in NAMES.iter().enumerate() {
            assert!(names.iter().all(|name| name.len() == length && known(name) == Some(name)), "{names:?}");
        }
        assert_eq!(known(""), None);
        assert_eq!(known("no such name"), None);
    }
}
