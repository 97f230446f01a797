//! Remote control and rate limits, under virtual time and without a broker.

use std::time::Duration;

use celeriac::App;
use celeriac::config::Config;
use celeriac::protocol::{AcceptContent, Map, Message, Value, json};
use celeriac::task::{Outcome, TaskOptions};
use celeriac::transport::{Prefetch, Publication, Queue, Settlement, Transport};
use celeriac::worker::Shutdown;
use tokio::time::{Instant, timeout};

use crate::rig::{Rig, echo, forever, message, raised, task, with_header};

/// Where the answers go.
fn answers() -> Queue {
    Queue { exchange: "reply.celery.pidbox".into(), routing_key: "oid".into(), ..Queue::direct("oid.reply") }
}

/// Sends a command to all workers.
pub(crate) async fn command(rig: &Rig, method: &str, arguments: Map) {
    let reply_to = Map::from([("exchange", "reply.celery.pidbox"), ("routing_key", "oid")]);
    let body = Map::from([
        ("method", Value::from(method)),
        ("arguments", arguments.into()),
        ("ticket", "t".into()),
        ("reply_to", reply_to.into()),
    ]);
    let message = Message {
        content_type: Some("application/json".into()),
        content_encoding: Some("utf-8".into()),
        body: json::to_vec(&body.into()).unwrap().into(),
        ..Message::default()
    };
    let connection = rig.transport.connect().await.unwrap();
    connection.declare(&[answers()]).await.unwrap();
    let exchange = "celery.pidbox".to_owned();
    connection.broadcast(vec![Publication { exchange, routing_key: String::new(), message }]).await.unwrap();
}

/// The answer to the command that was sent last.
pub(crate) async fn answer(rig: &Rig) -> Value {
    let prefetch = Prefetch::new(0);
    let connection = rig.transport.connect().await.unwrap();
    let mut consumer = connection.consume(&[answers()], prefetch).await.unwrap();
    let mut deliveries = timeout(Duration::from_secs(5), consumer.next()).await.expect("an answer").unwrap();
    let message = deliveries[0].take_message().unwrap();
    deliveries.remove(0).settle(Settlement::Ack);
    assert_eq!(message.headers.get("ticket"), Some(&"t".into()));
    let body = message.payload(&AcceptContent::default()).unwrap();
    body.as_map().unwrap().get("w1@test").unwrap().clone()
}

pub(crate) fn ok(text: &str) -> Value {
    Map::from([("ok", text)]).into()
}

#[tokio::test(start_paused = true)]
async fn a_run_is_ended_from_outside_and_told_to_the_client() {
    let rig = Rig::start(App::new("test").task(forever("sleep", TaskOptions::default())).task(echo())).await;
    rig.send(message("sleep", "a", vec![])).await;
    rig.idle().await;
    command(&rig, "revoke", Map::from([("task_id", Value::from("a")), ("terminate", true.into())])).await;
    assert_eq!(answer(&rig).await, ok("terminate: a"));
    assert_eq!(raised(&rig.result("a").await).to_string(), "TaskRevokedError('terminated')");
    rig.stop(Shutdown::Warm).await;
}

