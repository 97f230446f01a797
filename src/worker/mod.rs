//! The worker: a task's way from a message to its result.
//!
//! received → (held for its ETA) → reserved → started → finished → settled. One closed `event::Event`, one loop
//! (`consumer`); what happens at each step is decided by pure functions (`intake`, `settle`) whose answers one
//! place carries out (`finish`). The order that holds: what a task sends and its result are accepted by broker and
//! backend before a late acknowledgement leaves.
//!
//! Nothing here names a broker or a backend: those are behind the seams of `transport` and `backend`.

mod builtin;
mod chores;
mod cold;
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
mod remote;
mod report;
mod request;
mod results;
mod retry;
mod revoked;
mod running;
mod sender;
mod settle;
mod sink;
mod state_file;
mod steer;
mod suspects;
mod told;
mod unknown;
mod waiting;
mod watched;
mod witness;

use std::iter;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::Result;
use crate::app::{App, Control, parts};
use crate::backend::{ResultBackend, ResultWriter, WriterOptions};
use crate::config::QueueDefinition;
use crate::control::{LamportClock, Rate};
use crate::events::Origin;
use crate::http::{Listening, Serving};
use crate::protocol::{AcceptContent, Serializer};
use crate::time::Clock;
use crate::transport::{Backoff, Prefetch, Queue, Transport};

pub(crate) use crate::app::parts::transport;
use builtin::Builtins;
use cold::Cold;
use consumer::{Consumer, Lost, Parts};
use consumer_timeout::ConsumerTimeout;
use continuations::Continuations;
use counts::Counts;
use dead_letter::DeadLetters;
pub(crate) use dead_letter::{HEADER as DEATH_HEADER, Note as DeathNote, revived};
use delays::Delays;
use dispatcher::{Dispatcher, DispatcherParts};
use duplicates::Duplicates;
use event::Event;
pub use event::Shutdown;
use finish::Finisher;
use frozen::Freezer;
use gossip::{Gossip, GossipParts};
use inspect::About;
use intake::Tasks;
use limited_set::Bounds;
use link::{Connector, Link};
use mailbox::{Mailbox, MailboxDoor};
use metas::Metas;
use mingle::Mingle;
use parking::Parking;
use poison::{Poison, Quarantine};
pub use pool::Autoscale;
use pool::Pool;
use publisher::{Current, Publisher};
use pulse::Pulse;
use queues::{Consumed, Queues};
use remote::{Neighbours, Remote};
use results::Results;
use revoked::Revoked;
use sender::{Broadcasts, Sender};
use state_file::{Remembered, StateFile};
use watched::Watched;
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
        };
        let (events, receiver) = mpsc::unbounded_channel();
        let handle = WorkerHandle { events, ready: watch::Sender::new(false) };
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
        self.backend.uri()
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
        let watching = self.watch(&tally, &prefetch, &dispatcher)?;
        let counts = watching.iter().map(|watching| Arc::clone(&watching.counts) as _);
        let listeners = iter::once(Arc::clone(&dispatcher) as _).chain(counts);
        let witness = Arc::new(Witness::new(listeners.collect(), tally));
        let (neighbours, gossip) =
            self.neighbours(&current.subscribe(), &clock, &dispatcher, &stop_consuming, rng.u64(..))?;
        let remote = self.remote(writer.clone(), current.subscribe(), Arc::clone(&clock), dispatcher, neighbours)?;
        let broadcasts = Broadcasts { connection: current.subscribe(), clock: Arc::clone(&clock) };
        let (delays, parking, patient) = self.delays();
        self.tasks.delay(delays.queues());
        let consumed: Consumed = Arc::new(watch::Sender::new(self.queues()));
        let link = Link {
            queues: Arc::clone(&consumed),
            delays,
            prefetch: Arc::clone(&prefetch),
            events: self.handle.events.clone(),
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
        let pools = self.tasks.pools();
        pools.start(pool.size());
        let pulse = watching.as_ref().map(|watching| Arc::clone(&watching.pulse));
        let parts =
            Parts { pulse, ..self.parts(finisher, remote, poison, (parking, patient), disable_prefetch, &consumed) };
        let consumer = Consumer::new(parts, prefetch, pool, stop_consuming, &self.handle);
        let ended = consumer.run(self.events).await;
        pools.stop().await;
        witness.offline();
        Background { writer, recording, dispatching, link, publishing, stop }.end().await;
        ended
    }
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

/// What a run is made of.
impl Worker {
    fn sender(
        &self,
        publisher: Publisher,
        broadcasts: Broadcasts,
        witness: Arc<Witness>,
        seed: u64,
    ) -> Result<Arc<Sender>> {
        let (backend, clock) = (Arc::clone(&self.backend), self.clock.clone());
        let delays = self.transport.capabilities().delays_natively;
        let sender = Sender::new(&self.app, publisher, backend, clock, broadcasts, delays, seed)?;
        Ok(Arc::new(sender.watched_by(witness)))
    }

