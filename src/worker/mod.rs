//! The worker: a task's way from a message to its result.
//!
//! received → (held for its ETA) → reserved → started → finished → settled. One closed `event::Event`, one loop
//! (`consumer`); what happens at each step is decided by pure functions (`intake`, `settle`) whose answers one
//! place carries out (`finish`). The order that holds: what a task sends and its result are accepted by broker and
//! backend before a late acknowledgement leaves.
//!
//! Nothing here names a broker or a backend: those are behind the seams of `transport` and `backend`.

mod assembly;
mod builtin;
mod chores;
mod cold;
mod commands;
mod conclude;
mod consumer;
mod consumer_timeout;
mod continuations;
mod control;
mod counts;
mod dead_letter;
mod delays;
mod dispatcher;
mod duplicates;
mod ear;
mod errback;
mod event;
mod execute;
mod farewell;
mod finish;
mod frozen;
mod gathered;
mod gossip;
mod held;
mod inspect;
mod intake;
mod limited_set;
mod link;
mod mailbox;
mod malformed;
mod metas;
mod mingle;
mod observed;
mod pace;
mod page;
mod parking;
mod patience;
mod poison;
mod policy;
mod pool;
mod pools;
mod publisher;
mod pulse;
mod queues;
mod rate_limit;
mod reins;
mod relief;
mod remote;
mod report;
mod request;
mod reserved;
mod results;
mod retry;
mod revoked;
mod running;
mod sender;
mod settle;
mod sink;
mod state_file;
mod steer;
mod streak;
mod suspects;
mod told;
mod unknown;
mod waiting;
mod watched;
mod witness;

use std::iter;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::app::{App, parts};
use crate::backend::{ResultBackend, ResultWriter, WriterOptions};
use crate::config::QueueDefinition;
use crate::control::{LamportClock, Rate};
use crate::http::{Listening, Serving};
use crate::time::Clock;
use crate::transport::{Prefetch, Transport};
use crate::{Error, ErrorKind, Result};

pub(crate) use crate::app::parts::transport;
use consumer::{Consumer, Parts};
use counts::Counts;
pub(crate) use dead_letter::{HEADER as DEATH_HEADER, Note as DeathNote, revived};
use event::Event;
pub use event::Shutdown;
use intake::Tasks;
use link::Link;
use metas::Metas;
use observed::Observed;
pub use pool::Autoscale;
use pools::Pools;
use publisher::Publisher;
use pulse::Pulse;
use queues::Consumed;
use reins::WorkerReins;
pub(crate) use relief::Relief;
use sender::Broadcasts;
use state_file::{Remembered, StateFile};
use witness::{Tally, Witness};

/// How many handlers run at a time unless `worker_concurrency` says otherwise. Handlers on Tokio cost a few kilobytes
/// each, so this is Celery's number for green threads and not its number for processes.
pub const DEFAULT_CONCURRENCY: u32 = 250;

/// Celery's interval of heartbeats (celery/worker/heartbeat.py `Heart`).
const HEARTBEAT: Duration = Duration::from_secs(2);

/// How long a stopping worker waits for a backend that does not answer.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What one worker is told beside its app's settings.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// The node name: `celery@host`.
    pub hostname: String,
    /// The queues to consume, every field filled in ([`crate::config::Config::consume_from`]).
    pub queues: Vec<QueueDefinition>,
    /// Seeds the jitter of retries and reconnections.
    pub seed: u64,
}

/// A worker, not yet running.
#[derive(Debug)]
pub struct Worker {
    app: Arc<App>,
    options: WorkerOptions,
    tasks: Tasks,
    metas: Metas,
    transport: Arc<dyn Transport>,
    backend: Arc<dyn ResultBackend>,
    clock: Clock,
    handle: WorkerHandle,
    events: mpsc::UnboundedReceiver<Event>,
    state_file: Option<StateFile>,
    /// What the state file held.
    remembered: Remembered,
    /// The rate limits of tasks that have one.
    rates: Vec<(String, Rate)>,
    /// From one heartbeat to the next.
    heartbeat: Option<Duration>,
    autoscale: Option<Autoscale>,
    /// Where it is watched; `None`: nowhere.
    http: Option<Listening>,
    mingles: bool,
    gossips: bool,
}

