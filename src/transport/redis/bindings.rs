//! [`Bindings`]: the tables of `_kombu.binding.*`.

use std::collections::{BTreeSet, HashMap};

use redis::{Pipeline, RedisError};

use super::Shared;
use super::connection::Link;
use super::flush::run;
use crate::redis_client::{SharedConnection, is_refusal};
use crate::transport::binding::{Binding, bound, destinations};
use crate::transport::{Bound, Queue};

/// The bindings of some exchanges.
#[derive(Debug, Default)]
pub(super) struct Bindings(HashMap<String, Result<Vec<Binding>, RedisError>>);

/// An exchange's table, and the digest by which `claimed.lua` knows it.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) digest: Vec<u8>,
    pub(super) table: Vec<Binding>,
}

impl Known {
    /// Reads what the script answers: the digest, and then the table's members.
    pub(super) fn read(shared: &Shared, mut answer: Vec<Vec<u8>>) -> Self {
        let members = answer.split_off(answer.len().min(1));
        Known { digest: answer.pop().unwrap_or_default(), table: table(shared, members) }
    }
}

/// The exchanges among these that have a table: all but the default one, each once.
pub(super) fn exchanges<'a>(names: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

impl Bindings {
    /// Reads the tables of exchanges, in one round trip; none if there is none to read. A table that the server refuses
    /// to show fails who asks for its queues, and nobody else.
    pub(super) async fn look_up(
        shared: &Shared,
        connection: &mut SharedConnection,
        exchanges: BTreeSet<String>,
    ) -> Result<Self, RedisError> {
        let mut pipeline = Pipeline::new();
        for exchange in &exchanges {
            pipeline.cmd("SMEMBERS").arg(shared.keys.binding(exchange));
        }
        let mut tables = HashMap::new();
        for (exchange, answer) in exchanges.into_iter().zip(run(connection, &pipeline).await?) {
            let table = match answer.extract_error() {
                Ok(members) => Ok(table(shared, redis::from_redis_value(members)?)),
                Err(error) if is_refusal(&error) => Err(error),
                Err(error) => return Err(error),
            };
            tables.insert(exchange, table);
        }
        Ok(Bindings(tables))
    }

    /// The queues that are bound for a message, and no others: perhaps none.
    pub(super) fn bound(&self, exchange: &str, routing_key: &str) -> Result<Vec<String>, RedisError> {
        Ok(bound(self.table(exchange)?, routing_key))
    }

    /// The queues that a message goes to: at least one.
    pub(super) fn queues(&self, exchange: &str, routing_key: &str) -> Result<Vec<String>, RedisError> {
        match exchange {
            "" => Ok(vec![routing_key.to_owned()]),
            _ => Ok(destinations(self.table(exchange)?, exchange, routing_key)),
        }
    }

    fn table(&self, exchange: &str) -> Result<&[Binding], RedisError> {
        match self.0.get(exchange) {
            Some(table) => table.as_deref().map_err(RedisError::clone),
            None => Ok(&[]),
        }
    }
}

/// The bindings that stand in a table. A member that is none is passed over.
fn table(shared: &Shared, members: Vec<Vec<u8>>) -> Vec<Binding> {
    let texts = members.iter().filter_map(|member| str::from_utf8(member).ok());
    let rows = texts.filter_map(|member| shared.keys.split_member(member));
    let bindings = rows.map(|[routing_key, pattern, queue]| Binding {
        routing_key: routing_key.to_owned(),
        pattern: pattern.to_owned(),
        queue: queue.to_owned(),
    });
    bindings.collect()
}

/// All bindings of the exchanges of these queues, in their order.
pub(super) async fn list(link: &Link, queues: &[Queue]) -> crate::Result<Vec<Bound>> {
    let refused = |error| link.refused("cannot list bindings at", error);
    let names = exchanges(queues.iter().map(|queue| queue.exchange.as_str()));
    let found = Bindings::look_up(&link.shared, &mut link.connection.clone(), names.clone()).await.map_err(refused)?;
    let mut bound = Vec::new();
    for exchange in names {
        for Binding { routing_key, queue, .. } in found.table(&exchange).map_err(refused)? {
            let (routing_key, queue) = (routing_key.clone(), queue.clone());
            bound.push(Bound { exchange: exchange.clone(), queue, routing_key });
        }
    }
    bound.sort();
    Ok(bound)
}

/// Writes the queues' bindings as kombu/transport/redis.py `Channel._queue_bind` does: those of a queue that expires
/// stand in one table alone, so that they can be swept.
pub(super) async fn declare(
    shared: &Shared,
    connection: &mut SharedConnection,
    queues: &[Queue],
) -> Result<(), RedisError> {
    let mut pipeline = Pipeline::new();
    for queue in queues.iter().filter(|queue| !queue.exchange.is_empty()) {
        let Binding { routing_key, pattern, queue: name } = Binding::of(queue);
        let member = shared.keys.member([&routing_key, &pattern, &name]);
        pipeline.cmd("SADD").arg(shared.keys.binding(&queue.exchange)).arg(&member);
        if !queue.arguments.contains_key("x-expires") {
            pipeline.cmd("SADD").arg(shared.keys.binding_permanent(&queue.exchange)).arg(&member);
        }
    }
    run(connection, &pipeline).await?.into_iter().try_for_each(|answer| answer.extract_error().map(drop))
}
