//! [`Embedded`]: the beat of `worker -B`, which lives as long as its worker.

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::super::host::Beating;
use super::{EmbeddedOptions, Plan, Service};
use crate::Result;
use crate::app::App;

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
        let service = Service::new(Beating::of(app)?, app.config(), &plan)?;
        let stop = CancellationToken::new();
        let until = stop.clone();
        let running = tokio::spawn(async move {
            if let Err(error) = service.run(until).await {
                tracing::error!(critical = true, "beat raised exception: {error}");
            }
        });
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
