//! When a periodic task is due: `celery/schedules.py`, and what it takes from `celery/utils/time.py`.
//!
//! A [`Schedule`] is a value, and what is asked of it is arithmetic: the last run and the present are given to it, so
//! nothing here reads a clock or waits, and beat, a dry run and a test ask the same functions. It knows of no entries and no
//! tasks.
//!
//! Celery's datetimes are aware or naive; here instants are [`Timestamp`]s, which is what both come to: a naive datetime
//! is UTC to Celery (`maybe_make_aware`), and an aware one is converted to the zone of the schedule first. `nowfun` is the
//! argument `now`. Celery counts microseconds, and so does whoever wants its very answers; finer ones are counted with.
//!
//! Celery 5.7 is followed. 5.5 answers differently in these cases:
//!
//! - a crontab whose last run was on a day before today goes on with the next hour, and not with the next minute of that
//!   hour; a last run in another zone is not converted; a date that never comes (30 February) is found out at the first look;
//! - the deadline of crontabs is counted from the last run that was missed, found step by step;
//! - an interval across a change of clocks is longer or shorter by as much; a relative one is rounded without regard to
//!   such changes, and after a run asked for again after its whole length;
//! - `dusk_astronomical` is the Sun 18° above the horizon, and what the Sun does not do on a day is looked for on the next
//!   one only.

mod asked;
mod clocked;
mod cronspec;
mod crontab;
mod fault;
mod fires;
mod interval;
mod python;
mod solar;
mod starting;
mod wall;

use std::fmt;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

pub use asked::{Ask, Asked};
pub use clocked::Clocked;
pub use cronspec::{Cronspec, Field};
pub use crontab::{Crontab, Fields};
pub use fault::exception;
pub use fires::Fires;
pub use interval::Interval;
pub(crate) use python::humanize_seconds;
pub use solar::{Event, Solar};
pub use starting::Starting;

use crate::error::Result;

/// When a task is due, in one of Celery's ways.
#[derive(Debug, Clone, PartialEq)]
pub enum Schedule {
    /// So long after the last run.
    Interval(Interval),
    /// At times of the day, the week, the month and the year.
    Crontab(Box<Crontab>),
    /// At an event of the Sun.
    Solar(Solar),
    /// Once.
    Clocked(Clocked),
    /// As another schedule, but not before a certain time.
    Starting(Box<Starting>),
    /// When somebody else says so.
    Asked(Asked),
}

/// What Celery takes from the app's settings.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The app's zone: `timezone`, or UTC, or the machine's own zone where `enable_utc` is off.
    pub zone: TimeZone,
    /// `beat_cron_starting_deadline`: how long ago a crontab's run may be that is made up for. None: as long as it
    /// may be.
    pub cron_starting_deadline: Option<Duration>,
}

impl Default for Rules {
    fn default() -> Self {
        Rules { zone: TimeZone::UTC, cron_starting_deadline: None }
    }
}

/// Celery's `schedstate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Whether to run it now.
    pub is_due: bool,
    /// After how long to ask again: after a run that begins now, where it is due. Only what is [`Asked`] may not say.
    pub next: Option<Duration>,
}

impl Due {
    fn again_in(next: SignedDuration) -> Self {
        Due { is_due: true, next: Some(next.try_into().unwrap_or_default()) }
    }

    fn not_for(next: SignedDuration) -> Self {
        Due { is_due: false, next: Some(next.try_into().unwrap_or_default()) }
    }
}

impl Schedule {
    /// `is_due`: whether it is due at `now`, when it ran at `last_run_at`.
    ///
    /// # Errors
    ///
    /// There is no next run within the years of the calendar.
    pub fn is_due(&self, last_run_at: Timestamp, now: Timestamp, rules: &Rules) -> Result<Due> {
        match self {
            Schedule::Interval(interval) => interval.is_due(last_run_at, now, rules),
            Schedule::Crontab(crontab) => crontab.is_due(last_run_at, now, rules),
            Schedule::Solar(solar) => solar.is_due(last_run_at, now),
            Schedule::Clocked(clocked) => Ok(clocked.is_due(now)),
            Schedule::Starting(starting) => starting.is_due(last_run_at, now, rules),
            Schedule::Asked(asked) => asked.0.is_due(last_run_at),
        }
    }

    /// The instant from which on it is due, when it ran at `last_run_at`.
    ///
    /// # Errors
    ///
    /// There is none within the years of the calendar, or nobody knows: see [`Asked`].
    pub fn next_run(&self, last_run_at: Timestamp, rules: &Rules) -> Result<Timestamp> {
        match self {
            Schedule::Interval(interval) => interval.next_run(last_run_at, rules),
            Schedule::Crontab(crontab) => crontab.next_run(last_run_at, rules),
            Schedule::Solar(solar) => solar.next_run(last_run_at),
            Schedule::Clocked(clocked) => Ok(clocked.clocked_time),
            Schedule::Starting(starting) => starting.next_run(last_run_at, rules),
            Schedule::Asked(asked) => Err(fault::failed(format!("look ahead for {asked}"), unknown())),
        }
    }

    /// `remaining_estimate`: how long it is from `now` until then; negative where that is past.
    ///
    /// # Errors
    ///
    /// There is no next run within the years of the calendar.
    pub fn remaining_estimate(&self, last_run_at: Timestamp, now: Timestamp, rules: &Rules) -> Result<SignedDuration> {
        Ok(now.duration_until(self.next_run(last_run_at, rules)?))
    }

    /// The instants at which it runs after `start`, if it ran then and is never late; see [`Fires`].
    pub fn fires<'s>(&'s self, start: Timestamp, rules: &'s Rules) -> Fires<'s> {
        Fires::new(self, start, rules)
    }

    /// Whether it is known before when it is due: see [`Asked`].
    pub fn is_foreseeable(&self) -> bool {
        match self {
            Schedule::Starting(starting) => starting.schedule.is_foreseeable(),
            Schedule::Asked(_) => false,
            _ => true,
        }
    }

    /// Whether one run is all.
    fn runs_once(&self) -> bool {
        match self {
            Schedule::Starting(starting) => starting.schedule.runs_once(),
            Schedule::Clocked(_) => true,
            _ => false,
        }
    }
}

fn unknown() -> fault::Fault {
    fault::Fault::Runtime("it is asked when it is due, and about nothing else".to_owned())
}

/// As Celery's `repr`.
impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Schedule::Interval(interval) => interval.fmt(f),
            Schedule::Crontab(crontab) => crontab.fmt(f),
            Schedule::Solar(solar) => solar.fmt(f),
            Schedule::Clocked(clocked) => clocked.fmt(f),
            Schedule::Starting(starting) => starting.fmt(f),
            Schedule::Asked(asked) => asked.fmt(f),
        }
    }
}

impl From<Interval> for Schedule {
    fn from(interval: Interval) -> Self {
        Schedule::Interval(interval)
    }
}

impl From<Crontab> for Schedule {
    fn from(crontab: Crontab) -> Self {
        Schedule::Crontab(Box::new(crontab))
    }
}

impl From<Solar> for Schedule {
    fn from(solar: Solar) -> Self {
        Schedule::Solar(solar)
    }
}

impl From<Clocked> for Schedule {
    fn from(clocked: Clocked) -> Self {
        Schedule::Clocked(clocked)
    }
}

impl From<Starting> for Schedule {
    fn from(starting: Starting) -> Self {
        Schedule::Starting(Box::new(starting))
    }
}

impl From<Asked> for Schedule {
    fn from(asked: Asked) -> Self {
        Schedule::Asked(asked)
    }
}
