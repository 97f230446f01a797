//! [`DjangoBackend`]: results in the tables of django-celery-results 2.6 (django_celery_results/backends/database.py).
//!
//! A row's columns travel as one JSON text from where the result came to be to where it is stored: in Python processes
//! django-celery-results' own code fills them in. Chords are counted in its table ([`counting`]). No table is created here.

mod chords;
mod columns;
mod counting;
mod tables;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};

use self::columns::Content;
use self::counting::Own;
use self::tables::{DATE_DONE, groups, tasks};
use super::codec::Codec;
use super::sql::{Cell, Database, DatabaseUrl, Row, Table};
use super::{BackendOptions, EncodedResult, NativeChords, ResultBackend, StoreRequest, polling};
use crate::protocol::{DateTime, Map, ResultTuple, State, TaskMeta, Value, json};
use crate::time::{Clock, zone};
use crate::{Error, ErrorKind, Result};

/// Keeps results where Django's models of them are, in SQLite or PostgreSQL.
pub struct DjangoBackend {
    database: Arc<dyn Database>,
    /// A connection of its own for the transactions that count chords, one at a time; what it is used with is which chords
    /// this process has claimed.
    counting: tokio::sync::Mutex<(Arc<dyn Database>, HashMap<String, Own>)>,
    codec: Codec,
    content: Content,
    /// The zone whose clock SQLite's columns show.
    zone: TimeZone,
    options: BackendOptions,
}

impl DjangoBackend {
    /// The backend of what follows `django-db+` in a URL: `sqlite:////var/db.sqlite3`,
    /// `postgresql://user:password@host/database`. The option `time_zone` names the zone whose clock SQLite's columns show,
    /// where it is not UTC: Django's `TIME_ZONE` if its `USE_TZ` is off.
    ///
    /// # Errors
    /// `Configuration` or `Refused`: another database, an unknown zone, or a serializer that cannot be used.
    pub fn new(url: &str, options: &BackendOptions) -> Result<Self> {
        let (url, zone) = DatabaseUrl::parse_with("django-db+", url, "time_zone")?;
        // `result_compression` has no effect here, as in django-celery-results.
        let codec = Codec::new(&BackendOptions { compression: None, ..options.clone() })?;
        Ok(DjangoBackend {
            database: url.open(options, Vec::new()),
            counting: tokio::sync::Mutex::new((url.open(options, Vec::new()), HashMap::new())),
            content: Content { serializer: codec.serializer(), is_extended: options.extended },
            codec,
            zone: zone_of(zone.as_deref())?,
            options: options.clone(),
        })
    }

    fn now(&self) -> DateTime {
        DateTime::at(Clock::system().now(), Offset::UTC)
    }

    /// The row of an encoded result, its times on the clock of the columns. What was begun is told in UTC, for
    /// django-celery-results lets the database tell it (`Now()`), and SQLite's clock is UTC's.
    fn row(&self, table: &Table, payload: &[u8]) -> Result<Row> {
        let is_none = || Error::new(ErrorKind::Decode, "a result to store has not the form of a row");
        let mut columns = json::parse(payload)?.into_map().ok_or_else(is_none)?;
        self.date(&mut columns);
        Ok(table.row(columns))
    }

    fn date(&self, columns: &mut Map) {
        let known = columns.get("date_done").and_then(Value::as_str).and_then(|text| text.parse::<DateTime>().ok());
        let moment = known.and_then(|moment| moment.timestamp().ok()).unwrap_or_else(|| Clock::system().now());
        let shown = DateTime::at(moment, self.zone.to_offset(moment));
        for name in ["date_created", "date_done"] {
            columns.insert(name, Value::DateTime(shown));
        }
    }

    /// The time in a column; in PostgreSQL's it has its zone.
    fn moment(&self, stored: DateTime) -> DateTime {
        if stored.offset.is_some() {
            return stored;
        }
        let moment = self.zone.to_ambiguous_timestamp(stored.civil).compatible();
        moment.map_or(stored, |moment| DateTime::at(moment, Offset::UTC))
    }
}

/// The zone of that name; UTC, if none is named.
fn zone_of(name: Option<&str>) -> Result<TimeZone> {
    let Some(name) = name else { return Ok(TimeZone::UTC) };
    let missing = || Error::new(ErrorKind::Configuration, format!("result_backend: there is no time_zone {name:?}"));
    zone::named(name).ok_or_else(missing)
}

