//! The statements, as text. All names in them are ours.

use super::table::{Column, Keeps, Kind, Table};

fn names(columns: &[Column], prefix: &str) -> String {
    let names: Vec<String> = columns.iter().map(|column| format!("{prefix}{}", column.name)).collect();
    names.join(", ")
}

/// Whether a row may take the place of the one that is there: `backend::rules::overwrites` in SQL.
fn rule(table: &Table, stored: &str, incoming: &str) -> String {
    let Some(state) = table.state.map(|state| table.columns[state].name) else { return "TRUE".to_owned() };
    let (stored, incoming) = (format!("{stored}.{state}"), format!("{incoming}.{state}"));
    format!(
        "({stored} IS NULL OR NOT ({stored} = 'SUCCESS' OR ({stored} IN ('FAILURE', 'REVOKED') \
         AND {incoming} IN ('PENDING', 'RECEIVED', 'STARTED'))))"
    )
}

fn assignments(table: &Table, value: impl Fn(&Column) -> String) -> String {
    let changed = table.columns[1..].iter().filter(|column| column.keeps != Keeps::First);
    let assigned = changed.map(|column| match column.keeps {
        Keeps::LastGiven => format!("{name} = coalesce({}, {}.{name})", value(column), table.name, name = column.name),
        _ => format!("{} = {}", column.name, value(column)),
    });
    assigned.collect::<Vec<_>>().join(", ")
}

fn on_conflict(table: &Table) -> String {
    format!(
        "ON CONFLICT ({}) DO UPDATE SET {} WHERE {}",
        table.key().name,
        assignments(table, |column| format!("excluded.{}", column.name)),
        rule(table, &table.name, "excluded"),
    )
}

/// Writes one row in SQLite.
pub(super) fn sqlite_write(table: &Table) -> String {
    let marks = vec!["?"; table.columns.len()].join(", ");
    let names = names(&table.columns, "");
    format!("INSERT INTO {} ({names}) VALUES ({marks}) {}", table.name, on_conflict(table))
}

/// Writes rows in PostgreSQL, given as one array for each column. What is there is updated, so that its sequence
/// gives a number to new rows alone; what somebody inserts at the same time is updated by the conflict.
pub(super) fn postgres_write(table: &Table) -> String {
    let arrays: Vec<String> = table
        .columns
        .iter()
        .enumerate()
        .map(|(number, column)| format!("${}::{}[]", number + 1, array_of(column.kind)))
        .collect();
    let values: Vec<String> = table.columns.iter().map(|column| typed("input", column)).collect();
    let (id, next) = table
        .sequence
        .map_or((String::new(), String::new()), |sequence| ("id, ".to_owned(), format!("nextval('{sequence}'), ")));
    format!(
        "WITH input AS (SELECT * FROM unnest({arrays}) AS input ({names})), \
         updated AS (UPDATE {table} SET {set} FROM input WHERE {table}.{key} = input.{key} AND {rule}) \
         INSERT INTO {table} ({id}{names}) SELECT {next}{values} FROM input \
         WHERE NOT EXISTS (SELECT 1 FROM {table} AS known WHERE known.{key} = input.{key}) {conflict}",
        arrays = arrays.join(", "),
        names = names(&table.columns, ""),
        table = table.name,
        set = assignments(table, |column| typed("input", column)),
        key = table.key().name,
        rule = rule(table, &table.name, "input"),
        values = values.join(", "),
        conflict = on_conflict(table),
    )
}

fn array_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Int => "int8",
        Kind::Bytes => "bytea",
        Kind::Text | Kind::Time | Kind::Moment => "text",
    }
}

/// A time comes as text with its offset; where the column has no zone it is on the clock of the session's, as when
/// Python's drivers write it.
fn typed(prefix: &str, column: &Column) -> String {
    let name = format!("{prefix}.{}", column.name);
    match column.kind {
        Kind::Time => format!("{name}::timestamptz::timestamp"),
        Kind::Moment => format!("{name}::timestamptz"),
        _ => name,
    }
}

/// Reads the row of one key in SQLite.
pub(super) fn sqlite_read(table: &Table) -> String {
    format!("SELECT {} FROM {} WHERE {} = ?", names(&table.columns, ""), table.name, table.key().name)
}

/// Reads the rows of many keys in PostgreSQL.
pub(super) fn postgres_read(table: &Table) -> String {
    let columns: Vec<String> = table.columns.iter().map(readable).collect();
    format!("SELECT {} FROM {} WHERE {} = ANY($1::text[])", columns.join(", "), table.name, table.key().name)
}

fn readable(column: &Column) -> String {
    let name = column.name;
    match column.kind {
        Kind::Int => format!("{name}::int8"),
        Kind::Bytes => name.to_owned(),
        Kind::Text => format!("{name}::text"),
        Kind::Time => format!("to_char({name}, 'YYYY-MM-DD\"T\"HH24:MI:SS.US')"),
        Kind::Moment => format!("to_char({name} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"+00:00\"')"),
    }
}

/// Deletes one row; `mark` stands for its key.
pub(super) fn delete(table: &Table, mark: &str) -> String {
    format!("DELETE FROM {} WHERE {} = {mark}", table.name, table.key().name)
}

/// Deletes what is older; `time` stands for the time.
pub(super) fn delete_before(table: &Table, column: &Column, time: &str) -> String {
    format!("DELETE FROM {} WHERE {} < {time}", table.name, column.name)
}

/// The time in PostgreSQL's [`delete_before`].
pub(super) fn postgres_time(column: &Column) -> &'static str {
    match column.kind {
        Kind::Moment => "$1::text::timestamptz",
        _ => "$1::text::timestamptz::timestamp",
    }
}

/// Changes rows that are there in SQLite, each given as its columns with the key last.
pub(super) fn sqlite_change(table: &Table) -> String {
    format!("UPDATE {} SET {} WHERE {} = ?", table.name, assignments(table, |_| "?".to_owned()), table.key().name)
}

/// Changes rows that are there in PostgreSQL, given as one array for each column.
pub(super) fn postgres_change(table: &Table) -> String {
    let arrays = table.columns.iter().enumerate();
    let arrays: Vec<String> =
        arrays.map(|(number, column)| format!("${}::{}[]", number + 1, array_of(column.kind))).collect();
    format!(
        "UPDATE {table} SET {set} FROM unnest({arrays}) AS input ({names}) WHERE {table}.{key} = input.{key}",
        table = table.name,
        set = assignments(table, |column| typed("input", column)),
        arrays = arrays.join(", "),
        names = names(&table.columns, ""),
        key = table.key().name,
    )
}

/// Reads rows in PostgreSQL and keeps others from them until the transaction ends; always in one order, so that two that
/// want several wait for each other and not in a circle.
pub(super) fn postgres_lock(table: &Table) -> String {
    format!("{} ORDER BY {} FOR UPDATE", postgres_read(table), table.key().name)
}
