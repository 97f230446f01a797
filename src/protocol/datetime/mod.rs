//! [`DateTime`] and [`Time`]: Python's `datetime.datetime` and `datetime.time`, naive or aware.

mod parse;

use std::fmt;
use std::str::FromStr;

use jiff::{Timestamp, Zoned, civil, tz::Offset};

use crate::{Error, ErrorKind, Result};

/// A Python `datetime.datetime`: a civil time and, if it is aware, its offset from UTC.
///
/// As text it is what Python's `isoformat()` writes; read from text, it takes every form of ISO 8601 that
/// `dateutil.parser.isoparse` and `datetime.fromisoformat` take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DateTime {
    /// Year to microsecond as written.
    pub civil: civil::DateTime,
    /// The offset from UTC; `None` for a naive value.
    pub offset: Option<Offset>,
}

/// A Python `datetime.time`: a time of day and, if it is aware, its offset from UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Time {
    /// Hour to microsecond as written.
    pub civil: civil::Time,
    /// The offset from UTC; `None` for a naive value.
    pub offset: Option<Offset>,
}

impl DateTime {
    /// A `timestamp` as a clock shows it that is `offset` from UTC.
    pub fn at(timestamp: Timestamp, offset: Offset) -> Self {
        DateTime { civil: to_microseconds(offset.to_datetime(timestamp)), offset: Some(offset) }
    }

    /// The moment; a naive value is read as UTC, as Celery reads an `eta` (celery/utils/time.py `maybe_make_aware`).
    /// A moment before year -9999 or after 9999 in UTC is an error of kind [`ErrorKind::Decode`].
    pub fn timestamp(&self) -> Result<Timestamp> {
        let offset = self.offset.unwrap_or(Offset::UTC);
        offset.to_timestamp(self.civil).map_err(|cause| {
            Error::new(ErrorKind::Decode, format!("the date {self} is out of range")).with_source(cause)
        })
    }

    /// Appends what Python's `isoformat()` writes: `2026-11-22T16:07:42.089562+00:00`.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        write_date(out, self.civil.date());
        out.push(b'T');
        write_time(out, self.civil.time());
        write_offset(out, self.offset);
    }
}

impl Time {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        write_time(out, self.civil);
        write_offset(out, self.offset);
    }
}

fn to_microseconds(datetime: civil::DateTime) -> civil::DateTime {
    let below = datetime.subsec_nanosecond() % 1000;
    datetime.with().subsec_nanosecond(datetime.subsec_nanosecond() - below).build().unwrap_or(datetime)
}

/// Appends `YYYY-MM-DD`.
pub(crate) fn write_date(out: &mut Vec<u8>, date: civil::Date) {
    let year = date.year().unsigned_abs();
    write_two(out, year / 100);
    write_two(out, year % 100);
    for part in [date.month(), date.day()] {
        out.push(b'-');
        write_two(out, part.unsigned_abs().into());
    }
}

fn write_time(out: &mut Vec<u8>, time: civil::Time) {
    write_two(out, time.hour().unsigned_abs().into());
    for part in [time.minute(), time.second()] {
        out.push(b':');
        write_two(out, part.unsigned_abs().into());
    }
    let microsecond = time.subsec_nanosecond().unsigned_abs() / 1000;
    if microsecond != 0 {
        out.push(b'.');
        for part in [microsecond / 10_000, microsecond / 100 % 100, microsecond % 100] {
            write_two(out, part as u16);
        }
    }
}

fn write_offset(out: &mut Vec<u8>, offset: Option<Offset>) {
    let Some(offset) = offset else { return };
    let seconds = offset.seconds();
    out.push(if seconds < 0 { b'-' } else { b'+' });
    let seconds = seconds.unsigned_abs();
    write_two(out, (seconds / 3600) as u16);
    out.push(b':');
    write_two(out, (seconds / 60 % 60) as u16);
    if seconds % 60 != 0 {
        out.push(b':');
        write_two(out, (seconds % 60) as u16);
    }
}

fn write_two(out: &mut Vec<u8>, number: u16) {
    out.push(b'0' + (number / 10 % 10) as u8);
    out.push(b'0' + (number % 10) as u8);
}

/// What `write` appends, as text.
pub(crate) fn text_of(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::with_capacity(32);
    write(&mut out);
    String::from_utf8_lossy(&out).into_owned()
}

impl fmt::Display for DateTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&text_of(|out| self.write(out)))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&text_of(|out| self.write(out)))
    }
}

fn unreadable(what: &str, text: &str) -> Error {
    let shown: String = text.chars().take(64).collect();
    Error::new(ErrorKind::Decode, format!("not an ISO 8601 {what}: {shown:?}"))
}

impl FromStr for DateTime {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse::datetime(text).ok_or_else(|| unreadable("date and time", text))
    }
}

impl FromStr for Time {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse::time(text).ok_or_else(|| unreadable("time", text))
    }
}

/// An aware value in UTC, cut to microseconds as Python's are.
impl From<Timestamp> for DateTime {
    fn from(timestamp: Timestamp) -> Self {
        DateTime::at(timestamp, Offset::UTC)
    }
}

/// An aware value in the zone's offset at that moment.
impl From<&Zoned> for DateTime {
    fn from(zoned: &Zoned) -> Self {
        DateTime::at(zoned.timestamp(), zoned.offset())
    }
}

/// A naive value.
impl From<civil::DateTime> for DateTime {
    fn from(datetime: civil::DateTime) -> Self {
        DateTime { civil: to_microseconds(datetime), offset: None }
    }
}

/// A naive value.
impl From<civil::Time> for Time {
    fn from(time: civil::Time) -> Self {
        Time { civil: time, offset: None }
    }
}

impl TryFrom<DateTime> for Timestamp {
    type Error = Error;

    fn try_from(datetime: DateTime) -> Result<Timestamp> {
        datetime.timestamp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_isoformats() {
        let check = |text: &str| assert_eq!(text.parse::<DateTime>().unwrap().to_string(), text);
        check("2026-11-22T16:07:42.089562+00:00");
        check("2026-11-22T16:07:42");
        check("0001-01-01T00:00:00.000001");
        check("9999-12-31T23:59:59.999999-23:59");
        check("1890-01-01T00:00:00+00:53:28");
        assert_eq!("12:30:00.500000+02:00".parse::<Time>().unwrap().to_string(), "12:30:00.500000+02:00");
    }

    #[test]
    fn moments() {
        let check = |text: &str, expected: Option<&str>| {
            let moment = text.parse::<DateTime>().unwrap().timestamp().ok().map(|moment| moment.to_string());
            assert_eq!(moment.as_deref(), expected, "{text}");
        };
        check("2026-11-22T16:00:00", Some("2026-11-22T16:00:00Z"));
        check("2026-11-22T16:00:00+02:00", Some("2026-11-22T14:00:00Z"));
        check("9999-12-31T23:59:59", None);
        check("9999-12-31T23:59:59-10:00", None);
    }

    #[test]
    fn nanoseconds_are_cut() {
        let moment: Timestamp = "1960-01-01T00:00:00.123456789Z".parse().unwrap();
        assert_eq!(DateTime::from(moment).to_string(), "1960-01-01T00:00:00.123456+00:00");
    }
}
