//! Killed workers, restarted servers, cut and silent connections.

use std::sync::Arc;
use std::time::Duration;

use celeriac::ErrorKind;
use celeriac::time::Clock;
use celeriac::transport::{
    Connection, Consumer, ExchangeType, Prefetch, Publication, Queue, RedisOptions, Settlement, Transport, Waiting,
};

use crate::harness::{consume, message, names, redelivered, send, take};
use crate::rig::{Rig, VISIBILITY, vigilant};
use crate::support::proxy::Proxy;
use crate::support::{LONG, at_last, eventually};

/// Waits for the error that ends a consumer.
async fn lost(consumer: &mut dyn Consumer) -> celeriac::Error {
    let waiting = async {
        loop {
            if let Err(error) = consumer.next().await {
                return error;
            }
        }
    };
    tokio::time::timeout(LONG, waiting).await.expect("the loss is noticed")
}

async fn consume_again(
    transport: &Arc<dyn Transport>,
    prefetch: &Arc<Prefetch>,
) -> (Arc<dyn Connection>, Box<dyn Consumer>) {
    let connection = transport.connect().await.expect("the broker is up");
    let consumer = connection.consume(&[Queue::direct("q")], Arc::clone(prefetch)).await.expect("the broker is up");
    (connection, consumer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_workers_messages_come_back_in_their_order() {
    let Some(rig) = Rig::start().await else { return };
    let dead = rig.transport(vigilant());
    let (connection, mut consumer, _) = consume(&dead, &["q"], 3).await;
    send(&connection, "q", &["1", "2", "3", "4"]).await;
    std::mem::forget(take(&mut *consumer, 3).await);
    drop((consumer, connection, dead));
    let (_connection, mut consumer, _) = consume(&rig.transport(vigilant()), &["q"], 10).await;
    let four = take(&mut *consumer, 1).await;
    assert_eq!(names(&four), ["4"]);
    rig.clock.advance(VISIBILITY + Duration::from_millis(1));
    let back = take(&mut *consumer, 3).await;
    assert_eq!(names(&back), ["1", "2", "3"]);
    assert_eq!(redelivered(&back), [true; 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_keeps_others_from_restoring() {
    let Some(rig) = Rig::start().await else { return };
    let (connection, mut holder, _) = consume(&rig.transport(vigilant()), &["q"], 1).await;
    send(&connection, "q", &["long"]).await;
    let held = take(&mut *holder, 1).await;
    let (_other, mut rival, _) = consume(&rig.transport(vigilant()), &["q"], 1).await;
    let mut redis = rig.redis().await;
    for _ in 0..5 {
        rig.clock.advance(VISIBILITY / 2);
        let (clock, redis) = (&rig.clock, &mut redis);
        let renewed = async |redis: &mut celeriac::redis_client::SharedConnection| {
            let times: Vec<(String, f64)> = redis::cmd("ZRANGE")
                .arg("unacked_index")
                .arg(0)
                .arg(-1)
                .arg("WITHSCORES")
                .query_async(redis)
                .await
                .unwrap();
            times.len() == 1 && times[0].1 == clock.epoch_seconds() - VISIBILITY.as_secs_f64() / 4.0
        };
        let waiting = async {
            while !renewed(redis).await {
                tokio::time::sleep(Duration::from_millis(5)).await
            }
        };
        tokio::time::timeout(LONG, waiting).await.expect("the lease is renewed");
    }
    let nothing = tokio::time::timeout(Duration::from_millis(50), rival.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    held.into_iter().for_each(|delivery| delivery.settle(Settlement::Ack));
    eventually("it is settled", || async { rig.reserved().await == 0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_outlive_connections_that_never_last() {
    let Some(rig) = Rig::start().await else { return };
    let proxy = Proxy::start(rig.server.port()).await;
    // By the rig's clock alone does this time pass: the rounds of one connection never come.
    let visibility_timeout = Duration::from_secs(3600);
    let options = RedisOptions { visibility_timeout, ..vigilant() };
    let transport = rig.transport_at(&format!("redis://127.0.0.1:{}/0", proxy.port()), options.clone());
    let (connection, mut holder, prefetch) = consume(&transport, &["q"], 1).await;
    send(&connection, "q", &["held"]).await;
    let held = take(&mut *holder, 1).await;
    let mut connections = vec![connection];
    let (_peer, mut rival, _) = consume(&rig.transport(options), &["q"], 10).await;
    for _ in 0..8 {
        rig.clock.advance(visibility_timeout / 4);
        proxy.cut();
        lost(&mut *holder).await;
        let (connection, consumer) = consume_again(&transport, &prefetch).await;
        (holder, _) = (consumer, connections.push(connection));
    }
    // The peer looks after what nobody renews, and finds this and nothing else.
    let mut redis = rig.redis().await;
    let _: () = redis::pipe()
        .hset("unacked", "dead", r#"[{"headers": {}, "properties": {"correlation_id": "dead"}}, "", "q"]"#)
        .zadd("unacked_index", "dead", 1)
        .query_async(&mut redis)
        .await
        .unwrap();
    assert_eq!(names(&take(&mut *rival, 1).await), ["dead"]);
    held.into_iter().for_each(|delivery| delivery.settle(Settlement::Ack));
    eventually("the held one is settled", || async { rig.reserved().await == 1 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_server_is_no_loss() {
    let Some(mut rig) = Rig::start().await else { return };
    let transport = rig.transport(RedisOptions::default());
    let (connection, mut consumer, prefetch) = consume(&transport, &["q"], 3).await;
    send(&connection, "q", &["1", "2", "3", "4", "5"]).await;
    let mut early = take(&mut *consumer, 3).await;
    rig.server.stop();
    assert!(lost(&mut *consumer).await.is_connection());
    // The worker works on: what it settles now is written over the next connection.
    early.remove(0).settle(Settlement::Ack);
    assert!(transport.connect().await.unwrap_err().is_connection());
    rig.server.start_again().await;
    early.remove(0).settle(Settlement::Ack);
    let (_connection, mut consumer) = consume_again(&transport, &prefetch).await;
    let late = take(&mut *consumer, 2).await;
    assert_eq!(names(&late), ["4", "5"], "and nothing that was delivered before");
    drop(early);
    let third = take(&mut *consumer, 1).await;
    assert_eq!((names(&third), redelivered(&third)), (vec!["3".to_owned()], vec![true]));
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_connections_are_noticed_however_it_waits() {
    let Some(rig) = Rig::start().await else { return };
    for waiting in [Waiting::Tracking, Waiting::Blocking, Waiting::Polling] {
        let transport = rig.transport(RedisOptions { waiting, ..RedisOptions::default() });
        let (connection, mut consumer, prefetch) = consume(&transport, &["q"], 2).await;
        send(&connection, "q", &["before"]).await;
        let before = take(&mut *consumer, 1).await;
        let mut redis = rig.redis().await;
        let _: i64 = redis::cmd("CLIENT")
            .arg("KILL")
            .arg("TYPE")
            .arg("normal")
            .arg("SKIPME")
            .arg("yes")
            .query_async(&mut redis)
            .await
            .unwrap();
        assert!(lost(&mut *consumer).await.is_connection(), "{waiting:?}");
        before.into_iter().for_each(|delivery| delivery.settle(Settlement::Ack));
        let (connection, mut consumer) = consume_again(&transport, &prefetch).await;
        send(&connection, "q", &["after"]).await;
        let after = take(&mut *consumer, 1).await;
        assert_eq!(names(&after), ["after"], "{waiting:?}");
        after.into_iter().for_each(|delivery| delivery.settle(Settlement::Ack));
        connection.close().await.unwrap();
        assert_eq!(rig.reserved().await, 0, "{waiting:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reservation_whose_answer_is_lost_comes_back_at_once() {
    let Some(rig) = Rig::start().await else { return };
    let proxy = Proxy::start(rig.server.port()).await;
    let transport = rig.transport_at(&format!("redis://127.0.0.1:{}/0", proxy.port()), RedisOptions::default());
    let (connection, mut consumer, prefetch) = consume(&transport, &["q"], 1).await;
    send(&connection, "q", &["0", "1", "2"]).await;
    let first = take(&mut *consumer, 1).await;
    proxy.mute(true);
    first.into_iter().for_each(|delivery| delivery.settle(Settlement::Ack));
    eventually("the server has made the reservation", || async { rig.list("q").await.len() == 1 }).await;
    proxy.cut();
    proxy.mute(false);
    assert!(lost(&mut *consumer).await.is_connection());
    let (_connection, mut consumer) = consume_again(&transport, &prefetch).await;
    for (name, again) in [("1", true), ("2", false)] {
        let next = take(&mut *consumer, 1).await;
        assert_eq!((names(&next), redelivered(&next)), (vec![name.to_owned()], vec![again]));
        next.into_iter().for_each(|delivery| delivery.settle(Settlement::Ack));
    }
    eventually("nothing is left", || async { rig.reserved().await == 0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settlements_whose_answer_is_lost_have_one_effect() {
    let Some(rig) = Rig::start().await else { return };
    let proxy = Proxy::start(rig.server.port()).await;
    let transport = rig.transport_at(&format!("redis://127.0.0.1:{}/0", proxy.port()), RedisOptions::default());
    let (connection, mut consumer, prefetch) = consume(&transport, &["q"], 2).await;
    send(&connection, "q", &["again"]).await;
    let deliveries = take(&mut *consumer, 1).await;
    proxy.mute(true);
    deliveries.into_iter().for_each(|delivery| delivery.settle(Settlement::Ack));
    eventually("the server has taken the settlement", || async { rig.reserved().await == 0 }).await;
    proxy.cut();
    proxy.mute(false);
    lost(&mut *consumer).await;
    let (connection, mut consumer) = consume_again(&transport, &prefetch).await;
    send(&connection, "q", &["next"]).await;
    let deliveries = take(&mut *consumer, 1).await;
    assert_eq!(names(&deliveries), ["next"]);
    deliveries.into_iter().for_each(|delivery| delivery.settle(Settlement::Ack));
    connection.close().await.unwrap();
    assert_eq!((rig.reserved().await, rig.list("q").await.len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_a_cut_connection_still_settles() {
    let Some(rig) = Rig::start().await else { return };
    let proxy = Proxy::start(rig.server.port()).await;
    let transport = rig.transport_at(&format!("redis://127.0.0.1:{}/0", proxy.port()), RedisOptions::default());
    let (connection, mut consumer, _) = consume(&transport, &["q"], 2).await;
    send(&connection, "q", &["1", "2"]).await;
    let mut deliveries = take(&mut *consumer, 2).await;
    proxy.cut();
    lost(&mut *consumer).await;
    deliveries.remove(0).settle(Settlement::Ack);
    drop(deliveries);
    connection.close().await.unwrap();
    assert_eq!((rig.reserved().await, rig.list("q").await.len()), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_server_is_given_up() {
    let Some(rig) = Rig::start().await else { return };
    let proxy = Proxy::start(rig.server.port()).await;
    let options = RedisOptions { socket_timeout: Duration::from_millis(200), ..RedisOptions::default() };
    let transport = rig.transport_at(&format!("redis://127.0.0.1:{}/0", proxy.port()), options);
    let queues = [Queue::direct("q")];
    let ready = async || {
        let connection = transport.connect().await?;
        connection.declare(&queues).await.map(|()| connection)
    };
    let connection = at_last(ready).await;
    proxy.mute(true);
    let mut consumer = connection.consume(&queues, Prefetch::new(2)).await.unwrap();
    let error = lost(&mut *consumer).await;
    assert!(error.is_connection() && error.to_string().contains("timed out"), "{error}");
    // So is one that falls silent while the consumer waits for more; which of its requests finds that out first is open, and
    // so are the words.
    proxy.mute(false);
    let direct = rig.transport(RedisOptions::default()).connect().await.unwrap();
    send(&direct, "q", &["1"]).await;
    let waiting = async || {
        let connection = transport.connect().await?;
        let mut consumer = connection.consume(&queues, Prefetch::new(2)).await?;
        consumer.next().await.map(|taken| (connection, consumer, taken))
    };
    let (_connection, mut consumer, _taken) = at_last(waiting).await;
    proxy.mute(true);
    assert!(lost(&mut *consumer).await.is_connection());
}

/// With whichever answer it falls silent: those before the pop, which alone may take its time.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_falls_silent_before_the_first_pop_is_given_up() {
    let Some(rig) = Rig::start().await else { return };
    let proxy = Proxy::start(rig.server.port()).await;
    let patience = Duration::from_millis(500);
    let options = RedisOptions {
        waiting: Waiting::Blocking,
        socket_timeout: patience,
        socket_connect_timeout: patience,
        ..RedisOptions::default()
    };
    let transport = rig.transport_at(&format!("redis://127.0.0.1:{}/0", proxy.port()), options);
    let (queues, mut failed, mut began) = ([Queue::direct("q")], 0, false);
    for answers in 0..50 {
        let connection = at_last(async || transport.connect().await).await;
        proxy.mute_after(answers);
        let consuming = connection.consume(&queues, Prefetch::new(2));
        let consumed = tokio::time::timeout(LONG, consuming).await.expect("it is given up");
        proxy.mute(false);
        match consumed {
            Ok(_) => began = true,
            Err(error) => {
                assert!(error.is_connection(), "{error}");
                failed += 1;
            }
        }
        if began {
            break;
        }
    }
    assert!(began && failed > 0, "{failed}");
}

/// In whichever instant that is: the client library may forget a request that it is handed just then.
#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_whose_connection_ends_while_it_is_made_is_no_waiting() {
    let Some(rig) = Rig::start().await else { return };
    let proxy = Proxy::start(rig.server.port()).await;
    // No answer is given up in the time that this test has.
    let patience = Duration::from_secs(3600);
    let options = RedisOptions { socket_timeout: patience, health_check_interval: patience, ..RedisOptions::default() };
    let transport = rig.transport_at(&format!("redis://127.0.0.1:{}/0", proxy.port()), options);
    let exchange = "all".to_owned();
    let queue =
        Queue { exchange, routing_key: String::new(), exchange_type: ExchangeType::Fanout, ..Queue::direct("ear") };
    for round in 0..300 {
        let connection = transport.connect().await.unwrap();
        let hearing = async {
            match connection.subscribe(&queue).await {
                Ok(mut subscription) => subscription.next().await.map(drop),
                Err(error) => Err(error),
            }
        };
        let cutting = async {
            for _ in 0..5 * round {
                tokio::task::yield_now().await;
            }
            proxy.cut();
        };
        let both = async { tokio::join!(hearing, cutting) };
        let (heard, ()) = tokio::time::timeout(LONG, both).await.expect("the end is noticed");
        assert!(heard.is_err_and(|error| error.is_connection()), "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_without_an_answer_gives_the_connection_up() {
    let Some(rig) = Rig::start().await else { return };
    let proxy = Proxy::start(rig.server.port()).await;
    let options = RedisOptions { socket_timeout: Duration::from_millis(100), ..RedisOptions::default() };
    let transport = rig.transport_at(&format!("redis://127.0.0.1:{}/0", proxy.port()), options);
    let connection = at_last(async || transport.connect().await).await;
    proxy.mute(true);
    let error = connection.publish(vec![Publication::to_queue("q", message("1"))]).await.unwrap_err();
    assert!(error.is_connection() && error.to_string().contains("timed out"), "{error}");
    // Who waits for another connection is told that this one is gone.
    let lost = tokio::time::timeout(LONG, connection.lost()).await.expect("it is given up");
    assert!(lost.is_connection());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_refuses_is_said_and_costs_no_connection() {
    let Some(rig) = Rig::start().await else { return };
    let connection = rig.transport(RedisOptions::default()).connect().await.unwrap();
    let to = |exchange: &str, key: &str| Publication {
        exchange: exchange.into(),
        ..Publication::to_queue(key, message(key))
    };
    let mut redis = rig.redis().await;
    let _: () = redis::cmd("SET").arg("_kombu.binding.broken").arg("no set").query_async(&mut redis).await.unwrap();
    let kinds = async |batch| {
        let accepted = connection.publish(batch).await.unwrap();
        accepted.into_iter().map(|accepted| accepted.err().map(|error| error.kind())).collect::<Vec<_>>()
    };
    let refused = Some(ErrorKind::Broker);
    // Bytes that are no binding concern nobody.
    let _: () = redis::cmd("SADD").arg("_kombu.binding.odd").arg(b"\xff\xfe").query_async(&mut redis).await.unwrap();
    assert_eq!(kinds(vec![to("broken", "a"), to("odd", "b"), to("", "c")]).await, [refused, None, None]);
    let memory = async |limit: &str| {
        let mut redis = rig.redis().await;
        let _: () = redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(limit).query_async(&mut redis).await.unwrap();
    };
    memory("1").await;
    let unready = Some(ErrorKind::Unready);
    assert_eq!(kinds(vec![to("", "d"), to("", "e")]).await, [unready, unready]);
    memory("0").await;
    assert_eq!(kinds(vec![to("", "f")]).await, [None]);
    let _: () = redis::cmd("ACL").arg(&["SETUSER", "default", "-lpush"]).query_async(&mut redis).await.unwrap();
    assert_eq!(kinds(vec![to("", "g")]).await, [Some(ErrorKind::Authentication)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_runs_an_endless_script_is_waited_for() {
    let Some(rig) = Rig::start().await else { return };
    let transport = rig.transport(RedisOptions::default());
    let (connection, mut consumer, prefetch) = consume(&transport, &["q"], 1).await;
    send(&connection, "q", &["1", "2"]).await;
    let held = take(&mut *consumer, 1).await.remove(0);
    let (mut redis, mut other) = (rig.redis().await, rig.redis().await);
    let probe = redis.clone();
    let _: () = redis::cmd("CONFIG").arg(&["SET", "lua-time-limit", "1"]).query_async(&mut redis).await.unwrap();
    let endless = tokio::spawn(async move {
        redis::cmd("EVAL").arg("while true do end").arg(0).query_async::<redis::Value>(&mut other).await
    });
    let is_busy = async || redis::cmd("PING").query_async::<String>(&mut probe.clone()).await.is_err();
    eventually("the server is busy", is_busy).await;
    let refused = connection.publish(vec![Publication::to_queue("q", message("3"))]).await.unwrap().remove(0);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unready, "a moment later it is taken");
    held.settle(Settlement::Requeue);
    // Not that this message stays where it is, but that nothing can be settled.
    assert!(lost(&mut *consumer).await.is_connection());
    let _: () = redis::cmd("SCRIPT").arg("KILL").query_async(&mut redis).await.unwrap();
    assert!(endless.await.unwrap().is_err());
    drop((connection, consumer));
    let (_connection, mut consumer) = consume_again(&transport, &prefetch).await;
    for name in ["2", "1"] {
        let mut next = take(&mut *consumer, 1).await;
        assert_eq!(names(&next), [name]);
        next.remove(0).settle(Settlement::Ack);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_run_scripts_is_told_so_and_not_that_messages_stay() {
    let Some(rig) = Rig::start().await else { return };
    let mut redis = rig.redis().await;
    let user = ["SETUSER", "u", "on", ">p", "~*", "&*", "+@all", "-evalsha"];
    let _: () = redis::cmd("ACL").arg(&user).query_async(&mut redis).await.unwrap();
    let url = rig.server.url(0).replace("redis://", "redis://u:p@");
    let transport = rig.transport_at(&url, RedisOptions::default());
    let (_connection, mut consumer) = consume_again(&transport, &Prefetch::new(10)).await;
    assert_eq!(lost(&mut *consumer).await.kind(), ErrorKind::Authentication);
    // What the reservation may have taken cannot be given back either.
    let error = transport.connect().await.expect_err("the connection is of no use");
    assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
    assert!(error.to_string().contains("'evalsha'"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_cannot_be_read_does_not_keep_a_worker_from_connecting() {
    let Some(rig) = Rig::start().await else { return };
    let mut redis = rig.redis().await;
    let old = rig.clock.epoch_seconds() - 1.0;
    let _: () = redis::pipe()
        .set("_kombu.binding.broken", "no set")
        .hset("unacked", "1", r#"[{"headers": {}}, "broken", "key"]"#)
        .hset("unacked", "2", r#"[{"headers": {}}, "", "q"]"#)
        .zadd("unacked_index", "1", old)
        .zadd("unacked_index", "2", old)
        .query_async(&mut redis)
        .await
        .unwrap();
    let (_connection, mut consumer, _) = consume(&rig.transport(vigilant()), &["q"], 10).await;
    let _held = take(&mut *consumer, 1).await;
    assert_eq!(rig.reserved().await, 2, "one is held, one stays where it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_takes_as_long_as_giving_back_gets_on() {
    let Some(rig) = Rig::start().await else { return };
    let proxy = Proxy::start(rig.server.port()).await;
    let options = RedisOptions {
        socket_timeout: Duration::from_secs(4),
        socket_connect_timeout: Duration::from_secs(1),
        ..RedisOptions::default()
    };
    let transport = rig.transport_at(&format!("redis://127.0.0.1:{}/0", proxy.port()), options);
    let (connection, mut consumer, _) = consume(&transport, &["q"], 0).await;
    let sent: Vec<String> = (0..3000).map(|nth| nth.to_string()).collect();
    send(&connection, "q", &sent.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let held = take(&mut *consumer, sent.len()).await;
    drop(consumer);
    proxy.delay(Duration::from_millis(100));
    drop(held);
    let started = Clock::system().epoch_seconds();
    connection.close().await.unwrap();
    assert!(Clock::system().epoch_seconds() - started > 5.0, "it took longer than it may stand still");
    assert_eq!(rig.reserved().await, 0);
}

/// On one thread, so that nothing is written before everything is dropped.
#[tokio::test]
async fn however_many_go_back_they_keep_their_order() {
    let Some(rig) = Rig::start().await else { return };
    let (connection, mut consumer, _) = consume(&rig.transport(RedisOptions::default()), &["q"], 0).await;
    let sent: Vec<String> = (0..5_500).map(|nth| nth.to_string()).collect();
    send(&connection, "q", &sent.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let held = take(&mut *consumer, sent.len()).await;
    drop(consumer);
    drop(held);
    connection.close().await.unwrap();
    let (_connection, mut consumer, _) = consume(&rig.transport(RedisOptions::default()), &["q"], 0).await;
    assert!(names(&take(&mut *consumer, sent.len()).await) == sent);
}

/// A script looks at no byte of a message: what is large keeps nobody waiting.
#[tokio::test(flavor = "multi_thread")]
async fn megabytes_of_garbage_cost_the_server_no_more_than_their_moving() {
    let Some(rig) = Rig::start().await else { return };
    let mut redis = rig.redis().await;
    let _: () = redis::cmd("CONFIG")
        .arg("SET")
        .arg("slowlog-log-slower-than")
        .arg(1_000_000)
        .query_async(&mut redis)
        .await
        .unwrap();
    let garbage = vec![b'z'; 3_000_000];
    let (connection, mut consumer, _) = consume(&rig.transport(RedisOptions::default()), &["q"], 10).await;
    let mut slow = Vec::new();
    // The whole machine may stand still for a second, but not each time.
    while slow.len() < 3 && slow.last() != Some(&0) {
        let _: () = redis::cmd("SLOWLOG").arg("RESET").query_async(&mut redis).await.unwrap();
        let _: () = redis::cmd("LPUSH").arg("q").arg(&garbage).query_async(&mut redis).await.unwrap();
        let deliveries = take(&mut *consumer, 1).await;
        assert_eq!(deliveries[0].message().unwrap_err().raw.len(), garbage.len());
        slow.push(redis::cmd("SLOWLOG").arg("LEN").query_async::<usize>(&mut redis).await.unwrap());
        deliveries.into_iter().for_each(|delivery| delivery.settle(Settlement::Ack));
    }
    assert_eq!(slow.last(), Some(&0), "commands took longer than a second each time: {slow:?}");
    drop(consumer);
    connection.close().await.unwrap();
}

/// What cannot be registered stays in its list, once, and nowhere else.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_cannot_be_registered_does_not_multiply() {
    let Some(rig) = Rig::start().await else { return };
    let mut redis = rig.redis().await;
    let _: () = redis::cmd("SET").arg("unacked_index").arg("not an index").query_async(&mut redis).await.unwrap();
    let _: () = redis::cmd("LPUSH").arg("q").arg("one").query_async(&mut redis).await.unwrap();
    let transport = rig.transport(RedisOptions::default());
    for _ in 0..3 {
        let connected = transport.connect().await;
        let Ok(connection) = connected else { continue };
        let consuming = connection.consume(&[Queue::direct("q")], Prefetch::new(10)).await;
        if let Ok(mut consumer) = consuming {
            assert!(consumer.next().await.is_err());
        }
    }
    assert_eq!(rig.list("q").await, ["one"]);
    let reserved: usize = redis::cmd("HLEN").arg("unacked").query_async(&mut redis).await.unwrap();
    assert_eq!(reserved, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_queues_are_consumed() {
    let Some(rig) = Rig::start().await else { return };
    let names: Vec<String> = (0..2500).map(|nth| format!("q{nth}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (connection, mut consumer, _) = consume(&rig.transport(RedisOptions::default()), &names, 10).await;
    send(&connection, "q2499", &["late"]).await;
    let deliveries = take(&mut *consumer, 1).await;
    assert_eq!(deliveries[0].queue().as_str(), "q2499");
    deliveries.into_iter().for_each(|delivery| delivery.settle(Settlement::Ack));
}
