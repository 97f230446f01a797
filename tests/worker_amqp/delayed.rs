//! What waits for its ETA: at the broker, or here for no longer than the server bears it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use celeriac::app::Producer;
use celeriac::config::Config;
use celeriac::protocol::{DateTime, Map, Message, State, Value};
use celeriac::task::{Outcome, TaskOptions};
use celeriac::time::Clock;
use celeriac::{App, args, signature};
use jiff::Timestamp;

use super::rig::{message, task, with_header};
use super::support::eventually;
use super::support::rabbitmq_server::{RabbitServer, VHost};
use super::{
    BackendOptions, MemoryBackend, Publication, Queue, ResultBackend, Shutdown, Worker, WorkerOptions, transport,
};

/// A worker on a vhost of its own, whose task notes the exchange that it came from.
struct Desk {
    vhost: VHost,
    app: App,
    backend: Arc<MemoryBackend>,
    handle: celeriac::worker::WorkerHandle,
    running: tokio::task::JoinHandle<celeriac::Result<()>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// What a run sees of its message's way.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    exchange: String,
    routing_key: String,
    /// The queue in which its time came to pass first; empty: in none.
    waited_in: String,
}

impl Desk {
    async fn open(server: &Arc<RabbitServer>, clock: Clock, settings: &str) -> Self {
        let vhost = server.vhost();
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let notes = Arc::clone(&seen);
        let noted = task("noted", TaskOptions::default(), move |context, _| {
            let request = context.request();
            let text = |map: &Map, name| map.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            let (exchange, routing_key) =
                (text(&request.delivery_info, "exchange"), text(&request.delivery_info, "routing_key"));
            let waited_in = text(&request.headers, "x-first-death-queue");
            notes.lock().unwrap().push(Seen { exchange, routing_key, waited_in });
            Outcome::Success(Value::Null)
        });
        let mut app = App::new("test").task(noted);
        app.config_mut().merge_toml(settings, "the test").unwrap();
        let backend = Arc::new(MemoryBackend::new(BackendOptions::default()).unwrap());
        let queues = app.config().consume_from(&[], &[]).unwrap();
        let options = WorkerOptions { hostname: "w1@test".into(), queues, seed: 1 };
        let worker =
            Worker::with_parts(app.clone(), options, transport(&vhost), Arc::clone(&backend) as _, clock).unwrap();
        let handle = worker.handle();
        let running = tokio::spawn(worker.run());
        handle.ready().await;
        Desk { vhost, app, backend, handle, running, seen }
    }

    async fn send(&self, message: Message) {
        let connection = transport(&self.vhost).connect().await.unwrap();
        connection.declare(&[Queue::direct("celery")]).await.unwrap();
        for accepted in connection.publish(vec![Publication::to_queue("celery", message)]).await.unwrap() {
            accepted.unwrap();
        }
        connection.close().await.unwrap();
    }

    async fn succeeds(&self, id: &str) {
        let stored = self.backend.wait(id, Some(Duration::from_secs(30))).await.unwrap();
        assert_eq!(stored.expect("it runs in time").status, State::Success);
    }

    /// In how many queues of levels something waits, and whether anything is unacknowledged.
    fn parked(&self) -> (usize, usize) {
        let depths = self.vhost.depths();
        let waiting = depths.iter().filter(|depth| depth.queue.contains("celery_delayed_") && depth.ready > 0);
        (waiting.count(), depths.iter().map(|depth| depth.unacknowledged).sum())
    }

    /// The connection that the worker consumes over.
    fn consuming(&self) -> String {
        // A channel may end while it is asked.
        let of = "X || C <- rabbit_channel:list(), \
                  [{consumer_count, N}, {connection, X}] <- [catch rabbit_channel:info(C, [consumer_count, connection])], \
                  N > 0";
        self.vhost.server().ask(&format!("lists:usort([{of}])."))
    }

