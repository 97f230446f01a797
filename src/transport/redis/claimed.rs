//! [`publish_claimed`]: hands over one message against its claim.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use redis::{Cmd, Value};

use super::Shared;
use super::bindings::Known;
use super::connection::Link;
use crate::Result;
use crate::transport::binding::destinations;
use crate::transport::{Claim, Publication};

const PUBLISH: &str = "cannot publish to";

/// The tables of exchanges as the server showed them last. They are never trusted: the script compares before it pushes.
#[derive(Debug, Default)]
pub(super) struct Tables(Mutex<HashMap<String, Arc<Known>>>);

/// Publishes the message if its claim is still there, and says whether it was: one round trip, and another one where the
/// exchange's bindings have changed since the last message.
pub(super) async fn publish_claimed(link: &Link, publication: &Publication, claim: &Claim) -> Result<bool> {
    let refused = |error| link.refused(PUBLISH, error);
    let (shared, connection) = (&link.shared, &mut link.connection.clone());
    let payload = shared.envelope(publication)?;
    loop {
        let known = link.tables.known(&publication.exchange);
        let call = call(shared, publication, claim, known.as_deref(), &payload);
        let table = match shared.scripts.claimed.run(connection, &call).await.map_err(refused)? {
            table @ Value::Array(_) => redis::from_redis_value(table).map_err(|error| refused(error.into()))?,
            answer => return Ok(answer == Value::Int(1)),
        };
        link.tables.learn(&publication.exchange, Known::read(shared, table));
    }
}

fn call(shared: &Shared, publication: &Publication, claim: &Claim, known: Option<&Known>, payload: &[u8]) -> Cmd {
    let (exchange, routing_key) = (publication.exchange.as_str(), publication.routing_key.as_str());
    let priority = publication.message.properties.priority.unwrap_or(0);
    let queues = match known {
        _ if exchange.is_empty() => vec![routing_key.to_owned()],
        Some(known) => destinations(&known.table, exchange, routing_key),
        // The server says first what is bound.
        None => Vec::new(),
    };
    let has_table = !exchange.is_empty();
    let mut call = shared.scripts.claimed.call(1 + usize::from(has_table) + queues.len());
    call.arg(&claim.hash);
    if has_table {
        call.arg(shared.keys.binding(exchange));
    }
    for queue in &queues {
        call.arg(shared.keys.list_for(queue, priority));
    }
    call.arg(&claim.field).arg(payload);
    if has_table {
        call.arg(known.map(|known| known.digest.as_slice()).unwrap_or_default());
    }
    call
}

impl Tables {
    fn known(&self, exchange: &str) -> Option<Arc<Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(exchange).cloned()
    }

    fn learn(&self, exchange: &str, known: Known) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(exchange.to_owned(), Arc::new(known));
    }
}
