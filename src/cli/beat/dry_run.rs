//! `beat --dry-run --until T`: what would be sent, and when.

use std::collections::BTreeMap;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp};

use super::super::failure::{Failure, say};
use crate::beat::{Scheduler, Step};

/// The time that `--until` names: an instant, a time of that zone, or how long from `now` on.
pub(super) fn until(text: &str, now: Timestamp, zone: &TimeZone) -> Result<Timestamp, Failure> {
    let text = text.trim();
    let instant = text.parse::<Timestamp>().ok();
    let wall = || text.parse::<DateTime>().ok().and_then(|time| zone.to_timestamp(time).ok());
    let later = || {
        let span: Span = text.parse().ok()?;
        now.to_zoned(zone.clone()).checked_add(span).ok().map(|time| time.timestamp())
    };
    let end = instant.or_else(wall).or_else(later).ok_or_else(|| {
        Failure::usage(format!("--until: {text} is no time: write 2026-12-24T18:00, 2026-12-24T18:00Z, or 36h"))
    })?;
    if end <= now {
        return Err(Failure::usage(format!("--until: {text} is over: name a time to come")));
    }
    Ok(end)
}

/// Prints it. Beat is never late here: each run is at the instant at which it is due.
pub(super) fn print(mut scheduler: Scheduler, start: Timestamp, until: Timestamp, zone: &TimeZone) {
    let (known, unknown): (Vec<_>, Vec<_>) =
        scheduler.entries().cloned().partition(|entry| entry.schedule.is_foreseeable());
    let tasks: BTreeMap<String, String> =
        known.iter().map(|entry| (entry.name.clone(), entry.signature.task.clone())).collect();
    scheduler.replace(known, start);
    let (mut now, mut last) = (start, BTreeMap::<String, Timestamp>::new());
    let mut endless = Vec::new();
    while now < until {
        match scheduler.tick(now) {
            Step::Wait(wait) => now = advanced(now, wait),
            Step::Send(sending) if last.insert(sending.name.clone(), now) == Some(now) => {
                // It is always due: no clock goes on under it.
                let rest = scheduler.entries().filter(|entry| entry.name != sending.name).cloned().collect();
                scheduler.replace(rest, now);
                endless.push(sending.name);
            }
            Step::Send(sending) => {
                let task = tasks.get(&sending.name).map_or("", String::as_str);
                say(&format!("{}  {} ({task})", shown(now, zone), sending.name));
            }
        }
    }
    for name in endless {
        say(&format!("always: {name}"));
    }
    for entry in unknown {
        say(&format!("known to {} alone: {}", entry.schedule, entry.name));
    }
}

fn advanced(now: Timestamp, wait: std::time::Duration) -> Timestamp {
    let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
    now.checked_add(wait).unwrap_or(Timestamp::MAX)
}

fn shown(time: Timestamp, zone: &TimeZone) -> String {
    time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S%:z").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_an_instant_a_wall_time_or_a_while_from_now() {
        let now: Timestamp = "2026-11-28T12:00:00Z".parse().unwrap();
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        let rows = [
            ("2026-12-24T18:00:00Z", "2026-12-24T18:00:00Z"),
            ("2026-12-24T18:00:00+02:00", "2026-12-24T16:00:00Z"),
            ("2026-12-24T18:00", "2026-12-24T17:00:00Z"),
            ("2026-12-24", "2026-12-23T23:00:00Z"),
            ("36h", "2026-11-30T00:00:00Z"),
            (" 2d ", "2026-11-30T12:00:00Z"),
        ];
        for (text, expected) in rows {
            assert_eq!(until(text, now, &berlin).unwrap().to_string(), expected, "{text}");
        }
        assert!(until("tomorrow", now, &berlin).unwrap_err().message.starts_with("--until: tomorrow is no time"));
        for text in ["2026-11-28T12:00Z", "2026-11-28T12:59", "-1h", "0s"] {
            assert_eq!(
                until(text, now, &berlin).unwrap_err().message,
                format!("--until: {text} is over: name a time to come")
            );
        }
    }
}