    async fn close(self) -> Vec<Seen> {
        self.handle.shutdown(Shutdown::Warm);
        self.running.await.unwrap().unwrap();
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

/// A node that closes channels for what is not acknowledged in so many milliseconds, and looks often.
async fn impatient(timeout: u32) -> Option<Arc<RabbitServer>> {
    let server = RabbitServer::start().await?;
    closes_after(&server, timeout);
    server.ask("application:set_env(rabbit, channel_tick_interval, 200).");
    Some(server)
}

/// The same from now on, for channels that are opened after this.
fn closes_after(server: &RabbitServer, timeout: u32) {
    server.ask(&format!("application:set_env(rabbit, consumer_timeout, {timeout})."));
}

fn due(eta: Timestamp) -> Message {
    with_header(message("noted", "1", vec![]), "eta", DateTime::from(eta).to_string())
}

/// The clocks are the test's: the worker's is set, and each of the broker's levels waits for a moment only.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_of_two_hours_delay_waits_at_the_broker_and_runs_on_time() {
    let Some(server) = impatient(60_000).await else { return };
    let clock = Clock::manual("2026-11-22T12:00:00Z".parse().unwrap());
    let desk = Desk::open(&server, clock.clone(), "worker_park_eta_after = 60").await;
    let definition = "[{<<\"message-ttl\">>, 400}], 0, <<\"queues\">>, <<\"guest\">>";
    let policy =
        format!("rabbit_policy:set(<<\"{}\">>, <<\"fast\">>, <<\"^celeriac_\">>, {definition}).", desk.vhost.name());
    assert_eq!(server.ask(&policy), "ok");
    let consuming = desk.consuming();
    desk.send(due(clock.now() + Duration::from_secs(7200))).await;
    eventually("it is parked", || async { desk.parked() == (1, 0) }).await;
    assert!(desk.seen.lock().unwrap().is_empty());
    // Now it is two seconds before its time. 7199 has eight digits that are one: it comes back after three seconds.
    clock.advance(Duration::from_secs(7198));
    eventually("it is back and held", || async { desk.vhost.depth("celery").unacknowledged == 1 }).await;
    assert!(desk.seen.lock().unwrap().is_empty());
    clock.advance(Duration::from_secs(2));
    // It looks at the clock when something happens.
    desk.handle.log_state();
    desk.succeeds("1").await;
    assert_eq!(desk.consuming(), consuming, "no connection was lost");
    // It does not see that it was parked.
    let (exchange, waited_in) = (String::new(), String::new());
    assert_eq!(desk.close().await, [Seen { exchange, routing_key: "celery".to_owned(), waited_in }]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_parked_copy_is_refused_is_held_and_runs_on_time() {
    let Some(server) = RabbitServer::shared().await else { return };
    let mut late = Vec::new();
    // The machine may stand still for a second, but not each time.
    while late.len() < 3 && late.last().is_none_or(|late| *late >= 1.0) {
        late.push(held_as_no_copy_is_taken(&server).await);
    }
    assert!(late.last().is_some_and(|late| *late < 1.0), "{late:?} seconds late");
}

/// How many seconds late a task runs where the broker has lost what tasks are parked in, and takes no copy.
async fn held_as_no_copy_is_taken(server: &Arc<RabbitServer>) -> f64 {
    let desk = Desk::open(server, Clock::system(), "worker_park_eta_after = 1").await;
    let name = format!("rabbit_misc:r(<<\"{}\">>, exchange, <<\"celeriac_celery_delayed_27\">>)", desk.vhost.name());
    assert_eq!(server.ask(&format!("rabbit_exchange:delete({name}, false, <<\"test\">>).")), "ok");
    let consuming = desk.consuming();
    let eta = Clock::system().now() + Duration::from_secs(9);
    desk.send(due(eta)).await;
    eventually("it is held", || async { desk.parked() == (0, 1) }).await;
    desk.succeeds("1").await;
    let late = Clock::system().now().duration_since(eta).as_secs_f64();
    assert!(late >= 0.0, "{late} seconds late");
    eventually("it is settled", || async { desk.parked() == (0, 0) }).await;
    assert_eq!(desk.consuming(), consuming, "no connection was lost");
    assert_eq!(desk.vhost.depth("celery").ready, 0);
    assert_eq!(desk.close().await.len(), 1);
    late
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_parked_outlasts_the_servers_patience_and_runs_on_time() {
    let Some(server) = impatient(6000).await else { return };
    let desk = Desk::open(&server, Clock::system(), "worker_park_eta_after = 1").await;
    let consuming = desk.consuming();
    let eta = Clock::system().now() + Duration::from_secs(9);
    desk.send(due(eta)).await;
    eventually("it is parked", || async { desk.parked() == (1, 0) }).await;
    desk.succeeds("1").await;
    let late = Clock::system().now().duration_since(eta).as_secs_f64();
    // It waits for eight seconds there. The next level would be eight more.
    assert!((0.0..7.0).contains(&late), "{late} seconds late");
    assert_eq!(desk.consuming(), consuming, "no connection was lost");
    assert_eq!(desk.close().await.len(), 1);
}

/// The clock is the test's: its time comes when it is held over the next connection, which the server lets be.
#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_is_closed_for_what_is_held_is_a_lost_connection_and_no_more() {
    let Some(server) = impatient(1500).await else { return };
    let clock = Clock::manual("2026-11-22T12:00:00Z".parse().unwrap());
    let desk = Desk::open(&server, clock.clone(), "").await;
    let consuming = desk.consuming();
    assert_ne!(consuming, "[]");
    closes_after(&server, 600_000);
    desk.send(due(clock.now() + Duration::from_secs(3600))).await;
    eventually("it has another connection", || async {
        let now = desk.consuming();
        now != consuming && now != "[]" && desk.vhost.depth("celery").unacknowledged == 1
    })
    .await;
    let is_logged = || async { server.log().contains("waiting for delivery acknowledgement") };
    eventually("the server says why", is_logged).await;
    assert!(desk.seen.lock().unwrap().is_empty());
    clock.advance(Duration::from_secs(3600));
    // It looks at the clock when something happens.
    desk.handle.log_state();
    desk.succeeds("1").await;
    assert_eq!(desk.close().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producers_countdown_waits_at_the_broker_where_a_quorum_queue_is_configured() {
    let Some(server) = RabbitServer::shared().await else { return };
    let settings = "task_default_queue_type = 'quorum'\ntask_default_exchange_type = 'topic'";
    let desk = Desk::open(&server, Clock::system(), settings).await;
    let (backend, clock) = (Arc::clone(&desk.backend), Clock::system());
    let producer = Producer::with_parts(&desk.app, transport(&desk.vhost), backend as _, clock).unwrap();
    let begun = Clock::system().now();
    let sent = producer.send(signature("noted", args![]).countdown(2.5)).await.unwrap();
    desk.succeeds(sent.id()).await;
    let took = Clock::system().now().duration_since(begun).as_secs_f64();
    assert!((2.5..20.0).contains(&took), "{took}");
    producer.close().await.unwrap();
    // 2: digit 1 is the only one. The broker says itself where it has kept it.
    let (exchange, waited_in) = ("celery_delayed_0".to_owned(), "celery_delayed_1".to_owned());
    let routing_key = "0.".repeat(26) + "1.0.celery";
    assert_eq!(desk.close().await, [Seen { exchange, routing_key, waited_in }]);
}

#[test]
fn the_type_of_the_levels_queues_is_checked() {
    let refused = Config::default().merge_toml("broker_native_delayed_delivery_queue_type = 'stream'", "t.toml");
    let expected = "t.toml: broker_native_delayed_delivery_queue_type: expected classic or quorum";
    assert_eq!(refused.unwrap_err().to_string(), expected);
}
