//! Orders that change the worker itself, under virtual time and without a broker.

use std::sync::Arc;
use std::time::Duration;

use celeriac::App;
use celeriac::config::Config;
use celeriac::protocol::{Map, Value};
use celeriac::task::{Outcome, Run, TaskOptions};
use celeriac::transport::{Publication, Transport};
use celeriac::worker::Autoscale;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::control::{answer, command, ok};
use crate::rig::{Handler, Rig, echo, message};

/// A task that runs until it is let go, and counts what runs.
#[derive(Clone)]
struct Gate {
    inside: Arc<std::sync::atomic::AtomicUsize>,
    permits: Arc<Semaphore>,
}

impl Gate {
    fn new() -> Self {
        Gate { inside: Arc::default(), permits: Arc::new(Semaphore::new(0)) }
    }

    fn app(&self, config: Config) -> App {
        let gate = self.clone();
        let run = move |_, _| {
            let gate = gate.clone();
            Run::from_future(async move {
                gate.inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                gate.permits.acquire().await.expect("never closed").forget();
                gate.inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                Outcome::Success(Value::Null)
            })
        };
        App::new("test").task(Handler { name: "gate", options: TaskOptions::default(), run }).with_config(config)
    }

    fn inside(&self) -> usize {
        self.inside.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// Waits until so many run, and sees that it stays so.
    async fn holds(&self, count: usize) {
        let reached = async {
            while self.inside() != count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let reached = timeout(Duration::from_secs(5), reached).await;
        assert!(reached.is_ok(), "{} run, and not {count}", self.inside());
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
        assert_eq!(self.inside(), count);
    }
}

fn error(text: &str) -> Value {
    Map::from([("error", text)]).into()
}

async fn ask(rig: &Rig, method: &str, arguments: impl Into<Map>) -> Value {
    command(rig, method, arguments.into()).await;
    answer(rig).await
}

async fn send(rig: &Rig, count: usize) {
    for nth in 0..count {
        rig.send(message("gate", &format!("g{nth}"), vec![])).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pool_grows_at_once_and_shrinks_without_ending_what_runs() {
    let gate = Gate::new();
    let config = Config { worker_concurrency: Some(1), worker_prefetch_multiplier: 1, ..Config::default() };
    let rig = Rig::start(gate.app(config)).await;
    send(&rig, 6).await;
    gate.holds(1).await;
    assert_eq!(rig.transport.unsettled(), 1, "as many as the window holds");
    assert_eq!(ask(&rig, "pool_grow", [("n", 2)]).await, ok("pool will grow"));
    gate.holds(3).await;
    assert_eq!(ask(&rig, "pool_shrink", [("n", 2)]).await, ok("pool will shrink"));
    gate.holds(3).await;
    gate.permits.add_permits(2);
    gate.holds(1).await;
    gate.permits.add_permits(1);
    gate.holds(1).await;
    assert_eq!(
        ask(&rig, "pool_shrink", Map::default()).await,
        error("ValueError(\"Can't shrink pool. All processes busy!\")")
    );
    assert_eq!(ask(&rig, "autoscale", [("max", 3)]).await, error("ValueError('Autoscale not enabled')"));
    assert_eq!(ask(&rig, "pool_restart", Map::default()).await, error("ValueError('Pool restarts not enabled')"));
    gate.permits.add_permits(3);
    rig.idle().await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_follows_its_load_up_at_once_and_down_later() {
    let gate = Gate::new();
    let autoscale = Autoscale { max: 3, min: 1, keepalive: Duration::from_secs(30) };
    let config = Config { worker_prefetch_multiplier: 1, ..Config::default() };
    let rig = Rig::scaled(gate.app(config), Some(autoscale)).await;
    let began = Instant::now();
    send(&rig, 5).await;
    gate.holds(3).await;
    assert!(began.elapsed() < Duration::from_secs(1));
    let refused = "pool_grow is not supported with autoscale. Adjust autoscale range instead.";
    assert_eq!(ask(&rig, "pool_grow", Map::default()).await, error(refused));
    assert_eq!(ask(&rig, "autoscale", [("max", 4)]).await, ok("autoscale now max=4 min=1"));
    gate.holds(4).await;
    assert_eq!(ask(&rig, "autoscale", [("max", 2), ("min", 2)]).await, ok("autoscale now max=2 min=2"));
    gate.holds(4).await;
    gate.permits.add_permits(2);
    gate.holds(2).await;
    gate.permits.add_permits(3);
    rig.idle().await;
}

/// Virtual time stands still while anybody is busy: a loop that does not sleep would never let the five seconds pass.
#[tokio::test(start_paused = true)]
async fn a_pool_that_scales_lets_a_worker_that_stops_sleep() {
    let gate = Gate::new();
    let autoscale = Autoscale { max: 3, min: 1, keepalive: Duration::from_secs(1) };
    let rig = Rig::scaled(gate.app(Config::default()), Some(autoscale)).await;
    send(&rig, 3).await;
    gate.holds(3).await;
    command(&rig, "shutdown", Map::default()).await;
    gate.permits.add_permits(2);
    gate.holds(1).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    gate.permits.add_permits(1);
    rig.running.await.expect("the worker does not panic").expect("the worker stops in good order");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_from_afar_is_a_warm_one_without_an_answer() {
    let gate = Gate::new();
    let rig = Rig::start(gate.app(Config { worker_concurrency: Some(1), ..Config::default() })).await;
    send(&rig, 3).await;
    gate.holds(1).await;
    command(&rig, "shutdown", Map::default()).await;
    while rig.transport.waiting("celery").len() < 2 {
        tokio::task::yield_now().await;
    }
    gate.permits.add_permits(1);
    rig.result("g0").await;
    rig.running.await.expect("the worker does not panic").expect("the worker stops in good order");
    assert_eq!(rig.transport.unsettled(), 0);
    assert_eq!(rig.transport.waiting("oid.reply").len(), 0);
}

/// Sends one to a queue of its own.
async fn send_to(rig: &Rig, queue: &str, id: &str) {
    let connection = rig.transport.connect().await.expect("memory connects");
    let sent = connection.publish(vec![Publication::to_queue(queue, message("echo", id, vec![1.into()]))]).await;
    assert!(sent.expect("memory is up").iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn queues_are_added_and_cancelled_and_stay_so_over_connections() {
    let rig = Rig::start(App::new("test").task(echo())).await;
    send_to(&rig, "more", "before").await;
    for _ in 0..2 {
        assert_eq!(ask(&rig, "add_consumer", [("queue", "more")]).await, ok("add consumer more"));
    }
    rig.result("before").await;
    rig.transport.disconnect();
    send_to(&rig, "more", "after").await;
    rig.result("after").await;
    for queue in ["more", "nobody's"] {
        let expected = ok(&format!("no longer consuming from {queue}"));
        assert_eq!(ask(&rig, "cancel_consumer", [("queue", queue)]).await, expected);
    }
    send_to(&rig, "more", "stays").await;
    send_to(&rig, "celery", "other").await;
    rig.result("other").await;
    rig.transport.disconnect();
    send_to(&rig, "celery", "another").await;
    rig.result("another").await;
    assert_eq!(rig.transport.waiting("more").len(), 1);
    let own = error("ValueError('a worker cannot consume the queue of its own dead letters')");
    assert_eq!(ask(&rig, "add_consumer", [("queue", "celeriac.dead-letters")]).await, own);
    let none = error("ValueError('a queue has a name, and this is none: None')");
    assert_eq!(ask(&rig, "add_consumer", Map::from([("queue", Value::Null)])).await, none);
    assert_eq!(ask(&rig, "add_consumer", [("queue", "more")]).await, ok("add consumer more"));
    rig.result("stays").await;
    rig.idle().await;
}
