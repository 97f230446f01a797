//! [`Crontab`]: `crontab` of `celery/schedules.py`.
//!
//! The next run is the next wall time that the fields allow, in the crontab's zone, and all five fields must allow it:
//! a day of the month and a day of the week are both meant, unlike in cron. It is computed as Celery computes it, from
//! the last run: a wall time first, and then its instant. Where clocks are set forward, a run in the time that they leave
//! out is late by as much (02:30 runs at 03:30, one time), and what else lies in that time and is not at its beginning
//! is left out.
//!
//! # Where it is meant to differ
//!
//! Where clocks are set back, Celery 5.7 runs nothing in the time that comes twice while it comes again: what runs every
//! minute pauses for an hour. And when the last run lies there (beat was started then) it takes the first occurrence
//! of a later wall time, which is past, for the next run, so that it sends without pause until the hour is over. Here the
//! next run is always later than the last one, and
//!
//! - a crontab of all 24 hours runs in both occurrences, so that its runs stay as far apart as ever;
//! - any other runs in the first occurrence alone, as with Celery: 02:30 is once a day.
//!
//! An empty list for a field is refused at once and not at the first look; digits are ASCII's; the years end after 9999
//! with an error of other words.

use std::fmt;
use std::time::Duration;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::cronspec::{Cronspec, Field, Set};
use super::fault::{self, Fault};
use super::wall::{self, Fold};
use super::{Due, Rules};
use crate::error::Result;

/// A time of the day, the week, the month and the year, in minutes.
///
/// ```
/// use celeriac::schedule::{Crontab, Rules};
///
/// let crontab = Crontab::parse("30 4 * * mon-fri")?;
/// let rules = Rules { zone: jiff::tz::TimeZone::get("Europe/Berlin")?, ..Rules::default() };
/// let friday = "2026-11-27T03:30:00Z".parse()?;
/// let monday: jiff::Timestamp = "2026-11-30T03:30:00Z".parse()?;
/// assert_eq!(crontab.next_run(friday, &rules)?, monday);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Crontab {
    given: Fields,
    minute: Set,
    hour: Set,
    day_of_week: Set,
    day_of_month: Set,
    month_of_year: Set,
    zone: Option<TimeZone>,
}

/// The fields of a crontab under Celery's names; each is `*` by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields {
    /// Minutes of an hour, 0 to 59.
    pub minute: Cronspec,
    /// Hours of a day, 0 to 23.
    pub hour: Cronspec,
    /// Days of a week, 0 to 6 from Sunday on.
    pub day_of_week: Cronspec,
    /// Days of a month, 1 to 31.
    pub day_of_month: Cronspec,
    /// Months of a year, 1 to 12.
    pub month_of_year: Cronspec,
}

/// The same times in the same zone, however they are written.
impl PartialEq for Crontab {
    fn eq(&self, other: &Self) -> bool {
        let sets = |c: &Crontab| (c.minute, c.hour, c.day_of_week, c.day_of_month, c.month_of_year);
        sets(self) == sets(other) && self.zone == other.zone
    }
}

impl Eq for Crontab {}

/// As Celery's `repr`: `<crontab: 30 4 * * mon-fri (m/h/dM/MY/d)>`.
impl fmt::Display for Crontab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fields { minute, hour, day_of_week, day_of_month, month_of_year } = &self.given;
        write!(f, "<crontab: {minute} {hour} {day_of_month} {month_of_year} {day_of_week} (m/h/dM/MY/d)>")
    }
}

impl Crontab {
    /// A crontab of these fields, in the zone of the app.
    ///
    /// # Errors
    ///
    /// A field is not in Celery's grammar or holds what its range does not, or no day of the month exists in any of the
    /// months. [`exception`](super::exception) tells what Celery would raise.
    pub fn new(fields: Fields) -> Result<Self> {
        let fault = |fault| fault::failed(format!("read the crontab {}", shown(&fields)), fault);
        // In Celery's order, which decides what is told where several are wrong.
        let hour = fields.hour.expand(Field::Hour).map_err(fault)?;
        let minute = fields.minute.expand(Field::Minute).map_err(fault)?;
        let day_of_week = fields.day_of_week.expand(Field::DayOfWeek).map_err(fault)?;
        let day_of_month = fields.day_of_month.expand(Field::DayOfMonth).map_err(fault)?;
        let month_of_year = fields.month_of_year.expand(Field::MonthOfYear).map_err(fault)?;
        if !month_of_year.numbers().any(|month| day_of_month.first() <= longest(month)) {
            let (days, months) = (fields.day_of_month.repr(), fields.month_of_year.repr());
            let words = format!("Invalid crontab: day_of_month {days} never occurs in month_of_year {months}.");
            return Err(fault(Fault::Value(words)));
        }
        Ok(Crontab { given: fields, minute, hour, day_of_week, day_of_month, month_of_year, zone: None })
    }

    /// `crontab.from_string`: minute, hour, day of the month, month and day of the week, one blank between each.
    ///
    /// # Errors
    ///
    /// As [`Crontab::new`]; and there are more or fewer than five fields.
    pub fn parse(text: &str) -> Result<Self> {
        let fields: Vec<&str> = text.split(' ').collect();
        let [minute, hour, day_of_month, month_of_year, day_of_week] = fields[..] else {
            let words = match fields.len() {
                ..5 => format!("not enough values to unpack (expected 5, got {})", fields.len()),
                _ => "too many values to unpack (expected 5)".to_owned(),
            };
            return Err(fault::failed(format!("read the crontab `{text}`"), Fault::Value(words)));
        };
        Crontab::new(Fields {
            minute: minute.into(),
            hour: hour.into(),
            day_of_week: day_of_week.into(),
            day_of_month: day_of_month.into(),
            month_of_year: month_of_year.into(),
        })
    }

