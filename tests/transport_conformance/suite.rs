//! The promises. Each function gets a broker that nobody has used.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use celeriac::protocol::{Map, Properties, Value};
use celeriac::transport::{
    Browser, Consumer, Content, Delivery, ExchangeType, Note, Prefetch, Publication, Queue, Replacement, Settlement,
};
use celeriac::{Error, ErrorKind};

pub(crate) use crate::listening::*;

use crate::harness::{Harness, all_settled, consume, marked, message, names, publish, send, take};
use crate::support::LONG;

pub(crate) fn settle(deliveries: Vec<Delivery>, settlement: &Settlement) {
    deliveries.into_iter().for_each(|delivery| delivery.settle(settlement.clone()));
}

pub(crate) async fn messages_come_in_order(harness: &impl Harness) {
    let (connection, mut consumer, _) = consume(&harness.transport(), &["q"], 10).await;
    send(&connection, "q", &["1", "2", "3"]).await;
    let deliveries = take(&mut *consumer, 3).await;
    assert_eq!(names(&deliveries), ["1", "2", "3"]);
    assert_eq!(marked(harness, &deliveries), [false; 3]);
    assert!(deliveries.iter().all(|delivery| delivery.queue().as_str() == "q"));
}

pub(crate) async fn a_message_arrives_as_it_was_sent(harness: &impl Harness) {
    let (connection, mut consumer, _) = consume(&harness.transport(), &["q"], 10).await;
    let mut sent = message("odd \u{1f980} \"name\"");
    sent.properties.priority = Some(4);
    sent.properties.reply_to = Some("somebody".to_owned());
    sent.body = vec![0, 159, 146, 150, b'"', b'\\'].into();
    publish(&connection, vec![Publication::to_queue("q", sent.clone())]).await;
    let mut delivery = take(&mut *consumer, 1).await.remove(0);
    let mut received = delivery.take_message().unwrap();
    assert_eq!(received.properties.exchange.as_deref(), Some(""));
    assert_eq!(received.properties.routing_key.as_deref(), Some("q"));
    received.properties = Properties { exchange: None, routing_key: None, ..received.properties };
    assert_eq!(received, sent);
}

pub(crate) async fn a_message_sent_later_wakes_the_consumer(harness: &impl Harness) {
    let (connection, mut consumer, _) = consume(&harness.transport(), &["q"], 10).await;
    for name in ["1", "2", "3"] {
        let one = [name];
        let (deliveries, ()) = tokio::join!(take(&mut *consumer, 1), send(&connection, "q", &one));
        assert_eq!(names(&deliveries), [name]);
        settle(deliveries, &Settlement::Ack);
    }
    // One that comes back wakes just as one that comes.
    let (deliveries, ()) = tokio::join!(take(&mut *consumer, 1), send(&connection, "q", &["again"]));
    settle(deliveries, &Settlement::Requeue);
    let deliveries = take(&mut *consumer, 1).await;
    assert_eq!(marked(harness, &deliveries), [true]);
    settle(deliveries, &Settlement::Ack);
    all_settled(harness).await;
}

pub(crate) async fn priorities_are_heeded(harness: &impl Harness) {
    let transport = harness.transport();
    let connection = transport.connect().await.unwrap();
    let queue = Queue { arguments: Map::from([("x-max-priority", 10)]), ..Queue::direct("q") };
    connection.declare(std::slice::from_ref(&queue)).await.unwrap();
    let rows = [("nine", Some(9)), ("five", Some(5)), ("three", Some(3)), ("none", None), ("zero", Some(0))];
    for (name, priority) in rows {
        let mut message = message(name);
        message.properties.priority = priority;
        publish(&connection, vec![Publication::to_queue("q", message)]).await;
    }
    let mut consumer = connection.consume(&[queue], Prefetch::new(10)).await.unwrap();
    let capabilities = transport.capabilities();
    let expected = match capabilities.lowest_priority_first {
        _ if !capabilities.heeds_priorities => rows.map(|(name, _)| name),
        true => ["none", "zero", "five", "three", "nine"],
        false => ["nine", "five", "three", "none", "zero"],
    };
    assert_eq!(names(&take(&mut *consumer, 5).await), expected);
}

