//! A year of a crowded schedule in three zones: each entry fires at the instants that Celery's rules give, and at no others.

use celeriac::schedule::{Crontab, Field, Rules, Schedule};
use fastrand::Rng;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::judge::{Answer, ask};
use crate::seed;

/// Summer time by an hour on either side of the equator, and by half an hour.
const ZONES: [&str; 3] = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"];
const START: &str = "2026-01-01T00:00:00Z";
const UNTIL: &str = "2027-01-01T00:00:00Z";
const MINUTE: SignedDuration = SignedDuration::from_mins(1);

/// What people write, and what meets the changes of clocks.
const LINES: [&str; 44] = [
    "* * * * *",
    "*/5 * * * *",
    "*/7 8-18 * * mon-fri",
    "0 * * * *",
    "30 * * * *",
    "15,45 * * * *",
    "0 */2 * * *",
    "30 */3 * * *",
    "0 0 * * *",
    "30 0 * * *",
    "0 1 * * *",
    "30 1 * * *",
    "59 1 * * *",
    "0 2 * * *",
    "15 2 * * *",
    "30 2 * * *",
    "15,45 2 * * *",
    "20,40 2 * * *",
    "*/20 1-3 * * *",
    "45 1,2 * * *",
    "30 2,3 * * *",
    "0 3 * * *",
    "30 3 * * *",
    "0 4 * * *",
    "59 23 * * *",
    "0 0 1 * *",
    "0 12 31 * *",
    "30 2 * * sun",
    "0 2 * mar,apr,oct,nov sun",
    "*/30 1-2 * * sat-mon",
    "0 9 * * mon-fri",
    "0 9 1-7 * mon",
    "0 17 */5 * *",
    "15 10 13 * fri",
    "0 0 29 feb *",
    "0 0 29-31 * *",
    "5-59/6 22-2 * * *",
    "0 22-4/2 * * fri-sun",
    "0 0 1 jan *",
    "59 23 31 dec *",
    "10 10 10 10 *",
    "0 6 * */3 1",
    "33 13 * feb-nov/3 tue,thu",
    "1 2 3-20/4 * wed-sat",
];
/// How many more there are in each zone, of nobody's choice.
const RANDOM: usize = 40;

struct Entry {
    line: String,
    schedule: Schedule,
    /// A bit for each number: minute, hour, day, month, day of the week.
    sets: [u64; 5],
}

impl Entry {
    fn new(line: String) -> Entry {
        let fields: Vec<&str> = line.split(' ').collect();
        let order = [Field::Minute, Field::Hour, Field::DayOfMonth, Field::MonthOfYear, Field::DayOfWeek];
        let bits = |numbers: Vec<u8>| numbers.into_iter().fold(0, |bits, number| bits | 1 << number);
        let sets = std::array::from_fn(|at| bits(order[at].parse(fields[at]).unwrap()));
        Entry { schedule: Crontab::parse(&line).unwrap().into(), sets, line }
    }

    fn matches(&self, shown: Shown) -> bool {
        let [minute, hour, day, month, weekday] = self.sets;
        let Shown([m, h, d, mo, wd]) = shown;
        minute & m != 0 && hour & h != 0 && day & d != 0 && month & mo != 0 && weekday & wd != 0
    }

    fn is_hourly(&self) -> bool {
        self.sets[1].count_ones() == 24
    }

    /// All fires of the year, or one more than `most`.
    fn fires(&self, zone: &TimeZone, most: usize) -> Vec<Timestamp> {
        let (rules, until) = (Rules { zone: zone.clone(), ..Rules::default() }, utc(UNTIL));
        let fires = self.schedule.fires(utc(START), &rules).map(|fire| fire.unwrap());
        fires.take_while(|fire| *fire < until).take(most.saturating_add(1)).collect()
    }
}

/// What clocks show, a bit for each of its numbers.
#[derive(Clone, Copy)]
struct Shown([u64; 5]);

impl From<DateTime> for Shown {
    fn from(wall: DateTime) -> Self {
        let weekday = wall.weekday().to_sunday_zero_offset();
        Shown([wall.minute(), wall.hour(), wall.day(), wall.month(), weekday].map(|number| 1 << number))
    }
}

