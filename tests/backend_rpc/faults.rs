//! What becomes of results when queues, connections and brokers go away.

use std::collections::HashSet;
use std::sync::Arc;

use celeriac::app::Producer;
use celeriac::backend::{BackendOptions, ReplyTo, ResultWriter, RpcOptions, StoreRequest, WriterOptions, from_url};
use celeriac::protocol::{State, TaskMeta, Value};
use celeriac::time::Clock;
use celeriac::transport::MemoryTransport;
use celeriac::{App, ErrorKind, args, signature};

use crate::mailbox::{Mailbox, durable_queue};
use crate::rig::{backend, options};
use crate::support::rabbitmq_server::RabbitServer;
use crate::support::{LONG, eventually};

fn success(id: impl Into<String>, queue: &str) -> StoreRequest {
    let reply_to = ReplyTo { queue: queue.to_owned(), correlation_id: None };
    StoreRequest { meta: TaskMeta::new(id, State::Success, Value::from(1)), reply_to: Some(reply_to) }
}

#[tokio::test]
async fn a_queue_that_is_gone_costs_nothing() {
    let Some(server) = RabbitServer::shared().await else { return };
    let vhost = server.vhost();
    let mut mailbox = Mailbox::open(&vhost, "here").await;
    let backend = backend(&vhost);
    let batch: Vec<_> = (0..100).map(|n| success(n.to_string(), if n % 2 == 0 { "gone" } else { "here" })).collect();
    backend.store(&batch).await.unwrap();
    for n in (1..100).step_by(2) {
        let delivery = mailbox.next().await;
        assert_eq!(delivery.properties.correlation_id().as_ref().unwrap().as_str(), n.to_string());
    }
    assert_eq!(vhost.depths().len(), 1, "it was not declared");
}

#[tokio::test]
async fn a_result_that_has_no_form_is_refused_before_it_is_sent() {
    let Some(server) = RabbitServer::shared().await else { return };
    let vhost = server.vhost();
    let (backend, long) = (backend(&vhost), "n".repeat(256));
    for request in [success("a", &long), success(long.as_str(), "replies")] {
        assert_eq!(backend.store(&[request]).await.unwrap_err().kind(), ErrorKind::Encode);
    }
}

/// The node keeps what it has confirmed, and the writer sends again what it has not: each at least once.
#[tokio::test]
async fn nothing_is_lost_when_connections_are_cut_and_the_node_is_killed() {
    let Some(server) = RabbitServer::start().await else { return };
    let vhost = server.vhost();
    durable_queue(&vhost, "replies").await;
    // The node writes down after a moment that there is such a queue.
    assert_eq!(server.ask("mnesia:sync_log()."), "ok");
    let rpc = RpcOptions { persistent: true, ..options(&vhost).rpc };
    let backend = from_url(Some("rpc://"), &BackendOptions { rpc, ..BackendOptions::default() }).unwrap();
    let writer = ResultWriter::start(backend, WriterOptions::default());
    let stored: Vec<_> = (0..6000)
        .map(|n| {
            let writer = writer.clone();
            tokio::spawn(async move {
                tokio::time::sleep(std::time::Duration::from_millis(n / 4)).await;
                writer.store(success(n.to_string(), "replies")).await
            })
        })
        .collect();
    for _ in 0..3 {
        eventually("something is stored over a connection", || async { vhost.cut() > 0 }).await;
    }
    server.kill();
    server.start_again().await;
    for stored in stored {
        stored.await.unwrap().unwrap();
    }
    writer.stop().await;
    let mut mailbox = Mailbox::open(&vhost, "replies").await;
    let mut seen = HashSet::new();
    while seen.len() < 6000 {
        let Ok(delivery) = tokio::time::timeout(LONG, mailbox.next()).await else {
            let missing: Vec<_> = (0..6000).filter(|n: &i32| !seen.contains(&n.to_string())).collect();
            panic!("confirmed and lost: {missing:?}");
        };
        seen.insert(delivery.properties.correlation_id().clone().unwrap().to_string());
    }
}

