//! Tables of results in SQLite and PostgreSQL: rows as values, and one statement or transaction for a batch of them.
//!
//! What the columns mean is said by [`Table`]s, which `database` and `django` make. The state rules are part of the statement that writes, so that nothing is read first and
//! whoever else writes the row at the same time is heeded.

mod encryption;
mod exchange;
mod postgres;
mod rounds;
mod sqlite;
mod statements;
mod table;
mod url;

use std::fmt;

use async_trait::async_trait;

pub(super) use exchange::{Changes, Exchange};
pub(super) use postgres::Postgres;
pub(super) use sqlite::Sqlite;
pub(super) use table::{Cell, Column, Creation, Keeps, Kind, Row, Table};
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

    /// Reads rows and writes what is decided from them, in one transaction: nobody else writes what was locked meanwhile.
    /// One exchange at a time, and on PostgreSQL nothing else beside it: the caller sees to that.
    ///
    /// # Errors
    /// As [`write`](Self::write), or what `decide` says; nothing is written then, unless a lost connection hides that it is.
    async fn exchange(&self, exchange: Exchange) -> Result<()>;
}
