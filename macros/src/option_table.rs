//! The options that `#[task]` knows, and what each takes.

/// What an option takes.
#[derive(Clone, Copy)]
pub(crate) enum Takes {
    /// `true`, `false`, or the bare name for `true`; the field is an `Option<bool>`.
    Flag,
    /// The same, for a field that is a `bool`.
    PlainFlag,
    /// A number or `None`.
    Count,
    /// A duration.
    Duration,
    /// A duration, or a flag for one second.
    Backoff,
    /// `"10/m"`.
    Rate,
    /// A serializer's name.
    Serializer,
    /// A queue's name.
    Queue,
    /// A priority from 0 to 255.
    Priority,
    /// The task's name.
    Name,
}

/// Every option, in the order of the documentation.
pub(crate) const OPTIONS: &[(&str, Takes)] = &[
    ("name", Takes::Name),
    ("acks_late", Takes::Flag),
    ("max_retries", Takes::Count),
    ("default_retry_delay", Takes::Duration),
    ("autoretry", Takes::PlainFlag),
    ("retry_backoff", Takes::Backoff),
    ("retry_backoff_max", Takes::Duration),
    ("retry_jitter", Takes::Flag),
    ("time_limit", Takes::Duration),
    ("soft_time_limit", Takes::Duration),
    ("rate_limit", Takes::Rate),
    ("ignore_result", Takes::Flag),
    ("track_started", Takes::Flag),
    ("serializer", Takes::Serializer),
    ("store_errors_even_if_ignored", Takes::Flag),
    ("send_events", Takes::Flag),
    ("reject_on_worker_lost", Takes::Flag),
    ("retry_on_worker_lost", Takes::Flag),
    ("acks_on_failure_or_timeout", Takes::Flag),
    ("acks_on_failure", Takes::Flag),
    ("acks_on_timeout", Takes::Flag),
    ("queue", Takes::Queue),
    ("priority", Takes::Priority),
    ("expires", Takes::Duration),
];

/// What `name` takes; or what to tell a user who wrote it.
pub(crate) fn find(name: &str) -> Result<Takes, String> {
    let known = OPTIONS.iter().find(|(option, _)| *option == name);
    known.map(|(_, takes)| *takes).ok_or_else(|| unknown(name))
}

fn unknown(name: &str) -> String {
    if name == "bind" {
        return "a task is bound by taking `ctx: TaskContext` as its first parameter; there is no option `bind`"
            .to_owned();
    }
    let near = |option: &&str| option.starts_with(name) || name.starts_with(option) || edits(name, option) <= 3;
    let closest = OPTIONS.iter().map(|(option, _)| *option).filter(near).min_by_key(|option| edits(name, option));
    match closest {
        Some(option) => format!("unknown option `{name}`; did you mean `{option}`?"),
        None => {
            let all: Vec<_> = OPTIONS.iter().map(|(option, _)| format!("`{option}`")).collect();
            format!("unknown option `{name}`; the options are {}", all.join(", "))
        }
    }
}

/// Levenshtein's distance.
fn edits(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in to.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}
