//! [`Observed`]: tells the app's [`Observer`] what happens to tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::malformed::Malformed;
use super::request::Work;
use super::settle::Ending;
use super::witness::{Ended, Listener};
use crate::app::{Observer, Revocation};

/// Tells an observer.
#[derive(Debug)]
pub(crate) struct Observed {
    observer: Arc<dyn Observer>,
    /// Celery tells it once, and not whenever it is connected again.
    was_ready: AtomicBool,
}

impl Observed {
    pub(crate) fn new(observer: Arc<dyn Observer>) -> Self {
        Observed { observer, was_ready: AtomicBool::new(false) }
    }
}

impl Listener for Observed {
    fn received(&self, work: &Work) {
        self.observer.received(&work.request, &work.message);
    }

    fn ended(&self, work: &Work, ended: &Ended<'_>) {
        if ended.ending == Ending::Revoked {
            let signal = ended.terminated.map(|signal| signal.number());
            let revocation = Revocation { expired: ended.is_expired, signal };
            self.observer.revoked(&work.request, &work.message, revocation);
        }
    }

    fn refused(&self, malformed: &Malformed) {
        malformed.tell(&*self.observer);
    }

    fn disconnected(&self) {
        self.observer.disconnected();
    }

    fn stopping(&self, cold: bool) {
        self.observer.stopping(cold);
    }

    fn online(&self) {
        self.observer.connected();
        if !self.was_ready.swap(true, Ordering::Relaxed) {
            self.observer.ready();
        }
    }
}
