//! [`Delays`]: what the broker is told to make, so that it keeps messages until their time
//! (celery/worker/consumer/delayed_delivery.py).
//!
//! Where a quorum queue is configured these are Celery's own levels, which all workers and producers share; where the
//! worker parks what is for much later, also those of its own. What cannot be made is told, and the worker goes on: then
//! messages that are sent to the levels are refused, and held messages stay here.

use std::collections::HashMap;
use std::sync::Arc;

use tracing::{debug, warn};

use super::parking::{Parking, Ready};
use crate::Result;
use crate::config::{Config, QueueDefinition};
use crate::routing::{Declaration, DelayLevels, delays_natively, is_direct, is_quorum};
use crate::transport::Connection;

/// What the broker is told to make.
#[derive(Debug, Default)]
pub(crate) struct Delays {
    /// Celery's levels; nothing without a quorum queue.
    levels: Vec<Declaration>,
    /// By what each of the worker's queues gets its messages, and under which key.
    queues: Vec<Bound>,
    /// The same for queues that others declare, if at all.
    others: Vec<Bound>,
    /// The parking's levels, with the bindings of the queues that have it; nothing without.
    parking: Vec<Declaration>,
    parks: Ready,
}

#[derive(Debug)]
struct Bound {
    queue: String,
    routing_key: Arc<str>,
    bindings: Vec<Declaration>,
}

impl Delays {
    pub(crate) fn new(config: &Config, consumed: &[QueueDefinition], parking: &Parking) -> Self {
        let queue_type = &config.broker_native_delayed_delivery_queue_type;
        let mut delays =
            Delays { parking: parking.declarations(queue_type), parks: parking.ready(), ..Delays::default() };
        if delays_natively(config) || consumed.iter().any(is_quorum) {
            delays.levels = DelayLevels::CELERY.declarations(queue_type);
            delays.queues = consumed.iter().filter_map(bound).collect();
            let configured = config.defined_queues();
            let others = configured.iter().filter(|queue| consumed.iter().all(|own| own.name != queue.name));
            delays.others = others.filter(|queue| !is_direct(queue)).filter_map(bound).collect();
        }
        delays
    }

    /// The worker's queues that messages are delayed for, with their routing keys.
    pub(crate) fn queues(&self) -> HashMap<String, Arc<str>> {
        self.queues.iter().map(|bound| (bound.queue.clone(), Arc::clone(&bound.routing_key))).collect()
    }

    /// Tells the broker. What it refuses is logged.
    ///
    /// # Errors
    /// The connection is gone.
    pub(crate) async fn arrange(&self, connection: &dyn Connection) -> Result<()> {
        if !self.levels.is_empty() && made(connection, &self.levels, "delayed delivery").await? {
            for Bound { queue, bindings, .. } in &self.queues {
                made(connection, bindings, &format!("delayed delivery to the queue {queue}")).await?;
            }
            for Bound { queue, bindings, .. } in &self.others {
                match connection.arrange(bindings).await {
                    Err(error) if error.is_connection() => return Err(error),
                    Err(error) => debug!("nothing is delayed for the queue {queue}, which is not there: {error}"),
                    Ok(()) => {}
                }
            }
        }
        let parks = !self.parking.is_empty() && made(connection, &self.parking, "the parking of long ETAs").await?;
        self.parks.set(parks);
        Ok(())
    }
}

/// Whether the broker has made all of it.
async fn made(connection: &dyn Connection, declarations: &[Declaration], what: &str) -> Result<bool> {
    match connection.arrange(declarations).await {
        Err(error) if error.is_connection() => Err(error),
        Err(error) => {
            warn!("Failed to set up {what}: {error}");
            Ok(false)
        }
        Ok(()) => Ok(true),
    }
}

fn bound(queue: &QueueDefinition) -> Option<Bound> {
    if is_direct(queue) {
        warn!(
            "Exchange {} is a direct exchange and native delayed delivery does not support direct exchanges: ETA tasks \
             published to it are held by the worker until their ETA",
            queue.exchange.as_deref().unwrap_or_default()
        );
        return None;
    }
    let routing_key = queue.routing_key.as_deref().unwrap_or_default().into();
    Some(Bound { queue: queue.name.clone(), routing_key, bindings: DelayLevels::CELERY.bindings(queue) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delays(toml: &str, select: &[&str]) -> Delays {
        let mut config = Config::default();
        config.merge_toml(toml, "test.toml").unwrap();
        let select: Vec<_> = select.iter().map(|name| (*name).to_owned()).collect();
        Delays::new(&config, &config.consume_from(&select, &[]).unwrap(), &Parking::default())
    }

    #[test]
    fn levels_are_for_quorum_queues_and_bindings_for_topic_and_fanout_exchanges() {
        let topic = "task_default_exchange_type = 'topic'\n";
        let quorum = format!("{topic}task_default_queue_type = 'quorum'");
        let queues = "task_queues = [{ name = 'a', exchange = 'x', exchange_type = 'topic', \
                      queue_arguments = { x-queue-type = 'quorum' } }, { name = 'b', exchange = 'd' }, \
                      { name = 'c', exchange = 'f', exchange_type = 'fanout', routing_key = 'k' }]";
        let missing = "task_create_missing_queue_type = 'quorum'\ntask_create_missing_queue_exchange_type = 'topic'";
        for (toml, select, levels, queues, others) in [
            ("", &[] as &[_], 0, vec![], 0),
            (topic, &[], 0, vec![], 0),
            ("task_default_queue_type = 'quorum'", &[], 113, vec![], 0),
            (&quorum, &[], 113, vec![("celery", "celery")], 0),
            (queues, &[], 113, vec![("a", "celery"), ("c", "k")], 0),
            (queues, &["a"], 113, vec![("a", "celery")], 1),
            (missing, &["new"], 113, vec![("new", "new")], 0),
        ] {
            let delays = delays(toml, select);
            let mut bound: Vec<_> = delays.queues().into_iter().collect();
            bound.sort();
            let bound: Vec<_> = bound.iter().map(|(queue, key)| (queue.as_str(), &**key)).collect();
            assert_eq!((delays.levels.len(), bound, delays.others.len()), (levels, queues, others), "{toml}");
        }
    }
}
