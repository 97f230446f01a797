//! Orders that change the worker itself, under virtual time and without a broker.

use std::sync::Arc;
use std::time::Duration;

use celeriac::App;
use celeriac::config::Config;
use celeriac::protocol::{Map, Value};
use celeriac::task::{Outcome, Run, TaskOptions};
use celeriac::worker::Autoscale;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::control::{answer, command, ok};
use crate::rig::{Handler, Rig, message};

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
