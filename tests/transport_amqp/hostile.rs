//! Messages that no decent producer sends.

use celeriac::protocol::Value;
use celeriac::transport::{Queue, Settlement};

use crate::harness::{send, take};
use crate::rig::{consume, transport};
use crate::support::rabbitmq_server::{RabbitServer, VHost};

/// Lets the server itself put a message into the queue, with properties in Erlang.
fn publish(vhost: &VHost, properties: &str) {
    let exchange = format!("rabbit_misc:r(<<\"{}\">>, exchange, <<>>)", vhost.name());
    let answer = vhost.server().ask(&format!("rabbit_basic:publish({exchange}, <<\"q\">>, {properties}, <<\"[]\">>)."));
    assert!(answer.starts_with("{ok,") || answer == "ok", "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_no_text_and_headers_without_end_harm_no_other_message() {
    let Some(server) = RabbitServer::shared().await else { return };
    let vhost = server.vhost();
    let (connection, mut consumer, _) = consume(&transport(&vhost.url()), &Queue::direct("q"), 10).await;
    send(&connection, "q", &["before"]).await;
    publish(&vhost, "[{correlation_id, <<\"a\", 255, \"b\">>}, {content_type, <<255>>}]");
    publish(&vhost, "[{headers, [{<<\"k\", 16#ed, 16#b3, 16#bf>>, longstr, <<255>>}]}]");
    let nested = "lists:foldl(fun(_, Inner) -> [{array, Inner}] end, [], lists:seq(1, 20000))";
    publish(&vhost, &format!("[{{headers, [{{<<\"nested\">>, array, {nested}}}]}}]"));
    send(&connection, "q", &["after"]).await;
    let deliveries = take(&mut *consumer, 5).await;
    let messages: Vec<_> = deliveries.iter().map(|delivery| delivery.message()).collect();
    let id = |nth: usize| messages[nth].unwrap().properties.correlation_id.as_deref();
    assert_eq!((id(0), id(1), id(4)), (Some("before"), Some("a?b"), Some("after")));
    assert_eq!(messages[1].unwrap().content_type.as_deref(), Some("?"));
    assert_eq!(messages[2].unwrap().headers.get("k???"), Some(&Value::Bytes(vec![255])));
    // Bounded on its way, it may still be too deep to be read.
    if let Err(undecodable) = messages[3] {
        assert!(undecodable.reason.contains("nested too deeply"), "{}", undecodable.reason);
        assert_eq!(&undecodable.raw[..], b"[]");
    }
    deliveries.into_iter().for_each(|delivery| delivery.settle(Settlement::Ack));
    connection.close().await.unwrap();
    assert_eq!(vhost.depth("q").ready, 0);
}
