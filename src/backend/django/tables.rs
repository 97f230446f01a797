//! The tables of django-celery-results (django_celery_results/models.py). Its migrations create them, and nothing here does.

use crate::backend::sql::{Column, Keeps, Kind, Table};

pub(super) const DATE_DONE: Column = Column::new("date_done", Kind::Moment);

const DATE_CREATED: Column = Column::new("date_created", Kind::Moment).keeping(Keeps::First);

/// The names of what `result_extended` adds.
pub(super) const EXTENDED: [&str; 5] = ["task_name", "task_args", "task_kwargs", "worker", "periodic_task_name"];

pub(super) fn tasks() -> Table {
    let columns = vec![
        Column::new("task_id", Kind::Text),
        Column::new("status", Kind::Text),
        Column::new("result", Kind::Text),
        Column::new("traceback", Kind::Text),
        Column::new("meta", Kind::Text),
        Column::new("content_type", Kind::Text),
        Column::new("content_encoding", Kind::Text),
        Column::new("periodic_task_name", Kind::Text),
        Column::new("task_name", Kind::Text),
        Column::new("task_args", Kind::Text),
        Column::new("task_kwargs", Kind::Text),
        Column::new("worker", Kind::Text),
        DATE_CREATED,
        Column::new("date_started", Kind::Moment).keeping(Keeps::LastGiven),
        DATE_DONE,
    ];
    table("django_celery_results_taskresult", columns, Some(1))
}

/// What is asked of a member of a chord.
pub(super) fn states() -> Table {
    let columns = vec![Column::new("task_id", Kind::Text), Column::new("status", Kind::Text)];
    table("django_celery_results_taskresult", columns, Some(1))
}

pub(super) fn groups() -> Table {
    let columns = vec![
        Column::new("group_id", Kind::Text),
        Column::new("result", Kind::Text),
        Column::new("content_type", Kind::Text),
        Column::new("content_encoding", Kind::Text),
        DATE_CREATED,
        DATE_DONE,
    ];
    table("django_celery_results_groupresult", columns, None)
}

/// A chord: its members, which may be very many, and how many have not reported yet.
pub(super) fn chords() -> Table {
    let columns = vec![
        Column::new("group_id", Kind::Text),
        Column::new("sub_tasks", Kind::Text),
        Column::new("count", Kind::Int),
    ];
    table("django_celery_results_chordcounter", columns, None)
}

/// The same without the members.
pub(super) fn counts() -> Table {
    let columns = vec![Column::new("group_id", Kind::Text), Column::new("count", Kind::Int)];
    table("django_celery_results_chordcounter", columns, None)
}

fn table(name: &str, columns: Vec<Column>, state: Option<usize>) -> Table {
    Table { name: name.to_owned(), columns, state, sequence: None, creation: None }
}
