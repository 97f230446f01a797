//! [`Witness`]: the one place that is told what happens to the tasks of a worker, and to the worker itself.
//!
//! What counts, sends events or measures is a [`Listener`] and hangs here; nothing else in the worker knows of it. What
//! the witness promises:
//!
//! - Of one task each listener hears in this order: [`Listener::received`], unless it had expired or was revoked when it
//!   came; [`Listener::started`], unless it is not run; [`Listener::ended`], once, when its result is stored and its
//!   message is settled. A message that cannot be run is told as [`Listener::refused`] and no otherwise; where its body is
//!   read elsewhere it was received before.
//! - A run whose worker stops before it could be settled has no end, and neither has a message that is handed back; it is
//!   told of by whoever gets it next, which may be this worker.
//! - [`Listener::online`] comes whenever the worker has begun to consume, over each new connection;
//!   [`Listener::offline`] once, after the last end.
//! - [`Tally::active`] and [`Tally::processed`] are right whoever listens.
//!
//! A listener is called from the loop and from the runs themselves: it must neither wait nor compute what nobody asked for.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::malformed::Malformed;
use super::request::Work;
use super::settle::Ending;
use crate::control::Signal;
use crate::metrics::Counted;
use crate::protocol::{Exception, MetaResult, Value, repr};

/// Hears what happens. What it does not ask for costs nothing.
pub(crate) trait Listener: Send + Sync + fmt::Debug {
    /// Whether it reads [`Ended::result`] at this moment.
    fn wants_results(&self) -> bool {
        false
    }

    /// A message was accepted: it will be run, perhaps later.
    fn received(&self, _work: &Work) {}

    /// What counts the message as waiting, until its handler begins or it is given up. Asked for right after
    /// [`Listener::received`].
    fn waits(&self, _work: &Work) -> Option<Waiting> {
        None
    }

    /// The handler begins.
    fn started(&self, _work: &Work) {}

    /// What a task came to: it has run, or was not to be run.
    fn ended(&self, _work: &Work, _ended: &Ended<'_>) {}

    /// Whether it wants to hear of [`Listener::sent`].
    fn wants_sent(&self) -> bool {
        false
    }

    /// The broker has accepted a message that a task of this name sends, or that follows it, for this queue; `""`: an exchange
    /// decides where it goes.
    fn sent(&self, _name: &str, _queue: &str) {}

    /// A message that cannot be run.
    fn refused(&self, _malformed: &Malformed) {}

    /// The worker consumes.
    fn online(&self) {}

    /// It has lost its connection.
    fn disconnected(&self) {}

    /// It takes nothing more, and ends what runs if it is `cold`.
    fn stopping(&self, _cold: bool) {}

    /// The worker ends.
    fn offline(&self) {}
}

/// What a task came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended<'a> {
    /// How it ended.
    pub(crate) ending: Ending,
    /// How long the handler ran; `None` if it did not.
    pub(crate) runtime: Option<Duration>,
    /// The repr of what it returned, if any listener wants results.
    pub(crate) result: Option<&'a str>,
    /// What it raised, or what it is retried for.
    pub(crate) exception: Option<&'a Exception>,
    /// The repr of that, where it is known as text alone.
    pub(crate) shown: Option<&'a str>,
    /// The traceback of that.
    pub(crate) traceback: Option<&'a str>,
    /// Of [`Ending::Revoked`]: its time had passed.
    pub(crate) is_expired: bool,
    /// Of [`Ending::Revoked`]: the signal with which it was ended while it ran.
    pub(crate) terminated: Option<Signal>,
    /// The broker still waited for the message to be settled, that is, it was acknowledged late or not at all.
    pub(crate) was_unsettled: bool,
}

impl Ended<'_> {
    /// An end of which nothing else is known.
    pub(crate) fn plain(ending: Ending) -> Self {
        Ended {
            ending,
            runtime: None,
            result: None,
            exception: None,
            shown: None,
            traceback: None,
            is_expired: false,
            terminated: None,
            was_unsettled: false,
        }
    }
}

/// Tells all who listen, and counts.
#[derive(Debug)]
pub(crate) struct Witness {
    listeners: Box<[Arc<dyn Listener>]>,
    tally: Arc<Tally>,
}

/// What a worker has done, counted whoever listens.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    active: AtomicUsize,
    processed: AtomicU64,
}

/// A message that was received and waits; dropping it ends that.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) since: Instant,
    pub(crate) _counted: Counted,
}

/// A run that has begun; dropping it ends it for [`Tally::active`].
#[derive(Debug)]
pub(crate) struct Active<'a>(&'a AtomicUsize);

impl Tally {
    /// How many handlers run at this moment.
    pub(crate) fn active(&self) -> usize {
        self.active.load(Ordering::Acquire)
    }

    /// How many handlers were begun since the worker was.
    pub(crate) fn processed(&self) -> u64 {
        self.processed.load(Ordering::Relaxed)
    }
}

impl Witness {
    pub(crate) fn new(listeners: Vec<Arc<dyn Listener>>, tally: Arc<Tally>) -> Self {
        Witness { listeners: listeners.into(), tally }
    }

    /// What the worker has done.
    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(crate) fn received(&self, work: &mut Work) {
        self.listeners.iter().for_each(|listener| listener.received(work));
        work.waiting = self.listeners.iter().find_map(|listener| listener.waits(work));
    }

    pub(crate) fn started(&self, work: &mut Work) -> Active<'_> {
        self.tally.processed.fetch_add(1, Ordering::Relaxed);
        self.tally.active.fetch_add(1, Ordering::AcqRel);
        self.listeners.iter().for_each(|listener| listener.started(work));
        work.waiting = None;
        Active(&self.tally.active)
    }

    /// Whether anybody wants to hear of what is sent.
    pub(crate) fn wants_sent(&self) -> bool {
        self.listeners.iter().any(|listener| listener.wants_sent())
    }

    pub(crate) fn sent(&self, name: &str, queue: &str) {
        self.listeners.iter().for_each(|listener| listener.sent(name, queue));
    }

    /// The repr of a result that is about to be given away, if anybody wants it (celery/app/trace.py `Rstr`).
    pub(crate) fn shown(&self, result: &MetaResult) -> Option<String> {
        let MetaResult::Value(value) = result else { return None };
        self.listeners.iter().any(|listener| listener.wants_results()).then(|| shown(value))
    }

    pub(crate) fn ended(&self, work: &Work, ended: &Ended<'_>) {
        self.listeners.iter().for_each(|listener| listener.ended(work, ended));
    }

    pub(crate) fn refused(&self, malformed: &Malformed) {
        self.listeners.iter().for_each(|listener| listener.refused(malformed));
    }

    pub(crate) fn online(&self) {
        self.listeners.iter().for_each(|listener| listener.online());
    }

    pub(crate) fn disconnected(&self) {
        self.listeners.iter().for_each(|listener| listener.disconnected());
    }

    pub(crate) fn stopping(&self, cold: bool) {
        self.listeners.iter().for_each(|listener| listener.stopping(cold));
    }

    pub(crate) fn offline(&self) {
        self.listeners.iter().for_each(|listener| listener.offline());
    }
}

/// At most 1,024 characters (celery/app/task.py `Task.resultrepr_maxsize`).
fn shown(value: &Value) -> String {
    repr::saferepr(value, repr::Limits::default())
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
