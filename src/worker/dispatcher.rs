//! [`Dispatcher`]: makes events of what happens, and sends them to whoever listens.
//!
//! Tasks never wait for it. An event is written into a buffer that has a bound ([`Gathered`]), and a background part sends
//! what has gathered, many events in one message; where a broker that is slow or away lets the buffer fill up, what comes
//! then is dropped, counted, and told of in the log once. While task events are not wanted nothing is made for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::gathered::Gathered;
use super::malformed::Malformed;
use super::publisher::{Current, changed_from};
use super::request::Work;
use super::told::{ended, received};
use super::witness::{Ended, Listener, Tally};
use crate::app::Observer;
use crate::control::LamportClock;
use crate::events::{Event, EventMessage, Groups, Heartbeat, Kind, Load, Origin, Stamp, messages};
use crate::protocol::Serializer;
use crate::time::Clock;
use crate::transport::{Backoff, Publication};
use crate::{Error, Result};

/// How many events wait at most.
const BUFFER: usize = 20_000;
/// How many leave at a time.
const BATCH: usize = 1000;
/// For how long the first of a batch waits for others.
const GATHER: Duration = Duration::from_millis(5);
/// How long the last words may take.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// What a heartbeat that was asked for tells (celery/worker/control.py `heartbeat`).
const ASKED_FREQ: i64 = 5;

/// Makes events and hands them over.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    groups: Groups,
    /// Nothing is ever sent.
    is_mute: bool,
    lamport: Arc<LamportClock>,
    clock: Clock,
    gathered: Arc<Gathered>,
    orders: mpsc::UnboundedSender<Order>,
    /// Cancelled when the worker ends.
    ending: CancellationToken,
    dropped: AtomicU64,
}

/// What the background part is told beside events.
#[derive(Debug, Clone, PartialEq)]
enum Order {
    /// The worker consumes.
    Online,
    /// Somebody asks for a heartbeat.
    Heartbeat,
    /// The worker tells others something that is not to wait.
    Say(Kind),
    /// The same at each of these logical times, together.
    SayAt(&'static [u64], Kind),
}

/// What a dispatcher is made from.
pub(crate) struct DispatcherParts {
    pub(crate) origin: Origin,
    /// `event_exchange`.
    pub(crate) exchange: String,
    pub(crate) serializer: Serializer,
    /// Task events are wanted from the start.
    pub(crate) task_events: bool,
    /// From one heartbeat to the next; `None`: the worker tells nothing of itself.
    pub(crate) heartbeat: Option<Duration>,
    /// The worker talks to others.
    pub(crate) gossips: bool,
    /// Is told of heartbeats.
    pub(crate) observer: Option<Arc<dyn Observer>>,
    pub(crate) lamport: Arc<LamportClock>,
    pub(crate) clock: Clock,
    pub(crate) tally: Arc<Tally>,
    pub(crate) connection: Current,
    pub(crate) seed: u64,
}

impl DispatcherParts {
    fn is_mute(&self) -> bool {
        !self.task_events && !self.gossips && self.heartbeat.is_none()
    }
}

impl Dispatcher {
    /// A dispatcher and its background part, which ends some time after [`Listener::offline`].
    pub(crate) fn start(parts: DispatcherParts) -> (Arc<Self>, JoinHandle<()>) {
        let gathered = Arc::new(Gathered::new(BUFFER, parts.origin.clone(), parts.serializer));
        let (orders, ordered) = mpsc::unbounded_channel();
        let dispatcher = Arc::new(Dispatcher {
            groups: match parts.is_mute() {
                true => Groups::none(),
                false => Groups::new(parts.task_events),
            },
            is_mute: parts.is_mute(),
            lamport: Arc::clone(&parts.lamport),
            clock: parts.clock.clone(),
            gathered: Arc::clone(&gathered),
            orders,
            ending: CancellationToken::new(),
            dropped: AtomicU64::new(0),
        });
        let (ending, backoff) = (dispatcher.ending.clone(), Backoff::new(parts.seed));
        let sending =
            Sending { parts, gathered, ending, unsent: Vec::new(), next_beat: None, backoff, is_refused: false };
        (dispatcher, tokio::spawn(sending.run(ordered)))
    }

