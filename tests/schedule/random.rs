//! Random schedules and instants, dense where clocks change, months end and leap days come.

use celeriac::schedule::{Cronspec, Field, Fields};
use fastrand::Rng;
use jiff::civil::date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// Of every kind: changes by an hour, half an hour, two hours and a day, at midnight and at one minute past it, summer time
/// that is the standard, Ramadan, no changes at all.
pub(crate) const ZONES: [&str; 24] = [
    "UTC",
    "Europe/Berlin",
    "Europe/London",
    "Europe/Dublin",
    "Europe/Moscow",
    "America/New_York",
    "America/Los_Angeles",
    "America/Havana",
    "America/Sao_Paulo",
    "America/Santiago",
    "America/St_Johns",
    "America/Caracas",
    "America/Nuuk",
    "Africa/Casablanca",
    "Africa/Cairo",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Asia/Tehran",
    "Asia/Gaza",
    "Asia/Pyongyang",
    "Australia/Lord_Howe",
    "Australia/Sydney",
    "Antarctica/Troll",
    "Pacific/Apia",
];

/// A zone and the instants at which its clocks change.
pub(crate) struct Zone {
    pub(crate) name: &'static str,
    pub(crate) zone: TimeZone,
    pub(crate) changes: Vec<Timestamp>,
}

impl Zone {
    pub(crate) fn new(name: &'static str) -> Zone {
        let zone = TimeZone::get(name).expect("the machine knows the zone");
        let (from, until) = (utc(1970, 1, 2), utc(2090, 1, 1));
        let changes = zone.following(from).map(|change| change.timestamp()).take_while(|at| *at < until).collect();
        Zone { name, zone, changes }
    }

    /// An instant of the years 1970 to 2090.
    pub(crate) fn instant(&self, rng: &mut Rng) -> Timestamp {
        let near = match rng.u8(0..10) {
            0..6 if !self.changes.is_empty() => self.changes[rng.usize(0..self.changes.len())],
            0..8 => {
                let (year, month) = (rng.i16(1971..2090), rng.i8(1..=12));
                let month = if rng.u8(0..3) == 0 { 2 } else { month };
                let end = date(year, month, 1).last_of_month().at(rng.i8(22..24), 0, 0, 0);
                self.zone.to_timestamp(end).expect("it is in range")
            }
            _ => Timestamp::from_second(rng.i64(86400..utc(2090, 1, 1).as_second())).expect("it is in range"),
        };
        round(
            near + SignedDuration::from_micros(rng.i64(-3 * 3600..=3 * 3600) * 1_000_000 + rng.i64(0..1_000_000)),
            rng,
        )
    }
}

fn utc(year: i16, month: i8, day: i8) -> Timestamp {
    TimeZone::UTC.to_timestamp(date(year, month, day).at(0, 0, 0, 0)).expect("it is in range")
}

/// To the minute, to the second or not at all.
fn round(instant: Timestamp, rng: &mut Rng) -> Timestamp {
    let unit = [60_000_000, 1_000_000, 1][rng.usize(0..3)];
    Timestamp::from_microsecond(instant.as_microsecond() / unit * unit).expect("it is in range")
}

/// Something between a microsecond and some years, and sometimes nothing or a little less.
pub(crate) fn gap(rng: &mut Rng) -> SignedDuration {
    const UNITS: [i64; 7] =
        [1, 1_000_000, 60_000_000, 3_600_000_000, 86_400_000_000, 2_592_000_000_000, 31_536_000_000_000];
    match rng.u8(0..12) {
        0 => SignedDuration::ZERO,
        1 => SignedDuration::from_micros(-rng.i64(0..7_200_000_000)),
        _ => SignedDuration::from_micros(rng.i64(1..70) * UNITS[rng.usize(0..7)].min(31_536_000_000_000 / 20)),
    }
}

/// Fields that have to do with what clocks show at `near`, often enough.
pub(crate) fn fields(near: jiff::civil::DateTime, rng: &mut Rng) -> Fields {
    let mut fields = Fields {
        minute: spec(Field::Minute, near.minute(), 3, rng),
        hour: spec(Field::Hour, near.hour(), 4, rng),
        ..Fields::default()
    };
    if rng.bool() {
        fields.day_of_week = spec(Field::DayOfWeek, near.weekday().to_sunday_zero_offset(), 5, rng);
        fields.day_of_month = spec(Field::DayOfMonth, near.day(), 5, rng);
        fields.month_of_year = spec(Field::MonthOfYear, near.month(), 5, rng);
    }
    fields
}

/// `*` in so many of ten cases, and something around `near` in half of the others.
fn spec(field: Field, near: i8, stars: u8, rng: &mut Rng) -> Cronspec {
    let (min, max) = (i64::from(*field.range().start()), i64::from(*field.range().end()));
    if rng.u8(0..10) < stars {
        return Cronspec::default();
    }
    let around = |rng: &mut Rng| (i64::from(near) + rng.i64(-2..=2)).clamp(min, max);
    let any = |rng: &mut Rng| if rng.bool() { around(rng) } else { rng.i64(min..=max) };
    match rng.u8(0..9) {
        0 => Cronspec::Number(any(rng)),
        1 => Cronspec::Numbers((0..rng.u8(1..5)).map(|_| any(rng)).collect()),
        2 => format!("*/{}", rng.i64(1..=max)).into(),
        3 => format!("{}-{}", any(rng), any(rng)).into(),
        4 => format!("{}-{}/{}", any(rng), any(rng), rng.u8(1..8)).into(),
        5 => format!("{},{}-{},*/{}", any(rng), any(rng), any(rng), rng.u8(7..20)).into(),
        6 => format!("{},{}", any(rng), any(rng)).into(),
        _ => any(rng).to_string().into(),
    }
}

/// A text that is nearly in Celery's grammar, and often enough in it.
pub(crate) fn text(rng: &mut Rng) -> String {
    const PIECES: [&str; 40] = [
        "*",
        "*/",
        "/",
        "-",
        ",",
        "0",
        "1",
        "2",
        "5",
        "7",
        "07",
        "12",
        "23",
        "31",
        "59",
        "60",
        "99",
        " ",
        "+",
        "_",
        "x",
        "\n",
        "\t",
        "'",
        "sun",
        "MON",
        "tuesday",
        "wed",
        "fri",
        "Sat",
        "jan",
        "Feb",
        "march",
        "may",
        "aug",
        "nov",
        "dec",
        "1-5",
        "*/3",
        "9999999999999999999",
    ];
    let pieces = rng.usize(0..6);
    let mut text: String = (0..pieces).map(|_| PIECES[rng.usize(0..PIECES.len())]).collect();
    if rng.bool() {
        let number = |rng: &mut Rng| PIECES[[5, 6, 7, 8, 10, 11, 12, 24, 25, 30, 31][rng.usize(0..11)]];
        text = format!("{}-{}", number(rng), number(rng)) + ["", "/2", "/7", "/", "/x", " ", ",3"][rng.usize(0..7)];
    }
    text
}
