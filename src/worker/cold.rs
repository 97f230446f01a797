//! [`Cold`]: a cold shutdown, and the moment that it leaves to what is on its way.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{Error, ErrorKind, Result};

/// How long a cold shutdown waits for what has been sent to broker and backend and is not answered yet.
const PARTING: Duration = Duration::from_secs(2);

/// Whether the worker shuts down cold; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cold(CancellationToken);

impl Cold {
    /// Begins the cold shutdown.
    pub(crate) fn begin(&self) {
        self.0.cancel();
    }

    /// Waits until it has begun.
    pub(crate) async fn begun(&self) {
        self.0.cancelled().await;
    }

    /// What waits for the broker or the backend waits for as long as they are away, and through a cold shutdown for a
    /// moment: what is on its way arrives.
    ///
    /// # Errors
    /// Those of `work`; `Connection` when the moment is over.
    pub(crate) async fn bound<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let parting = async {
            self.begun().await;
            tokio::time::sleep(PARTING).await;
        };
        tokio::select! {
            biased;
            done = work => done,
            () = parting => Err(Error::new(ErrorKind::Connection, "the worker shuts down without waiting for it")),
        }
    }
}
