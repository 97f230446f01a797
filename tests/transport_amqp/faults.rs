//! Killed nodes, cut and silent connections, channels that are closed, queues that are deleted, low memory.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use celeriac::ErrorKind;
use celeriac::amqp_client::AmqpConnectOptions;
use celeriac::protocol::{Map, Message, Value};
use celeriac::transport::{Delivery, Publication, Queue, Settlement};
use futures_util::FutureExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::harness::{message, names, publish, send, take};
use crate::rig::{consume, lost, quorum, transport, transport_with};
use crate::support::proxy::Proxy;
use crate::support::rabbitmq_server::RabbitServer;
use crate::support::{LONG, eventually};

fn settle(deliveries: Vec<Delivery>, settlement: &Settlement) {
    deliveries.into_iter().for_each(|delivery| delivery.settle(settlement.clone()));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_over_another_connection() {
    let Some(server) = RabbitServer::shared().await else { return };
    let vhost = server.vhost();
    let (transport, queue) = (transport(&vhost.url()), Queue::direct("q"));
    let (connection, mut consumer, _) = consume(&transport, &queue, 10).await;
    send(&connection, "q", &["1", "2", "3"]).await;
    let old = take(&mut *consumer, 3).await;
    assert!(vhost.cut() > 0);
    assert!(lost(&mut *consumer).await.is_connection() && connection.lost().await.is_connection());
    let (_connection, mut consumer, _) = consume(&transport, &queue, 10).await;
    let again = take(&mut *consumer, 3).await;
    assert_eq!(names(&again), ["1", "2", "3"]);
    assert!(again.iter().all(|delivery| delivery.message().unwrap().properties.redelivered));
    // The tags are the same, and another connection's.
    assert_eq!(old.iter().map(Delivery::tag).collect::<Vec<_>>(), again.iter().map(Delivery::tag).collect::<Vec<_>>());
    let receipts = old.into_iter().map(|delivery| delivery.into_parts().1);
    for receipt in receipts {
        eventually("the broker has it back", || async { receipt.is_lost() }).await;
        receipt.settle(Settlement::Ack);
    }
    send(&_connection, "q", &["4"]).await;
    settle(take(&mut *consumer, 1).await, &Settlement::Ack);
    eventually("one is acknowledged, three are not", || async { vhost.depth("q").unacknowledged == 3 }).await;
    settle(again, &Settlement::Ack);
    eventually("all are", || async { vhost.depth("q").unacknowledged == 0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_gives_back_what_is_not_settled() {
    let Some(server) = RabbitServer::shared().await else { return };
    let vhost = server.vhost();
    let (connection, mut consumer, _) = consume(&transport(&vhost.url()), &Queue::direct("q"), 10).await;
    send(&connection, "q", &["1", "2", "3"]).await;
    let mut deliveries = take(&mut *consumer, 3).await;
    deliveries.remove(0).settle(Settlement::Ack);
    connection.close().await.unwrap();
    let depth = vhost.depth("q");
    assert_eq!((depth.ready, depth.unacknowledged), (2, 0));
    // Nobody is told any more.
    settle(deliveries, &Settlement::Ack);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_is_closed_by_an_error_is_a_lost_connection() {
    let Some(server) = RabbitServer::shared().await else { return };
    let vhost = server.vhost();
    let (transport, queue) = (transport(&vhost.url()), Queue::direct("q"));
    let (connection, mut consumer, _) = consume(&transport, &queue, 10).await;
    send(&connection, "q", &["1", "2"]).await;
    let deliveries = take(&mut *consumer, 2).await;
    // What the server does to who acknowledges what it has not got, or holds a message for longer than it may. Another
    // test's channel may end while it is asked.
    server.ask(&format!(
        "[rabbit_channel:do(C, {{'basic.ack', 99, false}}) || C <- rabbit_channel:list(), \
         (catch rabbit_channel:info(C, [vhost, consumer_count])) =:= [{{vhost, <<\"{}\">>}}, {{consumer_count, 1}}]].",
        vhost.name()
    ));
    let error = lost(&mut *consumer).await;
    assert!(error.is_connection() && error.to_string().contains("unknown delivery tag 99"), "{error}");
    assert!(connection.lost().await.is_connection());
    settle(deliveries, &Settlement::Ack);
    drop((consumer, connection));
    let (_connection, mut consumer, _) = consume(&transport, &queue, 10).await;
    assert_eq!(names(&take(&mut *consumer, 2).await), ["1", "2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_is_declared_again_with_the_next_connection() {
    let Some(server) = RabbitServer::shared().await else { return };
    let vhost = server.vhost();
    let (transport, queue) = (transport(&vhost.url()), Queue::direct("q"));
    let (connection, mut consumer, _) = consume(&transport, &queue, 10).await;
    server.ask(&format!(
        "[rabbit_amqqueue:delete(Q, false, false, <<\"tests\">>) || Q <- rabbit_amqqueue:list(<<\"{}\">>)].",
        vhost.name()
    ));
    let error = lost(&mut *consumer).await;
    assert!(error.is_connection() && error.to_string().contains("cancelled"), "{error}");
    assert!(connection.lost().await.is_connection());
    let (connection, mut consumer, _) = consume(&transport, &queue, 10).await;
    send(&connection, "q", &["1"]).await;
    assert_eq!(names(&take(&mut *consumer, 1).await), ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_of_dead_letters_is_declared_again_for_the_next_letter() {
    let Some(server) = RabbitServer::shared().await else { return };
    let vhost = server.vhost();
    let (connection, mut consumer, _) = consume(&transport(&vhost.url()), &Queue::direct("q"), 100).await;
    for body in ["", "small", &"large".repeat(100_000)].into_iter().cycle().take(12) {
        send(&connection, "q", &["bad"]).await;
        let letter = Publication::to_queue("dead", Message { body: body.to_owned().into(), ..message("letter") });
        settle(take(&mut *consumer, 1).await, &Settlement::DeadLetter(Box::new(letter)));
        eventually("its message is done with", || async { vhost.depth("q").unacknowledged == 0 }).await;
        assert_eq!(vhost.depth("dead").ready, 1, "{} bytes", body.len());
        server.ask(&format!(
            "[rabbit_amqqueue:delete(Q, false, false, <<\"tests\">>) || Q <- rabbit_amqqueue:list(<<\"{}\">>), \
             amqqueue:get_name(Q) =:= rabbit_misc:r(<<\"{}\">>, queue, <<\"dead\">>)].",
            vhost.name(),
            vhost.name()
        ));
    }
}

/// Who empties the queue of dead letters need not know which worker waits for that.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_dead_letter_is_written_when_there_is_room() {
    let Some(server) = RabbitServer::shared().await else { return };
    let vhost = server.vhost();
    let (connection, mut consumer, _) = consume(&transport(&vhost.url()), &Queue::direct("q"), 100).await;
    let arguments = Map::from([("x-max-length", 1.into()), ("x-overflow", Value::from("reject-publish"))]);
    connection.declare(&[Queue { arguments, ..Queue::direct("dead") }]).await.unwrap();
    publish(&connection, vec![Publication::to_queue("dead", message("old"))]).await;
    send(&connection, "q", &["bad", "good"]).await;
    let (letter, mut deliveries) = (message("letter"), take(&mut *consumer, 2).await);
    deliveries.remove(0).settle(Settlement::DeadLetter(Box::new(Publication::to_queue("dead", letter))));
    deliveries.remove(0).settle(Settlement::Ack);
    eventually("only its message is left", || async { vhost.depth("q").unacknowledged == 1 }).await;
    connection.purge(&[Queue::direct("dead")]).await.unwrap();
    eventually("its message is done with", || async { vhost.depth("q").unacknowledged == 0 }).await;
    assert_eq!((vhost.depth("q").ready, vhost.depth("dead").ready), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_closes_connections() {
    let Some(server) = RabbitServer::shared().await else { return };
    let vhost = server.vhost();
    let (connection, mut consumer, _) = consume(&transport(&vhost.url()), &Queue::direct("q"), 10).await;
    assert!(vhost.close("maintenance") > 0);
    let error = lost(&mut *consumer).await;
    assert!(error.is_connection() && error.to_string().contains("maintenance"), "{error}");
    assert!(connection.lost().await.is_connection());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_server_is_given_up() {
    let Some(server) = RabbitServer::shared().await else { return };
    let vhost = server.vhost();
    let proxy = Proxy::start(server.port()).await;
    let options = AmqpConnectOptions { heartbeat: Duration::from_secs(3), ..AmqpConnectOptions::default() };
    let transport = transport_with(&vhost.url_at(proxy.port()), options);
    let (connection, mut consumer, _) = consume(&transport, &Queue::direct("q"), 10).await;
    proxy.mute(true);
    let error = lost(&mut *consumer).await;
    assert!(error.is_connection() && error.to_string().contains("nothing was heard"), "{error}");
    assert!(connection.close().await.is_err());
}

/// The library takes in requests until it has found out that the connection is gone, and answers none of the last.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_while_the_connection_breaks_is_told() {
    let Some(server) = RabbitServer::shared().await else { return };
    let vhost = server.vhost();
    let proxy = Proxy::start(server.port()).await;
    for _ in 0..3 {
        let connection = transport(&vhost.url_at(proxy.port())).connect().await.unwrap();
        let (mut lost, mut asking) = (Box::pin(connection.lost()), JoinSet::new());
        // Fewer than there may be channels.
        let under_way = Arc::new(Semaphore::new(1000));
        proxy.cut();
        let asks = async {
            loop {
                let (connection, one) = (Arc::clone(&connection), Arc::clone(&under_way).try_acquire_owned());
                if let Ok(one) = one {
                    asking.spawn(async move { (connection.declare(&[]).await, one).0 });
                }
                tokio::task::yield_now().await;
                if let Some(error) = (&mut lost).now_or_never() {
                    return error;
                }
            }
        };
        let error = timeout(LONG, asks).await.expect("the loss is noticed");
        assert!(error.is_connection() && !error.to_string().contains("limit"), "{error}");
        let told = timeout(LONG, asking.join_all()).await.expect("all are told");
        assert!(told.into_iter().filter_map(Result::err).all(|error| error.is_connection()));
    }
}

/// The library keeps whoever waits for a message's body that does not come any more.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_looks_into_a_queue_while_the_connection_breaks_is_told() {
    let Some(server) = RabbitServer::shared().await else { return };
    let vhost = server.vhost();
    let proxy = Proxy::start(server.port()).await;
    let sender = transport(&vhost.url()).connect().await.unwrap();
    sender.declare(&[Queue::direct("q")]).await.unwrap();
    let large = Message { body: vec![b'x'; 8 << 20].into(), ..message("1") };
    publish(&sender, vec![Publication::to_queue("q", large)]).await;
    let connection = transport(&vhost.url_at(proxy.port())).connect().await.unwrap();
    let mut browser = connection.browse(&"q".into()).await.unwrap();
    // So many pieces of 64 KiB at most come back: the head of the message is among them, its end is not.
    proxy.mute_after(20);
    let looking = tokio::spawn(async move { browser.next().await.err() });
    eventually("the message is on its way", || async { vhost.depth("q").unacknowledged == 1 && proxy.is_mute() }).await;
    proxy.cut();
    let error = timeout(LONG, looking).await.expect("it is told").unwrap().expect("nothing was seen");
    assert!(error.is_connection(), "{error}");
}

/// The library refuses the number of a channel that the server has closed when its turn comes again.
#[tokio::test(flavor = "multi_thread")]
async fn numbers_of_channels_that_were_refused_something_are_passed_over() {
    let Some(server) = RabbitServer::shared().await else { return };
    let vhost = server.vhost();
    let connection = transport(&vhost.url()).connect().await.unwrap();
    let other = Queue { durable: false, ..Queue::direct("q") };
    connection.declare(&[Queue::direct("q")]).await.unwrap();
    assert_eq!(connection.declare(&[other]).await.unwrap_err().kind(), ErrorKind::Configuration);
    // As many as there may be at a time, and some.
    for _ in 0..2100 {
        connection.declare(&[]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledgements_go_on_while_publishing_waits_for_memory() {
    let Some(server) = RabbitServer::start().await else { return };
    let vhost = server.vhost();
    let (connection, mut consumer, _) = consume(&transport(&vhost.url()), &Queue::direct("q"), 1).await;
    send(&connection, "q", &["1", "2", "3"]).await;
    server.alarm(true);
    let blocked = Arc::clone(&connection);
    let publishing = tokio::spawn(async move {
        blocked.publish(vec![Publication::to_queue("q", message("late"))]).await.unwrap().remove(0)
    });
    for name in ["1", "2", "3"] {
        let deliveries = take(&mut *consumer, 1).await;
        assert_eq!(names(&deliveries), [name]);
        settle(deliveries, &Settlement::Ack);
    }
    assert!(timeout(Duration::from_millis(300), consumer.next()).await.is_err());
    assert!(!publishing.is_finished(), "publishing waits");
    server.alarm(false);
    timeout(LONG, publishing).await.unwrap().unwrap().unwrap();
    assert_eq!(names(&take(&mut *consumer, 1).await), ["late"]);
}

/// Publishes and consumes while the node is killed and started again: what was accepted comes.
async fn restarted_under_load(queue: Queue) {
    const RESTARTS: usize = 2;
    let Some(server) = RabbitServer::start().await else { return };
    let vhost = server.vhost();
    let (url, consumed) = (vhost.url(), queue.clone());
    let (seen, mut seen_by_all) = tokio::sync::mpsc::unbounded_channel();
    let consuming = tokio::spawn(async move {
        let transport = transport(&url);
        loop {
            let Ok(connection) = transport.connect().await else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            if connection.declare(std::slice::from_ref(&consumed)).await.is_err() {
                continue;
            }
            let prefetch = celeriac::transport::Prefetch::new(50);
            let Ok(mut consumer) = connection.consume(std::slice::from_ref(&consumed), prefetch).await else {
                continue;
            };
            while let Ok(batch) = consumer.next().await {
                names(&batch).into_iter().for_each(|name| drop(seen.send(name)));
                settle(batch, &Settlement::Ack);
            }
        }
    });
    let (url, load) = (vhost.url(), Arc::new(tokio::sync::Notify::new()));
    let (publishing_queue, loaded) = (queue.clone(), Arc::clone(&load));
    let over = Arc::new(AtomicBool::new(false));
    let is_over = Arc::clone(&over);
    let publishing = tokio::spawn(async move {
        let (transport, mut accepted, mut nth) = (transport(&url), Vec::new(), 0);
        loop {
            let Ok(connection) = transport.connect().await else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            if connection.declare(std::slice::from_ref(&publishing_queue)).await.is_err() {
                continue;
            }
            loop {
                let sent: Vec<_> = (nth..nth + 20).map(|nth| nth.to_string()).collect();
                nth += 20;
                let batch = sent.iter().map(|name| Publication::to_queue("q", message(name))).collect();
                let Ok(answers) = connection.publish(batch).await else { break };
                accepted.extend(sent.into_iter().zip(answers).filter_map(|(name, answer)| answer.ok().map(|()| name)));
                loaded.notify_one();
                // Until then somebody waits for the load to go on.
                if is_over.load(Ordering::SeqCst) && (nth >= 20_000 || loaded_enough(&accepted)) {
                    return accepted;
                }
            }
        }
    });
    for _ in 0..RESTARTS {
        for _ in 0..20 {
            timeout(LONG, load.notified()).await.expect("the load goes on");
        }
        server.kill();
        server.start_again().await;
    }
    over.store(true, Ordering::SeqCst);
    let accepted = timeout(Duration::from_secs(120), publishing).await.expect("the load goes on").unwrap();
    let mut missing: HashSet<String> = accepted.into_iter().collect();
    while !missing.is_empty() {
        let next = timeout(LONG, seen_by_all.recv()).await;
        missing.remove(&next.unwrap_or_else(|_| panic!("{} never came", missing.len())).unwrap());
    }
    consuming.abort();
}

fn loaded_enough(accepted: &[String]) -> bool {
    accepted.len() >= 5_000
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_accepted_is_lost_when_the_node_is_killed() {
    restarted_under_load(Queue::direct("q")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_accepted_by_a_quorum_queue_is_lost_when_the_node_is_killed() {
    restarted_under_load(quorum("q")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_breaks_its_channel_is_refused_alone() {
    let Some(server) = RabbitServer::shared().await else { return };
    for _ in 0..5 {
        if refuses_one_alone(&server).await {
            return;
        }
    }
    panic!("the connection was lost each time");
}

/// Publishes to an exchange that has gone; `false`: the library handed the server a message in the very moment in which that
/// closed the channel, which ends the connection.
async fn refuses_one_alone(server: &Arc<RabbitServer>) -> bool {
    let vhost = server.vhost();
    let connection = transport(&vhost.url()).connect().await.unwrap();
    connection.declare(&[Queue::direct("q"), Queue::direct("gone")]).await.unwrap();
    let to = |exchange: &str, name: &str| Publication {
        exchange: exchange.to_owned(),
        routing_key: "q".to_owned(),
        message: message(name),
    };
    publish(&connection, vec![to("", "0")]).await;
    let known = connection.publish(vec![to("gone", "known")]).await.unwrap();
    assert!(known[0].is_err(), "nothing is bound there for that key");
    server.ask(&format!(
        "rabbit_exchange:delete(rabbit_misc:r(<<\"{}\">>, exchange, <<\"gone\">>), false, <<\"tests\">>).",
        vhost.name()
    ));
    let answers = match connection.publish(vec![to("", "1"), to("gone", "2"), to("", "3")]).await {
        Err(error) if error.to_string().contains("(504)") => return false,
        answers => answers.unwrap(),
    };
    let accepted: Vec<_> = answers.iter().map(Result::is_ok).collect();
    assert_eq!(accepted, [true, false, true]);
    let (_connection, mut consumer, _) = consume(&transport(&vhost.url()), &Queue::direct("q"), 10).await;
    let mut seen = names(&take_all(&mut *consumer).await);
    seen.dedup();
    assert_eq!(seen, ["0", "1", "3"]);
    true
}

/// All that comes until nothing does.
async fn take_all(consumer: &mut dyn celeriac::transport::Consumer) -> Vec<Delivery> {
    let mut all = Vec::new();
    while let Ok(batch) = timeout(Duration::from_millis(500), consumer.next()).await {
        all.extend(batch.unwrap());
    }
    all
}