    /// celery/worker/control.py `enable_events`: whether that is news.
    pub(crate) fn enable_task_events(&self) -> bool {
        self.groups.enable_task()
    }

    /// celery/worker/control.py `disable_events`: whether that is news.
    pub(crate) fn disable_task_events(&self) -> bool {
        self.groups.disable_task()
    }

    /// Sends a heartbeat at once (celery/worker/control.py `heartbeat`).
    pub(crate) fn heartbeat(&self) {
        if !self.is_mute {
            self.order(Order::Heartbeat);
        }
    }

    /// Tells others something at once.
    pub(crate) fn say(&self, kind: Kind) {
        self.order(Order::Say(kind));
    }

    /// The same at each of these logical times, together.
    pub(crate) fn say_at(&self, clocks: &'static [u64], kind: Kind) {
        self.order(Order::SayAt(clocks, kind));
    }

    /// How many events were dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn order(&self, order: Order) {
        // The background part is gone only when the worker is.
        let _ = self.orders.send(order);
    }

    fn wants(&self, work: &Work) -> bool {
        self.groups.has_task() && work.task.policy.send_events
    }

    fn send(&self, kind: Kind) {
        let stamp = || Stamp { clock: self.lamport.forward(), time: self.clock.now() };
        match self.gathered.put(|| Event { kind, stamp: stamp() }) {
            Ok(true) => {}
            Ok(false) => self.drop_one(),
            Err(error) => warn!("cannot write an event: {error}"),
        }
    }

    fn drop_one(&self) {
        if self.dropped.fetch_add(1, Ordering::Relaxed) == 0 {
            warn!("More events happen than the broker takes: the first of them is dropped, and others may be");
        }
    }
}

impl Listener for Dispatcher {
    fn wants_results(&self) -> bool {
        self.groups.has_task()
    }

    fn received(&self, work: &Work) {
        if self.wants(work) {
            self.send(Kind::TaskReceived(Box::new(received(work))));
        }
    }

    fn started(&self, work: &Work) {
        if self.wants(work) {
            self.send(Kind::TaskStarted(work.request.id.clone()));
        }
    }

    fn ended(&self, work: &Work, end: &Ended<'_>) {
        if self.wants(work) {
            ended(&work.request.id, end, &work.task.policy).for_each(|kind| self.send(kind));
        }
    }

    fn refused(&self, malformed: &Malformed) {
        if let (true, true, Some(request)) = (self.groups.has_task(), malformed.is_told(), malformed.request.as_ref()) {
            let exception = malformed.exception.to_string();
            self.send(Kind::TaskFailed { uuid: request.id.clone(), exception, traceback: None });
        }
    }

    fn online(&self) {
        self.order(Order::Online);
    }

    fn offline(&self) {
        self.ending.cancel();
        match self.dropped() {
            0 => {}
            dropped => warn!("{dropped} event(s) were dropped, for the broker took them too slowly"),
        }
    }
}

/// The background part.
struct Sending {
    parts: DispatcherParts,
    gathered: Arc<Gathered>,
    ending: CancellationToken,
    /// Made of events, and not yet with the broker.
    unsent: Vec<Publication>,
    /// When the next heartbeat is due; `None` while the worker is not online.
    next_beat: Option<Instant>,
    backoff: Backoff,
    /// It was told that events are refused.
    is_refused: bool,
}