#[tokio::test]
async fn one_result_that_is_too_large_is_no_obstacle_to_others() {
    let Some(server) = RabbitServer::start().await else { return };
    let vhost = server.vhost();
    server.ask("application:set_env(rabbit, max_message_size, 10000).");
    let mut mailbox = Mailbox::open(&vhost, "replies").await;
    let writer = ResultWriter::start(backend(&vhost), WriterOptions::default());
    let mut large = success("large", "replies");
    large.meta.result = Value::from("x".repeat(20_000)).into();
    // The first opens the connection; the others gather meanwhile, and are one batch.
    let requests = [success("first", "replies"), success("before", "replies"), large, success("after", "replies")];
    let stored = requests.map(|request| writer.store(request));
    let mut outcomes = Vec::new();
    for stored in stored {
        outcomes.push(stored.await.map_err(|error| error.kind()));
    }
    assert!(
        matches!(outcomes[..], [Ok(()), Ok(()), Err(ErrorKind::Configuration | ErrorKind::Broker), Ok(())]),
        "{outcomes:?}"
    );
    let mut seen = HashSet::new();
    while seen.len() < 3 {
        seen.insert(mailbox.next().await.properties.correlation_id().clone().unwrap().to_string());
    }
    // While memory is low, results wait.
    server.alarm(true);
    let mut waiting = Box::pin(writer.store(success("waiting", "replies")));
    assert!(tokio::time::timeout(std::time::Duration::from_millis(300), &mut waiting).await.is_err());
    server.alarm(false);
    waiting.await.unwrap();
}

/// A producer's own queue is declared as a message is sent: again and again, as `task_publish_retry_policy` says.
#[tokio::test]
async fn sending_goes_on_when_the_broker_is_back() {
    let Some(server) = RabbitServer::start().await else { return };
    let vhost = server.vhost();
    let mut app = App::new("test");
    app.config_mut().merge_toml("task_publish_retry_policy = { max_retries = 60 }", "test.toml").unwrap();
    let client = backend(&vhost);
    let producer =
        Producer::with_parts(&app, Arc::new(MemoryTransport::new()), client.clone(), Clock::system()).unwrap();
    let first = producer.send(signature("add", args![1, 2])).await.unwrap();
    server.stop();
    let sending = tokio::spawn({
        let producer = producer.clone();
        async move { producer.send(signature("add", args![3, 4])).await }
    });
    server.start_again().await;
    let second = sending.await.unwrap().unwrap();
    let queue = client.reply_queue().unwrap();
    backend(&vhost).store(&[success(first.id(), queue), success(second.id(), queue)]).await.unwrap();
    assert_eq!((first.get::<i64>(LONG).await.unwrap(), second.get::<i64>(LONG).await.unwrap()), (1, 1));
}

/// What comes while nobody is connected is lost, as with stock clients; what comes afterwards is not.
#[tokio::test]
async fn waiting_goes_on_over_the_next_connection() {
    let Some(server) = RabbitServer::shared().await else { return };
    let vhost = server.vhost();
    let client = backend(&vhost);
    client.expect_results().await.unwrap();
    let queue = client.reply_queue().unwrap().to_owned();
    let waiting = {
        let client = Arc::clone(&client);
        tokio::spawn(async move { client.wait("a", Some(LONG)).await })
    };
    // The process of the queue, if it has a consumer: another one is another queue of that name.
    let process = format!(
        "case rabbit_amqqueue:lookup(rabbit_misc:r(<<\"{}\">>, queue, <<\"{queue}\">>)) of {{ok, Q}} -> \
         case catch rabbit_amqqueue:info(Q, [consumers]) of [{{consumers, 1}}] -> amqqueue:get_pid(Q); _ -> none end; \
         _ -> none end.",
        vhost.name()
    );
    let mut before = "none".to_owned();
    for round in 0..3 {
        let mut now = String::new();
        while now.is_empty() || now == "none" || now == before {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            now = server.ask(&process);
        }
        before = now;
        if round < 2 {
            assert_eq!(vhost.cut(), 1);
        }
    }
    backend(&vhost).store(&[success("a", &queue)]).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().unwrap().status, State::Success);
}

#[tokio::test]
async fn credentials_that_are_refused_end_the_wait() {
    let Some(server) = RabbitServer::shared().await else { return };
    let vhost = server.vhost();
    let broker_url = vhost.url().replace("guest:guest", "guest:wrong");
    let rpc = RpcOptions { broker_url, ..RpcOptions::default() };
    let client = from_url(Some("rpc://"), &BackendOptions { rpc, ..BackendOptions::default() }).unwrap();
    let error = client.wait("a", None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
    assert_eq!(client.expect_results().await.unwrap_err().kind(), ErrorKind::Authentication);
    assert!(!error.to_string().contains("wrong"), "{error}");
}
