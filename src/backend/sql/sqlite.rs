//! [`Sqlite`]: a database in a file. One connection, used by one batch at a time, away from Tokio's threads.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::types::{ToSqlOutput, Value as Stored, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, ToSql, TransactionBehavior};

use super::exchange::Exchange;
use super::table::{Cell, Column, Kind, Row, Table};
use super::{Database, statements};
use crate::protocol::DateTime;
use crate::{Error, ErrorKind, Result};

/// A SQLite file. Others write to it at the same time: for them it is waited, and for us they wait no longer than a batch takes.
pub(in crate::backend) struct Sqlite {
    shown: String,
    file: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    /// How long to wait for others.
    patience: Duration,
    /// What is created where it is missing.
    tables: Vec<Table>,
    opened: Mutex<Option<Opened>>,
}

struct Opened {
    connection: Connection,
    /// Device and number of the file: another may take its place.
    identity: Option<(u64, u64)>,
}

impl Sqlite {
    pub(in crate::backend) fn new(shown: String, path: &Path, patience: Duration, tables: Vec<Table>) -> Self {
        let file = Shared { path: path.to_owned(), patience, tables, opened: Mutex::new(None) };
        Sqlite { shown, file: Arc::new(file) }
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let file = self.file.clone();
        match tokio::task::spawn_blocking(move || file.with(work)).await {
            Ok(done) => done.map_err(|error| failed(&self.shown, error)),
            Err(error) => Err(Error::new(ErrorKind::Backend, format!("using {}: {error}", self.shown))),
        }
    }
}

impl Shared {
    fn with<T>(&self, work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if opened.as_ref().is_none_or(|opened| opened.identity != identity(&self.path)) {
            *opened = None;
            *opened = Some(self.open()?);
        }
        let done = match &mut *opened {
            Some(opened) => work(&mut opened.connection),
            None => Err(rusqlite::Error::InvalidQuery),
        };
        if done.is_err() {
            // Whatever was wrong with it, the next one begins anew.
            *opened = None;
        }
        done
    }

    fn open(&self) -> rusqlite::Result<Opened> {
        let creations: Vec<_> =
            self.tables.iter().filter_map(|table| Some((table, table.creation.as_ref()?))).collect();
        let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        // Where others create the tables they create the file, too.
        flags.set(OpenFlags::SQLITE_OPEN_CREATE, !creations.is_empty());
        let mut connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(self.patience)?;
        connection.set_prepared_statement_cache_capacity(16);
        let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
        if tables == 0 && !creations.is_empty() {
            // Nobody's yet: readers then wait for no writer. What others have made is left as they want it.
            connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
        }
        if !creations.is_empty() {
            let creating = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for (table, creation) in creations {
                creating.execute_batch(&creation.sqlite)?;
                for column in missing(&creating, table, &creation.plain_name)? {
                    let kind = sql_type(column.kind);
                    creating.execute_batch(&format!("ALTER TABLE {} ADD COLUMN {} {kind}", table.name, column.name))?;
                }
            }
            creating.commit()?;
        }
        Ok(Opened { identity: identity(&self.path), connection })
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|known| (known.dev(), known.ino()))
}

/// The columns that an older Celery's table has not.
fn missing(connection: &Connection, table: &Table, plain_name: &str) -> rusqlite::Result<Vec<Column>> {
    let mut known = connection.prepare("SELECT name FROM pragma_table_info(?)")?;
    let known: Vec<String> = known.query_map([plain_name], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    Ok(table.columns.iter().filter(|column| !known.iter().any(|name| name == column.name)).copied().collect())
}

fn sql_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Int => "INTEGER",
        Kind::Text => "TEXT",
        Kind::Bytes => "BLOB",
        Kind::Time | Kind::Moment => "DATETIME",
    }
}

#[async_trait]
impl Database for Sqlite {
    fn shown(&self) -> &str {
        &self.shown
    }

