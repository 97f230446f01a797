//! [`DatabaseBackend`]: results in Celery's own tables, as Celery 5.7 reads them (celery/backends/database).
//!
//! A row's columns travel as one JSON text from where the result came to be to where it is stored: in Python processes
//! Celery's own code fills them in. Nothing counts chords here: the task `celery.chord_unlock` looks.

mod tables;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use jiff::tz::Offset;

use self::tables::{DATE_DONE, groups, tasks};
use super::codec::Codec;
use super::sql::{Cell, Database, DatabaseUrl, Table};
use super::{BackendOptions, EncodedResult, ResultBackend, StoreRequest, polling};
use crate::protocol::{DateTime, Map, MetaResult, ResultTuple, Serializer, State, TaskMeta, Value, json};
use crate::time::Clock;
use crate::{Error, ErrorKind, Result};

/// Keeps results in SQLite or PostgreSQL.
pub struct DatabaseBackend {
    database: Arc<dyn Database>,
    serializer: Serializer,
    tasks: Table,
    groups: Table,
    expires: Option<Duration>,
}

impl DatabaseBackend {
    /// The backend of what follows `db+` in a URL: `sqlite:////var/results.sqlite`, `postgresql://user:password@host/database`.
    ///
    /// # Errors
    /// `Configuration` or `Refused`: another database, or a serializer that cannot be used.
    pub fn new(url: &str, options: &BackendOptions) -> Result<Self> {
        let url = DatabaseUrl::parse("db+", url)?;
        // `result_compression` has no effect here, as in Celery.
        let codec = Codec::new(&BackendOptions { compression: None, ..options.clone() })?;
        let (tasks, groups) = (tasks(options.extended), groups());
        Ok(DatabaseBackend {
            database: url.open(options, vec![tasks.clone(), groups.clone()]),
            serializer: codec.serializer(),
            tasks,
            groups,
            expires: options.expires(&State::Success),
        })
    }

    fn bytes(&self, value: &Value) -> Result<Value> {
        self.serializer.encode(value).map(Value::Bytes)
    }

    /// The columns of a result (celery/backends/database/__init__.py `DatabaseBackend._update_result`).
    fn columns(&self, meta: &TaskMeta) -> Result<Map> {
        let result = match &meta.result {
            MetaResult::Value(value) => self.bytes(value)?,
            MetaResult::Exception(exception) => self.bytes(&exception.to_map().into())?,
        };
        let mut columns = Map::from([
            ("task_id", Value::from(meta.task_id.as_str())),
            ("status", Value::from(meta.status.as_str())),
            ("result", result),
            ("date_done", meta.date_done.map_or(Value::Null, Value::DateTime)),
            ("traceback", meta.traceback.as_deref().into()),
        ]);
        if let Some(children) = meta.children.as_ref().filter(|children| !children.is_empty()) {
            columns.insert("children", self.bytes(&Value::List(children.clone()))?);
        }
        for (name, value) in meta.extended.iter() {
            match name {
                "args" | "kwargs" if !value.is_null() => _ = columns.insert(name, self.bytes(value)?),
                "name" | "worker" | "retries" | "queue" => _ = columns.insert(name, value.clone()),
                _ => {}
            }
        }
        if let Some(names) = meta.extended.get("stamped_headers").filter(|names| names.is_truthy()) {
            columns.insert("stamps", self.bytes(&stamps(names, &meta.extended))?);
        }
        Ok(columns)
    }

    /// The meta of a row (`DatabaseBackend._get_task_meta_for`).
    fn meta(&self, mut columns: Map) -> Result<TaskMeta> {
        columns = columns.into_iter().filter(|(_, value)| !value.is_null()).collect();
        for name in ["result", "children", "args", "kwargs"] {
            if let Some(stored) = columns.get_mut(name) {
                *stored = self.value(std::mem::take(stored))?;
            }
        }
        let stamps = columns.remove("stamps");
        if let Some(Ok(Value::Map(mut known))) = stamps.map(|stamps| self.value(stamps)) {
            columns.extend(known.remove("stamped_headers").map(|names| ("stamped_headers".to_owned(), names)));
            columns.extend(known.remove("stamps").and_then(Value::into_map).unwrap_or_default());
        }
        TaskMeta::from_map(columns)
    }

