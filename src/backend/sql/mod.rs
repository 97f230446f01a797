//! Tables of results in SQLite and PostgreSQL: rows as values, and one statement or transaction for a batch of them.
//!
//! What the columns mean is said by [`Table`]s, which `database` makes. The state rules are part of the statement that writes, so that nothing is read first and
//! whoever else writes the row at the same time is heeded.

mod postgres;
mod rounds;
mod sqlite;
mod statements;
mod table;
mod url;

use std::fmt;

use async_trait::async_trait;

pub(super) use postgres::Postgres;
pub(super) use sqlite::Sqlite;
pub(super) use table::{Cell, Column, Creation, Kind, Row, Table};
pub(super) use url::DatabaseUrl;

use crate::Result;

/// A database that holds tables of results.
#[async_trait]
pub(super) trait Database: Send + Sync + fmt::Debug {
    /// The address without the password.
    fn shown(&self) -> &str;

    /// What log lines name it.
    fn service(&self) -> &'static str;

    /// Connects, if it is not connected.
    async fn prepare(&self) -> Result<()>;

    /// Writes rows in their order, each as its table's rules allow. Doing it twice is harmless.
    ///
    /// # Errors
    /// [`can_pass`](crate::Error::can_pass) when trying again can help.
    async fn write(&self, table: &Table, rows: Vec<Row>) -> Result<()>;

    /// The rows that have these keys, in any order.
    async fn read(&self, table: &Table, keys: &[&str]) -> Result<Vec<Row>>;

    /// Deletes the row that has this key.
    async fn delete(&self, table: &Table, key: &str) -> Result<()>;

    /// Deletes the rows whose time in `column` lies before `time`.
    async fn delete_before(&self, table: &Table, column: &Column, time: Cell) -> Result<()>;
}
