//! Random triples of a schedule, a zone and an instant: Celery's answer is ours.

use celeriac::Result;
use celeriac::schedule::{Cronspec, Crontab, Due, Fields, Interval, Rules, Schedule};
use fastrand::Rng;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::time::Duration;

use crate::grammar::raised;
use crate::judge::{Answer, ask};
use crate::random::{self, ZONES, Zone};
use crate::{cases, seed};

/// A schedule, a zone and an instant, and what else Celery looks at.
#[derive(Debug, Clone)]
struct Case {
    zone: &'static str,
    kind: Kind,
    last: Timestamp,
    now: Timestamp,
    /// In which form Celery is given the last run: in the schedule's own zone, in another, or as naive UTC.
    form: Option<&'static str>,
    deadline: Option<u64>,
    /// Whether the zone is the crontab's own, and the app's another.
    is_own: bool,
}

#[derive(Debug, Clone)]
enum Kind {
    Crontab(Fields),
    Interval { micros: i64, relative: bool },
}

impl Case {
    fn crontab(zone: &Zone, rng: &mut Rng) -> Case {
        let mut case = Case::with(Kind::Crontab(Fields::default()), zone, rng);
        case.kind = Kind::Crontab(random::fields(zone.zone.to_datetime(case.last), rng));
        case.form = [None, None, Some("naive"), Some("UTC"), Some("America/New_York")][rng.usize(0..5)];
        case
    }

    fn interval(zone: &Zone, rng: &mut Rng) -> Case {
        const UNITS: [i64; 6] = [1, 1_000_000, 60_000_000, 3_600_000_000, 86_400_000_000, 500_000];
        let micros = rng.i64(-1..100) * UNITS[rng.usize(0..6)] + [0, 0, 1, 1_800_000_000][rng.usize(0..4)];
        let kind = Kind::Interval { micros, relative: rng.u8(0..4) > 0 };
        let mut case = Case::with(kind, zone, rng);
        if rng.bool() {
            // Close to when it is due.
            let error = SignedDuration::from_micros([0, -1, 1, 3_600_000_000][rng.usize(0..4)]);
            case.now = case.last + SignedDuration::from_micros(micros) + error;
        }
        case
    }

    fn with(kind: Kind, zone: &Zone, rng: &mut Rng) -> Case {
        let last = zone.instant(rng);
        Case {
            zone: zone.name,
            kind,
            last,
            now: last + random::gap(rng),
            form: None,
            deadline: [None, None, Some(0), Some(60), Some(3600), Some(864_000)][rng.usize(0..6)],
            is_own: rng.bool(),
        }
    }

    /// The moments after which the next run is asked for, beside the last run.
    fn after(&self) -> Vec<Timestamp> {
        let since = |seconds: u64| {
            let deadline = SignedDuration::from_secs(seconds as i64) + SignedDuration::from_micros(1);
            self.now - deadline
        };
        std::iter::once(self.now).chain(self.deadline.map(since)).collect()
    }

    fn question(&self) -> Value {
        let after: Vec<i64> = self.after().iter().map(|at| at.as_microsecond()).collect();
        let mut question = json!({
            "ask": "look",
            "zone": self.zone,
            "last": self.last.as_microsecond(),
            "now": self.now.as_microsecond(),
            "after": after,
            "form": self.form,
            "deadline": self.deadline,
        });
        match &self.kind {
            Kind::Crontab(fields) => {
                let Fields { minute, hour, day_of_week, day_of_month, month_of_year } = fields;
                question["fields"] = [minute, hour, day_of_week, day_of_month, month_of_year].map(spec).to_vec().into();
            }
            Kind::Interval { micros, relative } => {
                question["every"] = (*micros).into();
                question["relative"] = (*relative).into();
            }
        }
        question
    }

    fn schedule(&self) -> Result<Schedule> {
        match &self.kind {
            Kind::Crontab(fields) => {
                let crontab = Crontab::new(fields.clone())?;
                Ok(if self.is_own { crontab.in_zone(self.zone()) } else { crontab }.into())
            }
            Kind::Interval { micros, relative } => {
                Ok(Interval { every: SignedDuration::from_micros(*micros), relative: *relative }.into())
            }
        }
    }