/// Steers a worker from elsewhere; cheap to clone, and harmless when the worker has ended.
#[derive(Debug, Clone)]
pub struct WorkerHandle {
    events: mpsc::UnboundedSender<Event>,
    ready: watch::Sender<bool>,
    relief: Relief,
}

impl Worker {
    /// A worker for the app's own broker and backend.
    ///
    /// # Errors
    /// `Configuration`: two tasks of one name, a broker or backend URL that cannot be used, a time zone that there is
    /// not, content that cannot be accepted, a rate limit that is none, a dead letter queue that is consumed, a control
    /// queue that is durable and exclusive, a state file of somebody else. `Io`: the state file cannot be read or written,
    /// the port of `worker_http` is taken.
    pub fn new(app: App, options: WorkerOptions) -> Result<Self> {
        let clock = Clock::system();
        let transport = parts::transport(app.config(), Some(&options.hostname), clock.clone(), options.seed)?;
        let backend = parts::backend(app.config())?;
        Worker::with_parts(app, options, transport, backend, clock)
    }

    /// A worker for a given broker, backend and clock.
    ///
    /// # Errors
    /// `Configuration`, as [`Worker::new`].
    pub fn with_parts(
        app: App,
        options: WorkerOptions,
        transport: Arc<dyn Transport>,
        backend: Arc<dyn ResultBackend>,
        clock: Clock,
    ) -> Result<Self> {
        app.check()?;
        dead_letter::check(app.config(), &options.queues)?;
        mailbox::check(app.config())?;
        let http = app.config().worker_http.as_deref().map(Listening::at).transpose()?;
        let tasks = Tasks::new(&app, &options.hostname)?;
        let metas = Metas {
            hostname: options.hostname.clone(),
            clock: clock.clone(),
            timezone: parts::timezone(app.config())?,
            extended: app.config().result_extended,
            texts: backend.stores_reprs(),
        };
        let (events, receiver) = mpsc::unbounded_channel();
        let handle = WorkerHandle { events, ready: watch::Sender::new(false), relief: Relief::default() };
        let state_file = app.config().worker_state_db.as_ref().map(StateFile::new);
        Ok(Worker {
            remembered: state_file.as_ref().map(StateFile::open).transpose()?.unwrap_or_default(),
            rates: if app.config().worker_disable_rate_limits { Vec::new() } else { tasks.rates()? },
            app: Arc::new(app),
            options,
            tasks,
            metas,
            transport,
            backend,
            clock,
            handle,
            events: receiver,
            state_file,
            heartbeat: Some(HEARTBEAT),
            autoscale: None,
            http,
            mingles: true,
            gossips: true,
        })
    }

    /// Sends the events that tell that the worker is there at such intervals, 2 seconds unless told otherwise; with `None`
    /// it tells nothing of itself.
    #[must_use]
    pub fn with_heartbeat(self, interval: Option<Duration>) -> Self {
        Worker { heartbeat: interval, ..self }
    }

    /// Lets the pool grow and shrink with what there is to do, instead of being as large as `worker_concurrency` says.
    #[must_use]
    pub fn with_autoscale(self, autoscale: Option<Autoscale>) -> Self {
        Worker { autoscale, ..self }
    }

    /// Whether it asks other workers, whenever it is connected, which tasks were revoked: it does unless told otherwise, where
    /// the broker is one that workers in other processes can be met at.
    #[must_use]
    pub fn with_mingle(self, mingles: bool) -> Self {
        Worker { mingles, ..self }
    }

    /// Whether it hears what other workers tell of themselves, and takes part in elections: it does unless told otherwise,
    /// as with [`Worker::with_mingle`].
    #[must_use]
    pub fn with_gossip(self, gossips: bool) -> Self {
        Worker { gossips, ..self }
    }

    /// A handle to steer the worker with.
    pub fn handle(&self) -> WorkerHandle {
        self.handle.clone()
    }

