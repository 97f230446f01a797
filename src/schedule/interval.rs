//! [`Interval`]: `schedule` of `celery/schedules.py`, and `remaining` of `celery/utils/time.py`.

use std::fmt;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::fault::{self, Fault};
use super::wall::{self, Fold};
use super::{Due, Rules, python};
use crate::error::Result;

const MINUTE: SignedDuration = SignedDuration::from_mins(1);
const HOUR: SignedDuration = SignedDuration::from_hours(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// So long after the last run. What is not above zero is always due.
///
/// Time is what passes, not what clocks show. Several intervals that were missed make one run, and the next one is counted
/// from that.
#[derive(Debug, Clone)]
pub struct Interval {
    /// How long: in whole microseconds, as in Celery.
    pub every: SignedDuration,
    /// Whether the run is at the last full day, hour or minute before the interval is over, whichever is the largest that
    /// fits into it. Days are counted by the calendar. An interval below a minute loses its microseconds and no more.
    pub relative: bool,
}

/// Celery compares the length alone.
impl PartialEq for Interval {
    fn eq(&self, other: &Self) -> bool {
        self.every == other.every
    }
}

impl Eq for Interval {}

/// As Celery's `repr`: `<freq: 30.00 seconds>`.
impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.seconds().as_micros() as f64 / 1e6;
        write!(f, "<freq: {}>", python::humanize_seconds(seconds))
    }
}

impl Interval {
    /// An interval of this length, which is not relative.
    pub fn new(every: SignedDuration) -> Self {
        Interval { every, relative: false }
    }

    /// `timedelta(seconds=…)`: to the nearest microsecond, and of two that are as near, to the even one.
    ///
    /// # Errors
    ///
    /// It is no number or infinite, or longer than Python's 999,999,999 days.
    pub fn from_seconds(seconds: f64) -> Result<Self> {
        const LONGEST: f64 = 86400.0 * 999_999_999.0;
        // Whole seconds apart, as Python does it: their microseconds might not fit into the digits of a float.
        let micros = ((seconds - seconds.trunc()) * 1e6).round_ties_even();
        if seconds.is_nan() || seconds.abs() > LONGEST {
            let words = format!("{seconds} seconds are no timedelta");
            return Err(fault::failed("read an interval", Fault::Value(words)));
        }
        Ok(Interval::new(SignedDuration::from_secs(seconds as i64) + SignedDuration::from_micros(micros as i64)))
    }

    /// The instant at which it is due after `last_run_at`: `now` and `remaining_estimate` together. It may lie before
    /// `last_run_at`.
    ///
    /// # Errors
    ///
    /// It would be beyond the years of the calendar.
    pub fn next_run(&self, last_run_at: Timestamp, rules: &Rules) -> Result<Timestamp> {
        match self.relative {
            false => wall::later(last_run_at, self.every),
            true if self.every >= DAY => self.next_midnight(last_run_at, &rules.zone),
            true => self.next_boundary(last_run_at, &rules.zone),
        }
    }

    pub(super) fn is_due(&self, last_run_at: Timestamp, now: Timestamp, rules: &Rules) -> Result<Due> {
        let remaining = now.duration_until(self.next_run(last_run_at, rules)?);
        if remaining.is_positive() {
            return Ok(Due::not_for(remaining));
        }
        if self.relative {
            let next = now.duration_until(self.next_run(now, rules)?);
            if next.is_positive() {
                return Ok(Due::again_in(next));
            }
        }
        Ok(Due::again_in(self.seconds()))
    }

    /// Celery's `seconds`: none where the interval is negative.
    fn seconds(&self) -> SignedDuration {
        self.every.max(SignedDuration::ZERO)
    }

    /// So many calendar days on, at midnight: its first occurrence after `start`.
    fn next_midnight(&self, start: Timestamp, zone: &TimeZone) -> Result<Timestamp> {
        let end = wall::moved(zone.to_datetime(start), self.every)?;
        let first_after = occurrences(rounded(end, self.every), zone)?.into_iter().filter(|at| *at > start).min();
        first_after.map_or_else(|| wall::instant(zone, end, Fold::First), Ok)
    }