fn utc(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn entries(rng: &mut Rng) -> Vec<Entry> {
    let pick = |rng: &mut Rng, choices: &[&str]| choices[rng.usize(0..choices.len())].to_owned();
    let random = |rng: &mut Rng| {
        let minute = pick(rng, &["0", "1", "29", "30", "59", "*/10", "*/15", "10-50/20", "55-5/2"]);
        let hour = pick(rng, &["0", "1", "2", "3", "23", "1-3", "23-4", "*/6", "*", "2,14"]);
        let day = pick(rng, &["*", "*", "*", "1", "25-31", "*/2", "8-14"]);
        let month = pick(rng, &["*", "*", "mar-apr", "10-11", "*/5"]);
        let weekday = pick(rng, &["*", "*", "sun", "0,6", "mon-fri/2", "thu-tue"]);
        format!("{minute} {hour} {day} {month} {weekday}")
    };
    let lines = LINES.iter().map(|line| (*line).to_owned()).chain((0..RANDOM).map(|_| random(rng)));
    lines.map(Entry::new).collect()
}

/// Looks at each minute of the year, and knows nothing of how the next one is found.
fn walk(zone: &TimeZone, entries: &[Entry]) -> Vec<Vec<Timestamp>> {
    let mut fires = vec![Vec::new(); entries.len()];
    let (mut at, mut offset, until) = (utc(START), zone.to_offset(utc(START)), utc(UNTIL));
    let mut second_until = at;
    while at + MINUTE < until {
        at += MINUTE;
        let shown = Shown::from(zone.to_datetime(at));
        let (before, after) = (offset, zone.to_offset(at));
        let change = SignedDuration::from_secs(i64::from(after.seconds() - before.seconds()));
        if change.is_negative() {
            second_until = at - change;
        }
        let is_second = at < second_until;
        for (entry, fires) in entries.iter().zip(&mut fires) {
            if change.is_positive() {
                // The first minute of those that no clock shows counts, late by as much as the clocks were set forward.
                let left_out = (0..change.as_mins()).map(|minutes| MINUTE * minutes as i32);
                let mut left_out = left_out.filter(|by| entry.matches(before.to_datetime(at + *by).into()));
                fires.extend(left_out.next().map(|by| at + by));
            }
            let counts = entry.matches(shown) && (!is_second || entry.is_hourly());
            if counts && fires.last().is_none_or(|last| *last < at) {
                fires.push(at);
            }
        }
        offset = after;
    }
    fires
}

#[test]
fn each_entry_fires_at_the_minutes_that_the_rules_give() {
    let mut total = 0;
    for name in ZONES {
        let zone = TimeZone::get(name).unwrap();
        let entries = entries(&mut Rng::with_seed(seed()));
        for (entry, expected) in entries.iter().zip(walk(&zone, &entries)) {
            let fires = entry.fires(&zone, usize::MAX);
            let differs = fires.iter().zip(&expected).find(|(ours, walked)| ours != walked);
            assert_eq!(differs, None, "seed {}, {name}, {}", seed(), entry.line);
            assert_eq!(fires.len(), expected.len(), "seed {}, {name}, {}", seed(), entry.line);
            total += fires.len();
        }
    }
    assert!(total > 1_000_000, "{total} fires are no crowd");
}

/// The same beside Celery, with a clock of its own, for what does not fire more often than this.
const SELDOM: usize = 400;

#[test]
fn each_entry_fires_when_celery_would_have_it() {
    let zones = ZONES.map(|name| (name, TimeZone::get(name).unwrap()));
    let all: Vec<(usize, Entry, Vec<Timestamp>)> = zones
        .iter()
        .enumerate()
        .flat_map(|(at, (_, zone))| {
            entries(&mut Rng::with_seed(seed())).into_iter().map(move |entry| {
                let fires = entry.fires(zone, SELDOM);
                (at, entry, fires)
            })
        })
        .filter(|(.., fires)| fires.len() <= SELDOM)
        .collect();
    assert!(all.len() > 150, "{} entries fire seldom", all.len());
    let question = |(at, entry, _): &(usize, Entry, Vec<Timestamp>)| {
        let fields: Vec<&str> = entry.line.split(' ').collect();
        let [minute, hour, day, month, weekday] = fields[..] else { panic!("five fields") };
        let (start, until) = (utc(START).as_microsecond(), utc(UNTIL).as_microsecond());
        json!({"ask": "fires", "zone": zones[*at].0, "fields": [minute, hour, weekday, day, month], "start": start, "until": until})
    };
    let Some(answers) = ask(all.iter().map(question).collect()) else { return };
    for ((at, entry, fires), answer) in all.iter().zip(answers) {
        let (name, zone) = &zones[*at];
        // What is meant to differ: the time that comes twice.
        let once = fires.iter().filter(|fire| !(entry.is_hourly() && is_second(zone, **fire)));
        let ours = once.map(|fire| fire.as_microsecond()).collect::<Vec<i64>>();
        assert_eq!(Answer::Gave(ours.into()), answer, "seed {}, {name}, {}", seed(), entry.line);
    }
}

fn is_second(zone: &TimeZone, at: Timestamp) -> bool {
    zone.to_timestamp(zone.to_datetime(at)).unwrap() != at
}
