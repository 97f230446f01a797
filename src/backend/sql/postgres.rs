//! [`Postgres`]: a PostgreSQL server. One connection, over which the batches under way side by side are sent one behind
//! the other; a lost one is made again by whoever needs it next.

use std::error::Error as _;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config};

use super::encryption::{Encryption, may_do_otherwise};
use super::exchange::Exchange;
use super::rounds::rounds;
use super::table::{Cell, Column, Kind, Row, Table};
use super::{Database, statements};
use crate::{Error, ErrorKind, Result};

/// A database on a PostgreSQL server.
pub(in crate::backend) struct Postgres {
    shown: String,
    server: Server,
    /// How long an answer may take before the connection counts as lost.
    patience: Option<Duration>,
    /// What is created where it is missing.
    tables: Vec<Table>,
    client: Mutex<Option<Arc<Client>>>,
}

/// Where a server is, and how it is spoken to.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) config: Config,
    pub(super) encryption: Encryption,
    /// How long it may take until it has accepted a connection; `None`: for ever.
    pub(super) limit: Option<Duration>,
}

type Parameters = Vec<(Box<dyn ToSql + Sync + Send>, Type)>;

impl Postgres {
    pub(super) fn new(shown: String, server: Server, patience: Option<Duration>, tables: Vec<Table>) -> Self {
        Postgres { shown, server, patience, tables, client: Mutex::new(None) }
    }

    /// The connection, made anew if there is none that lives.
    async fn client(&self) -> Result<Arc<Client>> {
        let mut client = self.client.lock().await;
        if let Some(client) = client.as_ref().filter(|client| !client.is_closed()) {
            return Ok(client.clone());
        }
        *client = None;
        let new = Arc::new(self.connect().await?);
        self.create(&new).await?;
        *client = Some(new.clone());
        Ok(new)
    }

    /// A new connection, within the time that there is for one.
    async fn connect(&self) -> Result<Client> {
        let Some(limit) = self.server.limit else { return self.connect_at_last().await };
        timeout(limit, self.connect_at_last()).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Connection, format!("{}: not connected within {limit:?}", self.shown)))
        })
    }

    /// Tries what `sslmode` lets be tried.
    async fn connect_at_last(&self) -> Result<Client> {
        // Files that were there when the worker began may be again.
        let unready = |error: Error| Error::new(ErrorKind::Unready, format!("{}: {error}", self.shown));
        let connector = self.server.encryption.connector().map_err(unready)?;
        let mut tries = self.server.encryption.tries().iter().peekable();
        while let Some(mode) = tries.next() {
            let mut config = self.server.config.clone();
            match config.ssl_mode(*mode).connect(connector.clone()).await {
                Ok((client, connection)) => {
                    let shown = self.shown.clone();
                    tokio::spawn(async move {
                        if let Err(error) = connection.await {
                            tracing::debug!("the connection to {shown} has ended: {error}");
                        }
                    });
                    return Ok(client);
                }
                Err(error) if tries.peek().is_some() && may_do_otherwise(&error) => {
                    tracing::debug!("{}: trying otherwise after: {}", self.shown, text(&error));
                }
                Err(error) => return Err(self.failed(&error)),
            }
        }
        Err(Error::new(ErrorKind::Connection, format!("{}: nothing was tried", self.shown)))
    }

    async fn create(&self, client: &Client) -> Result<()> {
        for table in &self.tables {
            let Some(creation) = &table.creation else { continue };
            let known = self.rows(client, COLUMNS, &[(&table.name, Type::TEXT)]).await?;
            let known: Vec<String> = known.iter().filter_map(|row| row.try_get(0).ok()).collect();
            let statements = match known.is_empty() {
                true => creation.postgres.clone(),
                false => table
                    .columns
                    .iter()
                    .filter(|column| !known.iter().any(|name| name == column.name))
                    .map(|column| format!("ALTER TABLE {} ADD {} {};", table.name, column.name, sql_type(column.kind)))
                    .collect(),
            };
            if !statements.is_empty() {
                // Somebody else may do it at the same time: then it is there the next time.
                self.answered(client.batch_execute(&statements)).await?.map_err(|error| match error.code() {
                    Some(&(SqlState::UNIQUE_VIOLATION | SqlState::DUPLICATE_TABLE | SqlState::DUPLICATE_COLUMN)) => {
                        Error::new(ErrorKind::Unready, format!("{}: {}", self.shown, text(&error)))
                    }
                    _ => self.failed(&error),
                })?;
            }
        }
        Ok(())
    }

    async fn rows(
        &self,
        client: &Client,
        statement: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<tokio_postgres::Row>> {
        self.answered(client.query_typed(statement, parameters)).await?.map_err(|error| self.failed(&error))
    }

    /// What the server says, unless it says nothing for too long.
    async fn answered<T>(&self, request: impl Future<Output = T>) -> Result<T> {
        let Some(patience) = self.patience else { return Ok(request.await) };
        timeout(patience, request)
            .await
            .map_err(|_| Error::new(ErrorKind::Connection, format!("{}: no answer for {patience:?}", self.shown)))
    }

    async fn query(&self, statement: &str, parameters: &Parameters) -> Result<Vec<tokio_postgres::Row>> {
        let client = self.client().await?;
        self.ask(&client, statement, parameters).await
    }

    async fn ask(
        &self,
        client: &Arc<Client>,
        statement: &str,
        parameters: &Parameters,
    ) -> Result<Vec<tokio_postgres::Row>> {
        let parameters: Vec<(&(dyn ToSql + Sync), Type)> =
            parameters.iter().map(|(value, kind)| (&**value as &(dyn ToSql + Sync), kind.clone())).collect();
        let answer = self.rows(client, statement, &parameters).await;
        if answer.as_ref().is_err_and(Error::is_connection) {
            // One that does not answer is not used again, though its socket may be open.
            let mut kept = self.client.lock().await;
            if kept.as_ref().is_some_and(|kept| Arc::ptr_eq(kept, client)) {
                *kept = None;
            }
        }
        answer
    }

    /// What the server lacks for now passes, and so do its restarts, and a table or database that is not made yet.
    fn failed(&self, error: &tokio_postgres::Error) -> Error {
        let kind = match error.code().map(SqlState::code) {
            Some(code) if code.starts_with("08") || code.starts_with("57P") => ErrorKind::Connection,
            Some(code) if code.starts_with("28") => ErrorKind::Authentication,
            Some("3D000" | "42P01" | "25006" | "55P03" | "58030" | "42501") => ErrorKind::Unready,
            Some(code) if code.starts_with("53") || code.starts_with("40") => ErrorKind::Unready,
            Some(_) => ErrorKind::Backend,
            None => ErrorKind::Connection,
        };
        // In its words for SQLite, whatever language the server speaks.
        let missing = if error.code() == Some(&SqlState::UNDEFINED_TABLE) { "no such table: " } else { "" };
        Error::new(kind, format!("{}: {missing}{}", self.shown, text(error)))
    }
}

