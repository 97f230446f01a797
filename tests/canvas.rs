//! Every canvas in `protocol-fixtures/canvas/` becomes the messages, group saves, chord sizes and results that stock Celery
//! made of it.

#[path = "canvas/builders.rs"]
mod builders;
#[path = "canvas/compare.rs"]
mod compare;
#[path = "canvas/record.rs"]
mod record;
#[path = "canvas/replay.rs"]
mod replay;

use compare::Comparison;
use record::{Row, rows};

/// Canvases that are meant to become something else than with Celery, and why.
const DEVIATIONS: &[(&str, &str)] =
    &[("failed-chord", "the body of a body that is a chord fails too; Celery leaves its result pending for ever")];

fn check(version: &str, kind: &str, least: usize, deviations: &[(&str, &str)]) {
    let rows: Vec<Row> = rows(version).into_iter().filter(|row| row.kind == kind).collect();
    assert!(rows.len() >= least, "{} canvases of the kind {kind} are recorded from {version}", rows.len());
    let mut problems = Vec::new();
    for row in rows {
        let planned = replay::replay(&row);
        let found = Comparison::new(&row).compare(&row.done(), &planned);
        let meant = deviations.iter().any(|(case, _)| *case == row.case);
        match (found, meant) {
            (Err(difference), false) => problems.push(format!("{}: {}\n   {difference}", row.case, row.sig)),
            (Ok(()), true) => problems.push(format!("{}: is no deviation any more", row.case)),
            _ => {}
        }
    }
    assert!(problems.is_empty(), "Celery {version}: {} differ\n{}", problems.len(), problems.join("\n"));
}

#[test]
fn what_a_producer_sends_is_what_celery_sends() {
    check("5.7", "sent", 130, DEVIATIONS);
}

#[test]
fn what_follows_a_task_is_what_celery_makes_follow() {
    check("5.7", "run", 50, DEVIATIONS);
}

#[test]
fn what_becomes_of_a_chords_body_is_what_celery_makes_of_it() {
    check("5.7", "chord", 20, DEVIATIONS);
}