    /// The same in a zone of its own, whatever the app's: django-celery-beat's `TzAwareCrontab`.
    #[must_use]
    pub fn in_zone(mut self, zone: TimeZone) -> Self {
        self.zone = Some(zone);
        self
    }

    /// What was given for each field.
    pub fn fields(&self) -> &Fields {
        &self.given
    }

    /// The instant of the first run after `last_run_at`, which is later than that: `now` and `remaining_estimate`
    /// together.
    ///
    /// # Errors
    ///
    /// It would be after the year 9999.
    pub fn next_run(&self, last_run_at: Timestamp, rules: &Rules) -> Result<Timestamp> {
        let zone = self.zone.as_ref().unwrap_or(&rules.zone);
        let last_wall = zone.to_datetime(last_run_at);
        let mut wall = self.next_wall(last_wall)?;
        let mut next = wall::instant(zone, wall, Fold::First)?;
        // Later by the clocks and yet no later: they were set back, and `last_run_at` is in the second occurrence.
        while next <= last_run_at {
            wall = self.next_wall(wall)?;
            next = wall::instant(zone, wall, Fold::First)?;
        }
        // Most runs are close together, and nothing comes twice between them.
        let is_plain = wall.duration_since(last_wall) == last_run_at.duration_until(next)
            && last_run_at.duration_until(next) <= SignedDuration::from_hours(1)
            && !zone.to_ambiguous_timestamp(last_wall).is_ambiguous();
        if is_plain || !self.hour.is_all(Field::Hour) {
            return Ok(next);
        }
        Ok(self.in_second_occurrence(last_run_at, next, zone)?.unwrap_or(next))
    }

    /// `remaining_delta`: the next wall time that the fields allow after `last_run_at`, which is one too.
    ///
    /// # Errors
    ///
    /// It would be after the year 9999.
    pub fn next_wall(&self, last_run_at: DateTime) -> Result<DateTime> {
        let (date, hour, minute) = (last_run_at.date(), last_run_at.hour(), last_run_at.minute());
        if self.allows(date) {
            let later = self.minute.after(minute).filter(|_| self.hour.contains(hour));
            if let Some(minute) = later {
                return Ok(date.at(hour, minute, 0, 0));
            }
            if let Some(hour) = self.hour.after(hour) {
                return Ok(date.at(hour, self.minute.first(), 0, 0));
            }
        }
        Ok(self.next_date(date)?.at(self.hour.first(), self.minute.first(), 0, 0))
    }

    /// Whether it is due, and when to look again. Where a deadline is set and no run lies between it and now, what was
    /// missed is not made up for.
    pub(super) fn is_due(&self, last_run_at: Timestamp, now: Timestamp, rules: &Rules) -> Result<Due> {
        let next = self.next_run(last_run_at, rules)?;
        if next > now {
            return Ok(Due::not_for(now.duration_until(next)));
        }
        let is_missed = match rules.cron_starting_deadline {
            Some(deadline) if next < now => self.has_passed(deadline, now, rules)?,
            _ => false,
        };
        let again = now.duration_until(self.next_run(now, rules)?);
        Ok(if is_missed { Due::not_for(again) } else { Due::again_in(again) })
    }

    /// Whether no run lies within the deadline before `now`. One that is exactly at its beginning does.
    fn has_passed(&self, deadline: Duration, now: Timestamp, rules: &Rules) -> Result<bool> {
        let deadline = SignedDuration::try_from(deadline).unwrap_or(SignedDuration::MAX);
        let since = deadline.saturating_add(SignedDuration::from_micros(1));
        let Ok(since) = now.checked_sub(since) else { return Ok(false) };
        Ok(self.next_run(since, rules)? > now)
    }

    /// The first run between `last_run_at` and `next` that lies where clocks show a time for the second time.
    fn in_second_occurrence(
        &self,
        last_run_at: Timestamp,
        next: Timestamp,
        zone: &TimeZone,
    ) -> Result<Option<Timestamp>> {
        for repeat in wall::repeats(zone, last_run_at, next) {
            let mut wall = repeat.offset.to_datetime(repeat.start.max(last_run_at));
            if last_run_at < repeat.start {
                // The first minute of the stretch counts as well.
                wall = wall::moved(wall, SignedDuration::from_nanos(-1))?;
            }
            let found = wall::at_offset(repeat.offset, self.next_wall(wall)?)?;
            if found < repeat.end {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn allows(&self, date: Date) -> bool {
        self.month_of_year.contains(date.month())
            && self.day_of_month.contains(date.day())
            && self.day_of_week.contains(date.weekday().to_sunday_zero_offset())
    }

    /// The first date after `last` that the fields allow.
    fn next_date(&self, last: Date) -> Result<Date> {
        let mut first = last.tomorrow().ok();
        while let Some(from) = first {
            let rest_of_month = from.series(jiff::Span::new().days(1)).take_while(|date| date.month() == from.month());
            let is_allowed_month = self.month_of_year.contains(from.month());
            if let Some(found) = rest_of_month.filter(|_| is_allowed_month).find(|date| self.allows(*date)) {
                return Ok(found);
            }
            first = from.last_of_month().tomorrow().ok();
        }
        let words = "unable to rollover, time specification is probably invalid".to_owned();
        Err(fault::failed(format!("find the next run of {self}"), Fault::Runtime(words)))
    }
}

/// How many days the month has in a leap year.
fn longest(month: i8) -> i8 {
    match month {
        2 => 29,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn shown(fields: &Fields) -> String {
    let Fields { minute, hour, day_of_week, day_of_month, month_of_year } = fields;
    format!("`{minute} {hour} {day_of_month} {month_of_year} {day_of_week}`")
}
