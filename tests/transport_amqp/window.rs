//! How many messages are sent ahead.

use std::time::Duration;

use celeriac::transport::{Queue, Settlement};

use crate::harness::{names, publish, take};
use crate::rig::{consume, quorum, transport};
use crate::support::rabbitmq_server::RabbitServer;
use crate::support::{LONG, eventually};
use celeriac::transport::Publication;

use crate::harness::message;

fn many(queue: &str, count: usize) -> Vec<Publication> {
    (0..count).map(|nth| Publication::to_queue(queue, message(&nth.to_string()))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn held_tasks_do_not_keep_others_back() {
    let Some(server) = RabbitServer::shared().await else { return };
    for queue in [Queue::direct("q"), quorum("q")] {
        let vhost = server.vhost();
        let (connection, mut consumer, prefetch) = consume(&transport(&vhost.url()), &queue, 4).await;
        publish(&connection, many("q", 60)).await;
        let mut held = Vec::new();
        while held.len() < 60 {
            let next = tokio::time::timeout(LONG, consumer.next()).await;
            let batch = next.unwrap_or_else(|_| panic!("{} of 60 came", held.len())).unwrap();
            assert!(batch.len() <= 4, "no more than the window");
            // As the worker does with each that waits for its ETA.
            held.extend(batch.into_iter().map(|delivery| (prefetch.grow(), delivery)));
        }
        let came: Vec<_> = held.into_iter().map(|(_, delivery)| delivery).collect();
        assert_eq!(names(&came), (0..60).map(|nth| nth.to_string()).collect::<Vec<_>>());
        came.into_iter().for_each(|delivery| delivery.settle(Settlement::Ack));
        eventually("all are acknowledged", || async { vhost.depths().iter().all(|depth| depth.unacknowledged == 0) })
            .await;
        assert_eq!(vhost.depth("q").ready, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_ahead_for_held_tasks_goes_back_when_they_are_gone() {
    let Some(server) = RabbitServer::shared().await else { return };
    let vhost = server.vhost();
    let (connection, mut consumer, prefetch) = consume(&transport(&vhost.url()), &Queue::direct("q"), 2).await;
    let growth: Vec<_> = (0..400).map(|_| prefetch.grow()).collect();
    publish(&connection, many("q", 500)).await;
    let taken = take(&mut *consumer, 402).await;
    drop(growth);
    // No more than a few are kept from others.
    let given_back = async {
        while vhost.depth("q").ready < 90 {
            let more = tokio::time::timeout(Duration::from_millis(100), consumer.next()).await;
            assert!(more.is_err(), "the window is full");
        }
    };
    tokio::time::timeout(LONG, given_back).await.expect("they go back");
    taken.into_iter().for_each(|delivery| delivery.settle(Settlement::Ack));
    take(&mut *consumer, 2).await.into_iter().for_each(|delivery| delivery.settle(Settlement::Ack));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_limit_is_no_limit() {
    let Some(server) = RabbitServer::shared().await else { return };
    let vhost = server.vhost();
    let (connection, mut consumer, _) = consume(&transport(&vhost.url()), &Queue::direct("q"), 0).await;
    publish(&connection, many("q", 3000)).await;
    let deliveries = take(&mut *consumer, 3000).await;
    deliveries.into_iter().for_each(|delivery| delivery.settle(Settlement::Ack));
    connection.close().await.unwrap();
    assert_eq!(vhost.depth("q").ready, 0);
}
