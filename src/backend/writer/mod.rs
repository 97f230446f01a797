//! [`ResultWriter`]: results gather while others are being stored, and leave as one batch.

mod backlog;
mod retry;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::backlog::{Backlog, Batch};
use self::retry::Retry;
use super::{EncodedResult, ResultBackend, StoreRequest};
use crate::config::RetryPolicy;
use crate::{Error, ErrorKind, Result};

/// How a [`ResultWriter`] gathers and retries.
#[derive(Debug, Clone)]
pub struct WriterOptions {
    /// How many results a batch holds at most.
    pub batch_items: usize,
    /// About how many bytes of results a batch holds at most; a single result may be larger.
    pub batch_bytes: usize,
    /// How many batches may be under way side by side, when the backend is far away or has fallen behind.
    pub batches_under_way: usize,
    /// How lost connections are retried. The default goes on for ever: what is stored late is not lost.
    pub retry_policy: RetryPolicy,
    /// Where the jitter of the pauses between retries comes from.
    pub jitter: fastrand::Rng,
}

impl Default for WriterOptions {
    fn default() -> Self {
        WriterOptions {
            batch_items: 512,
            batch_bytes: 4 << 20,
            batches_under_way: 4,
            retry_policy: RetryPolicy { max_retries: None, ..RetryPolicy::default() },
            jitter: fastrand::Rng::new(),
        }
    }
}

/// Above this round trip batches go out side by side: the wait for the one before costs more than a small batch does.
const FAR_AWAY: Duration = Duration::from_millis(1);

/// A cheap handle to the one background task that stores a worker's results.
///
/// There is no timer and no added latency: a result that comes while nothing is under way leaves at once, and what comes
/// meanwhile is the next batch. Results of one task are stored in the order of the calls. Lost connections are retried
/// with nothing thrown away, so what waits is bounded only by how many callers wait for their results to be stored.
///
/// The background task ends with [`ResultWriter::stop`], or with the last handle; either way it stores first what it has.
#[derive(Clone)]
pub struct ResultWriter {
    backend: Arc<dyn ResultBackend>,
    queue: mpsc::UnboundedSender<Waiting>,
    stopping: CancellationToken,
    stopped: CancellationToken,
}

struct Waiting {
    result: EncodedResult,
    caller: Caller,
}

type Caller = oneshot::Sender<Result<()>>;

impl ResultWriter {
    /// Starts the background task; the handle is ready at once.
    ///
    /// # Panics
    /// When it is called outside a Tokio runtime.
    pub fn start(backend: Arc<dyn ResultBackend>, options: WriterOptions) -> Self {
        let (queue, arriving) = mpsc::unbounded_channel();
        let (stopping, stopped) = (CancellationToken::new(), CancellationToken::new());
        let writing = Writing {
            arriving,
            stopping: stopping.clone(),
            retry: Arc::new(Retry::new(options.retry_policy.clone(), options.jitter.clone())),
            backend: backend.clone(),
            options,
            backlog: Backlog::default(),
            round_trip: Duration::ZERO,
            _stopped: stopped.clone().drop_guard(),
        };
        tokio::spawn(writing.run());
        ResultWriter { backend, queue, stopping, stopped }
    }

    /// The backend that is written to.
    pub fn backend(&self) -> &Arc<dyn ResultBackend> {
        &self.backend
    }