    fn rules(&self) -> Rules {
        let is_own = self.is_own && matches!(self.kind, Kind::Crontab(_));
        let zone = if is_own { TimeZone::get("Asia/Tokyo").unwrap() } else { self.zone() };
        Rules { zone, cron_starting_deadline: self.deadline.map(Duration::from_secs) }
    }

    fn zone(&self) -> TimeZone {
        TimeZone::get(self.zone).unwrap()
    }
}

fn spec(spec: &Cronspec) -> Value {
    match spec {
        Cronspec::Number(number) => (*number).into(),
        Cronspec::Text(text) => text.clone().into(),
        Cronspec::Numbers(numbers) => numbers.clone().into(),
    }
}

/// What either of the two says about a case.
#[derive(Debug, Clone, PartialEq)]
struct Look {
    is_due: bool,
    next_micros: i128,
    /// After the last run, and after each of the other moments.
    next_runs: Vec<Timestamp>,
    repr: String,
}

impl Look {
    fn ours(case: &Case, schedule: &Schedule) -> Look {
        let rules = case.rules();
        let Due { is_due, next } = schedule.is_due(case.last, case.now, &rules).unwrap();
        let moments = std::iter::once(case.last).chain(case.after());
        let next_runs = moments.map(|moment| schedule.next_run(moment, &rules).unwrap()).collect();
        Look { is_due, next_micros: next.unwrap().as_micros() as i128, next_runs, repr: schedule.to_string() }
    }

    fn judges(answer: &Value) -> Look {
        let next_runs = answer["next_runs"].as_array().unwrap().iter().map(timestamp).collect();
        Look {
            is_due: answer["is_due"].as_bool().unwrap(),
            next_micros: (answer["next"].as_f64().unwrap() * 1e6).round() as i128,
            next_runs,
            repr: answer["repr"].as_str().unwrap().to_owned(),
        }
    }
}

fn timestamp(micros: &Value) -> Timestamp {
    Timestamp::from_microsecond(micros.as_i64().unwrap()).unwrap()
}

#[test]
fn crontabs_are_due_when_celery_says() {
    let mut rng = Rng::with_seed(seed());
    let zones = ZONES.map(Zone::new);
    let cases: Vec<Case> =
        (0..cases(24_000)).map(|_| Case::crontab(&zones[rng.usize(0..zones.len())], &mut rng)).collect();
    let Some(answers) = ask(cases.iter().map(Case::question).collect()) else { return };
    let (mut meant, mut storms, mut due, mut refused) = (0, Vec::new(), 0, 0);
    for (case, answer) in cases.iter().zip(answers) {
        let (ours, judges) = match (case.schedule(), answer) {
            (Ok(schedule), Answer::Gave(answer)) => (Look::ours(case, &schedule), Look::judges(&answer)),
            (ours, answer) => {
                let ours =
                    ours.map_or_else(|error| raised(&error), |schedule| Answer::Gave(schedule.to_string().into()));
                assert_eq!(ours, answer, "{}", told(case));
                refused += 1;
                continue;
            }
        };
        due += usize::from(ours.is_due);
        if ours.next_runs == judges.next_runs {
            assert_eq!(ours, judges, "{}", told(case));
            continue;
        }
        // What differs in one of the moments is meant, or wrong.
        let moments: Vec<Timestamp> = std::iter::once(case.last).chain(case.after()).collect();
        for (moment, (ours, judges)) in moments.into_iter().zip(ours.next_runs.into_iter().zip(judges.next_runs)) {
            if ours != judges {
                meant += 1;
                storms.extend(meant_difference(case, moment, ours, judges));
            }
        }
    }
    assert!(due * 10 > cases.len() && due * 10 < cases.len() * 9, "{due} of {} were due", cases.len());
    assert!(refused * 20 < cases.len(), "{refused} of {} were refused", cases.len());
    assert!(meant > 100 && storms.len() > 20, "{meant} differences that are meant, {} of them storms", storms.len());
    no_storms(storms);
}

fn told(case: &Case) -> String {
    format!("seed {}, {case:?}", seed())
}

