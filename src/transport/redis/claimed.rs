//! [`publish_claimed`]: hands over one message against its claim.

use redis::Value;

use super::bindings::{Bindings, exchanges};
use super::connection::Link;
use crate::Result;
use crate::transport::{Claim, Publication};

const PUBLISH: &str = "cannot publish to";

/// Publishes the message if its claim is still there, and says whether it was.
pub(super) async fn publish_claimed(link: &Link, publication: &Publication, claim: &Claim) -> Result<bool> {
    let refused = |error| link.refused(PUBLISH, error);
    let (shared, connection) = (&link.shared, &mut link.connection.clone());
    let exchange = publication.exchange.as_str();
    let bindings = Bindings::look_up(shared, connection, exchanges([exchange].into_iter())).await.map_err(refused)?;
    let payload = shared.envelope(publication)?;
    let queues = bindings.queues(exchange, &publication.routing_key).map_err(refused)?;
    let priority = publication.message.properties.priority.unwrap_or(0);
    let mut call = shared.scripts.claimed.call(1 + queues.len());
    call.arg(&claim.hash);
    for queue in &queues {
        call.arg(shared.keys.list_for(queue, priority));
    }
    call.arg(&claim.field).arg(payload);
    let answer = shared.scripts.claimed.run(connection, &call).await.map_err(refused)?;
    Ok(answer == Value::Int(1))
}
