//! [`Embedded`]: the beat of `worker -B`, which lives as long as its worker.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::super::host::Beating;
use super::{EmbeddedOptions, Plan, Service};
use crate::app::App;
use crate::schedule::humanize_seconds;
use crate::{Error, ErrorKind, Result};

/// After how long another beat begins, when one ended though nobody stopped it; after each such end twice as long.
const PAUSE: Duration = Duration::from_secs(1);
/// How long that is at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A beat that has gone on for so long was well: its end counts as the first.
const STEADY: Duration = Duration::from_secs(60);

/// A beat on the runtime of a worker.
#[derive(Debug)]
pub(in crate::cli) struct Embedded {
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Embedded {
    /// Begins, if that is wanted.
    ///
    /// # Errors
    /// As [`Service::new`].
    pub(in crate::cli) fn start(app: &App, options: &EmbeddedOptions) -> Result<Option<Self>> {
        if !options.beat {
            return Ok(None);
        }
        let plan = Plan {
            scheduler: options.scheduler.clone(),
            schedule_filename: options.schedule_filename.clone(),
            max_interval: None,
        };
        let (app, stop) = (app.clone(), CancellationToken::new());
        let service = move || Service::new(Beating::of(&app)?, app.config(), &plan);
        let running = tokio::spawn(keep(service()?, service, stop.clone()));
        Ok(Some(Embedded { stop, running }))
    }

    /// Ends it, once it has kept what ran last.
    pub(in crate::cli) async fn end(self) {
        tracing::info!("beat: Shutting down...");
        self.stop.cancel();
        if let Err(error) = self.running.await {
            tracing::error!("beat: {error}");
        }
    }
}

/// Runs a beat until `stop` is cancelled; if one ends before that, another, which `anew` makes. Celery's is not started again
/// (`celery/beat.py` `EmbeddedService`): its worker runs on, and nothing periodic is sent any more.
async fn keep(first: Service, anew: impl Fn() -> Result<Service>, stop: CancellationToken) {
    let (mut service, mut pause) = (Ok(first), PAUSE);
    loop {
        let began = Instant::now();
        let ended = match service {
            Ok(service) => run(service, stop.clone()).await,
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            tracing::error!(critical = true, "beat raised exception: {error}");
        }
        if stop.is_cancelled() {
            return;
        }
        if began.elapsed() >= STEADY {
            pause = PAUSE;
        }
        let again = humanize_seconds(pause.as_secs_f64());
        tracing::error!("beat: It ended though nobody stopped it: another one begins in {again}");
        if stop.run_until_cancelled(sleep(pause)).await.is_none() {
            return;
        }
        pause = LONGEST_PAUSE.min(pause * 2);
        service = anew();
    }
}

/// On a task of its own: one that panics harms nobody else.
async fn run(service: Service, stop: CancellationToken) -> Result<()> {
    let ended = tokio::spawn(service.run(stop)).await;
    ended.unwrap_or_else(|error| Err(Error::new(ErrorKind::Io, "it panicked").with_source(error)))
}
