//! What is declared, as a stock worker declares it.

use celeriac::ErrorKind;
use celeriac::protocol::Map;
use celeriac::transport::{ExchangeType, Publication, Queue};

use crate::harness::message;
use crate::rig::{quorum, transport};
use crate::support::rabbitmq_server::{RabbitServer, VHost};

/// What the server knows, without the spaces and line ends of Erlang.
fn ask(vhost: &VHost, function: &str) -> String {
    let answer = vhost.server().ask(&function.replace("VHOST", &format!("<<\"{}\">>", vhost.name())));
    answer.replace([' ', '\n'], "")
}

fn queue(vhost: &VHost, name: &str) -> String {
    ask(
        vhost,
        &format!(
            "[rabbit_amqqueue:info(Q, [durable, auto_delete, exclusive, arguments]) || Q <- rabbit_amqqueue:list(VHOST), \
             element(4, amqqueue:get_name(Q)) =:= <<\"{name}\">>]."
        ),
    )
}

fn exchange(vhost: &VHost, name: &str) -> String {
    ask(
        vhost,
        &format!(
            "[rabbit_exchange:info(E, [type, durable, auto_delete]) || E <- rabbit_exchange:list(VHOST), \
             element(4, element(2, E)) =:= <<\"{name}\">>]."
        ),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_are_declared_as_a_stock_worker_declares_them() {
    let Some(server) = RabbitServer::shared().await else { return };
    let vhost = server.vhost();
    let connection = transport(&vhost.url()).connect().await.unwrap();
    let priorities = Queue { arguments: Map::from([("x-max-priority", 10)]), ..Queue::direct("priorities") };
    let mailbox = Queue {
        exchange: "celery.pidbox".to_owned(),
        exchange_type: ExchangeType::Fanout,
        exchange_durable: false,
        routing_key: String::new(),
        arguments: Map::from([("x-expires", 10_000), ("x-message-ttl", 300_000)]),
        durable: false,
        auto_delete: true,
        exclusive: true,
        ..Queue::direct("celery@here.celery.pidbox")
    };
    let plain = Queue { exchange: String::new(), ..Queue::direct("plain") };
    let own = Queue { exchange: "amq.topic".to_owned(), exchange_type: ExchangeType::Topic, ..Queue::direct("own") };
    let queues = [Queue::direct("celery"), priorities, quorum("quorum"), mailbox, plain, own];
    for _ in 0..2 {
        connection.declare(&queues).await.unwrap();
    }
    let rows = [
        ("celery", "[[{durable,true},{auto_delete,false},{exclusive,false},{arguments,[]}]]"),
        (
            "priorities",
            "[[{durable,true},{auto_delete,false},{exclusive,false},{arguments,[{<<\"x-max-priority\">>,signedint,10}]}]]",
        ),
        ("plain", "[[{durable,true},{auto_delete,false},{exclusive,false},{arguments,[]}]]"),
        (
            "celery@here.celery.pidbox",
            "[[{durable,false},{auto_delete,true},{exclusive,true},{arguments,[{<<\"x-expires\">>,signedint,10000},\
             {<<\"x-message-ttl\">>,signedint,300000}]}]]",
        ),
    ];
    for (name, expected) in rows {
        assert_eq!(queue(&vhost, name), expected, "{name}");
    }
    assert!(queue(&vhost, "quorum").contains("{<<\"x-queue-type\">>,longstr,<<\"quorum\">>}"));
    let rows = [
        ("celery", "[[{type,direct},{durable,true},{auto_delete,false}]]"),
        ("celery.pidbox", "[[{type,fanout},{durable,false},{auto_delete,false}]]"),
        ("plain", "[]"),
    ];
    for (name, expected) in rows {
        assert_eq!(exchange(&vhost, name), expected, "{name}");
    }
    let bindings = ask(
        &vhost,
        "[[rabbit_binding:info(B, [source_name, destination_name, routing_key])] || \
                                 B <- rabbit_binding:list(VHOST)].",
    );
    for (source, name, key) in [("celery", "celery", "celery"), ("amq.topic", "own", "own")] {
        let binding = format!(
            "{{source_name,<<\"{source}\">>}},{{destination_name,<<\"{name}\">>}},{{routing_key,<<\"{key}\">>}}"
        );
        assert!(bindings.contains(&binding), "{binding} is not in {bindings}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_with_other_arguments_is_one_clear_line() {
    let Some(server) = RabbitServer::shared().await else { return };
    let vhost = server.vhost();
    let connection = transport(&vhost.url()).connect().await.unwrap();
    connection.declare(&[Queue::direct("q")]).await.unwrap();
    let error = connection.declare(&[quorum("q")]).await.unwrap_err();
    let (begin, end) = (
        "PreconditionFailed(406, \"PRECONDITION_FAILED - inequivalent arg 'x-queue-type'",
        ", (50, 10), 'Queue.declare')",
    );
    let text = error.to_string();
    assert!(text.starts_with(begin) && text.ends_with(end) && !text.contains('\n'), "{text}");
    assert_eq!(error.kind(), ErrorKind::Configuration);
    let topic = Queue { exchange_type: ExchangeType::Topic, ..Queue::direct("q") };
    let text = connection.declare(&[topic]).await.unwrap_err().to_string();
    assert!(text.starts_with("PreconditionFailed(406, ") && text.contains("'Exchange.declare'"), "{text}");
    // The connection is as good as before.
    let missing = Queue { no_declare: true, ..Queue::direct("missing") };
    connection.declare(std::slice::from_ref(&missing)).await.unwrap();
    let consumed = connection.consume(&[missing], celeriac::transport::Prefetch::new(1)).await;
    let error = consumed.err().expect("there is no such queue");
    assert!(error.to_string().starts_with("NotFound(404, "), "{error}");
    let accepted = connection.publish(vec![Publication::to_queue("q", message("1"))]).await.unwrap();
    accepted.into_iter().for_each(|accepted| accepted.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_of_somebody_else_is_worth_another_try() {
    let Some(server) = RabbitServer::shared().await else { return };
    let vhost = server.vhost();
    let mailbox = Queue { exclusive: true, auto_delete: true, durable: false, ..Queue::direct("w.celery.pidbox") };
    let first = transport(&vhost.url()).connect().await.unwrap();
    let held = first.subscribe(&mailbox).await.unwrap();
    let second = transport(&vhost.url()).connect().await.unwrap();
    let error = second.subscribe(&mailbox).await.err().expect("it is locked");
    assert!(error.kind() == ErrorKind::Locked && error.to_string().starts_with("ResourceLocked(405, "), "{error}");
    drop(held);
    first.close().await.unwrap();
    second.subscribe(&mailbox).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_nowhere_is_refused_and_harms_nothing_else() {
    let Some(server) = RabbitServer::shared().await else { return };
    let vhost = server.vhost();
    let connection = transport(&vhost.url()).connect().await.unwrap();
    connection.declare(&[Queue::direct("q")]).await.unwrap();
    let to = |exchange: &str, key: &str, name: &str| Publication {
        exchange: exchange.to_owned(),
        routing_key: key.to_owned(),
        message: message(name),
    };
    let mut batch =
        vec![to("", "q", "1"), to("", "nobody", "2"), to("no-such-exchange", "q", "3"), to("q", "odd", "4")];
    batch.extend((0..100).map(|nth| to(if nth % 2 == 0 { "" } else { "q" }, "q", &format!("more {nth}"))));
    batch.push(to("", &"n".repeat(256), "too long"));
    let accepted = connection.publish(batch).await.unwrap();
    let refused: Vec<_> = accepted
        .iter()
        .enumerate()
        .filter_map(|(nth, accepted)| Some((nth, accepted.as_ref().err()?.kind())))
        .collect();
    let broker = ErrorKind::Broker;
    assert_eq!(refused, [(1, broker), (2, broker), (3, broker), (104, ErrorKind::Encode)]);
    assert_eq!(vhost.depth("q").ready, 101);
}
