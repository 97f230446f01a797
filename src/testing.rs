//! [`TestApp`]: an app with a worker, a broker and results, all within a test, and in virtual time.
//!
//! Tasks are sent, run, retried and stored by the code that does it in production; only the broker and the backend are
//! in memory. Time is Tokio's: under `start_paused` an hour until a retry passes as soon as nothing is left to do before
//! it, and the worker's wall clock goes with it. It is there with the feature `testing`:
//!
//! ```toml
//! [dev-dependencies]
//! celeriac = { version = "0.1", features = ["testing"] }
//! tokio = { version = "1", features = ["macros", "rt", "test-util"] }
//! ```
//!
//! ```
//! use std::time::Duration;
//!
//! use celeriac::testing::TestApp;
//! use celeriac::{App, Interrupt, TaskContext};
//!
//! /// Fetches a report, and tries again in an hour while there is none.
//! #[celeriac::task(name = "shop.fetch", max_retries = 3)]
//! async fn fetch(ctx: TaskContext, url: String) -> Result<String, Interrupt> {
//!     match ctx.retries() {
//!         0 | 1 => Err(ctx.retry().countdown(Duration::from_secs(3600)).into()),
//!         _ => Ok(format!("the report at {url}")),
//!     }
//! }
//!
//! # macro_rules! test { ($name:ident, $body:block) => { fn main() -> Result<(), Box<dyn std::error::Error>> {
//! #     tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?.block_on(async $body)
//! # } } }
//! # test!(it_is_tried_again, {
//! // #[tokio::test(start_paused = true)]
//! // async fn it_is_tried_again() -> Result<(), Box<dyn std::error::Error>> {
//! let test = TestApp::start(App::new("shop").task(fetch)).await?;
//! let result = test.send(fetch::s("/july".to_owned())).await?;
//! test.advance(Duration::from_secs(3599)).await;
//! assert_eq!(result.state().await?.to_string(), "RETRY");
//! let report: String = result.get(None).await?; // it does not wait for two hours
//! assert_eq!(report, "the report at /july");
//! assert_eq!(test.elapsed().as_secs(), 7200);
//! test.stop().await?;
//! # Ok(()) });
//! ```
//!
//! While time is paused, a handler that waits for something outside the process (a server, a file) lets all timers pass
//! meanwhile: give it what it talks to as a value that a test can replace, or leave `start_paused` out.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::app::{App, AsyncResult, Producer, parts};
use crate::protocol::{Message, Signature};
use crate::time::Clock;
use crate::transport::MemoryTransport;
use crate::worker::{Shutdown, Worker, WorkerHandle, WorkerOptions};
use crate::{Error, ErrorKind, Result};

/// The node name of the worker.
const NODE: &str = "celery@test";
/// Chance is the same in each run, so that a back-off with jitter is.
const SEED: u64 = 1;

/// An app that is being tested, with its worker.
///
/// When it is dropped, the worker ends with the test's runtime; [`TestApp::stop`] ends it as a deployment does.
pub struct TestApp {
    app: App,
    transport: MemoryTransport,
    clock: Clock,
    started: Instant,
    handle: WorkerHandle,
    running: JoinHandle<Result<()>>,
}

impl TestApp {
    /// Starts a worker that consumes from the queues of the settings: those of `task_queues`, or the default one. The
    /// broker and the result backend of the settings are not used.
    ///
    /// # Errors
    /// `Configuration`, as [`Worker::new`].
    pub async fn start(app: App) -> Result<Self> {
        TestApp::start_on(app, &[]).await
    }

    /// Starts a worker that consumes from these queues, as `worker -Q` does.
    ///
    /// # Errors
    /// As [`TestApp::start`].
    pub async fn start_on(mut app: App, queues: &[&str]) -> Result<Self> {
        app.config_mut().result_backend = Some("memory://".to_owned());
        let selected: Vec<String> = queues.iter().map(|&queue| queue.to_owned()).collect();
        let queues = app.config().consume_from(&selected, &[])?;
        let (started, clock) = (Instant::now(), Clock::of_runtime(Clock::system().now()));
        let (transport, backend) = (MemoryTransport::new(), parts::backend(app.config())?);
        let shared = Arc::new(transport.clone());
        let app = app.sending_with(|app| Producer::with_parts(app, shared.clone(), backend.clone(), clock.clone()))?;
        let options = WorkerOptions { hostname: NODE.to_owned(), queues, seed: SEED };
        let worker = Worker::with_parts(app.clone(), options, shared.clone(), backend.clone(), clock.clone())?;
        let worker = worker.with_heartbeat(None);
        let handle = worker.handle();
        let running = tokio::spawn(worker.run());
        handle.ready().await;
        Ok(TestApp { app, transport, clock, started, handle, running })
    }

    /// The app, whose [`App::send`] sends to this broker: for the code that is tested.
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Sends a task or a canvas: [`App::send`].
    ///
    /// # Errors
    /// Those of [`App::send`].
    pub async fn send(&self, signature: impl Into<Signature>) -> Result<AsyncResult> {
        self.app.send(signature).await
    }

    /// Lets that much time pass, and all of it happen that is due meanwhile. With time that is paused this is as soon as
    /// nothing else is left to do.
    pub async fn advance(&self, by: Duration) {
        tokio::time::sleep(by).await;
    }

    /// The present moment, as the worker sees it.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// How long ago the worker was started.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The messages that wait in a queue, the next one first: what was sent to others.
    pub fn waiting(&self, queue: &str) -> Vec<Message> {
        self.transport.waiting(queue)
    }

    /// The worker's handle.
    pub fn worker(&self) -> &WorkerHandle {
        &self.handle
    }

    /// Ends the worker warmly: what runs is finished.
    ///
    /// # Errors
    /// Why the worker could not go on, or that it panicked.
    pub async fn stop(self) -> Result<()> {
        self.handle.shutdown(Shutdown::Warm);
        let ended = self.running.await;
        ended.unwrap_or_else(|error| Err(Error::new(ErrorKind::Io, "run the worker").with_source(error)))
    }
}

impl fmt::Debug for TestApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestApp").field("app", &self.app.name()).finish_non_exhaustive()
    }
}
