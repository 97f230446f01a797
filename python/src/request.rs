//! [`request_of`]: the request of a run, as Celery's task has it, for a handler that Python calls.

use celeriac::protocol::{DateTime, Map, Value};
use celeriac::task::Request;
use jiff::Timestamp;

/// What is said of a run under the names of Celery's `Context`.
pub fn request_of(given: &Map) -> Request {
    let text = |name: &str| given.get(name).and_then(Value::as_str).map(str::to_owned);
    let map = |name: &str| given.get(name).and_then(Value::as_map).cloned().unwrap_or_default();
    let number = |name: &str| given.get(name).and_then(Value::as_i64);
    Request {
        id: text("id").unwrap_or_default(),
        task: text("task").unwrap_or_default(),
        retries: number("retries").and_then(|retries| u32::try_from(retries).ok()).unwrap_or_default(),
        root_id: text("root_id"),
        parent_id: text("parent_id"),
        group: text("group"),
        group_index: number("group_index"),
        eta: given.get("eta").and_then(moment),
        expires: given.get("expires").and_then(moment),
        hostname: text("hostname").unwrap_or_default(),
        headers: map("headers"),
        delivery_info: map("delivery_info"),
        reply_to: text("reply_to"),
        correlation_id: text("correlation_id"),
    }
}

/// A `datetime`, or its text.
fn moment(value: &Value) -> Option<Timestamp> {
    let read: Option<DateTime> = match value {
        Value::DateTime(moment) => Some(*moment),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    read?.timestamp().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_is_absent_and_times_may_be_text() {
        let given = Map::from([
            ("id", Value::from("1")),
            ("retries", 2.into()),
            ("eta", "2026-11-22T16:07:42+01:00".into()),
            ("headers", Map::from([("x", 1)]).into()),
        ]);
        let request = request_of(&given);
        assert_eq!((request.id.as_str(), request.retries, request.group.as_deref()), ("1", 2, None));
        assert_eq!(request.eta, Some("2026-11-22T15:07:42Z".parse().unwrap()));
        assert_eq!(request.headers.get("x"), Some(&Value::Int(1)));
        assert_eq!(request_of(&Map::new()), Request::default());
    }
}
