//! ISO 8601, as `dateutil.parser.isoparse` (which reads `eta` and `expires`) and `datetime.fromisoformat` (which reads
//! Kombu's `__type__` envelopes) take it.

use jiff::civil::{self, ISOWeekDate, Weekday};
use jiff::{ToSpan, tz::Offset};

use super::{DateTime, Time};

/// Reads a date, and after any one character a time, and an offset; `None` if the text is nothing of the kind.
pub(super) fn datetime(text: &str) -> Option<DateTime> {
    let (date, rest) = date(text)?;
    if rest.is_empty() {
        return Some(DateTime { civil: date.to_datetime(civil::Time::midnight()), offset: None });
    }
    let mut rest = rest.chars();
    rest.next().filter(|separator| !separator.is_ascii_digit())?;
    let rest = rest.as_str();
    // Midnight at a day's end, which only `isoparse` takes.
    let (rest, next_day) = match rest.strip_prefix("24") {
        Some(after) => (format!("00{after}"), true),
        None => (rest.to_owned(), false),
    };
    let Time { civil: time, offset } = self::time(&rest)?;
    if next_day && time != civil::Time::midnight() {
        return None;
    }
    let date = if next_day { date.checked_add(1.day()).ok().filter(in_pythons_range)? } else { date };
    Some(DateTime { civil: date.to_datetime(time), offset })
}

/// Reads a date and gives what follows it.
fn date(text: &str) -> Option<(civil::Date, &str)> {
    let (year, rest) = digits(text, 4)?;
    let year = i16::try_from(year).ok()?;
    let (extended, after) = match rest.strip_prefix('-') {
        Some(after) => (true, after),
        None => (false, rest),
    };
    let found = if let Some(week) = after.strip_prefix('W') {
        week_date(year, week, extended)?
    } else {
        match (digit_run(after), extended) {
            (3, _) => ordinal_date(year, after)?,
            (2, true) => month_and_day(year, after)?,
            (4, false) => {
                let (month, rest) = digits(after, 2)?;
                let (day, rest) = digits(rest, 2)?;
                (civil_date(year, month, day)?, rest)
            }
            (0, false) => (civil_date(year, 1, 1)?, rest),
            _ => return None,
        }
    };
    Some(found).filter(|(date, _)| in_pythons_range(date))
}

fn in_pythons_range(date: &civil::Date) -> bool {
    (1..=9999).contains(&date.year())
}

/// `MM` or `MM-DD`, after `YYYY-`.
fn month_and_day(year: i16, text: &str) -> Option<(civil::Date, &str)> {
    let (month, rest) = digits(text, 2)?;
    match rest.strip_prefix('-') {
        Some(rest) if digit_run(rest) == 2 => {
            let (day, rest) = digits(rest, 2)?;
            Some((civil_date(year, month, day)?, rest))
        }
        _ => Some((civil_date(year, month, 1)?, rest)),
    }
}

/// `ww`, `ww-D` or `wwD`, after `YYYY-W` or `YYYYW`.
fn week_date(year: i16, text: &str, extended: bool) -> Option<(civil::Date, &str)> {
    let (week, rest) = digits(text, 2)?;
    let day = if extended { rest.strip_prefix('-').unwrap_or("") } else { rest };
    let (day, rest) = if digit_run(day) == 1 { digits(day, 1)? } else { (1, rest) };
    let weekday = Weekday::from_monday_one_offset(i8::try_from(day).ok()?).ok()?;
    Some((ISOWeekDate::new(year, i8::try_from(week).ok()?, weekday).ok()?.date(), rest))
}

/// The day of the year, after `YYYY-` or `YYYY`.
fn ordinal_date(year: i16, text: &str) -> Option<(civil::Date, &str)> {
    let (day, rest) = digits(text, 3)?;
    let first = civil_date(year, 1, 1)?;
    Some((first.with().day_of_year(i16::try_from(day).ok()?).build().ok()?, rest))
}