    /// What ends tasks; the tasks that every worker has are made with it, for they send and store as it does.
    fn finisher(
        &mut self,
        sender: Arc<Sender>,
        writer: ResultWriter,
        witness: Arc<Witness>,
        rng: fastrand::Rng,
    ) -> Finisher {
        let config = self.app.config();
        let results = Arc::new(Results { metas: self.metas.clone(), writer, cold: Cold::default() });
        let continuations = Arc::new(Continuations { sender, results, tasks: self.app.tasks().clone() });
        self.tasks.add(Builtins::new(Arc::clone(&continuations), config).tasks(), config);
        let dead_letters = config.dead_letter_queue.clone();
        let dead_letters = dead_letters.map(|queue| DeadLetters { queue, hostname: self.options.hostname.clone() });
        let successes =
            Bounds { max: config.worker_successful_max as usize, expires: config.worker_successful_expires };
        let deduplicate = config.worker_deduplicate_successful_tasks;
        let duplicates = Duplicates::new(deduplicate, successes, Arc::clone(&self.backend));
        Finisher::new(continuations, dead_letters, duplicates, witness, self.clock.clone(), rng)
    }

    fn parts(
        &mut self,
        finisher: Finisher,
        remote: Remote,
        poison: Option<Poison>,
        (parking, patient): (Parking, ConsumerTimeout),
        disable_prefetch: bool,
        consumed: &Consumed,
    ) -> Parts {
        let config = self.app.config();
        let lost = match self.transport.capabilities().settles_across_connections {
            true => Lost::Nothing,
            false => Lost::Deliveries { cancel: config.worker_cancel_long_running_tasks_on_connection_loss },
        };
        Parts {
            about: About::new(Arc::clone(&self.app), Arc::clone(&self.transport), self.options.queues.clone()),
            lost,
            remote,
            revoked: self.revoked(),
            disable_rate_limits: config.worker_disable_rate_limits,
            disable_prefetch,
            finisher,
            pools: self.tasks.pools(),
            tasks: self.tasks.clone(),
            rates: std::mem::take(&mut self.rates),
            state_file: self.state_file.clone(),
            freezer: Freezer::new(),
            parking,
            patient,
            queues: Queues::new(&self.app, consumed),
            quarantine: poison.map(|poison| Quarantine::new(poison, self.handle.events.clone())),
            pulse: None,
        }
    }
}

impl Worker {
    fn connector(&self, name: &'static str, seed: u64) -> Connector {
        Connector::new(name, Arc::clone(&self.transport), self.app.config(), Backoff::new(seed))
    }

    fn pool(&self, disable_prefetch: bool) -> Pool {
        let config = self.app.config();
        let size = config.worker_concurrency.unwrap_or(DEFAULT_CONCURRENCY);
        Pool::new(size, config.worker_prefetch_multiplier, disable_prefetch, self.autoscale)
    }

    /// The window of what may be out at a time.
    fn prefetch(&self, pool: &Pool) -> Arc<Prefetch> {
        let ceiling = self.app.config().worker_eta_task_limit.map(|limit| limit as usize);
        Prefetch::bounded(pool.window(), ceiling)
    }

    /// A broker that sends ahead cannot be kept from it (celery/worker/consumer/tasks.py `Tasks.start`).
    fn disables_prefetch(&self) -> bool {
        let wanted = self.app.config().worker_disable_prefetch;
        if wanted && self.transport.capabilities().sends_ahead {
            tracing::warn!(
                "worker_disable_prefetch is only supported for Redis brokers. Current broker transport: amqp. \
                 Ignoring disable_prefetch setting."
            );
            return false;
        }
        wanted
    }

    /// What counts lost workers, if that is wanted.
    fn poison(&self, current: Current) -> Option<(Poison, JoinHandle<()>)> {
        Some(Poison::start(self.app.config().worker_lost_limit?, current))
    }

    /// How messages wait at the broker, and for how long it waits for us.
    fn delays(&self) -> (Delays, Parking, ConsumerTimeout) {
        let (config, capabilities) = (self.app.config(), self.transport.capabilities());
        if !capabilities.delays_natively {
            if config.worker_park_eta_after.is_some() {
                tracing::warn!("worker_park_eta_after has no effect: {} keeps no messages", self.transport.uri());
            }
            return (Delays::default(), Parking::default(), ConsumerTimeout::new(None));
        }
        let parking = Parking::new(config.worker_park_eta_after, &self.queues());
        let delays = Delays::new(config, &self.options.queues, &parking);
        (delays, parking, ConsumerTimeout::new(config.broker_consumer_timeout))
    }

