//! [`Content`]: what stands in the columns of a result (django_celery_results/backends/database.py `_store_result`,
//! `_get_extended_properties`, `_get_task_meta_for`).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::tables::EXTENDED;
use crate::protocol::{DateTime, Map, MetaResult, Serializer, State, TaskMeta, Value};
use crate::{Error, ErrorKind, Result};

/// How values become texts of columns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Content {
    pub(super) serializer: Serializer,
    /// Whether `result_extended` is on.
    pub(super) is_extended: bool,
}

impl Content {
    /// `content_type` and `content_encoding`.
    pub(super) fn described(&self) -> Map {
        Map::from([
            ("content_type", Value::from(self.serializer.content_type())),
            ("content_encoding", Value::from(self.serializer.content_encoding())),
        ])
    }

    /// A value as the serializer writes it; bytes are written in Base64 (`encode_content`).
    pub(super) fn text(&self, value: &Value) -> Result<String> {
        let bytes = self.serializer.encode(value)?;
        if self.serializer.content_encoding() == "binary" {
            return Ok(STANDARD.encode(bytes));
        }
        String::from_utf8(bytes).map_err(|_| Error::new(ErrorKind::Encode, "a result is no text"))
    }

    /// What a text column holds (`decode_content`): nothing if it is empty.
    pub(super) fn value(&self, columns: &Map, name: &str) -> Result<Option<Value>> {
        let Some(text) = columns.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        if columns.get("content_encoding").and_then(Value::as_str) != Some("binary") {
            return self.serializer.decode(text.as_bytes()).map(Some);
        }
        let bytes = STANDARD.decode(text).map_err(|cause| {
            Error::new(ErrorKind::Decode, format!("the column {name} of a result is no Base64")).with_source(cause)
        })?;
        self.serializer.decode(&bytes).map(Some)
    }

    /// The columns of a result that is stored at `now`. Without `result_extended` a failure has no traceback either.
    pub(super) fn columns(&self, meta: &TaskMeta, now: DateTime) -> Result<Map> {
        let result = match &meta.result {
            MetaResult::Value(value) => self.text(value)?,
            MetaResult::Exception(exception) => self.text(&exception.to_map().into())?,
        };
        let mut about = meta.extended.get("request_meta").and_then(Value::as_map).cloned().unwrap_or_default();
        about.insert("children", meta.children.clone().map_or(Value::Null, Value::List));
        let mut columns = self.described();
        columns.extend([
            ("task_id", Value::from(meta.task_id.as_str())),
            ("status", meta.status.as_str().into()),
            ("result", result.into()),
            ("meta", self.text(&about.into())?.into()),
            ("date_done", now.to_string().into()),
        ]);
        if meta.status == State::Started {
            columns.insert("date_started", now.to_string());
        }
        if self.is_extended {
            columns.insert("traceback", Value::from(meta.traceback.as_deref()));
            self.extend(&mut columns, &meta.extended)?;
        }
        Ok(columns)
    }

    /// The arguments are texts, as the message's headers have them, and are encoded once more.
    fn extend(&self, columns: &mut Map, extended: &Map) -> Result<()> {
        for (column, shown, plain) in [("task_args", "argsrepr", "args"), ("task_kwargs", "kwargsrepr", "kwargs")] {
            let given = extended.get(shown).filter(|value| !value.is_null()).or_else(|| extended.get(plain));
            if let Some(given) = given.filter(|value| !value.is_null()) {
                columns.insert(column, self.text(given)?);
            }
        }
        for (column, name) in
            [("task_name", "name"), ("worker", "worker"), ("periodic_task_name", "periodic_task_name")]
        {
            columns.insert(column, extended.get(name).cloned().unwrap_or_default());
        }
        Ok(())
    }

    /// The meta of a row. What `result_extended` adds is under the names that Celery's metas have for it.
    pub(super) fn meta(&self, mut columns: Map) -> Result<TaskMeta> {
        let mut read = self.value(&columns, "meta")?.and_then(Value::into_map).unwrap_or_default();
        read.insert("result", self.value(&columns, "result")?.unwrap_or_default());
        for name in ["task_id", "status", "date_done", "traceback"] {
            read.insert(name, columns.remove(name).unwrap_or_default());
        }
        for (name, column) in [("args", "task_args"), ("kwargs", "task_kwargs")] {
            // What Celery cannot decode it takes as it stands.
            let value = self.value(&columns, column).unwrap_or_else(|_| columns.get(column).cloned());
            read.extend(value.map(|value| (name, value)));
        }
        for (column, name) in EXTENDED.into_iter().zip(["name", "", "", "worker", "periodic_task_name"]) {
            if let Some(value) = columns.remove(column).filter(|value| !value.is_null() && !name.is_empty()) {
                read.insert(name, value);
            }
        }
        TaskMeta::from_map(read)
    }
}
