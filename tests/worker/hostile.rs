//! What must not stop a worker: odd messages, handlers that do not end, and its own future being dropped.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::Duration;

use celeriac::App;
use celeriac::protocol::{Map, MetaResult, State, Value, json};
use celeriac::task::{Outcome, Retry, Run, TaskOptions};
use celeriac::transport::{Connection, Publication};
use celeriac::worker::Shutdown;

use super::rig::{Handler, Rig, echo, late, message, raised, task, with_header};

#[tokio::test]
async fn a_limit_beyond_the_end_of_time_is_no_limit() {
    let rig = Rig::start(App::new("test").task(echo())).await;
    for (id, limits) in [("one", [Value::from(1e19), Value::Null]), ("two", [Value::Null, Value::from(1.8e19)])] {
        rig.send(with_header(message("echo", id, vec![1.into()]), "timelimit", Value::from(limits.to_vec()))).await;
        assert_eq!(rig.result(id).await.status, State::Success, "{id}");
    }
    rig.stop(Shutdown::Warm).await;
}

#[tokio::test]
async fn a_message_without_an_id_is_kept_even_when_it_has_expired() {
    let rig = Rig::start(App::new("test").task(echo())).await;
    rig.send(with_header(message("echo", "", vec![]), "expires", "2000-01-01T00:00:00Z")).await;
    while rig.dead_letters().is_empty() {
        tokio::task::yield_now().await;
    }
    rig.idle().await;
    assert_eq!(rig.dead_letters().len(), 1);
    rig.stop(Shutdown::Warm).await;
}

#[tokio::test]
async fn a_task_of_version_1_is_retried_with_its_arguments() {
    let options = TaskOptions { max_retries: Some(Some(1)), ..late() };
    let flaky = task("flaky", options, |context, arguments| match context.retries() {
        0 => Outcome::Retry(Retry::default().countdown(Duration::ZERO)),
        _ => Outcome::Success(Value::from(arguments.args)),
    });
    let rig = Rig::start(App::new("test").task(flaky)).await;
    let mut old = message("flaky", "one", vec![]);
    old.headers = Map::new();
    let body = r#"{"task": "flaky", "id": "one", "args": [2, 3], "kwargs": {}, "retries": 0, "eta": null}"#;
    old.body = body.as_bytes().to_vec().into();
    rig.send(old).await;
    let meta = rig.result("one").await;
    let expected = json::parse(b"[2, 3]").expect("JSON");
    assert_eq!((meta.status, meta.result), (State::Success, MetaResult::Value(expected)));
    rig.stop(Shutdown::Warm).await;
}

/// The backlog never ends until the held task has run: each of its tasks sends the next.
#[tokio::test]
async fn a_backlog_does_not_keep_back_what_is_due() {
    let connection: Arc<OnceLock<Arc<dyn Connection>>> = Arc::default();
    let has_run = Arc::new(AtomicBool::new(false));
    let (sender, seen) = (Arc::clone(&connection), Arc::clone(&has_run));
    let endless = Handler {
        name: "endless",
        options: TaskOptions::default(),
        run: move |context: celeriac::TaskContext, _| {
            let (sender, seen) = (Arc::clone(&sender), Arc::clone(&seen));
            Run::from_future(async move {
                if !seen.load(Ordering::Acquire) {
                    let next = Publication::to_queue("celery", message("endless", context.id(), vec![]));
                    sender.get().expect("set before").publish(vec![next]).await.expect("memory publishes");
                }
                Outcome::Ignore
            })
        },
    };
    let held = task("held", TaskOptions::default(), {
        let has_run = Arc::clone(&has_run);
        move |_, _| {
            has_run.store(true, Ordering::Release);
            Outcome::Ignore
        }
    });
    let rig = Rig::start(App::new("test").task(endless).task(held)).await;
    assert!(connection.set(Arc::clone(&rig.connection)).is_ok());
    rig.send(with_header(message("held", "one", vec![]), "eta", "2026-11-22T12:01:00Z")).await;
    for id in ["a", "b", "c", "d"] {
        rig.send(message("endless", id, vec![])).await;
    }
    rig.clock.advance(Duration::from_secs(61));
    let patience = async {
        while !has_run.load(Ordering::Acquire) {
            tokio::task::yield_now().await;
        }
    };
    let ran = tokio::time::timeout(Duration::from_secs(20), patience).await;
    has_run.store(true, Ordering::Release);
    assert!(ran.is_ok(), "what is due waits behind the backlog");
    rig.stop(Shutdown::Warm).await;
}

#[tokio::test]
async fn a_dropped_worker_takes_nothing_more() {
    let rig = Rig::start(App::new("test").task(echo())).await;
    rig.running.abort();
    while rig.transport.consumers() > 0 {
        tokio::task::yield_now().await;
    }
    rig.connection.publish(vec![Publication::to_queue("celery", message("echo", "one", vec![]))]).await.expect("sent");
    assert_eq!(rig.transport.waiting("celery").len(), 1);
}

#[tokio::test]
async fn a_warm_shutdown_does_not_wait_for_a_thread_that_was_given_up() {
    let (release, released) = mpsc::channel::<()>();
    let released = Arc::new(Mutex::new(released));
    let stuck = Handler {
        name: "stuck",
        options: TaskOptions { time_limit: Some(Duration::from_millis(10)), ..TaskOptions::default() },
        run: move |_, _| {
            let released = Arc::clone(&released);
            Run::from_function(move || {
                let _ = released.lock().expect("nobody panics").recv();
                Outcome::Ignore
            })
        },
    };
    let rig = Rig::start(App::new("test").task(stuck)).await;
    rig.send(message("stuck", "one", vec![])).await;
    assert_eq!(raised(&rig.result("one").await).exc_type, "TimeLimitExceeded");
    rig.stop(Shutdown::Warm).await;
    drop(release);
}