/// Where Celery's next run is not after the moment, ours is what Celery says at the end of the time that comes twice.
struct Storm {
    case: Case,
    end: Timestamp,
    ours: Timestamp,
}

/// See "Where it is meant to differ" in `src/schedule/crontab.rs`.
fn meant_difference(case: &Case, moment: Timestamp, ours: Timestamp, judges: Timestamp) -> Option<Storm> {
    let words = || format!("after {moment} ours is {ours}, Celery's {judges}; {}", told(case));
    let zone = case.zone();
    let Some(Schedule::Crontab(crontab)) = case.schedule().ok() else { panic!("no crontab: {}", words()) };
    assert!(ours > moment, "it is past: {}", words());
    if let Some(end) = end_of_second(&zone, ours) {
        let runs_hourly = Fields { hour: crontab.fields().hour.clone(), ..Fields::default() };
        let all_hours = Crontab::new(Fields::default()).unwrap();
        assert!(Crontab::new(runs_hourly).unwrap() == all_hours, "it chooses hours: {}", words());
        assert!(judges <= moment || judges >= end, "Celery's is sooner: {}", words());
        // Nothing between: each minute of the second occurrence is looked at.
        let first = (1..).map(|minutes| floor(moment) + SignedDuration::from_mins(minutes));
        let mut matching = first.filter(|at| end_of_second(&zone, *at).is_some() && matches(&crontab, &zone, *at));
        assert_eq!(matching.next(), Some(ours), "{}", words());
        return None;
    }
    let end = end_of_second(&zone, moment).unwrap_or_else(|| panic!("nothing comes twice: {}", words()));
    assert!(judges <= moment, "Celery's is no storm: {}", words());
    Some(Storm { case: case.clone(), end, ours })
}

/// When the second occurrence ends of the time that clocks show at `at`, if this is one.
fn end_of_second(zone: &TimeZone, at: Timestamp) -> Option<Timestamp> {
    match zone.to_ambiguous_timestamp(zone.to_datetime(at)).offset() {
        AmbiguousOffset::Fold { before, after } if zone.to_offset(at) == after => {
            let change = zone.preceding(at + SignedDuration::from_nanos(1)).next().unwrap().timestamp();
            Some(change + SignedDuration::from_secs(i64::from(before.seconds() - after.seconds())))
        }
        _ => None,
    }
}

fn floor(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second().div_euclid(60) * 60).unwrap()
}

/// Whether it runs in the minute that clocks show: it is the next one after the minute before.
fn matches(crontab: &Crontab, zone: &TimeZone, at: Timestamp) -> bool {
    let wall = zone.to_datetime(at);
    crontab.next_wall(wall - SignedDuration::from_mins(1)).unwrap() == wall
}

fn no_storms(storms: Vec<Storm>) {
    let question = |storm: &Storm| {
        let last = storm.end - SignedDuration::from_micros(1);
        Case { last, now: last, form: None, deadline: None, ..storm.case.clone() }.question()
    };
    let answers = ask(storms.iter().map(question).collect()).expect("the judge was there before");
    for (storm, answer) in storms.iter().zip(answers) {
        let Answer::Gave(answer) = answer else { panic!("{answer:?}: {}", told(&storm.case)) };
        // From the last microsecond of it on nothing is ahead in it.
        assert_eq!(storm.ours, Look::judges(&answer).next_runs[0], "a storm: {}", told(&storm.case));
    }
}

#[test]
fn intervals_are_due_when_celery_says() {
    let mut rng = Rng::with_seed(seed());
    let zones = ZONES.map(Zone::new);
    let cases: Vec<Case> =
        (0..cases(12_000)).map(|_| Case::interval(&zones[rng.usize(0..zones.len())], &mut rng)).collect();
    let Some(answers) = ask(cases.iter().map(Case::question).collect()) else { return };
    for (case, answer) in cases.iter().zip(answers) {
        let Answer::Gave(answer) = answer else { panic!("{answer:?}: {}", told(case)) };
        let ours = Look::ours(case, &case.schedule().unwrap());
        assert_eq!(ours, Look::judges(&answer), "{}", told(case));
    }
}