    fn service(&self) -> &'static str {
        "SQLite"
    }

    async fn prepare(&self) -> Result<()> {
        self.with(|_| Ok(())).await
    }

    async fn write(&self, table: &Table, rows: Vec<Row>) -> Result<()> {
        let statement = statements::sqlite_write(table);
        self.with(move |connection| {
            let writing = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            execute(&writing, &statement, &rows)?;
            writing.commit()
        })
        .await
    }

    async fn read(&self, table: &Table, keys: &[&str]) -> Result<Vec<Row>> {
        let table = table.clone();
        let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        self.with(move |connection| read(connection, &table, &keys)).await
    }

    async fn delete(&self, table: &Table, key: &str) -> Result<()> {
        let (statement, key) = (statements::delete(table, "?"), key.to_owned());
        self.with(move |connection| connection.execute(&statement, [key]).map(|_| ())).await
    }

    async fn delete_before(&self, table: &Table, column: &Column, time: Cell) -> Result<()> {
        let statement = statements::delete_before(table, column, "?");
        self.with(move |connection| connection.execute(&statement, [Bound(&time)]).map(|_| ())).await
    }

    async fn exchange(&self, exchange: Exchange) -> Result<()> {
        let decided = self.with(move |connection| {
            let exchanging = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let Exchange { locked, seen, decide } = exchange;
            let (locked, seen) = (read(&exchanging, &locked.0, &locked.1)?, read(&exchanging, &seen.0, &seen.1)?);
            let changes = match decide(locked, seen) {
                Ok(changes) => changes,
                Err(error) => return Ok(Err(error)),
            };
            for (table, rows) in changes.stored {
                execute(&exchanging, &statements::sqlite_write(&table), &rows)?;
            }
            for (table, mut rows) in changes.changed {
                rows.iter_mut().for_each(|row| row.rotate_left(1));
                execute(&exchanging, &statements::sqlite_change(&table), &rows)?;
            }
            for (table, key) in changes.deleted {
                exchanging.execute(&statements::delete(&table, "?"), [key])?;
            }
            exchanging.commit().map(Ok)
        });
        decided.await?
    }
}

fn execute(connection: &Connection, statement: &str, rows: &[Row]) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(statement)?;
    rows.iter().try_for_each(|row| statement.execute(rusqlite::params_from_iter(row.iter().map(Bound))).map(|_| ()))
}

fn read(connection: &Connection, table: &Table, keys: &[String]) -> rusqlite::Result<Vec<Row>> {
    let mut statement = connection.prepare_cached(&statements::sqlite_read(table))?;
    let mut rows = Vec::with_capacity(keys.len());
    for key in keys {
        let mut found = statement.query([key])?;
        if let Some(row) = found.next()? {
            let cells = table.columns.iter().enumerate();
            rows.push(cells.map(|(at, column)| Ok(cell(column, row.get_ref(at)?))).collect::<rusqlite::Result<_>>()?);
        }
    }
    Ok(rows)
}

/// A cell on its way into a column.
struct Bound<'a>(&'a Cell);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self.0 {
            Cell::Null => ToSqlOutput::Owned(Stored::Null),
            Cell::Int(number) => ToSqlOutput::Owned(Stored::Integer(*number)),
            Cell::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            Cell::Bytes(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
            Cell::Time(moment) => ToSqlOutput::Owned(Stored::Text(written(moment))),
        })
    }
}

/// A time as SQLAlchemy writes it: as it is on the clock.
fn written(moment: &DateTime) -> String {
    moment.civil.strftime("%Y-%m-%d %H:%M:%S.%6f").to_string()
}

fn cell(column: &Column, stored: ValueRef<'_>) -> Cell {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match (column.kind, stored) {
        (_, ValueRef::Null) => Cell::Null,
        (_, ValueRef::Integer(number)) => Cell::Int(number),
        (Kind::Bytes, ValueRef::Text(bytes) | ValueRef::Blob(bytes)) => Cell::Bytes(bytes.to_vec()),
        (Kind::Time | Kind::Moment, ValueRef::Text(bytes)) => {
            text(bytes).replacen(' ', "T", 1).parse().map_or(Cell::Null, Cell::Time)
        }
        (_, ValueRef::Text(bytes) | ValueRef::Blob(bytes)) => Cell::Text(text(bytes)),
        (_, ValueRef::Real(number)) => Cell::Text(number.to_string()),
    }
}

/// What others do with the file, and what the disk lacks, passes; so does a table that is not made yet.
fn failed(shown: &str, error: rusqlite::Error) -> Error {
    let kind = match error.sqlite_error_code() {
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::DiskFull
            | ErrorCode::SystemIoFailure
            | ErrorCode::ReadOnly
            | ErrorCode::CannotOpen
            | ErrorCode::PermissionDenied
            | ErrorCode::SchemaChanged
            | ErrorCode::FileLockingProtocolFailed,
        ) => ErrorKind::Unready,
        _ if error.to_string().starts_with("no such table") => ErrorKind::Unready,
        _ => ErrorKind::Backend,
    };
    Error::new(kind, format!("{shown}: {error}"))
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sqlite({})", self.shown)
    }
}