fn civil_date(year: i16, month: u32, day: u32) -> Option<civil::Date> {
    civil::Date::new(year, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()
}

/// Reads `hh[:mm[:ss[.fff]]]`, with or without the colons, and an offset.
pub(super) fn time(text: &str) -> Option<Time> {
    let (hour, rest) = digits(text, 2)?;
    let colon = rest.starts_with(':');
    let (minute, rest) = next_part(rest, colon)?;
    let (second, rest) = if minute.is_some() { next_part(rest, colon)? } else { (None, rest) };
    let (nanosecond, rest) = if second.is_some() { fraction(rest)? } else { (0, rest) };
    let part = |number: u32| i8::try_from(number).ok();
    let (minute, second) = (part(minute.unwrap_or(0))?, part(second.unwrap_or(0))?);
    let civil = civil::Time::new(part(hour)?, minute, second, nanosecond).ok()?;
    Some(Time { civil, offset: offset(rest)? })
}

/// Two more digits, after a colon if the first part was followed by one; the inner `None` is the end of the parts.
fn next_part(text: &str, colon: bool) -> Option<(Option<u32>, &str)> {
    let rest = if colon { text.strip_prefix(':') } else { Some(text).filter(|text| digit_run(text) > 0) };
    match rest {
        Some(rest) => digits(rest, 2).map(|(number, rest)| (Some(number), rest)),
        None => Some((None, text)),
    }
}

/// A fraction of a second in nanoseconds, cut to six digits.
fn fraction(text: &str) -> Option<(i32, &str)> {
    let Some(rest) = text.strip_prefix(['.', ',']) else { return Some((0, text)) };
    let length = digit_run(rest);
    let (shown, rest) = rest.split_at(length);
    let microsecond =
        shown.bytes().chain(std::iter::repeat(b'0')).take(6).fold(0, |sum, digit| sum * 10 + i32::from(digit - b'0'));
    (length > 0).then_some((microsecond * 1000, rest))
}

/// The whole rest as an offset: nothing, `Z`, `+hh`, `+hhmm`, `+hh:mm` or `+hh:mm:ss`.
fn offset(text: &str) -> Option<Option<Offset>> {
    if text.is_empty() {
        return Some(None);
    }
    if matches!(text, "Z" | "z") {
        return Some(Some(Offset::UTC));
    }
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let (hours, rest) = digits(text.strip_prefix(['+', '-'])?, 2)?;
    let colon = rest.starts_with(':');
    let (minutes, rest) = next_part(rest, colon)?;
    let (seconds, rest) = if minutes.is_some() { next_part(rest, colon)? } else { (None, rest) };
    let (minutes, seconds) = (minutes.unwrap_or(0), seconds.unwrap_or(0));
    if !rest.is_empty() || hours > 23 || minutes > 59 || seconds > 59 {
        return None;
    }
    let seconds = i32::try_from(hours * 3600 + minutes * 60 + seconds).ok()?;
    Offset::from_seconds(sign * seconds).ok().map(Some)
}

/// How many ASCII digits the text begins with.
fn digit_run(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

/// The number that `count` digits make, and what follows.
fn digits(text: &str, count: usize) -> Option<(u32, &str)> {
    let (number, rest) = text.split_at_checked(count)?;
    let number = number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok())??;
    Some((number, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_forms() {
        let check = |text: &str, expected: &str| {
            let read = datetime(text).map(|datetime| datetime.to_string());
            assert_eq!(read.as_deref(), Some(expected), "{text}");
        };
        check("2026-11-22T18:40:00Z", "2026-11-22T18:40:00+00:00");
        check("2026-11-22T18:40:00+02:00", "2026-11-22T18:40:00+02:00");
        check("2026-11-22T18:40:00-0230", "2026-11-22T18:40:00-02:30");
        check("2026-11-22T18:40:00+02", "2026-11-22T18:40:00+02:00");
        check("2026-11-22", "2026-11-22T00:00:00");
        check("20261122T184000", "2026-11-22T18:40:00");
        check("20261122T184000.5Z", "2026-11-22T18:40:00.500000+00:00");
        check("2026-11-22 18:40", "2026-11-22T18:40:00");
        check("2026-11-22T18", "2026-11-22T18:00:00");
        check("2026-11-22T18:40:00.123456789", "2026-11-22T18:40:00.123456");
        check("2026-11-22T18:40:00,5", "2026-11-22T18:40:00.500000");
        check("2026", "2026-01-01T00:00:00");
        check("2026-11", "2026-11-01T00:00:00");
        check("2026-W47-7", "2026-11-22T00:00:00");
        check("2026W477", "2026-11-22T00:00:00");
        check("2026-W47", "2026-11-16T00:00:00");
        check("2026-326T01:00", "2026-11-22T01:00:00");
        check("2026-11-22T24:00", "2026-11-23T00:00:00");
        check("0001-01-01T00:00:00", "0001-01-01T00:00:00");
    }

    #[test]
    fn refused_forms() {
        let texts = "|x|2026-13-01|2026-02-30|2026-11-22T|2026-11-22T25:00|2026-11-22T24:01|2026-11-22T18:4|0000-01-01\
                     |2026-11-22T18:40:00+24:00|2026-11-22T18:40:00+02:0|2026-11-22T18:40:00.|2026-11-22T18:40Zjunk|202611\
                     |9999-12-31T24:00|2026-366|é026-11-22|2026-11-22T1é:00|12345678901234567890|2026-W54-1|2026-11-2209:00";
        for text in texts.split('|') {
            assert_eq!(datetime(text), None, "{text}");
        }
    }
}