/// The answer does not wait for the discarding, which looks at everything and so is done once for many commands.
#[tokio::test(start_paused = true)]
async fn what_waits_is_named_in_the_answer_and_discarded_soon() {
    let limited = TaskOptions { rate_limit: Some("1/h".into()), ..TaskOptions::default() };
    let config = Config { worker_concurrency: Some(1), ..Config::default() };
    let app = App::new("test").task(forever("sleep", TaskOptions::default())).task(echo());
    let rig = Rig::start(app.task(forever("limited", limited)).with_config(config)).await;
    rig.send(message("limited", "runs", vec![])).await;
    rig.idle().await;
    rig.send(message("limited", "limited", vec![])).await;
    rig.send(message("sleep", "reserved", vec![])).await;
    for id in ["held", "spared"] {
        rig.send(with_header(message("sleep", id, vec![]), "eta", "2027-01-01T00:00:00Z")).await;
    }
    while rig.transport.unsettled() < 4 {
        tokio::task::yield_now().await;
    }
    let waiting = ["limited", "nobody", "reserved", "held"].map(Value::from).to_vec();
    command(&rig, "revoke", Map::from([("task_id", Value::List(waiting)), ("terminate", true.into())])).await;
    assert_eq!(answer(&rig).await, ok("terminate: limited, reserved, held"));
    while rig.transport.unsettled() > 1 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for id in ["limited", "reserved", "held"] {
        assert_eq!(raised(&rig.result(id).await).to_string(), "TaskRevokedError('revoked')", "{id}");
    }
    command(&rig, "revoke", Map::from([("task_id", Value::from("held")), ("terminate", true.into())])).await;
    assert_eq!(answer(&rig).await, ok("terminate: tasks unknown"), "it waits no more");
    rig.stop(Shutdown::Cold).await;
}

/// The first write gets stuck, as on a disk that does not answer, and then fails.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_remembered_last_is_written_last() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let state_file = Some(path.to_str().unwrap().to_owned());
    let config = Config { worker_state_db: state_file, ..Config::default() };
    let rig = Rig::start(App::new("test").task(echo()).with_config(config)).await;
    let temporary = folder.path().join(format!("state.{}.new", std::process::id()));
    assert!(std::process::Command::new("mkfifo").arg(&temporary).status().unwrap().success());
    for id in ["first", "last"] {
        command(&rig, "revoke", Map::from([("task_id", id)])).await;
        answer(&rig).await;
    }
    let Rig { transport, handle, running, .. } = rig;
    handle.shutdown(Shutdown::Warm);
    while transport.consumers() > 0 {
        tokio::task::yield_now().await;
    }
    let release = tokio::task::spawn_blocking(move || std::fs::read(temporary));
    running.await.unwrap().unwrap();
    release.await.unwrap().unwrap();
    let written = json::parse(&std::fs::read(&path).unwrap()).unwrap();
    let revoked = written.as_map().unwrap().get("revoked").unwrap().clone();
    assert_eq!(revoked, Value::from(vec!["first", "last"].into_iter().map(Value::from).collect::<Vec<_>>()));
}

#[tokio::test(start_paused = true)]
async fn commands_are_heard_again_after_a_lost_connection() {
    let rig = Rig::start(App::new("test").task(echo())).await;
    rig.transport.disconnect();
    let connection = rig.transport.connect().await.unwrap();
    connection.publish(vec![Publication::to_queue("celery", message("echo", "a", vec![1.into()]))]).await.unwrap();
    rig.result("a").await;
    command(&rig, "ping", Map::new()).await;
    assert_eq!(answer(&rig).await, ok("pong"));
    rig.stop(Shutdown::Warm).await;
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_kept_and_holds_nobody_else_up() {
    let limited = TaskOptions { rate_limit: Some("2/s".into()), ..TaskOptions::default() };
    let limited = task("limited", limited, |_, _| Outcome::Success(Value::Null));
    let config = Config { worker_concurrency: Some(1), worker_prefetch_multiplier: 1, ..Config::default() };
    let rig = Rig::start(App::new("test").task(limited).task(echo()).with_config(config)).await;
    let begin = Instant::now();
    for id in 0..9 {
        rig.send(message("limited", &format!("l{id}"), vec![])).await;
    }
    rig.send(message("echo", "free", vec![1.into()])).await;
    rig.result("free").await;
    assert!(begin.elapsed() < Duration::from_millis(500));
    rig.result("l8").await;
    let took = begin.elapsed();
    assert!((Duration::from_secs(4)..Duration::from_millis(4100)).contains(&took), "{took:?}");
    rig.stop(Shutdown::Warm).await;
}
