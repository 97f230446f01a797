//! [`Service`]: a beat from its store to its end.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::super::host::Beating;
use crate::Result;
use crate::app::{App, parts};
use crate::beat::{Beat, Scheduler, Setting, Store, StoreOptions, open};
use crate::config::Config;
use crate::schedule::Rules;
use crate::time::Clock;

/// How long a task that is being sent is waited for when beat is to stop: the broker may be away.
const PARTING: Duration = Duration::from_secs(3);

/// What is to be known of a beat beside what it sends.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Plan {
    /// `-S`.
    pub(in crate::cli) scheduler: Option<String>,
    /// `-s`.
    pub(in crate::cli) schedule_filename: Option<String>,
    /// `--max-interval`.
    pub(in crate::cli) max_interval: Option<Duration>,
}

/// A beat that has not begun.
pub(in crate::cli) struct Service {
    beating: Beating,
    pub(super) scheduler: String,
    pub(super) store: Box<dyn Store>,
    pub(super) rules: Rules,
    pub(super) max_interval: Duration,
}

impl Plan {
    /// The name of the store.
    pub(in crate::cli) fn scheduler(&self, config: &Config) -> String {
        given(self.scheduler.as_ref()).unwrap_or(&config.beat_scheduler).clone()
    }

    /// The file.
    pub(in crate::cli) fn schedule_filename(&self, config: &Config) -> String {
        given(self.schedule_filename.as_ref()).unwrap_or(&config.beat_schedule_filename).clone()
    }
}

impl Beating {
    /// What a program in Rust has.
    pub(in crate::cli) fn of(app: &App) -> Result<Self> {
        app.check()?;
        let sender = Box::new(app.producer()?);
        Ok(Beating { entries: app.periodic_tasks()?, sender, store: None, scheduler: None, kept: None })
    }
}

impl Service {
    /// The beat of these settings.
    ///
    /// # Errors
    /// `Configuration`: there is no such store, or no such time zone.
    pub(in crate::cli) fn new(mut beating: Beating, config: &Config, plan: &Plan) -> Result<Self> {
        let rules =
            Rules { zone: parts::timezone(config)?, cron_starting_deadline: config.beat_cron_starting_deadline };
        let setting = Setting { timezone: config.timezone.clone(), enable_utc: config.enable_utc };
        let schedule_filename = plan.schedule_filename(config).into();
        let options = StoreOptions { schedule_filename, config, setting };
        let scheduler = beating.scheduler.take().unwrap_or_else(|| plan.scheduler(config));
        let store = match beating.store.take() {
            Some(store) => store,
            None => open(&scheduler, &options)?,
        };
        // As in Celery, 0 stands for the default.
        let above_zero = |interval: &Duration| !interval.is_zero();
        let configured = Some(config.beat_max_loop_interval).filter(above_zero);
        let max_interval = plan.max_interval.filter(above_zero).or(configured).unwrap_or_else(|| store.max_interval());
        Ok(Service { beating, scheduler, store, rules, max_interval })
    }

    /// The scheduler, with what the store says of the last runs, which another beat may go on writing.
    pub(super) async fn foreseen(mut self, clock: &Clock) -> Result<Scheduler> {
        let (given, now) = (std::mem::take(&mut self.beating.entries), clock.now());
        let kept = match self.beating.kept.take() {
            Some(kept) => kept,
            None => self.store.peek().await?,
        };
        let changed = self.store.changed(&given).await?;
        let mut scheduler = Scheduler::new(given, kept, self.rules, self.max_interval, now);
        if let Some((entries, kept)) = changed {
            scheduler.adopt(entries, kept, now);
        }
        Ok(scheduler)
    }

    /// Runs until `stop` is cancelled.
    ///
    /// # Errors
    /// As [`Beat::run`]; or what the store keeps cannot be read.
    pub(in crate::cli) async fn run(mut self, stop: CancellationToken) -> Result<()> {
        let Some(kept) = stop.run_until_cancelled(self.store.load()).await else { return Ok(()) };
        let clock = Clock::system();
        let scheduler = Scheduler::new(self.beating.entries, kept?, self.rules, self.max_interval, clock.now());
        tracing::debug!("beat: Ticking with max interval->{:.2} seconds", self.max_interval.as_secs_f64());
        let beat = Beat::new(scheduler, self.store, self.beating.sender, clock);
        let late = async {
            stop.cancelled().await;
            tokio::time::sleep(PARTING).await;
        };
        tokio::select! {
            ended = beat.run(stop.clone()) => ended,
            () = late => {
                tracing::warn!("beat: what is being sent was not waited for any longer");
                Ok(())
            }
        }
    }
}

/// An empty option is none.
fn given(option: Option<&String>) -> Option<&String> {
    option.filter(|text| !text.is_empty())
}
