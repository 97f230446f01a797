//! [`Starting`]: `start_time` of django-celery-beat (`ModelEntry.is_due` in `django_celery_beat/schedulers.py`).

use std::fmt;

use jiff::Timestamp;

use super::{Due, Rules, Schedule};
use crate::error::Result;

/// A schedule that is not due before its start, and as ever from then on.
#[derive(Debug, Clone, PartialEq)]
pub struct Starting {
    /// When it is due from then on.
    pub schedule: Schedule,
    /// From when on.
    pub start_time: Timestamp,
}

impl fmt::Display for Starting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {} on", self.schedule, self.start_time)
    }
}

impl Starting {
    pub(super) fn is_due(&self, last_run_at: Timestamp, now: Timestamp, rules: &Rules) -> Result<Due> {
        let remaining = now.duration_until(self.start_time);
        if remaining.is_positive() {
            return Ok(Due::not_for(remaining));
        }
        self.schedule.is_due(last_run_at, now, rules)
    }

    pub(super) fn next_run(&self, last_run_at: Timestamp, rules: &Rules) -> Result<Timestamp> {
        Ok(self.schedule.next_run(last_run_at, rules)?.max(self.start_time))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::SignedDuration;
    use jiff::tz::TimeZone;

    use super::*;
    use crate::schedule::{Clocked, Crontab, Interval};

    fn utc(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    const MINUTE: SignedDuration = SignedDuration::from_mins(1);

    fn from_noon(schedule: impl Into<Schedule>) -> Schedule {
        Starting { schedule: schedule.into(), start_time: utc("2026-11-28T12:00:00Z") }.into()
    }

    #[test]
    fn it_is_due_from_its_start_on() {
        let schedule = from_noon(Interval::from_seconds(60.0).unwrap());
        let (rules, long_ago) = (Rules::default(), utc("1996-11-28T12:00:00Z"));
        let rows = [
            ("2026-11-28T11:59:00Z", long_ago, Due::not_for(MINUTE)),
            ("2026-11-28T12:00:00Z", long_ago, Due::again_in(MINUTE)),
            ("2026-11-28T12:00:20Z", utc("2026-11-28T12:00:00Z"), Due::not_for(SignedDuration::from_secs(40))),
        ];
        for (now, last_run_at, expected) in rows {
            assert_eq!(schedule.is_due(last_run_at, utc(now), &rules).unwrap(), expected, "{now}");
        }
        assert_eq!(schedule.to_string(), "<freq: 1.00 minute> from 2026-11-28T12:00:00Z on");
    }

    /// The zone and the deadline are the app's after the start, too.
    #[test]
    fn the_rules_hold_for_what_has_started() {
        let nightly = from_noon(Crontab::parse("30 4 * * *").unwrap());
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let mut rules = Rules { zone, cron_starting_deadline: None };
        let (last_run_at, now) = (utc("2026-11-27T03:30:00Z"), utc("2026-11-29T04:00:00Z"));
        assert!(nightly.is_due(last_run_at, now, &rules).unwrap().is_due);
        rules.cron_starting_deadline = Some(Duration::from_secs(60));
        assert!(!nightly.is_due(last_run_at, now, &rules).unwrap().is_due);
    }

    #[test]
    fn its_runs_are_foreseen() {
        let fires = |schedule: Schedule| -> Vec<String> {
            let rules = Rules::default();
            let fires = schedule.fires(utc("2026-11-28T10:00:00Z"), &rules).take(3);
            fires.map(|at| at.unwrap().to_string()).collect()
        };
        let hourly = from_noon(Interval::from_seconds(3600.0).unwrap());
        assert_eq!(fires(hourly), ["2026-11-28T12:00:00Z", "2026-11-28T13:00:00Z", "2026-11-28T14:00:00Z"]);
        let once = from_noon(Clocked { clocked_time: utc("2026-11-28T11:00:00Z") });
        assert_eq!(fires(once), ["2026-11-28T12:00:00Z"]);
    }
}
