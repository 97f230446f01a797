//! A result's meta as the map that Celery stores, until the protocol room writes it itself.

use crate::protocol::{DateTime, Exception, Map, MetaResult, State, TaskMeta, Value, json};
use crate::{Error, ErrorKind, Result};

/// How the map becomes bytes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Serializer {
    Json,
}

impl Serializer {
    pub(super) fn of_name(name: &str) -> Result<Self> {
        match name {
            "json" | "application/json" => Ok(Serializer::Json),
            "pickle" | "application/x-python-serialize" => Err(Error::new(ErrorKind::Refused, "pickle is refused")),
            other => Err(Error::new(ErrorKind::Configuration, format!("unknown serializer {other:?}"))),
        }
    }
}

pub(super) fn encode(meta: &TaskMeta, _serializer: Serializer) -> Result<Vec<u8>> {
    let mut map = Map::with_capacity(9 + meta.extended.len());
    map.insert("status", meta.status.as_str());
    map.insert(
        "result",
        match &meta.result {
            MetaResult::Value(value) => value.clone(),
            MetaResult::Exception(exception) => Value::Map(exception.to_map()),
        },
    );
    map.insert("traceback", text(&meta.traceback));
    map.insert("children", meta.children.clone().map_or(Value::Null, Value::List));
    map.insert("date_done", meta.date_done.map_or(Value::Null, |date| Value::String(date.to_string())));
    for (key, id) in [("group_id", &meta.group_id), ("parent_id", &meta.parent_id)] {
        if id.is_some() {
            map.insert(key, text(id));
        }
    }
    for (key, value) in meta.extended.iter() {
        map.insert(key, value.clone());
    }
    map.insert("task_id", meta.task_id.as_str());
    json::to_vec(&Value::Map(map))
}

pub(super) fn decode(payload: &[u8], _serializer: Serializer) -> Result<TaskMeta> {
    let bad = || Error::new(ErrorKind::Decode, "a stored result has not the form of one");
    let mut map = json::parse(payload)?.into_map().ok_or_else(bad)?;
    let status = map.remove("status").and_then(Value::into_string).map(State::from).ok_or_else(bad)?;
    let result = map.remove("result").unwrap_or_default();
    let exception = result.as_map().filter(|_| status.is_exception()).and_then(Exception::from_map);
    let mut string = |key: &str| map.remove(key).and_then(Value::into_string);
    Ok(TaskMeta {
        result: exception.map_or(MetaResult::Value(result), MetaResult::Exception),
        traceback: string("traceback"),
        date_done: string("date_done").and_then(|text| text.parse::<DateTime>().ok()),
        group_id: string("group_id"),
        parent_id: string("parent_id"),
        task_id: string("task_id").unwrap_or_default(),
        children: map.remove("children").and_then(Value::into_list),
        extended: map,
        status,
    })
}

fn text(text: &Option<String>) -> Value {
    text.as_deref().map_or(Value::Null, Value::from)
}
