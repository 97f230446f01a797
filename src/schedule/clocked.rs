//! [`Clocked`]: `clocked` of django-celery-beat (`django_celery_beat/clockedschedule.py`).

use std::fmt;

use jiff::{SignedDuration, Timestamp};

use super::Due;

/// `NEVER_CHECK_TIMEOUT`: what has run is not looked at again for more than three years.
const NEVER: SignedDuration = SignedDuration::from_secs(100_000_000);

/// Once, at a given time or as soon as possible after it. That it runs once is for the entry to see to (`one_off`): this
/// is due from then on, whenever it ran last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clocked {
    /// When.
    pub clocked_time: Timestamp,
}

/// As django-celery-beat's `repr`, for a time in UTC: `<clocked: 2026-11-28 12:00:00+00:00>`.
impl fmt::Display for Clocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.clocked_time.subsec_microsecond();
        write!(f, "<clocked: {}", self.clocked_time.strftime("%Y-%m-%d %H:%M:%S"))?;
        if micros != 0 {
            write!(f, ".{micros:06}")?;
        }
        f.write_str("+00:00>")
    }
}

impl Clocked {
    pub(super) fn is_due(&self, now: Timestamp) -> Due {
        let remaining = now.duration_until(self.clocked_time);
        if remaining.is_positive() { Due::not_for(remaining) } else { Due::again_in(NEVER) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_is_due_from_its_time_on_and_shown_as_there() {
        let clocked = |time: &str| Clocked { clocked_time: time.parse().unwrap() };
        let noon = clocked("2026-11-28T12:00:00Z");
        let rows = [
            ("2026-11-28T11:59:59.75Z", false, Duration::from_millis(250)),
            ("2026-11-28T12:00:00Z", true, Duration::from_secs(100_000_000)),
            ("2027-01-01T00:00:00Z", true, Duration::from_secs(100_000_000)),
        ];
        for (now, is_due, next) in rows {
            assert_eq!(noon.is_due(now.parse().unwrap()), Due { is_due, next: Some(next) }, "{now}");
        }
        assert_eq!(noon.to_string(), "<clocked: 2026-11-28 12:00:00+00:00>");
        assert_eq!(clocked("2026-11-28T12:00:00.25Z").to_string(), "<clocked: 2026-11-28 12:00:00.250000+00:00>");
    }
}