pub(crate) async fn queues_take_turns(harness: &impl Harness) {
    let connection = harness.transport().connect().await.unwrap();
    send(&connection, "a", &["a1", "a2", "a3"]).await;
    send(&connection, "b", &["b1", "b2", "b3"]).await;
    let (_connection, mut consumer, _) = consume(&harness.transport(), &["a", "b"], 1).await;
    let mut seen = Vec::new();
    for _ in 0..6 {
        let deliveries = take(&mut *consumer, 1).await;
        seen.extend(names(&deliveries));
        settle(deliveries, &Settlement::Ack);
    }
    // What the server has not sent has no turn yet.
    let slack = if harness.transport().capabilities().sends_ahead { 2 } else { 1 };
    for end in 1..=seen.len() {
        let ahead = seen[..end].iter().map(|name| if name.starts_with('a') { 1_i32 } else { -1 }).sum::<i32>();
        assert!(ahead.abs() <= slack, "{seen:?}");
    }
    seen.sort();
    assert_eq!(seen, ["a1", "a2", "a3", "b1", "b2", "b3"]);
}

pub(crate) async fn a_full_queue_does_not_starve_another(harness: &impl Harness) {
    let connection = harness.transport().connect().await.unwrap();
    let full: Vec<String> = (0..100).map(|nth| format!("a{nth}")).collect();
    send(&connection, "a", &full.iter().map(String::as_str).collect::<Vec<_>>()).await;
    send(&connection, "b", &["b1", "b2"]).await;
    let (_connection, mut consumer, _) = consume(&harness.transport(), &["a", "b"], 10).await;
    let seen = names(&take(&mut *consumer, 10).await);
    assert_eq!(seen[..5], ["a0", "b1", "a1", "b2", "a2"], "{seen:?}");
}

pub(crate) async fn the_window_is_never_exceeded(harness: &impl Harness) {
    let (connection, mut consumer, prefetch) = consume(&harness.transport(), &["q"], 2).await;
    send(&connection, "q", &["1", "2", "3", "4", "5"]).await;
    let mut deliveries = take(&mut *consumer, 2).await;
    let more = tokio::time::timeout(Duration::from_millis(100), consumer.next()).await;
    assert!(more.is_err(), "the window is full");
    assert_eq!(prefetch.available(), 0);
    deliveries.remove(0).settle(Settlement::Ack);
    assert_eq!(names(&take(&mut *consumer, 1).await), ["3"]);
    prefetch.set_limit(4);
    assert!(!tokio::time::timeout(LONG, consumer.next()).await.unwrap().unwrap().is_empty());
}

pub(crate) async fn acked_and_rejected_messages_are_gone(harness: &impl Harness) {
    let (connection, mut consumer, _) = consume(&harness.transport(), &["q"], 10).await;
    send(&connection, "q", &["1", "2"]).await;
    let mut deliveries = take(&mut *consumer, 2).await;
    deliveries.remove(0).settle(Settlement::Ack);
    deliveries.remove(0).settle(Settlement::Reject);
    all_settled(harness).await;
    assert_eq!(connection.purge(&[Queue::direct("q")]).await.unwrap(), 0);
}

pub(crate) async fn a_requeued_message_comes_again(harness: &impl Harness) {
    let (connection, mut consumer, _) = consume(&harness.transport(), &["q"], 1).await;
    send(&connection, "q", &["1", "2"]).await;
    settle(take(&mut *consumer, 1).await, &Settlement::Requeue);
    let mut seen = Vec::new();
    for _ in 0..2 {
        let deliveries = take(&mut *consumer, 1).await;
        seen.push((names(&deliveries).remove(0), marked(harness, &deliveries)[0]));
        settle(deliveries, &Settlement::Ack);
    }
    all_settled(harness).await;
    let (again, other) = (("1".to_owned(), true), ("2".to_owned(), false));
    match harness.transport().capabilities().requeues_to_the_end {
        true => assert_eq!(seen, [other, again]),
        false => assert_eq!(seen, [again, other]),
    }
}

