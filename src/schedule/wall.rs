//! Wall clocks: what a zone's clocks show, and which instant is meant by it.
//!
//! Python's aware datetimes are a wall time, a zone and `fold`, the occurrence that is meant of a time that comes twice
//! (PEP 495). Celery adds to wall times, which leaves `fold` at 0, and compares in UTC; so does all of [`super`].

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use crate::error::{Error, ErrorKind, Result};

/// Which occurrence of a wall time is meant where clocks are set back and show it twice. Where they are set forward and
/// never show it, [`Fold::First`] counts with the offset before the change, so that the instant lies after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fold {
    /// `fold=0`.
    First,
    /// `fold=1`.
    Second,
}

/// The instant that `wall` with `fold` is in `zone`: Python's `astimezone(utc)`.
pub(super) fn instant(zone: &TimeZone, wall: DateTime, fold: Fold) -> Result<Timestamp> {
    let offset = match (zone.to_ambiguous_timestamp(wall).offset(), fold) {
        (AmbiguousOffset::Unambiguous { offset }, _) => offset,
        (AmbiguousOffset::Gap { before, .. } | AmbiguousOffset::Fold { before, .. }, Fold::First) => before,
        (AmbiguousOffset::Gap { after, .. } | AmbiguousOffset::Fold { after, .. }, Fold::Second) => after,
    };
    at_offset(offset, wall)
}

/// The instant in which clocks with this offset show `wall`.
pub(super) fn at_offset(offset: Offset, wall: DateTime) -> Result<Timestamp> {
    offset.to_timestamp(wall).map_err(|error| out_of_range("find the instant of a wall time", error))
}

/// `wall` moved by `by`, as Python adds a `timedelta`: no change of clocks counts.
pub(super) fn moved(wall: DateTime, by: SignedDuration) -> Result<DateTime> {
    wall.checked_add(by).map_err(|error| out_of_range("move a wall time", error))
}

/// `instant` moved by `by`.
pub(super) fn later(instant: Timestamp, by: SignedDuration) -> Result<Timestamp> {
    instant.checked_add(by).map_err(|error| out_of_range("move an instant", error))
}

fn out_of_range(tried: &str, error: jiff::Error) -> Error {
    Error::new(ErrorKind::Configuration, format!("{tried}: beyond the years of the calendar")).with_source(error)
}

/// A stretch of wall time that clocks show twice, as they are set back at `start`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Repeat {
    /// The instant in which clocks are set back: the second occurrence begins.
    pub(super) start: Timestamp,
    /// The instant in which the second occurrence ends.
    pub(super) end: Timestamp,
    /// The offset during the second occurrence.
    pub(super) offset: Offset,
}

/// The stretches whose second occurrence lies in part after `from`, up to those that begin after `until`, in their order.
pub(super) fn repeats<'z>(
    zone: &'z TimeZone,
    from: Timestamp,
    until: Timestamp,
) -> impl Iterator<Item = Repeat> + use<'z> {
    // `preceding` and `following` both leave out the instant itself.
    let under_way = zone.preceding(from).next().map(|change| change.timestamp());
    let now = Some(from).filter(|from| changes_at(zone, *from));
    let ahead = zone.following(from).map(|change| change.timestamp());
    let starts = under_way.into_iter().chain(now).chain(ahead.take_while(move |start| *start <= until));
    starts.filter_map(|start| repeat(zone, start)).filter(move |repeat| repeat.end > from)
}

fn changes_at(zone: &TimeZone, instant: Timestamp) -> bool {
    before(instant).is_some_and(|before| zone.following(before).next().is_some_and(|next| next.timestamp() == instant))
}

fn repeat(zone: &TimeZone, start: Timestamp) -> Option<Repeat> {
    let (earlier, offset) = (zone.to_offset(before(start)?), zone.to_offset(start));
    let seconds = i64::from(earlier.seconds()) - i64::from(offset.seconds());
    let end = start.checked_add(SignedDuration::from_secs(seconds)).ok()?;
    (end > start).then_some(Repeat { start, end, offset })
}

fn before(instant: Timestamp) -> Option<Timestamp> {
    instant.checked_sub(SignedDuration::from_nanos(1)).ok()
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    fn berlin() -> TimeZone {
        TimeZone::get("Europe/Berlin").unwrap()
    }

    fn utc(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn what_comes_twice_and_what_never_comes() {
        let rows = [
            (date(2026, 10, 25).at(2, 30, 0, 0), Fold::First, "2026-10-25T00:30:00Z"),
            (date(2026, 10, 25).at(2, 30, 0, 0), Fold::Second, "2026-10-25T01:30:00Z"),
            (date(2026, 3, 29).at(2, 30, 0, 0), Fold::First, "2026-03-29T01:30:00Z"),
            (date(2026, 3, 29).at(2, 30, 0, 0), Fold::Second, "2026-03-29T00:30:00Z"),
            (date(2026, 7, 1).at(2, 30, 0, 0), Fold::Second, "2026-07-01T00:30:00Z"),
        ];
        for (wall, fold, expected) in rows {
            assert_eq!(instant(&berlin(), wall, fold).unwrap(), utc(expected), "{wall} {fold:?}");
        }
    }

    #[test]
    fn stretches_that_are_under_way_begin_or_follow() {
        let found =
            |from, until| repeats(&berlin(), utc(from), utc(until)).map(|repeat| repeat.start).collect::<Vec<_>>();
        let (this, next) = (utc("2026-10-25T01:00:00Z"), utc("2027-10-31T01:00:00Z"));
        let none: Vec<Timestamp> = Vec::new();
        assert_eq!(found("2026-10-25T01:59:59Z", "2026-10-26T00:00:00Z"), [this], "it is under way");
        assert_eq!(found("2026-10-25T01:00:00Z", "2026-10-26T00:00:00Z"), [this], "it begins");
        assert_eq!(found("2026-10-25T02:00:00Z", "2026-10-26T00:00:00Z"), none, "it is over");
        assert_eq!(found("2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z"), [this], "it begins at the end");
        assert_eq!(found("2026-10-25T00:00:00Z", "2026-10-25T00:59:59Z"), none, "it begins after the end");
        assert_eq!(found("2026-10-01T00:00:00Z", "2027-12-01T00:00:00Z"), [this, next], "spring is left out");
    }
}