/// What to do where a table is missing.
fn told<T>(answer: Result<T>) -> Result<T> {
    answer.map_err(|error| {
        let text = error.to_string();
        if !(text.contains("no such table") && text.contains("django_celery_results_")) {
            return error;
        }
        Error::new(error.kind(), format!("{text} (run: python manage.py migrate django_celery_results)"))
    })
}

#[async_trait]
impl ResultBackend for DjangoBackend {
    fn uri(&self) -> String {
        format!("django-db+{}", self.database.shown())
    }

    fn service(&self) -> &'static str {
        self.database.service()
    }

    async fn prepare(&self) {
        if let Err(error) = told(self.database.read(&tables::states(), &[""]).await) {
            tracing::warn!("Results wait until their database takes them: {error}");
        }
    }

    fn stores_reprs(&self) -> bool {
        true
    }

    fn encode(&self, request: &StoreRequest) -> Result<EncodedResult> {
        let meta = &request.meta;
        if meta.task_id.is_empty() {
            return Err(Error::new(ErrorKind::Backend, "a result without a task id cannot be stored"));
        }
        let payload = json::to_vec(&self.content.columns(meta, self.now())?.into())?.into();
        Ok(EncodedResult { task_id: meta.task_id.clone(), state: meta.status.clone(), payload, reply_to: None })
    }

    async fn store_encoded(&self, batch: &[EncodedResult]) -> Result<()> {
        let table = tasks();
        let rows = batch.iter().map(|result| self.row(&table, &result.payload)).collect::<Result<Vec<_>>>()?;
        if rows.is_empty() { Ok(()) } else { told(self.database.write(&table, rows).await) }
    }

    async fn fetch(&self, task_id: &str) -> Result<Option<TaskMeta>> {
        Ok(self.fetch_many(&[task_id]).await?.pop().flatten())
    }

    async fn fetch_many(&self, task_ids: &[&str]) -> Result<Vec<Option<TaskMeta>>> {
        if task_ids.is_empty() {
            return Ok(Vec::new());
        }
        let table = tasks();
        let rows = told(self.database.read(&table, task_ids).await)?;
        let metas = rows.into_iter().map(|row| {
            let mut meta = self.content.meta(table.map(row))?;
            meta.date_done = meta.date_done.map(|stored| self.moment(stored));
            Ok(meta)
        });
        Ok(polling::in_order(task_ids, metas.collect::<Result<Vec<_>>>()?))
    }

    async fn forget(&self, task_id: &str) -> Result<()> {
        told(self.database.delete(&tasks(), task_id).await)
    }

    async fn save_group(&self, group: &ResultTuple) -> Result<()> {
        if group.id.is_empty() {
            return Err(Error::new(ErrorKind::Backend, "a group without an id cannot be saved"));
        }
        let mut columns = self.content.described();
        columns.insert("group_id", group.id.as_str());
        columns.insert("result", self.content.text(&Value::from(group.clone()))?);
        self.date(&mut columns);
        let table = groups();
        told(self.database.write(&table, vec![table.row(columns)]).await)
    }

    async fn restore_group(&self, group_id: &str) -> Result<Option<ResultTuple>> {
        let table = groups();
        let Some(row) = told(self.database.read(&table, &[group_id]).await)?.pop() else { return Ok(None) };
        let columns = table.map(row);
        let stored = self.content.value(&columns, "result")?.unwrap_or_default();
        ResultTuple::try_from(&stored).map(Some)
    }

    async fn forget_group(&self, group_id: &str) -> Result<()> {
        told(self.database.delete(&groups(), group_id).await)
    }

    async fn clean_up(&self, now: Timestamp) -> Result<()> {
        let expires = self.options.expires(&State::Success);
        let Some(before) = expires.and_then(|expires| now.checked_sub(expires).ok()) else { return Ok(()) };
        for table in [tasks(), groups()] {
            let before = Cell::Time(DateTime::at(before, self.zone.to_offset(before)));
            told(self.database.delete_before(&table, &DATE_DONE, before).await)?;
        }
        Ok(())
    }

    fn native_chords(&self) -> Option<&dyn NativeChords> {
        Some(self)
    }
}

impl fmt::Debug for DjangoBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DjangoBackend").field("database", &self.database).finish_non_exhaustive()
    }
}
