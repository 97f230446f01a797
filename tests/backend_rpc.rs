//! What `rpc://` promises beside what every backend does: it sends what a stock worker sends, and understands it.
//!
//! The tests share a private RabbitMQ; they say so and pass where it, or stock Celery, is not installed. In most of them
//! tasks travel in memory, and results alone over RabbitMQ.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "backend_rpc/faults.rs"]
mod faults;
#[path = "backend_rpc/mailbox.rs"]
mod mailbox;
#[path = "backend_conformance/python.rs"]
mod python;
#[path = "backend_rpc/rig.rs"]
mod rig;
#[path = "backend_rpc/stock.rs"]
mod stock;
mod support;

use std::time::Duration;

use celeriac::app::ResultError;
use celeriac::config::QueueDefinition;
use celeriac::protocol::{Map, State, Value};
use celeriac::worker::{Shutdown, Worker, WorkerOptions};
use celeriac::{GroupResult, args, chain, chord, group, signature};
use rig::Rig;
use support::LONG;
use support::rabbitmq_server::RabbitServer;

#[tokio::test]
async fn a_producer_gets_what_its_tasks_return_and_raise() {
    let Some(rig) = Rig::start("").await else { return };
    let sum: i64 = rig.send(signature("add", args![2, 3])).await.get(LONG).await.unwrap();
    assert_eq!(sum, 5);
    let failed = rig.send(signature("fail", args![])).await;
    let error = failed.get::<i64>(LONG).await.unwrap_err();
    let raised = error.task_error().unwrap();
    assert_eq!((raised.exc_type(), raised.message().as_str()), ("ValueError", "('bad', 7)"));
    assert!(failed.failed().await.unwrap() && failed.get::<i64>(LONG).await.is_err(), "it can be asked again");
    let again: i64 = rig.send(signature("again", args![])).await.get(LONG).await.unwrap();
    assert_eq!(again, 1, "a retry is for whom the first try was for");
    let sums: GroupResult = rig.send(group((0..300).map(|n| signature("add", args![n, 1])))).await.try_into().unwrap();
    let sums: Vec<i64> = sums.join(LONG).await.unwrap();
    assert_eq!(sums, (1..=300).collect::<Vec<i64>>());
    rig.stop().await;
}