    /// The last full hour, minute or second that is not after the end of the interval; after `start`, but for seconds.
    fn next_boundary(&self, start: Timestamp, zone: &TimeZone) -> Result<Timestamp> {
        let end = wall::later(start, self.every)?;
        let end_wall = zone.to_datetime(end);
        let mut candidates = occurrences(rounded(end_wall, self.every), zone)?.to_vec();
        let last_before_end = |candidates: &[Timestamp]| candidates.iter().copied().filter(|at| *at <= end).max();
        let boundary = last_before_end(&candidates).unwrap_or(candidates[0].min(candidates[1]));
        if self.every < MINUTE || boundary > start {
            return Ok(boundary);
        }
        // Clocks were set back by a part of an hour: the next boundary by the clock and by the calendar count as well.
        let unit = if self.every >= HOUR { HOUR } else { MINUTE };
        let by_clock = wall::moved(end_wall, unit)?;
        let by_calendar = wall::moved(zone.to_datetime(start), self.every)?;
        for wall in [by_clock, by_calendar] {
            candidates.extend(occurrences(rounded(wall, self.every), zone)?);
        }
        candidates.retain(|at| *at > start);
        Ok(last_before_end(&candidates).or_else(|| candidates.iter().copied().min()).unwrap_or(end))
    }
}

/// `delta_resolution`, without microseconds.
fn rounded(wall: DateTime, every: SignedDuration) -> DateTime {
    let (date, hour, minute) = (wall.date(), wall.hour(), wall.minute());
    match every {
        _ if every >= DAY => date.at(0, 0, 0, 0),
        _ if every >= HOUR => date.at(hour, 0, 0, 0),
        _ if every >= MINUTE => date.at(hour, minute, 0, 0),
        _ => date.at(hour, minute, wall.second(), 0),
    }
}

/// `_relative_end_dates`: both occurrences of a wall time, which are the same where it comes once; one that never comes
/// is moved forward by as much as the clocks are set within a day on either side.
fn occurrences(wall: DateTime, zone: &TimeZone) -> Result<[Timestamp; 2]> {
    let one = |fold| {
        let instant = wall::instant(zone, wall, fold)?;
        if zone.to_datetime(instant) == wall {
            return Ok(instant);
        }
        let resolved = resolve_imaginary(wall, zone)?;
        // What Python adds has `fold=0`.
        if resolved > wall { wall::instant(zone, resolved, Fold::First) } else { Ok(instant) }
    };
    Ok([one(Fold::First)?, one(Fold::Second)?])
}

/// `resolve_imaginary` of dateutil.
fn resolve_imaginary(wall: DateTime, zone: &TimeZone) -> Result<DateTime> {
    let offset = |by| -> Result<i32> {
        let near = wall::moved(wall, by)?;
        let instant = wall::instant(zone, near, Fold::First)?;
        let offset = near.duration_since(zone_free(instant));
        Ok(offset.as_secs() as i32)
    };
    let change = offset(DAY)? - offset(-DAY)?;
    wall::moved(wall, SignedDuration::from_secs(i64::from(change)))
}

/// What clocks in UTC show.
fn zone_free(instant: Timestamp) -> DateTime {
    TimeZone::UTC.to_datetime(instant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_those_of_a_timedelta() {
        let rows = [
            (0.1, 100_000),
            (30.0, 30_000_000),
            (0.0000005, 0),
            (0.0000015, 2),
            (-1.5, -1_500_000),
            (1_000_000_000.000001, 1_000_000_000_000_001),
        ];
        for (seconds, micros) in rows {
            assert_eq!(
                Interval::from_seconds(seconds).unwrap().every,
                SignedDuration::from_micros(micros),
                "{seconds}"
            );
        }
        for seconds in [f64::NAN, f64::INFINITY, 1e15] {
            assert!(Interval::from_seconds(seconds).is_err(), "{seconds}");
        }
    }

    #[test]
    fn lengths_alone_are_compared_and_shown() {
        let relative = Interval { every: MINUTE, relative: true };
        assert_eq!(Interval::from_seconds(60.0).unwrap(), relative);
        assert_eq!(relative.to_string(), "<freq: 1.00 minute>");
        assert_eq!(Interval::new(-MINUTE).to_string(), "<freq: now>");
    }
}