    fn value(&self, stored: Value) -> Result<Value> {
        match stored {
            // What Celery before 5.7 has stored: reading it may run whatever it says.
            Value::Bytes(bytes) if bytes.starts_with(b"\x80") && self.serializer == Serializer::Json => {
                Err(Error::new(ErrorKind::Refused, "a stored result is a pickle: only Python can read it"))
            }
            Value::Bytes(bytes) => self.serializer.decode(&bytes),
            other => Ok(other),
        }
    }
}

fn stamps(names: &Value, extended: &Map) -> Value {
    let known = names.as_list().unwrap_or_default().iter().filter_map(Value::as_str);
    let stamps: Map = known.filter_map(|name| Some((name, extended.get(name)?.clone()))).collect();
    Map::from([("stamped_headers", names.clone()), ("stamps", stamps.into())]).into()
}

#[async_trait]
impl ResultBackend for DatabaseBackend {
    fn uri(&self) -> String {
        self.database.shown().to_owned()
    }

    fn service(&self) -> &'static str {
        self.database.service()
    }

    async fn prepare(&self) {
        if let Err(error) = self.database.prepare().await {
            tracing::warn!("Results wait until their database takes them: {error}");
        }
    }

    fn encode(&self, request: &StoreRequest) -> Result<EncodedResult> {
        let meta = &request.meta;
        if meta.task_id.is_empty() {
            return Err(Error::new(ErrorKind::Backend, "a result without a task id cannot be stored"));
        }
        let payload = json::to_vec(&self.columns(meta)?.into())?.into();
        Ok(EncodedResult { task_id: meta.task_id.clone(), state: meta.status.clone(), payload, reply_to: None })
    }

    async fn store_encoded(&self, batch: &[EncodedResult]) -> Result<()> {
        let rows = batch.iter().map(|result| self.tasks.row_of(&result.payload)).collect::<Result<Vec<_>>>()?;
        if rows.is_empty() { Ok(()) } else { self.database.write(&self.tasks, rows).await }
    }

    async fn fetch(&self, task_id: &str) -> Result<Option<TaskMeta>> {
        Ok(self.fetch_many(&[task_id]).await?.pop().flatten())
    }

    async fn fetch_many(&self, task_ids: &[&str]) -> Result<Vec<Option<TaskMeta>>> {
        if task_ids.is_empty() {
            return Ok(Vec::new());
        }
        let rows = self.database.read(&self.tasks, task_ids).await?;
        let metas = rows.into_iter().map(|row| self.meta(self.tasks.map(row))).collect::<Result<Vec<_>>>()?;
        Ok(polling::in_order(task_ids, metas))
    }

    async fn forget(&self, task_id: &str) -> Result<()> {
        self.database.delete(&self.tasks, task_id).await
    }

    async fn save_group(&self, group: &ResultTuple) -> Result<()> {
        if group.id.is_empty() {
            return Err(Error::new(ErrorKind::Backend, "a group without an id cannot be saved"));
        }
        let columns = Map::from([
            ("taskset_id", Value::from(group.id.as_str())),
            ("result", self.bytes(&Value::from(group.clone()))?),
            ("date_done", Value::DateTime(DateTime::at(Clock::system().now(), Offset::UTC))),
        ]);
        self.database.write(&self.groups, vec![self.groups.row(columns)]).await
    }

    async fn restore_group(&self, group_id: &str) -> Result<Option<ResultTuple>> {
        let Some(row) = self.database.read(&self.groups, &[group_id]).await?.pop() else { return Ok(None) };
        let stored = self.groups.map(row).remove("result").unwrap_or_default();
        ResultTuple::try_from(&self.value(stored)?).map(Some)
    }

    async fn forget_group(&self, group_id: &str) -> Result<()> {
        self.database.delete(&self.groups, group_id).await
    }

    async fn clean_up(&self, now: Timestamp) -> Result<()> {
        let Some(before) = self.expires.and_then(|expires| now.checked_sub(expires).ok()) else { return Ok(()) };
        for table in [&self.tasks, &self.groups] {
            let before = Cell::Time(DateTime::at(before, Offset::UTC));
            self.database.delete_before(table, &DATE_DONE, before).await?;
        }
        Ok(())
    }
}

impl fmt::Debug for DatabaseBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseBackend").field("database", &self.database).finish_non_exhaustive()
    }
}