/// Tasks and results over one RabbitMQ, as the settings say.
#[tokio::test]
async fn an_app_needs_two_settings() {
    let Some(server) = RabbitServer::shared().await else { return };
    let vhost = server.vhost();
    let mut app = rig::app();
    app.config_mut().broker_url = Some(vhost.url());
    app.config_mut().result_backend = Some("rpc://".to_owned());
    let options = WorkerOptions { hostname: "w2@test".into(), queues: vec![QueueDefinition::named("celery")], seed: 1 };
    let worker = Worker::new(app.clone(), options).unwrap();
    assert_eq!(worker.backend_uri(), "rpc://");
    let handle = worker.handle();
    let running = tokio::spawn(worker.run());
    handle.ready().await;
    let sum: i64 = app.send(signature("add", args![2, 3])).await.unwrap().get(LONG).await.unwrap();
    assert_eq!(sum, 5);
    let sums: GroupResult =
        app.send(group((0..50).map(|n| signature("add", args![n, n])))).await.unwrap().try_into().unwrap();
    assert_eq!(sums.join::<i64>(LONG).await.unwrap().iter().sum::<i64>(), 2 * (0..50).sum::<i64>());
    handle.shutdown(Shutdown::Warm);
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_chain_that_fails_fails_its_last_task() {
    let Some(rig) = Rig::start("").await else { return };
    let ten: i64 =
        rig.send(chain([signature("add", args![2, 3]), signature("add", args![5])])).await.get(LONG).await.unwrap();
    assert_eq!(ten, 10);
    let failing = chain([signature("fail", args![]), signature("add", args![1]), signature("add", args![2])]);
    let error = rig.send(failing).await.get::<i64>(LONG).await.unwrap_err();
    assert_eq!(error.task_error().unwrap().exc_type(), "ValueError");
    rig.stop().await;
}

#[tokio::test]
async fn a_worker_declares_nothing_and_sends_only_what_was_asked_for() {
    let Some(rig) = Rig::start("task_track_started = true").await else { return };
    let own = rig.client.reply_queue().unwrap().to_owned();
    rig.producer.send(signature("ignored", args![])).await.unwrap();
    assert_eq!(rig.vhost.depths(), [], "nobody waits for what is ignored");
    let asked = rig.send(signature("steps", args![])).await;
    rig.send(signature("add", args![1, 2]).set("reply_to", "")).await;
    rig.stop_worker().await;
    let names: Vec<String> = rig.vhost.depths().into_iter().map(|depth| depth.queue).collect();
    assert_eq!((names, rig.vhost.depth(&own).ready), (vec![own], 3), "STARTED, PROGRESS and SUCCESS");
    assert_eq!(asked.get::<String>(LONG).await.unwrap(), "é");
}

/// What has come is known at once, without waiting.
#[tokio::test]
async fn states_are_seen_as_they_come() {
    let Some(rig) = Rig::start("task_track_started = true").await else { return };
    let unsent = rig.producer.result("somebody else's");
    assert_eq!(unsent.state().await.unwrap(), State::Pending);
    let held = rig.send(signature("hold", args![])).await;
    support::eventually("it has started", || async { held.state().await.unwrap() == State::from("HELD") }).await;
    let meta = held.meta().await.unwrap();
    assert_eq!(meta.result, Value::Map(Map::from([("at", 1)])).into());
    let timed_out = held.get::<i64>(Duration::from_millis(20)).await.unwrap_err();
    assert!(timed_out.is_timeout());
    rig.release();
    assert_eq!(held.get::<i64>(LONG).await.unwrap(), 7);
    assert!(held.successful().await.unwrap());
    held.forget().await.unwrap();
    assert_eq!(held.state().await.unwrap(), State::Pending);
    rig.stop().await;
}

#[tokio::test]
async fn chords_and_saved_groups_are_refused_in_celerys_words() {
    let Some(rig) = Rig::start("").await else { return };
    let words = "The \"rpc\" result backend does not support chords!\n\nNote that a group chained with a task is also \
                 upgraded to be a chord,\nas this pattern requires synchronization.\n\nResult backends that supports \
                 chords: Redis, Database, Memcached, and more.";
    let refused = rig.producer.send(chord([signature("add", args![1, 2])], signature("add", args![1]))).await;
    assert_eq!(refused.unwrap_err().to_string(), words);
    let upgraded = chain([signature("add", args![1, 2]), signature("sum", args![])]);
    rig.send(upgraded).await;
    let within = rig.send(signature("chord", args![])).await.get::<Value>(LONG).await.unwrap_err();
    assert_eq!(within.task_error().unwrap().message(), words);
    let group: GroupResult = rig.send(group([signature("add", args![1, 2])])).await.try_into().unwrap();
    let unsaved = group.save().await.unwrap_err();
    assert_eq!(unsaved.to_string(), "save_group is not supported by this backend.");
    let unknown = rig.producer.group_result("g").await.unwrap_err();
    assert_eq!(unknown.to_string(), "restore_group is not supported by this backend.");
    rig.stop().await;
}

#[tokio::test]
async fn what_cannot_be_read_ends_the_wait() {
    let Some(rig) = Rig::start("").await else { return };
    rig.client.expect_results().await.unwrap();
    let mailbox = mailbox::Mailbox::open(&rig.vhost, "other").await;
    let queue = rig.client.reply_queue().unwrap();
    let waiting = rig.producer.result("pickled");
    let (waited, ()) = tokio::join!(waiting.get::<i64>(LONG), async {
        mailbox.put(queue, "pickled", "application/x-python-serialize", b"\x80\x04K\x01.").await;
        mailbox.put(queue, "no-result", "application/json", b"[]").await;
    });
    let error = waited.unwrap_err();
    assert!(matches!(&error, ResultError::Backend(error) if error.is_bad_message()), "{error}");
    rig.stop().await;
}
