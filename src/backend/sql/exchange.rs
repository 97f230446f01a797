//! [`Exchange`]: a transaction that reads, decides and writes, as data.

use super::table::{Row, Table};
use crate::Result;

/// A table, and keys of rows in it.
type Keys = (Table, Vec<String>);

/// Takes the rows that were locked and those that were seen.
type Decide = Box<dyn FnOnce(Vec<Row>, Vec<Row>) -> Result<Changes> + Send>;

/// What a transaction reads, and who decides from that what it writes.
pub(in crate::backend) struct Exchange {
    /// The rows that nobody else may change meanwhile.
    pub(in crate::backend) locked: Keys,
    /// Others, read after those are locked.
    pub(in crate::backend) seen: Keys,
    /// Takes the rows that there are of both, each in any order.
    pub(in crate::backend) decide: Decide,
}

/// What a transaction writes.
#[derive(Debug, Default)]
pub(in crate::backend) struct Changes {
    /// Rows that are written as [`Database::write`](super::Database::write) does.
    pub(in crate::backend) stored: Vec<(Table, Vec<Row>)>,
    /// Rows that are there, each once, of which the table's columns are changed.
    pub(in crate::backend) changed: Vec<(Table, Vec<Row>)>,
    /// The keys of rows that are deleted.
    pub(in crate::backend) deleted: Vec<(Table, String)>,
}
