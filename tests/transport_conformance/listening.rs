//! The promises about what is told to many, and about answers. Each function gets a broker that nobody has used.

use celeriac::transport::{ExchangeType, Publication, Queue, Settlement, Subscription};

use crate::harness::{Harness, all_settled, consume, message, names, take};
use crate::suite::settle;
use crate::support::LONG;

fn mailbox(name: &'static str, exchange: &str, routing_key: &str) -> Queue {
    let exchange_type = if routing_key.is_empty() { ExchangeType::Fanout } else { ExchangeType::Topic };
    Queue {
        exchange: exchange.to_owned(),
        exchange_type,
        routing_key: routing_key.to_owned(),
        durable: false,
        exclusive: true,
        auto_delete: true,
        exchange_durable: false,
        ..Queue::direct(name)
    }
}

async fn heard(subscription: &mut dyn Subscription) -> String {
    let next = tokio::time::timeout(LONG, subscription.next()).await.expect("something is heard");
    next.unwrap().unwrap().properties.correlation_id.unwrap()
}

pub(crate) async fn broadcasts_reach_everybody_who_listens(harness: &impl Harness) {
    let transports = [harness.transport(), harness.transport()];
    let (one, two) = (transports[0].connect().await.unwrap(), transports[1].connect().await.unwrap());
    let mut first = one.subscribe(&mailbox("w1.pidbox", "pidbox", "")).await.unwrap();
    let mut second = two.subscribe(&mailbox("w2.pidbox", "pidbox", "")).await.unwrap();
    let mut workers = two.subscribe(&mailbox("ev.1", "events", "worker.#")).await.unwrap();
    let to = |exchange: &str, routing_key: &str, name: &str| Publication {
        exchange: exchange.to_owned(),
        routing_key: routing_key.to_owned(),
        message: message(name),
    };
    let batch = vec![
        to("pidbox", "", "1"),
        to("events", "task.multi", "unheard"),
        to("events", "worker.online", "2"),
        to("pidbox", "", "3"),
    ];
    one.broadcast(batch).await.unwrap();
    for listener in [&mut first, &mut second] {
        assert_eq!([heard(&mut **listener).await, heard(&mut **listener).await], ["1", "3"]);
    }
    assert_eq!(heard(&mut *workers).await, "2");
    // There is no backlog: who comes later hears what comes later.
    let mut late = one.subscribe(&mailbox("w3.pidbox", "pidbox", "")).await.unwrap();
    two.broadcast(vec![to("pidbox", "", "4")]).await.unwrap();
    assert_eq!(heard(&mut *late).await, "4");
}

pub(crate) async fn announcements_reach_who_listens_and_need_nobody(harness: &impl Harness) {
    let connection = harness.transport().connect().await.unwrap();
    let to = |name: String| Publication {
        exchange: "monitored".to_owned(),
        routing_key: "task.multi".to_owned(),
        message: message(&name),
    };
    connection.announce(vec![to("unheard".to_owned())]).await.unwrap();
    let queue = Queue { exchange_durable: true, ..mailbox("ev.1", "monitored", "task.#") };
    let mut monitor = connection.subscribe(&queue).await.unwrap();
    connection.announce((0..300).map(|nth| to(nth.to_string())).collect()).await.unwrap();
    for nth in 0..300 {
        assert_eq!(heard(&mut *monitor).await, nth.to_string());
    }
    connection.close().await.unwrap();
    let late = connection.announce(vec![to("late".to_owned())]).await;
    assert!(late.is_ok() || late.is_err_and(|error| error.is_connection()), "it neither hangs nor is refused");
}

pub(crate) async fn a_closed_connection_ends_its_subscriptions(harness: &impl Harness) {
    let connection = harness.transport().connect().await.unwrap();
    let mut subscription = connection.subscribe(&mailbox("w1.pidbox", "pidbox", "")).await.unwrap();
    let (ended, closed) = tokio::join!(subscription.next(), connection.close());
    closed.unwrap();
    assert!(ended.unwrap_err().is_connection());
}

pub(crate) async fn answers_reach_those_who_wait_and_nobody_else(harness: &impl Harness) {
    let transport = harness.transport();
    let asking = Queue { exchange: "reply".to_owned(), routing_key: "oid".to_owned(), ..Queue::direct("oid.reply") };
    let connection = transport.connect().await.unwrap();
    connection.declare(std::slice::from_ref(&asking)).await.unwrap();
    for (routing_key, name) in [("gone", "unwanted"), ("oid", "answer")] {
        let (exchange, routing_key) = ("reply".to_owned(), routing_key.to_owned());
        connection.answer(Publication { exchange, routing_key, message: message(name) }).await.unwrap();
    }
    let (_connection, mut consumer, _) = consume(&transport, &["gone", "oid.reply"], 10).await;
    let deliveries = take(&mut *consumer, 1).await;
    assert_eq!(names(&deliveries), ["answer"]);
    settle(deliveries, &Settlement::Ack);
    all_settled(harness).await;
}

pub(crate) async fn answers_are_heard_by_who_asked(harness: &impl Harness) {
    let transport = harness.transport();
    let connection = transport.connect().await.unwrap();
    let inbox = |name: &'static str, routing_key: &str| Queue {
        exchange: "reply.pidbox".to_owned(),
        exchange_type: ExchangeType::Direct,
        ..mailbox(name, "reply.pidbox", routing_key)
    };
    let mut mine = connection.subscribe(&inbox("mine.reply", "mine")).await.unwrap();
    let mut other = connection.subscribe(&inbox("other.reply", "other")).await.unwrap();
    for (routing_key, name) in [("mine", "1"), ("gone", "2"), ("other", "3"), ("mine", "4")] {
        let (exchange, routing_key) = ("reply.pidbox".to_owned(), routing_key.to_owned());
        connection.answer(Publication { exchange, routing_key, message: message(name) }).await.unwrap();
    }
    assert_eq!([heard(&mut *mine).await, heard(&mut *mine).await], ["1", "4"]);
    assert_eq!(heard(&mut *other).await, "3");
    // Who has closed hears nothing of what came meanwhile, when it asks again under the same name.
    mine.close().await.unwrap();
    let again = |name| Publication {
        exchange: "reply.pidbox".to_owned(),
        routing_key: "mine".to_owned(),
        message: message(name),
    };
    connection.answer(again("5")).await.unwrap();
    let mut mine = connection.subscribe(&inbox("mine.reply", "mine")).await.unwrap();
    connection.answer(again("6")).await.unwrap();
    assert_eq!(heard(&mut *mine).await, "6");
    mine.close().await.unwrap();
}
