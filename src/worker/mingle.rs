//! [`Mingle`]: asks the other workers what was revoked before this one began, and what time their logical clocks have
//! (celery/worker/consumer/mingle.py `Mingle`).
//!
//! A stock worker waits for the answers, a second long, before it consumes. This one consumes meanwhile: each answer is
//! taken in as it comes, and what is revoked is checked once more right before a task starts.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::event::Event;
use super::publisher::Current;
use crate::Result;
use crate::app::Control;
use crate::control::{LamportClock, revoked_ids};
use crate::protocol::Value;
use crate::transport::Connection;

/// Asks the neighbors.
#[derive(Clone)]
pub(crate) struct Mingle {
    pub(crate) hostname: String,
    pub(crate) control: Control,
    pub(crate) clock: Arc<LamportClock>,
    pub(crate) connection: Current,
    /// Where what they tell is taken in.
    pub(crate) events: mpsc::UnboundedSender<Event>,
    /// Cancelled when the worker is to stop: then nobody wants to know any more.
    pub(crate) stop: CancellationToken,
}

impl Mingle {
    /// Asks once, over the connection that is up; these ids were revoked here, the oldest first.
    pub(crate) async fn sync(self, revoked: Vec<String>) {
        let Some(connection) = self.connection.borrow().clone() else { return };
        info!("mingle: searching for neighbors");
        match self.ask(&*connection, revoked).await {
            Ok(_) if self.stop.is_cancelled() => {}
            Ok(nodes) if nodes.is_empty() => info!("mingle: all alone"),
            Ok(nodes) => {
                let answered = nodes.values().filter(|told| **told).count();
                info!("mingle: sync with {answered} nodes");
                info!("mingle: sync complete");
            }
            // The next connection begins with the same question.
            Err(error) if error.can_pass() => debug!("mingle: {error}"),
            Err(error) => warn!("mingle: {error}"),
        }
    }

    /// Who of the others answers, and whether that tells anything.
    async fn ask(&self, connection: &dyn Connection, revoked: Vec<String>) -> Result<HashMap<String, bool>> {
        let call = self.control.call("hello").argument("from_node", self.hostname.as_str());
        let mut nodes = HashMap::new();
        let each = |node: &str, answer: &Value| {
            if node != self.hostname {
                self.take_in(node, answer);
                nodes.insert(node.to_owned(), answer.is_truthy());
            }
        };
        let stopped = self.stop.cancelled();
        self.control.ask_over(connection, call.argument("revoked", revoked), each, stopped).await?;
        Ok(nodes)
    }

    /// celery/worker/consumer/mingle.py `Mingle.sync_with_node`.
    fn take_in(&self, node: &str, answer: &Value) {
        let Some(answer) = answer.as_map().filter(|answer| !answer.is_empty()) else { return };
        debug!("mingle: processing reply from {node}");
        match answer.get("clock").and_then(Value::as_u64).filter(|clock| *clock > 0) {
            Some(clock) => self.clock.adjust(clock),
            None => self.clock.forward(),
        };
        let revoked = answer.get("revoked").map(revoked_ids).unwrap_or_default();
        if !revoked.is_empty() {
            // The loop is gone only when the worker is.
            let _ = self.events.send(Event::RevokedElsewhere(revoked));
        }
    }
}
