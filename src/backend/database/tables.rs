//! Celery's tables (celery/backends/database/models.py), as SQLAlchemy creates them.

use crate::backend::sql::{Column, Creation, Kind, Table};

pub(super) const DATE_DONE: Column = Column::new("date_done", Kind::Time);

const TASKS: [Column; 6] = [
    Column::new("task_id", Kind::Text),
    Column::new("status", Kind::Text),
    Column::new("result", Kind::Bytes),
    DATE_DONE,
    Column::new("traceback", Kind::Text),
    Column::new("children", Kind::Bytes),
];

/// With `result_extended`.
const EXTENDED: [Column; 7] = [
    Column::new("name", Kind::Text),
    Column::new("args", Kind::Bytes),
    Column::new("kwargs", Kind::Bytes),
    Column::new("worker", Kind::Text),
    Column::new("retries", Kind::Int),
    Column::new("queue", Kind::Text),
    Column::new("stamps", Kind::Bytes),
];

const GROUPS: [Column; 3] = [Column::new("taskset_id", Kind::Text), Column::new("result", Kind::Bytes), DATE_DONE];

/// The table of tasks' results.
pub(super) fn tasks(is_extended: bool) -> Table {
    let mut columns = TASKS.to_vec();
    let mut definitions = "task_id VARCHAR(155), status VARCHAR(50), result {bytes}, date_done {time}, \
                           traceback TEXT, children {bytes}"
        .to_owned();
    if is_extended {
        columns.extend(EXTENDED);
        definitions += ", name VARCHAR(155), args {bytes}, kwargs {bytes}, worker VARCHAR(155), retries INTEGER, \
                        queue VARCHAR(155), stamps {bytes}";
    }
    table("celery_taskmeta", columns, "task_id_sequence", &definitions, Some(1))
}

/// The table of saved groups.
pub(super) fn groups() -> Table {
    let definitions = "taskset_id VARCHAR(155), result {bytes}, date_done {time}";
    table("celery_tasksetmeta", GROUPS.to_vec(), "taskset_id_sequence", definitions, None)
}

fn table(name: &str, columns: Vec<Column>, sequence: &'static str, definitions: &str, state: Option<usize>) -> Table {
    let key = columns[0].name;
    let index = format!("INDEX IF NOT EXISTS ix_{name}_date_done ON {name} (date_done);");
    let sqlite = definitions.replace("{bytes}", "BLOB").replace("{time}", "DATETIME");
    let postgres = definitions.replace("{bytes}", "BYTEA").replace("{time}", "TIMESTAMP WITHOUT TIME ZONE");
    let creation = Creation {
        sqlite: format!(
            "CREATE TABLE IF NOT EXISTS {name} (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, {sqlite}, UNIQUE ({key})); \
             CREATE {index}"
        ),
        postgres: format!(
            "CREATE SEQUENCE IF NOT EXISTS {sequence}; \
             CREATE TABLE {name} (id INTEGER NOT NULL, {postgres}, PRIMARY KEY (id), UNIQUE ({key})); CREATE {index}"
        ),
        plain_name: name.to_owned(),
    };
    Table { name: name.to_owned(), columns, state, sequence: Some(sequence), creation: Some(creation) }
}
