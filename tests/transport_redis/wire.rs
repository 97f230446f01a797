//! The keys and values that other workers read and write.

use std::time::Duration;

use celeriac::ErrorKind;
use celeriac::protocol::{Value, json};
use celeriac::transport::{ExchangeType, Prefetch, Publication, Queue, RedisOptions, Settlement};

use crate::harness::{consume, message, names, publish, redelivered, send, take};
use crate::rig::{Rig, VISIBILITY, vigilant};
use crate::support::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn a_reserved_message_is_registered_as_kombu_would() {
    let Some(rig) = Rig::start().await else { return };
    let (connection, mut consumer, _) =
        consume(&rig.transport(RedisOptions::default()), &["odd \"q\" \u{e9}"], 1).await;
    send(&connection, "odd \"q\" \u{e9}", &["1", "2"]).await;
    let _held = take(&mut *consumer, 1).await;
    let mut redis = rig.redis().await;
    let entries: Vec<(String, String)> = redis::cmd("HGETALL").arg("unacked").query_async(&mut redis).await.unwrap();
    let times: Vec<(String, f64)> = redis::cmd("ZRANGE")
        .arg("unacked_index")
        .arg(0)
        .arg(-1)
        .arg("WITHSCORES")
        .query_async(&mut redis)
        .await
        .unwrap();
    // A quarter of the visibility timeout ago: see `Shared::lease`.
    assert_eq!(times, [(entries[0].0.clone(), rig.clock.epoch_seconds() - 900.0)]);
    let Value::List(parts) = json::parse(entries[0].1.as_bytes()).unwrap() else { panic!("a list") };
    assert_eq!(parts[1..], [Value::from(""), Value::from("odd \"q\" \u{e9}")]);
    let Value::Map(envelope) = &parts[0] else { panic!("an object") };
    assert_eq!(envelope.get("content-type"), Some(&"application/json".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_workers_entries_are_restored_where_they_belong() {
    let Some(rig) = Rig::start().await else { return };
    let transport = rig.transport(vigilant());
    let bound = Queue {
        exchange: "topics".into(),
        exchange_type: ExchangeType::Topic,
        routing_key: "a.*".into(),
        ..Queue::direct("bound")
    };
    transport.connect().await.unwrap().declare(&[bound]).await.unwrap();
    let mut redis = rig.redis().await;
    let old = rig.clock.epoch_seconds() - 1.0;
    let rows = [("one", "", "q"), ("two", "topics", "a.b"), ("three", "gone", "unbound")];
    for (name, exchange, key) in rows {
        let envelope = format!(
            r#"{{"body": "W10=", "headers": {{"id": "{name}"}}, "properties": {{"priority": 5,
            "correlation_id": "{name}", "delivery_info": {{}}, "body_encoding": "base64"}}}}"#
        );
        let entry = format!(r#"[{envelope}, "{exchange}", "{key}"]"#);
        let _: () = redis::pipe()
            .hset("unacked", name, entry)
            .zadd("unacked_index", name, old)
            .query_async(&mut redis)
            .await
            .unwrap();
    }
    let _: () = redis::pipe()
        .zadd("unacked_index", "without a message", old)
        .hset("unacked", "nonsense", "{")
        .zadd("unacked_index", "nonsense", old)
        .query_async(&mut redis)
        .await
        .unwrap();
    let (_connection, mut consumer, _) = consume(&transport, &["q", "bound", "unbound"], 10).await;
    let restored = take(&mut *consumer, 3).await;
    assert_eq!(redelivered(&restored), [true; 3]);
    let mut seen: Vec<_> =
        names(&restored).into_iter().zip(restored.iter().map(|one| one.queue().to_string())).collect();
    seen.sort();
    let expected = [("one", "q"), ("three", "unbound"), ("two", "bound")];
    assert_eq!(seen, expected.map(|(name, queue)| (name.to_owned(), queue.to_owned())));
    restored.into_iter().for_each(|delivery| delivery.settle(Settlement::Ack));
    eventually("what cannot be read stays, what is not there is forgotten", || async {
        let mut redis = rig.redis().await;
        let left: Vec<String> =
            redis::cmd("ZRANGE").arg("unacked_index").arg(0).arg(-1).query_async(&mut redis).await.unwrap();
        left == ["nonsense"]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lock_of_another_is_respected() {
    let Some(rig) = Rig::start().await else { return };
    let mut redis = rig.redis().await;
    let old = rig.clock.epoch_seconds() - VISIBILITY.as_secs_f64() - 1.0;
    let _: () = redis::pipe()
        .hset("unacked", "t", r#"[{}, "", "q"]"#)
        .zadd("unacked_index", "t", old)
        .set("unacked_mutex", "theirs")
        .query_async(&mut redis)
        .await
        .unwrap();
    let (_connection, mut consumer, _) = consume(&rig.transport(vigilant()), &["q"], 10).await;
    assert!(tokio::time::timeout(Duration::from_millis(100), consumer.next()).await.is_err());
    let lock: String = redis::cmd("GET").arg("unacked_mutex").query_async(&mut redis).await.unwrap();
    assert_eq!(lock, "theirs");
    let _: () = redis::cmd("DEL").arg("unacked_mutex").query_async(&mut redis).await.unwrap();
    take(&mut *consumer, 1).await;
    eventually("the lock is released", || async {
        let mut redis = rig.redis().await;
        redis::cmd("EXISTS").arg("unacked_mutex").query_async::<i64>(&mut redis).await.unwrap() == 0
    })
    .await;
}

/// Whether `QoS.restore_by_tag` of Kombu puts the message of an entry back.
fn is_restorable(entry: &[u8]) -> bool {
    let Ok(Value::List(parts)) = json::parse(entry) else { return false };
    parts[0].as_map().is_some_and(|message| message.get("headers").is_none_or(|headers| headers.as_map().is_some()))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stock_worker_put_back_in_our_wrapper_is_what_it_was() {
    let Some(rig) = Rig::start().await else { return };
    let (connection, mut consumer, _) = consume(&rig.transport(RedisOptions::default()), &["q"], 10).await;
    let mut redis = rig.redis().await;
    let _: () = redis::cmd("LPUSH").arg("q").arg(r#"{"celeriac-raw": "7b00"}"#).query_async(&mut redis).await.unwrap();
    let deliveries = take(&mut *consumer, 1).await;
    assert_eq!(deliveries[0].message().unwrap_err().raw, b"{\0".as_slice());
    drop((consumer, deliveries));
    connection.close().await.unwrap();
    assert_eq!(rig.list("q").await, ["{\0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_message_are_kept() {
    let Some(rig) = Rig::start().await else { return };
    let (connection, mut consumer, _) = consume(&rig.transport(RedisOptions::default()), &["q"], 10).await;
    let rows: [&[u8]; 7] = [
        b"not json",
        b"{\"headers\": tru}",
        b"[]",
        b"",
        b"\x00\xff\x06\x16",
        b"{\"headers\": \"\xff\"}",
        b"{\"headers\": [], \"body\": \"\"}",
    ];
    let mut redis = rig.redis().await;
    for raw in rows {
        let _: () = redis::cmd("LPUSH").arg("q").arg(raw).query_async(&mut redis).await.unwrap();
    }
    let deliveries = take(&mut *consumer, rows.len()).await;
    let entries: Vec<Vec<u8>> = redis::cmd("HVALS").arg("unacked").query_async(&mut redis).await.unwrap();
    let restorable = entries.iter().filter(|entry| is_restorable(entry)).count();
    assert_eq!(restorable, rows.len(), "whoever restores them finds an object that can be marked");
    for (delivery, raw) in deliveries.iter().zip(rows) {
        let undecodable = delivery.message().unwrap_err();
        assert_eq!(undecodable.raw, raw);
        assert!(!undecodable.reason.is_empty());
    }
    drop(consumer);
    drop(deliveries);
    connection.close().await.unwrap();
    let mut back: Vec<Vec<u8>> = redis::cmd("LRANGE").arg("q").arg(0).arg(-1).query_async(&mut redis).await.unwrap();
    back.reverse();
    assert_eq!(back, rows.map(<[u8]>::to_vec));
    assert_eq!(rig.reserved().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_prefix_stands_before_every_key_and_bindings_are_kombus() {
    let Some(rig) = Rig::start().await else { return };
    let options = RedisOptions { global_keyprefix: "app:".to_owned(), ..RedisOptions::default() };
    let (connection, mut consumer, _) = consume(&rig.transport(options), &["celery"], 1).await;
    send(&connection, "celery", &["1", "2"]).await;
    let _held = take(&mut *consumer, 1).await;
    let mut low = message("3");
    low.properties.priority = Some(7);
    publish(&connection, vec![Publication::to_queue("celery", low)]).await;
    let mut redis = rig.redis().await;
    let mut keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut redis).await.unwrap();
    keys.sort();
    let expected = [
        "app:_kombu.binding.celery",
        "app:_kombu.binding_permanent.celery",
        "app:celery",
        "app:celery\u{6}\u{16}6",
        "app:unacked",
        "app:unacked_index",
    ];
    // The lock may be held at this moment.
    keys.retain(|key| key != "app:unacked_mutex");
    assert_eq!(keys, expected);
    let members: Vec<String> =
        redis::cmd("SMEMBERS").arg("app:_kombu.binding_permanent.celery").query_async(&mut redis).await.unwrap();
    assert_eq!(members, ["celery\u{6}\u{16}\u{6}\u{16}celery"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fanout_queue_is_refused_by_name() {
    let Some(rig) = Rig::start().await else { return };
    let connection = rig.transport(RedisOptions::default()).connect().await.unwrap();
    let queue = Queue { exchange: "all".into(), exchange_type: ExchangeType::Fanout, ..Queue::direct("news") };
    let refused = connection.consume(&[queue], Prefetch::new(1)).await.err().expect("it is refused");
    assert_eq!(refused.kind(), ErrorKind::Configuration);
    assert_eq!(refused.to_string(), "cannot consume from news: fanout queues are not supported yet");
}
