//! [`TaskMeta`]: what a result backend stores for a task.

use super::json::{self, ObjectWriter};
use super::{DateTime, Exception, Map, State, Value, datetime};
use crate::{Error, ErrorKind, Result};

/// What a result backend stores for a task (celery/backends/base.py `Backend._get_result_meta`).
#[derive(Debug, Clone, PartialEq)]
pub struct TaskMeta {
    /// The task's id.
    pub task_id: String,
    /// The state.
    pub status: State,
    /// The return value, the `update_state` meta, or what an exception encodes to.
    pub result: MetaResult,
    /// A Python traceback's text, or whatever stands in for one.
    pub traceback: Option<String>,
    /// The result tuples of tasks that were sent in this run; `None` where there was no request.
    pub children: Option<Vec<Value>>,
    /// When the task became ready.
    pub date_done: Option<DateTime>,
    /// The group's id, if the request has one.
    pub group_id: Option<String>,
    /// The parent's id, if the request has one.
    pub parent_id: Option<String>,
    /// What `result_extended` adds, and keys that we do not know: in their order, before `task_id`.
    pub extended: Map,
}

/// The `result` of a [`TaskMeta`].
#[derive(Debug, Clone, PartialEq)]
pub enum MetaResult {
    /// A value.
    Value(Value),
    /// An exception.
    Exception(Exception),
}

impl TaskMeta {
    /// A meta without traceback, children, date, group, parent or extension.
    pub fn new(task_id: impl Into<String>, status: State, result: impl Into<MetaResult>) -> Self {
        TaskMeta {
            task_id: task_id.into(),
            status,
            result: result.into(),
            traceback: None,
            children: None,
            date_done: None,
            group_id: None,
            parent_id: None,
            extended: Map::new(),
        }
    }

    /// Appends the JSON text that Celery stores, byte for byte. A result that is nested too deeply is an error of kind
    /// [`ErrorKind::Encode`].
    pub fn write_json(&self, out: &mut Vec<u8>) -> Result<()> {
        let mut object = ObjectWriter::begin(out);
        object.text("status", self.status.as_str());
        match &self.result {
            MetaResult::Value(value) => object.value("result", value)?,
            MetaResult::Exception(exception) => object.map("result", &exception.to_map())?,
        }
        object.text_or_null("traceback", self.traceback.as_deref());
        match &self.children {
            Some(children) => json::write_list(children, object.key("children"))?,
            None => object.key("children").extend_from_slice(b"null"),
        }
        write_date(self.date_done, object.key("date_done"));
        object.text_if_any("group_id", self.group_id.as_deref());
        object.text_if_any("parent_id", self.parent_id.as_deref());
        object.pairs(&self.extended)?;
        object.text("task_id", &self.task_id);
        object.end();
        Ok(())
    }

    /// The dict that Celery's serializers are given, in its order.
    pub fn to_map(&self) -> Map {
        let result = match &self.result {
            MetaResult::Value(value) => value.clone(),
            MetaResult::Exception(exception) => exception.to_map().into(),
        };
        let date_done = self.date_done.map(|moment| datetime::text_of(|out| moment.write(out)));
        let mut map = Map::from([
            ("status", Value::from(self.status.as_str())),
            ("result", result),
            ("traceback", self.traceback.as_deref().into()),
            ("children", self.children.clone().map(Value::List).into()),
            ("date_done", date_done.into()),
        ]);
        let ids = [("group_id", &self.group_id), ("parent_id", &self.parent_id)];
        map.extend(ids.into_iter().filter_map(|(name, id)| Some((name, id.as_deref()?))));
        map.extend(self.extended.iter().map(|(name, value)| (name, value.clone())));
        map.insert("task_id", self.task_id.as_str());
        map
    }