impl Sending {
    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let (ending, gathered) = (self.ending.clone(), Arc::clone(&self.gathered));
        loop {
            let mut said = Vec::new();
            tokio::select! {
                biased;
                () = ending.cancelled() => break,
                order = orders.recv() => match order {
                    Some(order) => self.carry_out(order, &mut said),
                    None => break,
                },
                () = due(self.next_beat) => self.beat(&mut said),
                count = gathered.some() => if count < BATCH {
                    sleep(GATHER).await;
                },
            }
            self.add(messages(said, &self.parts.origin, self.parts.serializer));
            self.gather();
            tokio::select! {
                biased;
                () = ending.cancelled() => break,
                () = self.send() => {}
            }
        }
        // Nobody waits long for a broker that is away.
        let _ = timeout(LAST_WORDS, self.end()).await;
    }

    /// What waits leaves, and then the last word.
    async fn end(mut self) {
        self.gathered.close();
        while self.gather() > 0 {
            self.send().await;
        }
        if let Some(interval) = self.parts.heartbeat {
            let offline = self.event(Kind::WorkerOffline(self.heartbeat(interval)));
            self.add(messages([offline], &self.parts.origin, self.parts.serializer));
        }
        self.send().await;
    }

    fn carry_out(&mut self, order: Order, said: &mut Vec<Event>) {
        match order {
            Order::Online => self.online(said),
            Order::Heartbeat => said.push(self.asked()),
            Order::Say(kind) => said.push(self.event(kind)),
            Order::SayAt(clocks, kind) => {
                let event = self.event(kind);
                let at = |clock: &u64| Event { stamp: Stamp { clock: *clock, ..event.stamp }, ..event.clone() };
                said.extend(clocks.iter().map(at));
            }
        }
    }

    fn online(&mut self, said: &mut Vec<Event>) {
        if let Some(interval) = self.parts.heartbeat {
            let heartbeat = self.heartbeat(interval);
            said.push(self.event(Kind::WorkerOnline(heartbeat)));
            self.next_beat = Some(Instant::now() + interval);
        }
    }

    /// No heartbeats gather while there is no connection: the worker will be online when there is one.
    fn beat(&mut self, said: &mut Vec<Event>) {
        self.next_beat = None;
        if let Some(interval) = self.parts.heartbeat.filter(|_| self.parts.connection.borrow().is_some()) {
            let heartbeat = self.heartbeat(interval);
            said.push(self.event(Kind::WorkerHeartbeat(heartbeat)));
            self.next_beat = Some(Instant::now() + interval);
        }
    }

    fn asked(&self) -> Event {
        self.event(Kind::WorkerHeartbeat(Heartbeat { freq: ASKED_FREQ.into(), load: None }))
    }

    fn heartbeat(&self, interval: Duration) -> Heartbeat {
        self.parts.observer.iter().for_each(|observer| observer.beats());
        let (active, processed) = (self.parts.tally.active(), self.parts.tally.processed());
        let load = Load { active, processed, loadavg: loadavg() };
        Heartbeat { freq: interval.as_secs_f64().into(), load: Some(load) }
    }

    fn event(&self, kind: Kind) -> Event {
        Event { kind, stamp: Stamp { clock: self.parts.lamport.forward(), time: self.parts.clock.now() } }
    }

    /// Takes the events of tasks that are to leave next, and says how many messages they are.
    fn gather(&mut self) -> usize {
        let bundles = self.gathered.take(BATCH);
        let count = bundles.len();
        let made = bundles.into_iter().map(|bundle| bundle.into_message(&self.parts.origin, self.parts.serializer));
        self.add(made.collect());
        count
    }

    fn add(&mut self, made: Result<Vec<EventMessage>>) {
        match made {
            Ok(made) => self.unsent.extend(made.into_iter().map(|EventMessage { routing_key, message }| Publication {
                exchange: self.parts.exchange.clone(),
                routing_key,
                message,
            })),
            Err(error) => warn!("cannot write events: {error}"),
        }
    }

    /// Sends what is unsent; again while the broker is away. What it refuses is gone.
    async fn send(&mut self) {
        while !self.unsent.is_empty() {
            // The link, which has the other end, ends after this.
            let Ok(connection) = self.parts.connection.wait_for(Option::is_some).await.map(|now| now.clone()) else {
                return;
            };
            let Some(connection) = connection else { continue };
            match connection.announce(self.unsent.clone()).await {
                Ok(()) => {
                    self.unsent.clear();
                    self.backoff = Backoff::new(self.parts.seed);
                }
                Err(error) if error.can_pass() => {
                    debug!("events: {error}");
                    let (pause, mut current) = (self.backoff.next_pause(), self.parts.connection.clone());
                    let _ = timeout(pause, changed_from(&mut current, &connection)).await;
                }
                Err(error) => self.refused(&error),
            }
        }
    }

    fn refused(&mut self, error: &Error) {
        self.unsent.clear();
        if !std::mem::replace(&mut self.is_refused, true) {
            warn!("events are not sent: {error}");
        }
    }
}

