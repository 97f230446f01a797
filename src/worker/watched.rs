//! [`Watched`]: what a worker shows over HTTP (`worker_http`): `/metrics`, `/livez`, `/readyz` and `/startupz`.
//!
//! Every page is made of numbers that are there already; nothing is asked of the loop, the broker or the backend.

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use super::counts::Counts;
use super::dispatcher::Dispatcher;
use super::page::{State, page};
use super::pulse::Pulse;
use super::queues::Consumed;
use super::witness::Tally;
use crate::http::{Page, Site};
use crate::metrics::Text;
use crate::transport::Prefetch;

const PATHS: &[&str] = &["/metrics", "/livez", "/readyz", "/startupz"];

/// A worker, as it is seen from outside.
pub(crate) struct Watched {
    pub(crate) node: String,
    pub(crate) queues: Consumed,
    pub(crate) counts: Arc<Counts>,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) tally: Arc<Tally>,
    pub(crate) prefetch: Arc<Prefetch>,
    pub(crate) dispatcher: Arc<Dispatcher>,
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Site for Watched {
    fn page(&self, path: &str) -> Option<Page> {
        let now = Instant::now();
        Some(match path {
            "/metrics" => Page { content_type: Text::CONTENT_TYPE, text: self.metrics(now), is_good: true },
            "/livez" => verdict(self.pulse.live(now)),
            "/readyz" => verdict(self.ready(now)),
            "/startupz" => verdict(self.pulse.started()),
            _ => return None,
        })
    }

    fn paths(&self) -> &'static [&'static str] {
        PATHS
    }
}

impl Watched {
    /// Whether messages arrive and are run.
    fn ready(&self, now: Instant) -> Result<(), String> {
        self.pulse.ready(now)?;
        if self.queues.borrow().is_empty() {
            return Err("no queue is consumed".to_owned());
        }
        match self.pulse.load().concurrency {
            0 => Err("the pool has no places".to_owned()),
            _ => Ok(()),
        }
    }

    fn metrics(&self, now: Instant) -> String {
        let queues: Vec<String> = self.queues.borrow().iter().map(|queue| queue.name.to_string()).collect();
        let state = State {
            node: &self.node,
            queues: &queues,
            load: self.pulse.load(),
            active: self.tally.active(),
            is_connected: self.pulse.is_connected(),
            is_ready: self.ready(now).is_ok(),
            still: self.pulse.still(now).as_secs_f64(),
            prefetched: (self.prefetch.out(), self.prefetch.limit()),
            events_dropped: self.dispatcher.dropped(),
        };
        page(&self.counts, &state)
    }
}

fn verdict(sign: Result<(), String>) -> Page {
    match sign {
        Ok(()) => Page::plain(true, "ok\n"),
        Err(why) => Page::plain(false, format!("{why}\n")),
    }
}