    /// Stores a result: encoded before this returns, and queued; the future resolves when the backend has it, or kept
    /// what it had (see [`ResultBackend::store_encoded`]). Dropping the future does not take the result back.
    ///
    /// # Errors
    /// `Encode` or `Backend`: this result cannot be stored; the backend's other errors once no retry can help; `Backend`:
    /// the writer has stopped.
    pub fn store(&self, request: StoreRequest) -> impl Future<Output = Result<()>> + Send + 'static {
        let queued = match self.backend.is_enabled() {
            true => self.backend.encode(&request).map(|result| Some(self.enqueue(result))),
            false => Ok(None),
        };
        async move {
            match queued? {
                Some(stored) => stored.await.unwrap_or_else(|_| Err(has_stopped())),
                None => Ok(()),
            }
        }
    }

    /// The same for a result that is encoded already.
    ///
    /// # Errors
    /// As [`ResultWriter::store`].
    pub fn store_encoded(&self, result: EncodedResult) -> impl Future<Output = Result<()>> + Send + 'static {
        let stored = self.enqueue(result);
        async move { stored.await.unwrap_or_else(|_| Err(has_stopped())) }
    }

    /// Takes no more results, stores what there is and waits until that is done. Stopping twice is harmless. While the
    /// backend cannot be reached this waits: a caller with less patience drops the future.
    pub async fn stop(&self) {
        self.stopping.cancel();
        self.stopped.cancelled().await;
    }

    fn enqueue(&self, result: EncodedResult) -> oneshot::Receiver<Result<()>> {
        let (caller, stored) = oneshot::channel();
        // A queue that is closed drops the caller's end, which the caller sees.
        let _ = self.queue.send(Waiting { result, caller });
        stored
    }
}

fn has_stopped() -> Error {
    Error::new(ErrorKind::Backend, "the result was not stored: the result writer has stopped")
}

/// The background task.
struct Writing {
    arriving: mpsc::UnboundedReceiver<Waiting>,
    stopping: CancellationToken,
    backend: Arc<dyn ResultBackend>,
    options: WriterOptions,
    retry: Arc<Retry>,
    backlog: Backlog,
    /// How long the last batch took.
    round_trip: Duration,
    /// Tells those who wait in [`ResultWriter::stop`], however the task ends.
    _stopped: DropGuard,
}

/// A batch that the backend has answered.
struct Written {
    batch: Batch,
    outcome: Result<()>,
    took: Duration,
}

impl Writing {
    async fn run(mut self) {
        let mut under_way = FuturesUnordered::new();
        let mut arrived = Vec::new();
        let (mut is_open, mut is_stopping) = (true, false);
        while is_open || !self.backlog.is_empty() || !under_way.is_empty() {
            tokio::select! {
                biased;
                () = self.stopping.cancelled(), if !is_stopping => {
                    is_stopping = true;
                    self.arriving.close();
                }
                Some(written) = under_way.next(), if !under_way.is_empty() => self.finish(written),
                count = self.arriving.recv_many(&mut arrived, self.options.batch_items), if is_open => {
                    is_open = count > 0;
                    arrived.drain(..).for_each(|waiting| self.backlog.push(waiting));
                }
            }
            while self.may_start(under_way.len())
                && let Some(batch) = self.backlog.next_batch(self.options.batch_items, self.options.batch_bytes)
            {
                under_way.push(write(self.backend.clone(), self.retry.clone(), batch));
            }
        }
    }

    /// One batch at a time is the most economical as long as round trips are short; side by side they go when waiting
    /// would cost more than that, or when a whole batch has gathered.
    fn may_start(&self, under_way: usize) -> bool {
        let is_behind = || self.round_trip >= FAR_AWAY || self.backlog.len() >= self.options.batch_items;
        under_way == 0 || (under_way < self.options.batches_under_way && is_behind())
    }

    fn finish(&mut self, written: Written) {
        let Written { batch, outcome, took } = written;
        self.round_trip = took;
        self.backlog.finished(&batch);
        for caller in batch.callers {
            let _ = caller.send(outcome.as_ref().map(|_| ()).map_err(copy));
        }
    }
}

async fn write(backend: Arc<dyn ResultBackend>, retry: Arc<Retry>, batch: Batch) -> Written {
    let began = Instant::now();
    let outcome = retry.store(&*backend, &batch.results).await;
    Written { batch, outcome, took: began.elapsed() }
}

/// Each caller of a batch gets the error; its text has the causes in it.
fn copy(error: &Error) -> Error {
    Error::new(error.kind(), error.to_string())
}

impl fmt::Debug for ResultWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResultWriter")
            .field("backend", &self.backend)
            .field("is_stopping", &self.stopping.is_cancelled())
            .finish_non_exhaustive()
    }
}