pub(crate) async fn a_restored_message_comes_next(harness: &impl Harness) {
    let (connection, mut consumer, _) = consume(&harness.transport(), &["q"], 1).await;
    let mut urgent = message("first");
    urgent.properties.priority = Some(3);
    publish(&connection, vec![Publication::to_queue("q", urgent)]).await;
    let first = take(&mut *consumer, 1).await;
    drop(consumer);
    let mut later = message("second");
    later.properties.priority = Some(3);
    publish(&connection, vec![Publication::to_queue("q", later)]).await;
    settle(first, &Settlement::Restore);
    all_settled(harness).await;
    let (_connection, mut consumer, _) = consume(&harness.transport(), &["q"], 2).await;
    let deliveries = take(&mut *consumer, 2).await;
    assert_eq!(names(&deliveries), ["first", "second"]);
    assert_eq!(marked(harness, &deliveries), [true, false]);
}

pub(crate) async fn dropped_deliveries_go_back_in_their_order(harness: &impl Harness) {
    let (connection, mut consumer, _) = consume(&harness.transport(), &["q"], 4).await;
    send(&connection, "q", &["1", "2", "3", "4", "5"]).await;
    let deliveries = take(&mut *consumer, 4).await;
    drop(consumer);
    drop(deliveries);
    connection.close().await.unwrap();
    assert_eq!(harness.unsettled().await, 0);
    let (_connection, mut consumer, _) = consume(&harness.transport(), &["q"], 10).await;
    let deliveries = take(&mut *consumer, 5).await;
    assert_eq!(marked(harness, &deliveries), [true, true, true, true, false]);
    assert_eq!(names(&deliveries), ["1", "2", "3", "4", "5"]);
}

pub(crate) async fn a_dropped_consumer_gives_back_what_it_had(harness: &impl Harness) {
    let (connection, consumer, _) = consume(&harness.transport(), &["q"], 10).await;
    send(&connection, "q", &["1", "2", "3"]).await;
    drop(consumer);
    connection.close().await.unwrap();
    assert_eq!(harness.unsettled().await, 0);
    let (_connection, mut consumer, _) = consume(&harness.transport(), &["q"], 10).await;
    assert_eq!(names(&take(&mut *consumer, 3).await), ["1", "2", "3"]);
}

pub(crate) async fn a_dead_letter_replaces_its_message(harness: &impl Harness) {
    let (connection, mut consumer, _) = consume(&harness.transport(), &["q"], 10).await;
    send(&connection, "q", &["bad"]).await;
    let letter = Box::new(Publication::to_queue("dead", message("letter")));
    settle(take(&mut *consumer, 1).await, &Settlement::DeadLetter(letter));
    let (_connection, mut letters, _) = consume(&harness.transport(), &["dead"], 10).await;
    let letters = take(&mut *letters, 1).await;
    assert_eq!(names(&letters), ["letter"]);
    settle(letters, &Settlement::Ack);
    all_settled(harness).await;
}

pub(crate) async fn exchanges_lead_to_their_queues(harness: &impl Harness) {
    let queue = |name: &'static str, exchange: &str, exchange_type, key: &str| Queue {
        exchange: exchange.to_owned(),
        exchange_type,
        routing_key: key.to_owned(),
        ..Queue::direct(name)
    };
    let queues = [
        queue("direct", "media", ExchangeType::Direct, "video"),
        queue("topic", "topics", ExchangeType::Topic, "a.*"),
        queue("all", "topics", ExchangeType::Topic, "#"),
        queue("unbound", "", ExchangeType::Direct, "unbound"),
    ];
    let connection = harness.transport().connect().await.unwrap();
    connection.declare(&queues).await.unwrap();
    connection.declare(&queues).await.unwrap();
    let to = |exchange: &str, key: &str| Publication {
        exchange: exchange.to_owned(),
        routing_key: key.to_owned(),
        message: message(key),
    };
    let batch = vec![to("media", "video"), to("topics", "a.b"), to("topics", "b"), to("media", "unbound")];
    let mut accepted = connection.publish(batch).await.unwrap();
    // Nothing is accepted and lost.
    let unbound: &[&str] = match accepted.pop().unwrap() {
        Ok(()) => &["unbound"],
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Broker, "{error}");
            &[]
        }
    };
    accepted.into_iter().for_each(|accepted| accepted.unwrap());
    let rows: [(&str, &[&str]); 4] =
        [("direct", &["video"]), ("topic", &["a.b"]), ("all", &["a.b", "b"]), ("unbound", unbound)];
    for (name, expected) in rows {
        let (_connection, mut consumer, _) = consume(&harness.transport(), &[name], 10).await;
        assert_eq!(names(&take(&mut *consumer, expected.len()).await), expected, "{name}");
    }
}

