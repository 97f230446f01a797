//! Scalars that are moments (yaml/resolver.py, yaml/constructor.py `construct_yaml_timestamp`).

use std::sync::LazyLock;

use jiff::{civil, tz::Offset};
use regex::{Captures, Regex};

use super::super::{DateTime, Value};

/// What PyYAML's constructor takes; its resolver wants two digits for month and day where no time follows.
static FORM: LazyLock<Regex> = LazyLock::new(|| {
    let form = concat!(
        r"^(?<year>[0-9]{4})-(?<month>[0-9]{1,2})-(?<day>[0-9]{1,2})",
        r"(?:(?:[Tt]|[ \t]+)(?<hour>[0-9]{1,2}):(?<minute>[0-9]{2}):(?<second>[0-9]{2})(?:\.(?<fraction>[0-9]*))?",
        r"(?:[ \t]*(?<zone>Z|(?<sign>[-+])(?<hours>[0-9]{1,2})(?::(?<minutes>[0-9]{2}))?))?)?$",
    );
    #[expect(clippy::unwrap_used, reason = "the pattern is a constant, and every test compiles it")]
    Regex::new(form).unwrap()
});

/// Whether a plain scalar is a `datetime` or `date`.
pub(super) fn is_timestamp(text: &str) -> bool {
    FORM.captures(text).is_some_and(|parts| parts.name("hour").is_some() || text.len() == "YYYY-MM-DD".len())
}

/// Reads a `datetime`, or a `date` where no time follows; `None` for another form and for a day or time that does not exist.
pub(super) fn timestamp(text: &str) -> Option<Value> {
    let parts = FORM.captures(text)?;
    let year = i16::try_from(number(&parts, "year")?).ok().filter(|year| *year > 0)?;
    let date = civil::Date::new(year, small(&parts, "month")?, small(&parts, "day")?).ok()?;
    if parts.name("hour").is_none() {
        return Some(Value::Date(date));
    }
    let nanosecond = parts.name("fraction").map_or(0, |fraction| nanoseconds(fraction.as_str()));
    let time = civil::Time::new(small(&parts, "hour")?, small(&parts, "minute")?, small(&parts, "second")?, nanosecond);
    let offset = if parts.name("zone").is_some() { Some(offset(&parts)?) } else { None };
    Some(Value::DateTime(DateTime { civil: date.to_datetime(time.ok()?), offset }))
}

/// A fraction of a second, cut to microseconds.
fn nanoseconds(fraction: &str) -> i32 {
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(6);
    digits.fold(0, |sum, digit| sum * 10 + i32::from(digit - b'0')) * 1000
}

/// The zone's offset, less than a day as Python wants it.
fn offset(parts: &Captures<'_>) -> Option<Offset> {
    let hours = number(parts, "hours").unwrap_or(0);
    let minutes = number(parts, "minutes").unwrap_or(0);
    let seconds = Some(hours * 3600 + minutes * 60).filter(|seconds| *seconds < 86_400)?;
    let negative = parts.name("sign").is_some_and(|sign| sign.as_str() == "-");
    Offset::from_seconds(if negative { -seconds } else { seconds }).ok()
}

fn number(parts: &Captures<'_>, name: &str) -> Option<i32> {
    parts.name(name)?.as_str().parse().ok()
}

fn small(parts: &Captures<'_>, name: &str) -> Option<i8> {
    i8::try_from(number(parts, name)?).ok()
}
