//! Publishing: a file for each queue that a message goes to.

use std::collections::HashMap;

use uuid::Uuid;

use super::files::{failed, remove};
use super::{Shared, tables};
use crate::protocol::envelope;
use crate::transport::binding::{Binding, bound, destinations as named};
use crate::transport::{Publication, Queue};
use crate::{Error, ErrorKind, Result};

/// Which queues of an exchange a message goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aim {
    /// Those that are bound, or the one that the key names.
    Queues,
    /// Those that are bound, by a pattern or to a fanout exchange: those who listen.
    Listeners,
    /// Those that are bound with that very key.
    Asking,
}

/// Publishes; says of each message whether it was accepted.
pub(super) fn publish(shared: &Shared, batch: &[Publication], aim: Aim) -> Result<Vec<Result<()>>> {
    let mut tables = HashMap::new();
    let mut accepted = Vec::with_capacity(batch.len());
    for publication in batch {
        match publish_one(shared, publication, aim, &mut tables) {
            Err(error) if error.is_connection() => return Err(error),
            done => accepted.push(done),
        }
    }
    Ok(accepted)
}

fn publish_one<'a>(
    shared: &Shared,
    publication: &'a Publication,
    aim: Aim,
    known: &mut HashMap<&'a str, Vec<Binding>>,
) -> Result<()> {
    let content = written(publication)?;
    let exchange = publication.exchange.as_str();
    if !exchange.is_empty() && !known.contains_key(exchange) {
        known.insert(exchange, tables::read(&shared.options.control_folder, exchange)?);
    }
    let bindings = known.get(exchange).map(Vec::as_slice).unwrap_or_default();
    let queues = queues(shared, bindings, publication, aim);
    let queues: Vec<&str> = queues.iter().map(|queue| sound(queue)).collect::<Result<_>>()?;
    queues.into_iter().try_for_each(|queue| shared.outgoing.put(&shared.namer.next(queue), &content))
}

fn queues(shared: &Shared, bindings: &[Binding], publication: &Publication, aim: Aim) -> Vec<String> {
    let Publication { exchange, routing_key, .. } = publication;
    let hears = |binding: &&Binding| binding.pattern.is_empty() || binding.matches(routing_key);
    let listening = || bindings.iter().filter(hears).map(|binding| binding.queue.clone()).collect();
    match aim {
        Aim::Queues if exchange.is_empty() => vec![routing_key.clone()],
        Aim::Queues if shared.is_fanout(exchange) && !bindings.is_empty() => listening(),
        Aim::Queues => named(bindings, exchange, routing_key),
        Aim::Listeners => listening(),
        Aim::Asking => bound(bindings, routing_key),
    }
}

/// The queues that a message goes to: at least one.
pub(super) fn destinations(shared: &Shared, publication: &Publication) -> Result<Vec<String>> {
    let bindings = match publication.exchange.as_str() {
        "" => Vec::new(),
        exchange => tables::read(&shared.options.control_folder, exchange)?,
    };
    Ok(queues(shared, &bindings, publication, Aim::Queues))
}

/// The same queue, if it has a form in a file's name.
pub(super) fn sound(queue: &str) -> Result<&str> {
    if queue.is_empty() || queue.contains(['/', '\0']) {
        let message = format!("cannot publish to the queue {queue:?}: it is no part of a file's name");
        return Err(Error::new(ErrorKind::Broker, message));
    }
    Ok(queue)
}

/// A message's envelope, with a tag of its own.
pub(super) fn written(publication: &Publication) -> Result<Vec<u8>> {
    let mut message = publication.message.clone();
    message.properties.exchange = Some(publication.exchange.clone());
    message.properties.routing_key = Some(publication.routing_key.clone());
    let mut content = Vec::new();
    envelope::write(&message, &Uuid::new_v4().to_string(), &mut content)?;
    Ok(content)
}

/// Throws away what waits in queues, and counts it.
pub(super) fn purge(shared: &Shared, queues: &[Queue]) -> Result<u64> {
    let folder = &shared.incoming;
    let failed = |error| failed("cannot purge queues of the folder", folder.path(), error);
    let mut purged = 0;
    for name in folder.names().map_err(failed)? {
        if queues.iter().any(|queue| queue.name.as_str() == name.queue()) {
            purged += u64::from(remove(&folder.file(&name)).map_err(failed)?);
        }
    }
    Ok(purged)
}