/// The columns of a table that a name in a statement means.
const COLUMNS: &str =
    "SELECT attname::text FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped";

fn sql_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Int => "INTEGER",
        Kind::Text => "TEXT",
        Kind::Bytes => "BYTEA",
        Kind::Time => "TIMESTAMP WITHOUT TIME ZONE",
        Kind::Moment => "TIMESTAMP WITH TIME ZONE",
    }
}

/// The library's own text says only in which layer it was.
fn text(error: &tokio_postgres::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| source.to_string())
}

#[async_trait]
impl Database for Postgres {
    fn shown(&self) -> &str {
        &self.shown
    }

    fn service(&self) -> &'static str {
        "PostgreSQL"
    }

    async fn prepare(&self) -> Result<()> {
        self.client().await.map(|_| ())
    }

    async fn write(&self, table: &Table, rows: Vec<Row>) -> Result<()> {
        let statement = statements::postgres_write(table);
        for round in rounds(table, rows) {
            if !round.is_empty() {
                self.query(&statement, &arrays(table, round)).await?;
            }
        }
        Ok(())
    }

    async fn read(&self, table: &Table, keys: &[&str]) -> Result<Vec<Row>> {
        let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        let client = self.client().await?;
        self.found(&client, &statements::postgres_read(table), table, &keys).await
    }

    async fn delete(&self, table: &Table, key: &str) -> Result<()> {
        let parameters: Parameters = vec![(Box::new(key.to_owned()), Type::TEXT)];
        self.query(&statements::delete(table, "$1"), &parameters).await.map(|_| ())
    }

    async fn delete_before(&self, table: &Table, column: &Column, time: Cell) -> Result<()> {
        let statement = statements::delete_before(table, column, statements::postgres_time(column));
        let parameters: Parameters = vec![(Box::new(shown(time)), Type::TEXT)];
        self.query(&statement, &parameters).await.map(|_| ())
    }

    async fn exchange(&self, exchange: Exchange) -> Result<()> {
        // All of it over this connection: over another it would be no transaction.
        let client = self.client().await?;
        let none = Vec::new();
        // What an exchange that was given up has left is undone first.
        self.ask(&client, "ROLLBACK", &none).await?;
        self.ask(&client, "BEGIN", &none).await?;
        let done = self.exchanged(&client, exchange).await;
        self.ask(&client, if done.is_ok() { "COMMIT" } else { "ROLLBACK" }, &none).await.and(done)
    }
}

