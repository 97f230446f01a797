//! Schedules beside Celery's own: random ones at random instants, and a year of a crowded schedule. Beat's ticks beside those
//! of Celery's.
//!
//! `CELERIAC_SEED` names the seed, which each failure prints, and `CELERIAC_CASES` how many times as many cases there are.
//! The tests with Celery say so and pass where it is not installed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "schedule/grammar.rs"]
mod grammar;
#[path = "schedule/judge.rs"]
mod judge;
#[path = "schedule/random.rs"]
mod random;
#[path = "schedule/solar.rs"]
mod solar;
#[path = "schedule/ticks.rs"]
mod ticks;
#[path = "schedule/triples.rs"]
mod triples;
#[path = "schedule/year.rs"]
mod year;

/// The seed of this run.
fn seed() -> u64 {
    std::env::var("CELERIAC_SEED").map_or(20_261_128, |seed| seed.parse().expect("CELERIAC_SEED is a number"))
}

/// So many cases, or as many times as many as `CELERIAC_CASES` says.
fn cases(count: usize) -> usize {
    count * std::env::var("CELERIAC_CASES").map_or(1, |times| times.parse().expect("CELERIAC_CASES is a number"))
}