async fn due(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// The machine's load (celery/utils/sysinfo.py `load_average`); zeros where nobody tells it.
fn loadavg() -> [f64; 3] {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let mut loads = text.split_whitespace().map(|load| load.parse().unwrap_or_default());
    [(); 3].map(|()| loads.next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::json;
    use crate::transport::{Connection, MemoryTransport, Queue, Transport};

    fn parts(connection: Current) -> DispatcherParts {
        DispatcherParts {
            origin: Origin::new("w1@h"),
            exchange: "celeryev".to_owned(),
            serializer: Serializer::Json,
            task_events: true,
            heartbeat: Some(Duration::from_secs(2)),
            gossips: true,
            observer: None,
            lamport: Arc::default(),
            clock: Clock::system(),
            tally: Arc::default(),
            connection,
            seed: 1,
        }
    }

    fn queue() -> Queue {
        Queue {
            exchange: "celeryev".to_owned(),
            exchange_type: crate::transport::ExchangeType::Topic,
            routing_key: "#".to_owned(),
            ..Queue::direct("monitor")
        }
    }

    /// While the broker is away a bounded number waits and the rest is dropped; all of it leaves afterwards, and then the
    /// last word.
    #[tokio::test]
    async fn a_broker_that_is_away_costs_events_and_no_time() {
        let (current, seen) = tokio::sync::watch::channel(None::<Arc<dyn Connection>>);
        let (dispatcher, running) = Dispatcher::start(parts(seen));
        // The background part takes nothing: it has no turn before the first `.await`.
        (0..BUFFER + 7).for_each(|nth| dispatcher.send(Kind::TaskStarted(nth.to_string())));
        assert_eq!(dispatcher.dropped.load(Ordering::Relaxed), 7);
        let connection = MemoryTransport::new().connect().await.unwrap();
        let mut monitor = connection.subscribe(&queue()).await.unwrap();
        current.send_replace(Some(connection));
        dispatcher.offline();
        running.await.unwrap();
        let mut heard = 0;
        loop {
            let message = monitor.next().await.unwrap().unwrap();
            match json::parse(&message.body).unwrap() {
                crate::protocol::Value::List(events) => heard += events.len(),
                offline => {
                    let fields = offline.into_map().unwrap();
                    assert_eq!(fields.get("type"), Some(&"worker-offline".into()));
                    break;
                }
            }
        }
        assert_eq!(heard, BUFFER);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_broker_that_stays_away() {
        let (_current, seen) = tokio::sync::watch::channel(None::<Arc<dyn Connection>>);
        let (dispatcher, running) = Dispatcher::start(parts(seen));
        dispatcher.online();
        dispatcher.send(Kind::TaskStarted("i".to_owned()));
        tokio::task::yield_now().await;
        let began = Instant::now();
        dispatcher.offline();
        running.await.unwrap();
        assert!(began.elapsed() <= LAST_WORDS + GATHER, "{:?}", began.elapsed());
    }
}