impl Postgres {
    async fn exchanged(&self, client: &Arc<Client>, exchange: Exchange) -> Result<()> {
        let Exchange { locked, seen, decide } = exchange;
        let locked = self.found(client, &statements::postgres_lock(&locked.0), &locked.0, &locked.1).await?;
        let seen = self.found(client, &statements::postgres_read(&seen.0), &seen.0, &seen.1).await?;
        let changes = decide(locked, seen)?;
        for (table, rows) in changes.stored {
            for round in rounds(&table, rows).into_iter().filter(|round| !round.is_empty()) {
                self.ask(client, &statements::postgres_write(&table), &arrays(&table, round)).await?;
            }
        }
        for (table, rows) in changes.changed {
            self.ask(client, &statements::postgres_change(&table), &arrays(&table, rows)).await?;
        }
        for (table, key) in changes.deleted {
            let key: Parameters = vec![(Box::new(key), Type::TEXT)];
            self.ask(client, &statements::delete(&table, "$1"), &key).await?;
        }
        Ok(())
    }

    async fn found(&self, client: &Arc<Client>, statement: &str, table: &Table, keys: &[String]) -> Result<Vec<Row>> {
        // No row has a key with NUL, and the server would refuse to look.
        let keys = keys.iter().filter(|key| !key.contains('\0')).cloned().collect::<Vec<String>>();
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let parameters: Parameters = vec![(Box::new(keys), Type::TEXT_ARRAY)];
        let found = self.ask(client, statement, &parameters).await?;
        found
            .iter()
            .map(|row| table.columns.iter().enumerate().map(|(at, column)| self.cell(column, row, at)).collect())
            .collect()
    }

    fn cell(&self, column: &Column, row: &tokio_postgres::Row, at: usize) -> Result<Cell> {
        let found = match column.kind {
            Kind::Int => row.try_get::<_, Option<i64>>(at).map(|number| number.map_or(Cell::Null, Cell::Int)),
            Kind::Bytes => row.try_get::<_, Option<Vec<u8>>>(at).map(|bytes| bytes.map_or(Cell::Null, Cell::Bytes)),
            Kind::Text => row.try_get::<_, Option<String>>(at).map(|text| text.map_or(Cell::Null, Cell::Text)),
            Kind::Time | Kind::Moment => row
                .try_get::<_, Option<String>>(at)
                .map(|text| text.and_then(|text| text.parse().ok()).map_or(Cell::Null, Cell::Time)),
        };
        found.map_err(|error| self.failed(&error))
    }
}

/// Rows as one array for each column.
fn arrays(table: &Table, rows: Vec<Row>) -> Parameters {
    let mut columns: Vec<Vec<Cell>> = table.columns.iter().map(|_| Vec::with_capacity(rows.len())).collect();
    for row in rows {
        columns.iter_mut().zip(row).for_each(|(column, cell)| column.push(cell));
    }
    let array = |(column, cells): (&Column, Vec<Cell>)| -> (Box<dyn ToSql + Sync + Send>, Type) {
        match column.kind {
            Kind::Int => (Box::new(cells.into_iter().map(number).collect::<Vec<_>>()), Type::INT8_ARRAY),
            Kind::Bytes => (Box::new(cells.into_iter().map(bytes).collect::<Vec<_>>()), Type::BYTEA_ARRAY),
            _ => (Box::new(cells.into_iter().map(shown).collect::<Vec<_>>()), Type::TEXT_ARRAY),
        }
    };
    table.columns.iter().zip(columns).map(array).collect()
}

fn number(cell: Cell) -> Option<i64> {
    match cell {
        Cell::Int(number) => Some(number),
        _ => None,
    }
}

fn bytes(cell: Cell) -> Option<Vec<u8>> {
    match cell {
        Cell::Bytes(bytes) => Some(bytes),
        _ => None,
    }
}

/// A time with its offset. PostgreSQL's text has no NUL.
fn shown(cell: Cell) -> Option<String> {
    match cell {
        Cell::Text(text) if text.contains('\0') => Some(text.replace('\0', "\u{fffd}")),
        Cell::Text(text) => Some(text),
        Cell::Time(moment) => Some(moment.to_string()),
        _ => None,
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Postgres({})", self.shown)
    }
}