    /// The broker's address for people to read.
    pub fn broker_uri(&self) -> String {
        self.transport.uri()
    }

    /// The backend's address for people to read.
    pub fn backend_uri(&self) -> String {
        self.app.keeper().map_or_else(|| self.backend.uri(), |keeper| keeper.uri())
    }

    /// How many handlers run at a time, unless the pool grows and shrinks by itself.
    pub fn concurrency(&self) -> usize {
        self.app.config().worker_concurrency.unwrap_or(DEFAULT_CONCURRENCY) as usize
    }

    /// How the pool grows and shrinks by itself.
    pub fn autoscale(&self) -> Option<Autoscale> {
        self.autoscale
    }

    /// Throws away what waits in the worker's queues, before it runs, and says how many messages that was.
    ///
    /// # Errors
    /// As [`Worker::run`].
    pub async fn purge(&self) -> Result<u64> {
        let connection = self.connector("purge", self.options.seed).connect().await?;
        let purged = connection.purge(&self.queues()).await?;
        connection.close().await?;
        Ok(purged)
    }

    /// Runs until it is told to stop.
    ///
    /// # Errors
    /// `Connection`, `Authentication` or `Configuration` when the broker was given up; everything that was reserved
    /// has been given back as far as the broker could still be told.
    pub async fn run(mut self) -> Result<()> {
        let disable_prefetch = self.disables_prefetch();
        let pool = self.pool(disable_prefetch);
        let (prefetch, current) = (self.prefetch(&pool), watch::Sender::new(None));
        let writer = ResultWriter::start(Arc::clone(&self.backend), WriterOptions::from(self.app.config()));
        let backend = Arc::clone(&self.backend);
        let _preparing = AbortOnDropHandle::new(tokio::spawn(async move { backend.prepare().await }));
        let (publisher, publishing) = Publisher::start(current.subscribe());
        let (poison, recording) = self.poison(current.subscribe()).unzip();
        // Whoever drops this future takes the link down with it.
        let stop = CancellationToken::new();
        let (stop_consuming, _stops) = (stop.child_token(), stop.clone().drop_guard());
        let mut rng = fastrand::Rng::with_seed(self.options.seed);
        let clock = Arc::new(LamportClock::new(self.remembered.clock));
        let tally = Arc::<Tally>::default();
        let (dispatcher, dispatching) = self.dispatcher(current.subscribe(), &clock, &tally, rng.u64(..))?;
        let consumed: Consumed = Arc::new(watch::Sender::new(self.queues()));
        let watching = self.watch(&tally, &prefetch, &dispatcher, &consumed)?;
        let counts = watching.iter().map(|watching| Arc::clone(&watching.counts) as _);
        let observed = self.app.observer().map(|observer| Arc::new(Observed::new(observer)) as _);
        // Stock Celery sends its signal before the event.
        let listeners = observed.into_iter().chain(iter::once(Arc::clone(&dispatcher) as _)).chain(counts);
        let witness = Arc::new(Witness::new(listeners.collect(), tally));
        let (neighbours, gossip) =
            self.neighbours(&current.subscribe(), &clock, &dispatcher, &stop_consuming, rng.u64(..))?;
        let remote = self.remote(writer.clone(), current.subscribe(), Arc::clone(&clock), dispatcher, neighbours)?;
        let broadcasts = Broadcasts { connection: current.subscribe(), clock: Arc::clone(&clock) };
        let (delays, parking, patient) = self.delays();
        self.tasks.delay(delays.queues());
        let link = Link {
            own: self.queues(),
            queues: Arc::clone(&consumed),
            delays,
            prefetch: Arc::clone(&prefetch),
            events: self.handle.events.clone(),
            observer: self.app.observer(),
            mailbox: self.listen(clock, rng.u64(..))?,
            current,
            stop_consuming: stop_consuming.clone(),
            stop: stop.clone(),
        };
        let link = tokio::spawn(link.run(self.connector("consumer", rng.u64(..))));
        let sender = self.sender(publisher, broadcasts, Arc::clone(&witness), rng.u64(..))?;
        // It ends when the link does.
        gossip.map(|gossip| tokio::spawn(gossip.run(Arc::clone(&sender))));
        let finisher = self.finisher(sender, writer.clone(), Arc::clone(&witness), rng);
        let pools = self.tasks.pools(self.app.config().worker_rust_concurrency);
        pools.start(pool.size());
        let pulse = watching.as_ref().map(|watching| Arc::clone(&watching.pulse));
        let parts =
            Parts { pulse, ..self.parts(finisher, remote, poison, (parking, patient), disable_prefetch, &consumed) };
        let failure = self.rein(&prefetch);
        let consumer = Consumer::new(parts, prefetch, pool, stop_consuming, &self.handle);
        let failing = AbortOnDropHandle::new(tokio::spawn(stop_with(pools.clone(), self.handle)));
        let ended = consumer.run(self.events).await;
        let ended = match failing.is_finished() {
            true => failing.await.map_or(ended, Err),
            false => ended,
        };
        let ended = match failure.get() {
            Some(failure) => ended.and(Err(Error::new(ErrorKind::Io, failure.clone()))),
            None => ended,
        };
        pools.stop().await;
        witness.offline();
        Background { writer, recording, dispatching, link, publishing, stop }.end().await;
        ended
    }
}