pub(crate) async fn a_bad_publication_is_no_obstacle_to_others(harness: &impl Harness) {
    let (connection, mut consumer, _) = consume(&harness.transport(), &["q"], 10).await;
    let refused_queue = harness.refuse("refused").await;
    let mut endless = Value::Null;
    for _ in 0..2000 {
        endless = Value::List(vec![endless]);
    }
    let mut unwritable = message("unwritable");
    unwritable.headers.insert("endless", endless);
    let to = |queue: &str, message| Publication::to_queue(queue, message);
    let batch = vec![
        to("q", message("1")),
        to(&refused_queue, message("2")),
        to("q", unwritable),
        to(&refused_queue, message("4")),
        to("q", message("5")),
    ];
    let accepted = connection.publish(batch).await.unwrap();
    let kinds: Vec<_> = accepted.iter().map(|accepted| accepted.as_ref().err().map(Error::kind)).collect();
    let refused = Some(ErrorKind::Broker);
    assert_eq!(kinds, [None, refused, Some(ErrorKind::Encode), refused, None]);
    // The connection is as good as before.
    let deliveries = take(&mut *consumer, 2).await;
    assert_eq!(names(&deliveries), ["1", "5"]);
    settle(deliveries, &Settlement::Ack);
    send(&connection, "q", &["6"]).await;
    assert_eq!(names(&take(&mut *consumer, 1).await), ["6"]);
}

pub(crate) async fn a_dead_letter_that_is_refused_leaves_its_message(harness: &impl Harness) {
    let (connection, mut consumer, _) = consume(&harness.transport(), &["q"], 10).await;
    let dead = harness.refuse("dead").await;
    send(&connection, "q", &["bad", "good"]).await;
    let letter = Settlement::DeadLetter(Box::new(Publication::to_queue(&dead, message("letter"))));
    let mut deliveries = take(&mut *consumer, 2).await;
    deliveries.remove(0).settle(letter);
    deliveries.remove(0).settle(Settlement::Ack);
    connection.close().await.unwrap();
    if harness.transport().capabilities().settles_across_connections {
        assert_eq!(harness.unsettled().await, 1);
    } else {
        let (_connection, mut consumer, _) = consume(&harness.transport(), &["q"], 10).await;
        assert_eq!(names(&take(&mut *consumer, 1).await), ["bad"]);
    }
}

pub(crate) async fn closing_settles_everything(harness: &impl Harness) {
    let (connection, mut consumer, _) = consume(&harness.transport(), &["q"], 0).await;
    let sent: Vec<String> = (0..500).map(|nth| nth.to_string()).collect();
    send(&connection, "q", &sent.iter().map(String::as_str).collect::<Vec<_>>()).await;
    settle(take(&mut *consumer, 500).await, &Settlement::Ack);
    connection.close().await.unwrap();
    assert_eq!(harness.unsettled().await, 0);
}

pub(crate) async fn a_lost_connection_tells_who_does_not_consume(harness: &impl Harness) {
    let connection = harness.transport().connect().await.unwrap();
    let connected = tokio::select! {
        biased;
        _ = connection.lost() => false,
        () = std::future::ready(()) => true,
    };
    assert!(connected);
    harness.cut().await;
    assert!(connection.lost().await.is_connection());
}

