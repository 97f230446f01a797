//! [`Fires`]: a schedule under a clock that only moves from one run to the next.

use jiff::Timestamp;

use super::{Rules, Schedule};
use crate::error::Result;

/// The instants at which a schedule runs, each found from the one before: what beat does when it is never late. Nothing is
/// made up for, as nothing is missed. It ends after an error, and a [`Clocked`](super::Clocked) after its one
/// run.
///
/// What is always due (an [`Interval`](super::Interval) that is not above zero) gives the same instant for ever.
///
/// ```
/// use celeriac::schedule::{Crontab, Rules, Schedule};
///
/// let schedule: Schedule = Crontab::parse("0 */12 * * *")?.into();
/// let (start, until) = ("2026-11-28T13:00:00Z".parse()?, "2026-11-29T13:00:00Z".parse::<jiff::Timestamp>()?);
/// let rules = Rules::default();
/// let fires: Vec<String> = schedule
///     .fires(start, &rules)
///     .map_while(|fire| fire.ok().filter(|at| *at < until))
///     .map(|at| at.to_string())
///     .collect();
/// assert_eq!(fires, ["2026-11-29T00:00:00Z", "2026-11-29T12:00:00Z"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Fires<'s> {
    schedule: &'s Schedule,
    rules: &'s Rules,
    last_run_at: Option<Timestamp>,
}

impl<'s> Fires<'s> {
    pub(super) fn new(schedule: &'s Schedule, start: Timestamp, rules: &'s Rules) -> Self {
        Fires { schedule, rules, last_run_at: Some(start) }
    }
}

impl Iterator for Fires<'_> {
    type Item = Result<Timestamp>;

    fn next(&mut self) -> Option<Self::Item> {
        let last_run_at = self.last_run_at.take()?;
        // What is due already runs at once.
        let next = self.schedule.next_run(last_run_at, self.rules).map(|next| next.max(last_run_at));
        self.last_run_at = next.as_ref().ok().copied().filter(|_| !self.schedule.runs_once());
        Some(next)
    }
}