impl Worker {
    /// Gives the program's panel the reins; says why the worker is to have failed, once the program has said it.
    fn rein(&self, prefetch: &Arc<Prefetch>) -> Arc<OnceLock<String>> {
        let failure = Arc::<OnceLock<String>>::default();
        if let Some(panel) = self.app.panel() {
            let (events, prefetch) = (self.handle.events.clone(), Arc::clone(prefetch));
            panel.begins(Arc::new(WorkerReins { events, prefetch, failure: Arc::clone(&failure) }));
        }
        failure
    }
}

/// A worker whose pool is gone would be connected and deaf: it stops instead.
async fn stop_with(pools: Pools, handle: WorkerHandle) -> Error {
    let error = pools.failed().await;
    handle.shutdown(Shutdown::Warm);
    error
}

/// What a worker is watched by.
struct Watching {
    /// The loop shows here how it is.
    pulse: Arc<Pulse>,
    /// Listens to the witness.
    counts: Arc<Counts>,
    _serving: Serving,
}

/// What runs beside the loop, and is ended after it.
struct Background {
    writer: ResultWriter,
    recording: Option<JoinHandle<()>>,
    dispatching: JoinHandle<()>,
    link: JoinHandle<()>,
    publishing: JoinHandle<()>,
    stop: CancellationToken,
}

impl Background {
    async fn end(self) {
        // After a cold shutdown the backend may be away for good; what waits for it then is not waited for.
        let _ = tokio::time::timeout(LAST_WORDS, self.writer.stop()).await;
        if let Some(recording) = self.recording {
            let _ = tokio::time::timeout(LAST_WORDS, recording).await;
        }
        // The last events leave over the link. They do not wait for long.
        let _ = self.dispatching.await;
        self.stop.cancel();
        let _ = self.link.await;
        // A handler that does not yield keeps its publisher; there is nothing left that it could publish over.
        self.publishing.abort();
    }
}

impl WorkerHandle {
    /// Asks the worker to stop; asking again, or when it has stopped, is harmless.
    pub fn shutdown(&self, how: Shutdown) {
        // A worker that has ended has nothing left to stop.
        let _ = self.events.send(Event::Shutdown(how));
    }

    /// Logs what the worker is doing.
    pub fn log_state(&self) {
        // A worker that has ended does nothing.
        let _ = self.events.send(Event::LogState);
    }

    /// Waits until the worker consumes for the first time.
    pub async fn ready(&self) {
        // The sender is `self`, so the channel cannot be closed while this waits.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }

    fn is_ready(&self) {
        self.ready.send_replace(true);
    }

    /// When loads are over.
    pub(crate) fn relief(&self) -> &Relief {
        &self.relief
    }
}