pub(crate) async fn a_cancelled_wait_loses_nothing(harness: &impl Harness) {
    let (connection, mut consumer, _) = consume(&harness.transport(), &["q"], 3).await;
    let mut seen = Vec::new();
    for nth in 0..50 {
        send(&connection, "q", &[&nth.to_string()]).await;
        tokio::select! {
            biased;
            () = tokio::task::yield_now() => {}
            batch = consumer.next() => {
                let batch = batch.unwrap();
                seen.extend(names(&batch));
                settle(batch, &Settlement::Ack);
            }
        }
    }
    while seen.len() < 50 {
        let batch = tokio::time::timeout(LONG, consumer.next()).await.unwrap().unwrap();
        seen.extend(names(&batch));
        settle(batch, &Settlement::Ack);
    }
    assert_eq!(seen, (0..50).map(|nth| nth.to_string()).collect::<Vec<_>>());
}

pub(crate) async fn a_closed_connection_ends_its_consumers(harness: &impl Harness) {
    let (connection, mut consumer, _) = consume(&harness.transport(), &["q"], 3).await;
    let (ended, closed) = tokio::join!(consumer.next(), connection.close());
    closed.unwrap();
    assert!(ended.unwrap_err().is_connection());
    assert!(consumer.next().await.unwrap_err().is_connection());
}

async fn consume_from(consumer: &mut dyn Consumer, queues: &[&str]) {
    let queues: Vec<_> = queues.iter().map(|name| Queue::direct(*name)).collect();
    consumer.consume_from(&queues).await.unwrap();
}

pub(crate) async fn a_queue_is_added_to_a_running_consumer(harness: &impl Harness) {
    let (connection, mut consumer, _) = consume(&harness.transport(), &["a"], 10).await;
    send(&connection, "b", &["b1"]).await;
    // It waits for what the first queue brings.
    assert!(tokio::time::timeout(Duration::from_millis(50), consumer.next()).await.is_err());
    consume_from(&mut *consumer, &["a", "b"]).await;
    let deliveries = take(&mut *consumer, 1).await;
    assert_eq!((names(&deliveries), deliveries[0].queue().as_str()), (vec!["b1".to_owned()], "b"));
    settle(deliveries, &Settlement::Ack);
    for queue in ["a", "b", "a"] {
        let one = [queue];
        let (deliveries, ()) = tokio::join!(take(&mut *consumer, 1), send(&connection, queue, &one));
        assert_eq!(names(&deliveries), [queue]);
        settle(deliveries, &Settlement::Ack);
    }
    all_settled(harness).await;
}

pub(crate) async fn what_a_cancelled_queue_gave_is_settled_and_the_rest_stays(harness: &impl Harness) {
    let (connection, mut consumer, _) = consume(&harness.transport(), &["a", "b"], 2).await;
    send(&connection, "a", &["a1", "a2", "a3"]).await;
    let mut out = take(&mut *consumer, 2).await;
    consume_from(&mut *consumer, &["b"]).await;
    settle(out.drain(..1).collect(), &Settlement::Ack);
    send(&connection, "a", &["a4"]).await;
    send(&connection, "b", &["b1"]).await;
    let deliveries = take(&mut *consumer, 1).await;
    assert_eq!(names(&deliveries), ["b1"]);
    settle(deliveries, &Settlement::Ack);
    settle(out, &Settlement::Restore);
    assert!(tokio::time::timeout(Duration::from_millis(200), consumer.next()).await.is_err(), "nothing of it comes");
    all_settled(harness).await;
    consume_from(&mut *consumer, &["b", "a"]).await;
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let next = tokio::time::timeout(LONG, consumer.next()).await;
        let deliveries = next.expect("there are more").unwrap();
        seen.extend(names(&deliveries));
        settle(deliveries, &Settlement::Ack);
    }
    assert_eq!(seen, ["a2", "a3", "a4"]);
    all_settled(harness).await;
}

pub(crate) async fn a_queue_is_added_to_one_that_consumes_nothing(harness: &impl Harness) {
    let (connection, mut consumer, _) = consume(&harness.transport(), &["a"], 10).await;
    consume_from(&mut *consumer, &[]).await;
    send(&connection, "a", &["1"]).await;
    assert!(tokio::time::timeout(Duration::from_millis(100), consumer.next()).await.is_err());
    consume_from(&mut *consumer, &["a"]).await;
    assert_eq!(names(&take(&mut *consumer, 1).await), ["1"]);
}