    /// Reads the dict that Celery stores. A dict without a state is an error of kind [`ErrorKind::Decode`]; everything
    /// else may be missing.
    pub fn from_map(mut map: Map) -> Result<Self> {
        let status = map.remove("status").and_then(Value::into_string);
        let status =
            State::from(status.ok_or_else(|| Error::new(ErrorKind::Decode, "reading a result: it has no status"))?);
        let mut text = |name| map.remove(name).and_then(Value::into_string);
        let (task_id, traceback) = (text("task_id").unwrap_or_default(), text("traceback"));
        let (group_id, parent_id) = (text("group_id"), text("parent_id"));
        let result = MetaResult::read(&status, map.remove("result").unwrap_or_default());
        let children = map.remove("children").and_then(Value::into_list);
        let date_done = map.remove("date_done").and_then(|moment| moment_of(&moment));
        Ok(TaskMeta { task_id, status, result, traceback, children, date_done, group_id, parent_id, extended: map })
    }
}

impl MetaResult {
    /// Only in an exception's states is a dict with `exc_type` an exception; `update_state` stores what it is given.
    pub(crate) fn read(status: &State, result: Value) -> Self {
        let exception = result.as_map().filter(|_| status.is_exception()).and_then(Exception::from_map);
        exception.map_or(MetaResult::Value(result), MetaResult::Exception)
    }
}

impl<T: Into<Value>> From<T> for MetaResult {
    fn from(value: T) -> Self {
        MetaResult::Value(value.into())
    }
}

impl From<Exception> for MetaResult {
    fn from(exception: Exception) -> Self {
        MetaResult::Exception(exception)
    }
}

/// The time in `date_done`, as text or, from serializers that know times, as itself.
fn moment_of(value: &Value) -> Option<DateTime> {
    match value {
        Value::DateTime(moment) => Some(*moment),
        other => other.as_str()?.parse().ok(),
    }
}

fn write_date(date: Option<DateTime>, out: &mut Vec<u8>) {
    match date {
        Some(moment) => {
            out.push(b'"');
            moment.write(out);
            out.push(b'"');
        }
        None => out.extend_from_slice(b"null"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stored by Celery 5.7 on Redis.
    const STORED: [&str; 4] = [
        r#"{"status": "SUCCESS", "result": 3, "traceback": null, "children": [], "date_done": "2026-11-22T16:08:16.252716+00:00", "task_id": "a"}"#,
        r#"{"status": "FAILURE", "result": {"exc_type": "ValueError", "exc_message": ["bad", 3], "exc_module": "builtins"}, "traceback": "Traceback \u2026\n", "children": [[["b", "a"], null]], "date_done": "2026-11-22T16:08:16+01:00", "group_id": "g", "parent_id": "p", "task_id": "a"}"#,
        r#"{"status": "PROGRESS", "result": {"exc_type": "no", "current": 1}, "traceback": null, "children": null, "date_done": null, "task_id": "a"}"#,
        r#"{"status": "SUCCESS", "result": {"__type__": "uuid", "__value__": {"hex": "00000000000000000000000000000007"}}, "traceback": null, "children": [], "date_done": null, "name": "t", "args": [1], "kwargs": {}, "worker": "w@h", "retries": 0, "queue": "celery", "task_id": "a"}"#,
    ];

    #[test]
    fn stored_metas_are_written_byte_for_byte() {
        for stored in STORED {
            let map = json::parse(stored.as_bytes()).unwrap().into_map().unwrap();
            let meta = TaskMeta::from_map(map).unwrap();
            let mut out = Vec::new();
            meta.write_json(&mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), stored);
            assert_eq!(json::to_vec(&meta.to_map().into()).unwrap(), stored.as_bytes());
        }
    }

    #[test]
    fn exceptions_only_in_their_states() {
        let read =
            |at: usize| TaskMeta::from_map(json::parse(STORED[at].as_bytes()).unwrap().into_map().unwrap()).unwrap();
        let expected = Exception::with_args("ValueError", "builtins", [Value::from("bad"), 3.into()]);
        assert_eq!(read(1).result, MetaResult::Exception(expected));
        assert!(matches!(read(2).result, MetaResult::Value(Value::Map(_))));
        assert_eq!(read(3).extended.len(), 6);
    }

    #[test]
    fn only_the_state_must_be_there() {
        let meta = TaskMeta::from_map(Map::from([("status", "RETRY")])).unwrap();
        assert_eq!(meta, TaskMeta::new("", State::Retry, Value::Null));
        assert_eq!(TaskMeta::from_map(Map::from([("result", 1)])).unwrap_err().kind(), ErrorKind::Decode);
    }
}
