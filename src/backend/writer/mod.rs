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

use self::backlog::{Asked, Backlog, Batch};
use self::retry::Retry;
use super::{ChordPart, ChordProgress, EncodedPart, EncodedResult, ResultBackend, StoreRequest};
use crate::config::{Config, RetryPolicy};
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

/// What the settings say of retries: `result_backend_transport_options["retry_policy"]`, and with
/// `result_backend_always_retry` the number of them in `result_backend_max_retries`. Without either they go on for ever.
impl From<&Config> for WriterOptions {
    fn from(config: &Config) -> Self {
        let mut options = WriterOptions::default();
        if let Some(policy) = &config.result_backend_transport_options.retry_policy {
            options.retry_policy = policy.clone();
        }
        if config.result_backend_always_retry {
            options.retry_policy.max_retries = config.result_backend_max_retries;
        }
        options
    }
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

/// What is to be written for one task: its result, its part of a chord, or both.
struct Waiting {
    result: Option<EncodedResult>,
    part: Option<EncodedPart>,
    caller: Caller,
}

type Caller = oneshot::Sender<Result<ChordProgress>>;
type Answer = oneshot::Receiver<Result<ChordProgress>>;

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
    pub fn store(&self, request: StoreRequest) -> impl Future<Output = Result<()>> + Send + use<> {
        let queued = match self.backend.is_enabled() {
            true => self.backend.encode(&request).map(|result| Some(self.enqueue(Some(result), None))),
            false => Ok(None),
        };
        async move {
            match queued? {
                Some(stored) => answered(stored).await.map(|_| ()),
                None => Ok(()),
            }
        }
    }

    /// The same for a result that is encoded already.
    ///
    /// # Errors
    /// As [`ResultWriter::store`].
    pub fn store_encoded(&self, result: EncodedResult) -> impl Future<Output = Result<()>> + Send + use<> {
        let stored = self.enqueue(Some(result), None);
        async move { answered(stored).await.map(|_| ()) }
    }

    /// Stores a result, and right after it, in the same round trip, counts the task's part of a chord. Without a
    /// `request`, where results are ignored, the part is counted alone. The answer is never [`ChordProgress::Busy`]: a
    /// copy of the member that completes its chord waits until the chord is done or another worker's claim has expired,
    /// and the part is counted again. A backend without [`NativeChords`](super::NativeChords) counts nothing and answers
    /// [`ChordProgress::Waiting`], as Celery's do. Dropping the future takes nothing back.
    ///
    /// # Errors
    /// As [`ResultWriter::store`], before either is queued if one of them cannot be encoded; `Backend`: the chord cannot
    /// be counted, and the result is stored.
    pub fn store_with_part(
        &self,
        request: Option<StoreRequest>,
        part: &ChordPart,
    ) -> impl Future<Output = Result<ChordProgress>> + Send + use<> {
        let queued = self.encode(request.as_ref(), part).map(|(result, part)| {
            let is_empty = result.is_none() && part.is_none();
            (!is_empty).then(|| (self.enqueue(result, part.clone()), part))
        });
        let writer = self.clone();
        async move {
            let Some((mut written, part)) = queued? else { return Ok(ChordProgress::Waiting) };
            let mut pause = FIRST_LOOK;
            loop {
                match answered(written).await? {
                    ChordProgress::Busy(lease) => tokio::time::sleep(pause.min(lease + LEASE_IS_OVER)).await,
                    progress => return Ok(progress),
                }
                pause = (pause * 2).min(LAST_LOOK);
                written = writer.enqueue(None, part.clone());
            }
        }
    }

    fn encode(
        &self,
        request: Option<&StoreRequest>,
        part: &ChordPart,
    ) -> Result<(Option<EncodedResult>, Option<EncodedPart>)> {
        if !self.backend.is_enabled() {
            return Ok((None, None));
        }
        let part = self.backend.native_chords().map(|chords| chords.encode_part(part)).transpose()?;
        Ok((request.map(|request| self.backend.encode(request)).transpose()?, part))
    }

    /// Takes no more results, stores what there is and waits until that is done. Stopping twice is harmless. While the
    /// backend cannot be reached this waits: a caller with less patience drops the future.
    pub async fn stop(&self) {
        self.stopping.cancel();
        self.stopped.cancelled().await;
    }

    fn enqueue(&self, result: Option<EncodedResult>, part: Option<EncodedPart>) -> Answer {
        let (caller, written) = oneshot::channel();
        // A queue that is closed drops the caller's end, which the caller sees.
        let _ = self.queue.send(Waiting { result, part, caller });
        written
    }
}

/// How soon a part is counted again whose chord another worker has claimed, how seldom in the end, and how long after the
/// claim should be over.
const FIRST_LOOK: Duration = Duration::from_millis(50);
const LAST_LOOK: Duration = Duration::from_secs(1);
const LEASE_IS_OVER: Duration = Duration::from_millis(10);

async fn answered(written: Answer) -> Result<ChordProgress> {
    let has_stopped =
        |_| Err(Error::new(ErrorKind::Backend, "the result was not stored: the result writer has stopped"));
    written.await.unwrap_or_else(has_stopped)
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
    /// What each caller is told.
    answers: Vec<Result<ChordProgress>>,
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
        let Written { batch, answers, took } = written;
        self.round_trip = took;
        self.backlog.finished(&batch);
        for (asked, answer) in batch.callers.into_iter().zip(answers) {
            let _ = asked.caller.send(answer);
        }
    }
}

async fn write(backend: Arc<dyn ResultBackend>, retry: Arc<Retry>, batch: Batch) -> Written {
    let began = Instant::now();
    let answers = match retry.store(&*backend, &batch.results, &batch.parts).await {
        Ok(counted) => told(&batch.callers, counted),
        // What it refused is one of them: the others are stored all the same. Storing twice is harmless.
        Err(error) if batch.callers.len() > 1 && !retry::can_pass(&error) => {
            one_by_one(&*backend, &retry, &batch).await
        }
        Err(error) => batch.callers.iter().map(|_| Err(copy(&error))).collect(),
    };
    Written { batch, answers, took: began.elapsed() }
}

async fn one_by_one(backend: &dyn ResultBackend, retry: &Retry, batch: &Batch) -> Vec<Result<ChordProgress>> {
    let (mut results, mut parts) = (&batch.results[..], &batch.parts[..]);
    let mut answers = Vec::with_capacity(batch.callers.len());
    for asked in &batch.callers {
        let (result, other_results) = results.split_at(usize::from(asked.has_result));
        let (part, other_parts) = parts.split_at(usize::from(asked.has_part));
        (results, parts) = (other_results, other_parts);
        match retry.store(backend, result, part).await {
            Ok(counted) => answers.extend(told(std::slice::from_ref(asked), counted)),
            Err(error) => answers.push(Err(error)),
        }
    }
    answers
}

/// What each caller is told of what was counted.
fn told(callers: &[Asked], counted: Vec<Result<ChordProgress>>) -> Vec<Result<ChordProgress>> {
    let mut counted = counted.into_iter();
    let progress = |asked: &Asked| {
        let counted = asked.has_part.then(|| counted.next()).flatten();
        counted.unwrap_or(Ok(ChordProgress::Waiting))
    };
    callers.iter().map(progress).collect()
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
