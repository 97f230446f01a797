//! [`Table`]: what a table of results has for columns, and how a row of it is written.

use crate::protocol::{DateTime, Map, State, Value, json};
use crate::{Error, ErrorKind, Result};

/// A table, and how it is written.
#[derive(Debug, Clone)]
pub(in crate::backend) struct Table {
    /// As it stands in statements.
    pub(in crate::backend) name: String,
    /// The first is the key.
    pub(in crate::backend) columns: Vec<Column>,
    /// Where the state of a task stands, if the rules of states hold.
    pub(in crate::backend) state: Option<usize>,
    /// PostgreSQL's sequence that new ids come from; `None`: the column has a default.
    pub(in crate::backend) sequence: Option<&'static str>,
    /// How it is created where it is missing; `None`: somebody else does that.
    pub(in crate::backend) creation: Option<Creation>,
}

/// How a table comes to be.
#[derive(Debug, Clone)]
pub(in crate::backend) struct Creation {
    pub(in crate::backend) sqlite: String,
    pub(in crate::backend) postgres: String,
    /// The name in SQLite's catalogue.
    pub(in crate::backend) plain_name: String,
}

/// A column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::backend) struct Column {
    pub(in crate::backend) name: &'static str,
    pub(in crate::backend) kind: Kind,
    pub(in crate::backend) keeps: Keeps,
}

/// What of a column stays when its row is written again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::backend) enum Keeps {
    Nothing,
    /// What was written first.
    First,
    /// What was given last: NULL takes the place of nothing.
    LastGiven,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::backend) enum Kind {
    Int,
    Text,
    Bytes,
    /// A time without zone, as it is on the clock.
    Time,
    /// A time that has a zone where the database knows zones (PostgreSQL), and is on the clock where it does not.
    Moment,
}

/// A value as it stands in a row.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::backend) enum Cell {
    Null,
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
    Time(DateTime),
}

/// As many as the table has columns.
pub(in crate::backend) type Row = Vec<Cell>;

impl Column {
    pub(in crate::backend) const fn new(name: &'static str, kind: Kind) -> Self {
        Column { name, kind, keeps: Keeps::Nothing }
    }

    pub(in crate::backend) const fn keeping(self, keeps: Keeps) -> Self {
        Column { keeps, ..self }
    }

    /// A value as this column takes it.
    fn cell(&self, value: Value) -> Cell {
        match (self.kind, value) {
            (_, Value::Null) => Cell::Null,
            (Kind::Int, value) => value.as_i64().map_or(Cell::Null, Cell::Int),
            (Kind::Bytes, Value::Bytes(bytes)) => Cell::Bytes(bytes),
            (Kind::Bytes, Value::String(text)) => Cell::Bytes(text.into_bytes()),
            (Kind::Time | Kind::Moment, Value::DateTime(moment)) => Cell::Time(moment),
            (Kind::Time | Kind::Moment, Value::String(text)) => text.parse().map_or(Cell::Null, Cell::Time),
            (Kind::Text, Value::String(text)) => Cell::Text(text),
            (Kind::Text, Value::Bytes(bytes)) => Cell::Text(String::from_utf8_lossy(&bytes).into_owned()),
            _ => Cell::Null,
        }
    }
}

impl Table {
    pub(in crate::backend) fn key(&self) -> &Column {
        &self.columns[0]
    }

    /// The row whose columns stand in a JSON text.
    pub(in crate::backend) fn row_of(&self, payload: &[u8]) -> Result<Row> {
        let is_none = || Error::new(ErrorKind::Decode, "a result to store has not the form of a row");
        Ok(self.row(json::parse(payload)?.into_map().ok_or_else(is_none)?))
    }

    /// The row whose columns a map holds under their names; what is missing is NULL.
    pub(in crate::backend) fn row(&self, mut map: Map) -> Row {
        self.columns.iter().map(|column| column.cell(map.remove(column.name).unwrap_or_default())).collect()
    }

    /// A row's columns under their names.
    pub(in crate::backend) fn map(&self, row: Row) -> Map {
        let named = self.columns.iter().zip(row);
        named.map(|(column, cell)| (column.name.to_owned(), Value::from(cell))).collect()
    }

    /// What a row becomes when another of the same key is written over it.
    pub(in crate::backend) fn over(&self, before: &Row, mut after: Row) -> Row {
        for ((column, before), after) in self.columns.iter().zip(before).zip(&mut after) {
            match column.keeps {
                Keeps::First => *after = before.clone(),
                Keeps::LastGiven if *after == Cell::Null => *after = before.clone(),
                Keeps::LastGiven | Keeps::Nothing => {}
            }
        }
        after
    }

    /// The state that a row tells of.
    pub(in crate::backend) fn state_of(&self, row: &Row) -> Option<State> {
        match &row[self.state?] {
            Cell::Text(state) => Some(State::from(state.as_str())),
            _ => None,
        }
    }
}

impl From<Cell> for Value {
    fn from(cell: Cell) -> Self {
        match cell {
            Cell::Null => Value::Null,
            Cell::Int(number) => Value::Int(number),
            Cell::Text(text) => Value::String(text),
            Cell::Bytes(bytes) => Value::Bytes(bytes),
            Cell::Time(moment) => Value::DateTime(moment),
        }
    }
}
