//! Keys of queues that hold no list, and messages that are heavy.

use std::time::Duration;

use celeriac::protocol::Message;
use celeriac::transport::{Consumer, Publication, RedisOptions, Settlement, Waiting};
use tokio::time::timeout;

use crate::harness::{consume, message, names, publish, send, take};
use crate::rig::Rig;

/// The name of the next message, which is acknowledged.
async fn next(consumer: &mut dyn Consumer) -> String {
    let mut taken = take(consumer, 1).await;
    let name = names(&taken).remove(0);
    taken.remove(0).settle(Settlement::Ack);
    name
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_no_list_keeps_back_no_other_queue_and_no_connection() {
    for waiting in [Waiting::Tracking, Waiting::Blocking, Waiting::Polling] {
        let Some(rig) = Rig::start().await else { return };
        let mut redis = rig.redis().await;
        let _: () = redis::cmd("SET").arg("wrong").arg("x").query_async(&mut redis).await.unwrap();
        let options = RedisOptions { waiting, ..RedisOptions::default() };
        let (connection, mut consumer, _) = consume(&rig.transport(options), &["wrong", "right"], 10).await;
        for name in ["1", "2"] {
            send(&connection, "right", &[name]).await;
            assert_eq!(next(&mut *consumer).await, name, "{waiting:?}");
        }
        // Nothing comes, and that is no error.
        let nothing = timeout(Duration::from_millis(300), consumer.next()).await;
        assert!(nothing.is_err(), "{waiting:?}: {nothing:?}");
        let _: () = redis::cmd("DEL").arg("wrong").query_async(&mut redis).await.unwrap();
        send(&connection, "wrong", &["3"]).await;
        assert_eq!(next(&mut *consumer).await, "3", "{waiting:?}");
        // It turns wrong while it is waited for.
        let _: () = redis::cmd("SET").arg("wrong").arg("x").query_async(&mut redis).await.unwrap();
        send(&connection, "right", &["4"]).await;
        assert_eq!(next(&mut *consumer).await, "4", "{waiting:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_reservation_moves_few_messages_that_are_heavy() {
    let Some(rig) = Rig::start().await else { return };
    let transport = rig.transport(RedisOptions::default());
    let connection = transport.connect().await.unwrap();
    let heavy = |name: &str| Message { body: vec![b'a'; 2 << 20].into(), ..message(name) };
    publish(&connection, ["1", "2", "3"].map(|name| Publication::to_queue("q", heavy(name))).into()).await;
    let (_connection, mut consumer, _) = consume(&transport, &["q"], 100).await;
    let first = consumer.next().await.unwrap();
    assert_eq!(names(&first), ["1", "2"], "with two of them, four megabytes are full");
    assert_eq!(names(&take(&mut *consumer, 1).await), ["3"]);
}
