//! What a run of a [`Worker`] is made of: each part from the app's settings.

use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Result;
use crate::app::{Control, parts};
use crate::backend::ResultWriter;
use crate::control::LamportClock;
use crate::events::Origin;
use crate::protocol::{AcceptContent, Serializer};
use crate::transport::{Backoff, Prefetch, Queue};

use super::builtin::Builtins;
use super::cold::Cold;
use super::consumer::{Lost, Parts};
use super::consumer_timeout::ConsumerTimeout;
use super::continuations::Continuations;
use super::counts::Counts;
use super::dead_letter::DeadLetters;
use super::delays::Delays;
use super::dispatcher::{Dispatcher, DispatcherParts};
use super::duplicates::Duplicates;
use super::finish::Finisher;
use super::frozen::Freezer;
use super::gossip::{Gossip, GossipParts};
use super::inspect::About;
use super::limited_set::Bounds;
use super::link::Connector;
use super::mailbox::{Mailbox, MailboxDoor};
use super::mingle::Mingle;
use super::parking::Parking;
use super::poison::{Poison, Quarantine};
use super::pool::Pool;
use super::publisher::{Current, Publisher};
use super::pulse::Pulse;
use super::queues::{Consumed, Queues};
use super::remote::{Neighbours, Remote};
use super::results::Results;
use super::revoked::Revoked;
use super::sender::{Broadcasts, Sender};
use super::streak::Streak;
use super::watched::Watched;
use super::witness::{Tally, Witness};
use super::{DEFAULT_CONCURRENCY, Watching, Worker};

/// What a run is made of.
impl Worker {
    pub(super) fn sender(
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
    pub(super) fn finisher(
        &mut self,
        sender: Arc<Sender>,
        writer: ResultWriter,
        witness: Arc<Witness>,
        rng: fastrand::Rng,
    ) -> Finisher {
        let config = self.app.config();
        let keeper = self.app.keeper();
        let results = Arc::new(Results { metas: self.metas.clone(), writer, cold: Cold::default(), keeper });
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

    pub(super) fn parts(
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
        let pools = self.tasks.pools(config.worker_rust_concurrency);
        Parts {
            about: About::new(Arc::clone(&self.app), Arc::clone(&self.transport), self.options.queues.clone()),
            lost,
            remote,
            revoked: self.revoked(),
            disable_rate_limits: config.worker_disable_rate_limits,
            disable_prefetch,
            finisher,
            streak: Streak::new(pools.handlers(), config.worker_prefetch_multiplier, disable_prefetch),
            pools,
            tasks: self.tasks.clone(),
            rates: std::mem::take(&mut self.rates),
            state_file: self.state_file.clone(),
            freezer: Freezer::new(),
            parking,
            patient,
            queues: Queues::new(&self.app, consumed),
            quarantine: poison.map(|poison| Quarantine::new(poison, self.handle.events.clone())),
            pulse: None,
            panel: self.app.panel(),
        }
    }
}

impl Worker {
    pub(super) fn connector(&self, name: &'static str, seed: u64) -> Connector {
        Connector::new(name, Arc::clone(&self.transport), self.app.config(), Backoff::new(seed))
    }

    pub(super) fn pool(&self, disable_prefetch: bool) -> Pool {
        let config = self.app.config();
        let size = config.worker_concurrency.unwrap_or(DEFAULT_CONCURRENCY);
        Pool::new(size, config.worker_prefetch_multiplier, disable_prefetch, self.autoscale)
    }

    /// The window of what may be out at a time.
    pub(super) fn prefetch(&self, pool: &Pool) -> Arc<Prefetch> {
        let ceiling = self.app.config().worker_eta_task_limit.map(|limit| limit as usize);
        Prefetch::bounded(pool.window(), ceiling)
    }

    /// A broker that sends ahead cannot be kept from it (celery/worker/consumer/tasks.py `Tasks.start`).
    pub(super) fn disables_prefetch(&self) -> bool {
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
    pub(super) fn poison(&self, current: Current) -> Option<(Poison, JoinHandle<()>)> {
        Some(Poison::start(self.app.config().worker_lost_limit?, current))
    }

    /// How messages wait at the broker, and for how long it waits for us.
    pub(super) fn delays(&self) -> (Delays, Parking, ConsumerTimeout) {
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
    pub(super) fn revoked(&self) -> Revoked {
        let config = self.app.config();
        let bounds = Bounds { max: config.worker_revokes_max as usize, expires: config.worker_revoke_expires };
        let mut revoked = Revoked::new(bounds);
        revoked.merge(&self.remembered.revoked, &self.remembered.stamps, Instant::now());
        revoked
    }

    /// What sends events.
    pub(super) fn dispatcher(
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
            observer: self.app.observer(),
            lamport: Arc::clone(clock),
            clock: self.clock.clone(),
            tally: Arc::clone(tally),
            connection,
            seed,
        }))
    }

    /// Shows the worker to whoever watches, if that is wanted.
    pub(super) fn watch(
        &mut self,
        tally: &Arc<Tally>,
        prefetch: &Arc<Prefetch>,
        dispatcher: &Arc<Dispatcher>,
        consumed: &Consumed,
    ) -> Result<Option<Watching>> {
        let Some(listening) = self.http.take() else { return Ok(None) };
        let pulse = Arc::new(Pulse::new(Instant::now()));
        let counts = Arc::new(Counts::new(self.app.tasks().names().len(), self.options.queues.len()));
        tracing::info!("Serving http://{}/metrics", listening.address()?);
        let site = Watched {
            node: self.options.hostname.clone(),
            queues: Arc::clone(consumed),
            counts: Arc::clone(&counts),
            pulse: Arc::clone(&pulse),
            tally: Arc::clone(tally),
            prefetch: Arc::clone(prefetch),
            dispatcher: Arc::clone(dispatcher),
        };
        Ok(Some(Watching { pulse, counts, _serving: listening.serve(Arc::new(site))? }))
    }

    pub(super) fn remote(
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
            keeper: self.app.keeper(),
            writer_of_answers: self.app.panel().filter(|panel| panel.writes()),
        })
    }

    /// How it talks to other workers, and what hears them.
    pub(super) fn neighbours(
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
    pub(super) fn listen(&self, clock: Arc<LamportClock>, seed: u64) -> Result<Option<MailboxDoor>> {
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
        tokio::spawn(mailbox.read_by(self.app.panel()).run());
        Ok(Some(door))
    }

    pub(super) fn queues(&self) -> Vec<Queue> {
        self.options.queues.iter().map(parts::queue).collect()
    }
}
