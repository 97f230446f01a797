//! What is published against a claim: where it goes, and how many round trips that takes.

use celeriac::redis_client::SharedConnection;
use celeriac::transport::{Claim, Connection, Publication, Queue, RedisOptions};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::harness::message;
use crate::rig::Rig;

/// A queue of the exchange `shop`.
fn bound(queue: &'static str) -> Queue {
    Queue { exchange: "shop".to_owned(), routing_key: "bills".to_owned(), ..Queue::direct(queue) }
}

async fn publish(connection: &dyn Connection, redis: &mut SharedConnection, exchange: &str, name: &str) -> bool {
    let claim = Claim { hash: "claims".to_owned(), field: name.to_owned() };
    let _: () = redis::cmd("HSET").arg("claims").arg(name).arg("unsent").query_async(redis).await.unwrap();
    let (exchange, routing_key) = (exchange.to_owned(), "bills".to_owned());
    let publication = Publication { exchange, routing_key, message: message(name) };
    assert!(connection.publish_claimed(publication.clone(), &claim).await.unwrap(), "{name}");
    connection.publish_claimed(publication, &claim).await.unwrap()
}

#[tokio::test]
async fn a_new_binding_holds_for_the_very_next_message() {
    let Some(rig) = Rig::start().await else { return };
    let (connection, mut redis) = (rig.transport(RedisOptions::default()).connect().await.unwrap(), rig.redis().await);
    connection.declare(&[bound("first")]).await.unwrap();
    assert!(!publish(&*connection, &mut redis, "shop", "one").await, "a claim is good for one message");
    // Another process declares it.
    let other = rig.transport(RedisOptions::default()).connect().await.unwrap();
    other.declare(&[bound("second")]).await.unwrap();
    publish(&*connection, &mut redis, "shop", "two").await;
    let member = "bills\x06\x16\x06\x16first";
    let _: () = redis::cmd("SREM").arg("_kombu.binding.shop").arg(member).query_async(&mut redis).await.unwrap();
    publish(&*connection, &mut redis, "shop", "three").await;
    publish(&*connection, &mut redis, "", "four").await;
    let lengths = [rig.list("first").await.len(), rig.list("second").await.len(), rig.list("bills").await.len()];
    assert_eq!(lengths, [2, 2, 1]);
}

/// As the server tells who asks for `MONITOR`; what scripts do is none of a client's commands.
#[tokio::test]
async fn a_message_to_a_named_exchange_takes_one_round_trip() {
    let Some(rig) = Rig::start().await else { return };
    let (connection, mut redis) = (rig.transport(RedisOptions::default()).connect().await.unwrap(), rig.redis().await);
    connection.declare(&[bound("first")]).await.unwrap();
    publish(&*connection, &mut redis, "shop", "one").await;
    let mut told = BufReader::new(TcpStream::connect(("127.0.0.1", rig.server.port())).await.unwrap());
    told.write_all(b"MONITOR\r\n").await.unwrap();
    let mut line = String::new();
    told.read_line(&mut line).await.unwrap();
    for name in ["two", "three", "four"] {
        publish(&*connection, &mut redis, "shop", name).await;
    }
    let _: () = redis::cmd("ECHO").arg("the end").query_async(&mut redis).await.unwrap();
    let mut counts = [0, 0];
    while !line.contains("the end") {
        line.clear();
        told.read_line(&mut line).await.unwrap();
        let of_client = !line.contains(" lua] ");
        counts[0] += usize::from(of_client && line.contains("\"EVALSHA\""));
        counts[1] += usize::from(of_client && line.contains("\"SMEMBERS\""));
    }
    // Each of them, and once more with the claim gone.
    assert_eq!(counts, [6, 0]);
}