    /// What was revoked before this run.
    fn revoked(&self) -> Revoked {
        let config = self.app.config();
        let bounds = Bounds { max: config.worker_revokes_max as usize, expires: config.worker_revoke_expires };
        let mut revoked = Revoked::new(bounds);
        revoked.merge(&self.remembered.revoked, &self.remembered.stamps, Instant::now());
        revoked
    }

    /// What sends events.
    fn dispatcher(
        &self,
        connection: Current,
        clock: &Arc<LamportClock>,
        tally: &Arc<Tally>,
        seed: u64,
    ) -> Result<(Arc<Dispatcher>, JoinHandle<()>)> {
        let config = self.app.config();
        Ok(Dispatcher::start(DispatcherParts {
            origin: Origin::new(&*self.options.hostname),
            exchange: config.event_exchange.clone(),
            serializer: Serializer::from_name(&config.event_serializer)?,
            task_events: config.worker_send_task_events,
            heartbeat: self.heartbeat,
            gossips: self.gossips,
            lamport: Arc::clone(clock),
            clock: self.clock.clone(),
            tally: Arc::clone(tally),
            connection,
            seed,
        }))
    }

    /// Shows the worker to whoever watches, if that is wanted.
    fn watch(
        &mut self,
        tally: &Arc<Tally>,
        prefetch: &Arc<Prefetch>,
        dispatcher: &Arc<Dispatcher>,
    ) -> Result<Option<Watching>> {
        let Some(listening) = self.http.take() else { return Ok(None) };
        let queues: Vec<String> = self.options.queues.iter().map(|queue| queue.name.clone()).collect();
        let pulse = Arc::new(Pulse::new(Instant::now()));
        let counts = Arc::new(Counts::new(self.app.tasks().names().len(), queues.len()));
        tracing::info!("Serving http://{}/metrics", listening.address()?);
        let site = Watched {
            node: self.options.hostname.clone(),
            queues,
            counts: Arc::clone(&counts),
            pulse: Arc::clone(&pulse),
            tally: Arc::clone(tally),
            prefetch: Arc::clone(prefetch),
            dispatcher: Arc::clone(dispatcher),
        };
        Ok(Some(Watching { pulse, counts, _serving: listening.serve(Arc::new(site))? }))
    }

    fn remote(
        &self,
        writer: ResultWriter,
        connection: Current,
        clock: Arc<LamportClock>,
        dispatcher: Arc<Dispatcher>,
        neighbours: Neighbours,
    ) -> Result<Remote> {
        Ok(Remote {
            neighbours,
            dispatcher,
            metas: self.metas.clone(),
            writer,
            backend: Arc::clone(&self.backend),
            connection,
            clock,
            serializer: Serializer::from_name(&self.app.config().task_serializer)?,
        })
    }

    /// How it talks to other workers, and what hears them.
    fn neighbours(
        &self,
        connection: &Current,
        clock: &Arc<LamportClock>,
        dispatcher: &Arc<Dispatcher>,
        stop: &CancellationToken,
        seed: u64,
    ) -> Result<(Neighbours, Option<Gossip>)> {
        let (config, hostname) = (self.app.config(), &self.options.hostname);
        let mut neighbours = Neighbours::default();
        if !self.transport.capabilities().has_neighbours {
            return Ok((neighbours, None));
        }
        if self.mingles {
            let (transport, lamport) = (Arc::clone(&self.transport), Arc::clone(clock));
            neighbours.mingle = Some(Mingle {
                hostname: hostname.clone(),
                control: Control::with_parts(config, transport, self.clock.clone(), lamport)?,
                clock: Arc::clone(clock),
                connection: connection.clone(),
                events: self.handle.events.clone(),
                stop: stop.clone(),
            });
        }
        if !self.gossips {
            return Ok((neighbours, None));
        }
        let parts = GossipParts {
            hostname: hostname.clone(),
            lamport: Arc::clone(clock),
            clock: self.clock.clone(),
            connection: connection.clone(),
            dispatcher: Arc::clone(dispatcher),
            seed,
        };
        let (gossip, door) = Gossip::new(config, parts)?;
        neighbours.gossip = Some(door);
        Ok((neighbours, Some(gossip)))
    }

    /// Begins to hear commands, unless `worker_enable_remote_control` is off.
    fn listen(&self, clock: Arc<LamportClock>, seed: u64) -> Result<Option<MailboxDoor>> {
        let config = self.app.config();
        if !config.worker_enable_remote_control {
            return Ok(None);
        }
        let accept = AcceptContent::new(&config.accept_content)?;
        let hostname = &self.options.hostname;
        let events = self.handle.events.clone();
        let queue = parts::control_queue(hostname, config);
        let (mailbox, door) = Mailbox::new(hostname, queue, accept, clock, events, Backoff::patient(seed));
        // It ends when the link, which has the door, does.
        tokio::spawn(mailbox.run());
        Ok(Some(door))
    }

    fn queues(&self) -> Vec<Queue> {
        self.options.queues.iter().map(parts::queue).collect()
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
}