pub(crate) async fn purging_counts_what_was_waiting(harness: &impl Harness) {
    let connection = harness.transport().connect().await.unwrap();
    send(&connection, "q", &["1", "2"]).await;
    let mut low = message("3");
    low.properties.priority = Some(9);
    publish(&connection, vec![Publication::to_queue("q", low)]).await;
    send(&connection, "other", &["4"]).await;
    assert_eq!(connection.purge(&[Queue::direct("q")]).await.unwrap(), 3);
    assert_eq!(connection.purge(&[Queue::direct("q"), Queue::direct("other")]).await.unwrap(), 1);
}

/// The names of everything that a browser finds.
async fn browse(browser: &mut dyn Browser) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        let page = browser.next().await.unwrap();
        if page.is_empty() {
            return seen;
        }
        seen.extend(page.into_iter().map(|found| found.message.unwrap().properties.correlation_id.unwrap()));
    }
}

pub(crate) async fn browsing_touches_nothing(harness: &impl Harness) {
    let connection = harness.transport().connect().await.unwrap();
    let mut low = message("low");
    low.properties.priority = Some(9);
    connection.declare(&[Queue::direct("q")]).await.unwrap();
    publish(&connection, vec![Publication::to_queue("q", low)]).await;
    let sent: Vec<String> = (0..450).map(|nth| nth.to_string()).collect();
    send(&connection, "q", &sent.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let capabilities = harness.transport().capabilities();
    let mut expected = sent.clone();
    let place = if capabilities.lowest_priority_first { sent.len() } else { 0 };
    expected.insert(place, "low".to_owned());
    for _ in 0..2 {
        assert_eq!(browse(&mut *connection.browse(&"q".into()).await.unwrap()).await, expected);
    }
    assert_eq!(browse(&mut *connection.browse(&"other".into()).await.unwrap()).await, [""; 0]);
    let (_connection, mut consumer, _) = consume(&harness.transport(), &["q"], 500).await;
    let deliveries = take(&mut *consumer, 451).await;
    let touched = !capabilities.browses_in_place;
    assert_eq!((names(&deliveries), marked(harness, &deliveries)), (expected, vec![touched; 451]));
}

pub(crate) async fn single_messages_are_taken_and_replaced(harness: &impl Harness) {
    let connection = harness.transport().connect().await.unwrap();
    let sent: Vec<String> = (0..450).map(|nth| nth.to_string()).collect();
    send(&connection, "q", &sent.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut browser = connection.browse(&"q".into()).await.unwrap();
    let (mut nth, mut moved, mut thrown) = (0, 0, 0);
    loop {
        let page = browser.next().await.unwrap();
        if page.is_empty() {
            break;
        }
        let mut taken = Vec::new();
        for found in page {
            let content = Content::Message(Box::new(message(&format!("new {nth}"))));
            match nth % 3 {
                0 => taken.push((found, Some(Replacement { queue: "p".into(), content }))),
                1 => taken.push((found, None)),
                _ => {}
            }
            nth += 1;
        }
        let again = taken.clone();
        assert_eq!(browser.take(taken).await.unwrap(), vec![true; again.len()]);
        moved += again.iter().filter(|(_, replacement)| replacement.is_some()).count();
        thrown += again.iter().filter(|(_, replacement)| replacement.is_none()).count();
        // What was taken is not there any more, and is replaced no second time.
        assert_eq!(browser.take(again.clone()).await.unwrap(), vec![false; again.len()]);
    }
    assert_eq!((nth, moved, thrown), (450, 150, 150));
    drop(browser);
    let left: Vec<_> = sent.iter().skip(2).step_by(3).cloned().collect();
    assert_eq!(browse(&mut *connection.browse(&"q".into()).await.unwrap()).await, left);
    let new: Vec<_> = (0..450).step_by(3).map(|nth| format!("new {nth}")).collect();
    assert_eq!(browse(&mut *connection.browse(&"p".into()).await.unwrap()).await, new);
}

pub(crate) async fn what_replaces_a_message_keeps_its_place_of_origin(harness: &impl Harness) {
    let connection = harness.transport().connect().await.unwrap();
    send(&connection, "q", &["1"]).await;
    let mut browser = connection.browse(&"q".into()).await.unwrap();
    let found = browser.next().await.unwrap().remove(0);
    let mut replacement = message("2");
    replacement.properties.exchange = Some("topics".to_owned());
    replacement.properties.routing_key = Some("a.b".to_owned());
    replacement.properties.priority = Some(6);
    let content = Content::Message(Box::new(replacement.clone()));
    browser.take(vec![(found, Some(Replacement { queue: "p".into(), content }))]).await.unwrap();
    let (_connection, mut consumer, _) = consume(&harness.transport(), &["p"], 10).await;
    let mut delivery = take(&mut *consumer, 1).await.remove(0);
    if !harness.transport().capabilities().keeps_place_of_origin {
        replacement.properties.exchange = Some(String::new());
        replacement.properties.routing_key = Some("p".to_owned());
    }
    assert_eq!(delivery.take_message().unwrap(), replacement);
}

pub(crate) async fn notes_are_kept_until_they_are_removed(harness: &impl Harness) {
    let connection = harness.transport().connect().await.unwrap();
    let note = |name: &str, text: Option<&str>| Note { name: name.to_owned(), text: text.map(str::to_owned) };
    let names = ["a", "b", "c"].map(str::to_owned);
    let hour = Duration::from_secs(3600);
    assert_eq!(connection.notes(&[]).await.unwrap(), []);
    connection.write_notes(vec![note("a", Some("1")), note("b", Some("é"))], hour).await.unwrap();
    let other = harness.transport().connect().await.unwrap();
    assert_eq!(other.notes(&names).await.unwrap(), [Some("1".to_owned()), Some("é".to_owned()), None]);
    other.write_notes(vec![note("a", Some("2")), note("b", None), note("c", None)], hour).await.unwrap();
    assert_eq!(connection.notes(&names).await.unwrap(), [Some("2".to_owned()), None, None]);
}

pub(crate) async fn many_notes_are_each_kept_under_their_names(harness: &impl Harness) {
    let connection = harness.transport().connect().await.unwrap();
    let names: Vec<String> = (0..300).map(|nth| format!("lost.{nth}")).collect();
    let texts: Vec<_> = (0..300).map(|nth| (nth % 3 > 0).then(|| nth.to_string())).collect();
    let notes = names.iter().zip(&texts).map(|(name, text)| Note { name: name.clone(), text: text.clone() });
    connection.write_notes(notes.collect(), Duration::from_secs(3600)).await.unwrap();
    assert_eq!(connection.notes(&names).await.unwrap(), texts);
    let none = names.iter().map(|name| Note { name: name.clone(), text: None });
    connection.write_notes(none.collect(), Duration::from_secs(3600)).await.unwrap();
    assert!(connection.notes(&names).await.unwrap().iter().all(Option::is_none));
}

pub(crate) async fn many_messages_go_through_two_consumers_once(harness: &impl Harness) {
    const COUNT: usize = 2000;
    let sent: Vec<String> = (0..COUNT).map(|nth| nth.to_string()).collect();
    let connection = harness.transport().connect().await.unwrap();
    let (seen, mut seen_by_all) = tokio::sync::mpsc::unbounded_channel();
    let mut workers = Vec::new();
    for _ in 0..2 {
        let (connection, mut consumer, _) = consume(&harness.transport(), &["q", "p"], 16).await;
        let seen = seen.clone();
        workers.push(Arc::clone(&connection));
        tokio::spawn(async move {
            while let Ok(batch) = consumer.next().await {
                let names = names(&batch);
                settle(batch, &Settlement::Ack);
                names.into_iter().for_each(|name| drop(seen.send(name)));
            }
        });
    }
    for (nth, names) in sent.chunks(50).enumerate() {
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        send(&connection, if nth % 2 == 0 { "q" } else { "p" }, &names).await;
    }
    let mut all = HashSet::new();
    for _ in 0..COUNT {
        let next = tokio::time::timeout(LONG, seen_by_all.recv()).await;
        assert!(all.insert(next.unwrap().unwrap()), "a message came twice");
    }
    for connection in workers {
        connection.close().await.unwrap();
    }
    assert_eq!(harness.unsettled().await, 0);
    assert!(seen_by_all.try_recv().is_err(), "a message came twice");
}
