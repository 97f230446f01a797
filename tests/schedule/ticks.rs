//! Some days of beat beside Celery's `Scheduler.tick`, both with clocks that stand still but for what they wait.

use std::collections::BTreeMap;
use std::time::Duration;

use celeriac::beat::{Entry, Kept, Run, Scheduler, Step};
use celeriac::protocol::Signature;
use celeriac::schedule::{Crontab, Interval, Rules, Schedule};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::judge::{Answer, ask};

const MAX_INTERVAL: Duration = Duration::from_secs(300);
const DEADLINE: u64 = 7200;

/// A schedule under its name, and how many seconds before the start it ran last.
enum Planned {
    Crontab(&'static str, i64),
    Interval { seconds: i64, relative: bool, last: i64 },
}

const ENTRIES: [Planned; 16] = [
    Planned::Crontab("*/5 * * * *", 0),
    Planned::Crontab("0 * * * *", 0),
    Planned::Crontab("30 2 * * *", 86400),
    Planned::Crontab("15,45 1-3 * * *", 0),
    Planned::Crontab("0 0 * * sun", 86400 * 30),
    // Missed an hour ago, and a day ago: the deadline lets only the first be made up for.
    Planned::Crontab("0 21 * * *", 86400),
    Planned::Crontab("0 10 * * *", 86400 * 3),
    Planned::Crontab("59 23 31 12 *", 0),
    Planned::Interval { seconds: 450, relative: false, last: 0 },
    Planned::Interval { seconds: 3600, relative: false, last: 1800 },
    Planned::Interval { seconds: 7000, relative: false, last: 100_000 },
    Planned::Interval { seconds: 86400, relative: false, last: 80_000 },
    Planned::Interval { seconds: 3600, relative: true, last: 0 },
    Planned::Interval { seconds: 600, relative: true, last: 10_000 },
    Planned::Interval { seconds: 86400, relative: true, last: 3600 },
    Planned::Interval { seconds: 200_000, relative: false, last: 0 },
];

impl Planned {
    fn schedule(&self) -> Schedule {
        match *self {
            Planned::Crontab(line, _) => Crontab::parse(line).unwrap().into(),
            Planned::Interval { seconds, relative, .. } => {
                Interval { every: SignedDuration::from_secs(seconds), relative }.into()
            }
        }
    }

    fn last(&self, start: Timestamp) -> Timestamp {
        let (Planned::Crontab(_, last) | Planned::Interval { last, .. }) = *self;
        start - SignedDuration::from_secs(last)
    }

    fn question(&self, start: Timestamp) -> Value {
        let last = self.last(start).as_microsecond();
        match *self {
            Planned::Crontab(line, _) => {
                let fields: Vec<&str> = line.split(' ').collect();
                let [minute, hour, day, month, weekday] = fields[..] else { panic!("five fields") };
                json!({"fields": [minute, hour, weekday, day, month], "last": last})
            }
            Planned::Interval { seconds, relative, .. } => {
                json!({"every": seconds * 1_000_000, "relative": relative, "last": last})
            }
        }
    }
}

/// What was sent, and when, for each name.
type Sent = BTreeMap<String, Vec<Timestamp>>;

fn ours(zone: &TimeZone, start: Timestamp, until: Timestamp) -> Sent {
    let entry = |(at, planned): (usize, &Planned)| Entry {
        name: name(at),
        schedule: planned.schedule(),
        signature: Signature::new("task"),
    };
    let entries = ENTRIES.iter().enumerate().map(entry).collect();
    let run = |planned: &Planned| Run { last_run_at: planned.last(start), total_run_count: 0 };
    let kept: Kept = ENTRIES.iter().enumerate().map(|(at, planned)| (name(at), run(planned))).collect();
    let rules = Rules { zone: zone.clone(), cron_starting_deadline: Some(Duration::from_secs(DEADLINE)) };
    let mut scheduler = Scheduler::new(entries, kept, rules, MAX_INTERVAL, start);
    let (mut now, mut sent) = (start, Sent::new());
    while now < until {
        match scheduler.tick(now) {
            Step::Send(sending) => sent.entry(sending.name).or_default().push(now),
            Step::Wait(wait) => now += SignedDuration::try_from(wait).unwrap(),
        }
    }
    sent
}

fn name(at: usize) -> String {
    format!("entry {at}")
}

fn celerys(answer: &Value) -> Sent {
    let mut sent = Sent::new();
    for pair in answer.as_array().unwrap() {
        let at = Timestamp::from_microsecond(pair[1].as_i64().unwrap()).unwrap();
        sent.entry(pair[0].as_str().unwrap().to_owned()).or_default().push(at);
    }
    sent
}

#[test]
fn beat_sends_what_celerys_beat_would_send() {
    // Some days in which clocks are set forward, and ordinary ones; both end between the minutes.
    let spans = [
        ("Europe/Berlin", "2026-03-27T21:00:07Z", "2026-03-30T05:02:30Z"),
        ("America/New_York", "2026-06-30T02:00:00Z", "2026-07-02T01:01:30Z"),
    ];
    let utc = |text: &str| text.parse::<Timestamp>().unwrap();
    let question = |(zone, start, until): &(&str, &str, &str)| {
        let entries: serde_json::Map<String, Value> =
            ENTRIES.iter().enumerate().map(|(at, planned)| (name(at), planned.question(utc(start)))).collect();
        json!({
            "ask": "ticks",
            "zone": zone,
            "start": utc(start).as_microsecond(),
            "until": utc(until).as_microsecond(),
            "entries": entries,
            "deadline": DEADLINE,
            "max_interval": MAX_INTERVAL.as_secs(),
        })
    };
    let Some(answers) = ask(spans.iter().map(question).collect()) else { return };
    for ((zone, start, until), answer) in spans.into_iter().zip(answers) {
        let Answer::Gave(answer) = answer else { panic!("{answer:?}") };
        let (celerys, ours) = (celerys(&answer), ours(&TimeZone::get(zone).unwrap(), utc(start), utc(until)));
        let counts = |sent: &Sent| sent.iter().map(|(name, at)| (name.clone(), at.len())).collect::<Vec<_>>();
        assert_eq!(counts(&ours), counts(&celerys), "{zone}");
        for (name, ours) in ours {
            for (at, (ours, celerys)) in ours.iter().zip(&celerys[&name]).enumerate() {
                // Celery's is up to a millisecond late each time, and intervals count from there.
                let late = ours.duration_until(*celerys);
                let most = SignedDuration::from_millis(2 + at as i64);
                assert!(!late.is_negative() && late <= most, "{zone}, {name}, run {at}: {ours}, {celerys}");
            }
        }
    }
}
