//! Every canvas in `protocol-fixtures/canvas/` becomes the messages, group saves, chord sizes and results that stock Celery
//! made of it.

#[path = "canvas/builders.rs"]
mod builders;
#[path = "canvas/compare.rs"]
mod compare;
#[path = "canvas/hostile.rs"]
mod hostile;
#[path = "canvas/record.rs"]
mod record;
#[path = "canvas/replay.rs"]
mod replay;

use compare::{Comparison, skeleton};
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
        let found = match version {
            "5.7" => Comparison::default().compare(&row.done(), &planned),
            _ => Comparison::default().compare(&skeleton(row.done()), &skeleton(planned)),
        };
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

/// Where Celery 5.5 and 5.3 send other tasks than 5.7, with other arguments or in another order, and what 5.7 changed.
const SINCE_OLDER: &[(&str, &str)] = &[
    ("parent-chord-unlock", "a chord's body has its header's group id since 5.6"),
    ("unlock", "a chord's body has its header's group id since 5.6"),
    ("unlock-options", "a chord's body has its header's group id since 5.6"),
    ("unlock-chains", "a chord's body has its header's group id since 5.6"),
    ("unlock-first-in-chain", "a chord's body has its header's group id since 5.6"),
    ("chain-raw-empty-groups", "an empty group at the front swallowed the chain's arguments"),
    ("group-of-chords-options", "a countdown delays a chord's header since 5.7, and did the body's only"),
    ("chord-countdown", "a countdown delays a chord's header since 5.7, and did the body's only"),
    ("run-chain-chord-links", "an errback that came over the wire failed the task that sends a chord with it"),
    ("run-member-chain-to-group", "the members of a group that ends a header's chain had its index"),
    ("run-replace-member-group", "the members of a group that replaces a header's task had its index"),
    ("run-replace-member-chord", "the members of a chord that replaces a header's task had its index"),
    ("failed-chain", "a chain had no id of its own: errbacks got null, and no FAILURE reached its last step"),
    ("failed-then-chain", "a chain had no id of its own: errbacks got null, and no FAILURE reached its last step"),
];

/// Embeds differ (5.7 takes chords apart earlier and leaves copies of bodies out), what is sent at once does not.
#[test]
fn what_older_versions_send_at_once_is_the_same() {
    for version in ["5.5", "5.3"] {
        for (kind, least) in [("sent", 120), ("run", 50), ("chord", 15)] {
            check(version, kind, least, SINCE_OLDER);
        }
    }
}
