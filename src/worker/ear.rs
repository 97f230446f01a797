//! [`Ear`]: hears what is broadcast for as long as there is a connection, whatever becomes of a subscription.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, warn};

use crate::transport::{Backoff, Broadcast, Connection, Queue, Subscription};
use crate::{Error, ErrorKind, Result};

/// A subscription that lasted so long was a good one.
const STEADY: Duration = Duration::from_secs(5);

/// Before so long a pause what is said already is said again.
const LONG: Duration = Duration::from_secs(30);

/// What broadcasts are heard with.
pub(super) struct Ear {
    /// Its error is the next to be told.
    subscription: Option<Result<Box<dyn Subscription>>>,
    /// When it was made, or could not be.
    since: Instant,
}

impl From<Result<Box<dyn Subscription>>> for Ear {
    fn from(subscription: Result<Box<dyn Subscription>>) -> Self {
        Ear { subscription: Some(subscription), since: Instant::now() }
    }
}

impl Ear {
    /// One that is yet to subscribe.
    pub(super) fn new() -> Self {
        Ear { subscription: None, since: Instant::now() }
    }

    /// The next broadcast, over a new subscription if there is none. An error ends the subscription. Cancel safe: what
    /// is heard is heard by [`Subscription::next`].
    pub(super) async fn hear(&mut self, connection: &dyn Connection, queue: &Queue) -> Result<Broadcast> {
        if self.subscription.is_none() {
            let subscription = connection.subscribe(queue).await;
            *self = Ear::from(subscription);
        }
        let heard = match &mut self.subscription {
            Some(Ok(open)) => open.next().await,
            failed => failed.take().and_then(Result::err).map_or_else(unsubscribed, Err),
        };
        if heard.is_err() {
            self.subscription = None;
        }
        heard
    }
}

/// What goes wrong again and again: it is tried after growing pauses, and does not fill the log.
pub(super) struct Setbacks {
    /// What is not heard, for the log.
    what: &'static str,
    backoff: Backoff,
    said: Option<String>,
}

impl Setbacks {
    pub(super) fn new(what: &'static str, backoff: Backoff) -> Self {
        Setbacks { what, backoff, said: None }
    }

    pub(super) fn end(&mut self) {
        self.backoff.reset();
        self.said = None;
    }

    /// Says why the ear hears nothing, unless that is known, and how long to wait.
    pub(super) fn pause_after(&mut self, error: &Error, ear: &Ear) -> Duration {
        if ear.since.elapsed() > STEADY {
            self.end();
        }
        let (what, pause, reason) = (self.what, self.backoff.next_pause(), error.to_string());
        if self.is_news(&reason, pause) {
            warn!("{what} are not heard, subscribing again: {reason}");
        } else {
            debug!("{what} are still not heard: {reason}");
        }
        self.said = Some(reason);
        pause
    }

    fn is_news(&self, reason: &str, pause: Duration) -> bool {
        pause >= LONG || self.said.as_deref() != Some(reason)
    }
}

fn unsubscribed() -> Result<Broadcast> {
    Err(Error::new(ErrorKind::Connection, "there is no subscription"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_wrong_again_and_again_is_said_once_and_then_once_a_minute() {
        let mut setbacks = Setbacks::new("commands", Backoff::patient(1));
        let locked = Error::new(ErrorKind::Connection, "RESOURCE_LOCKED");
        let (mut waited, mut lines, mut tries) = (Duration::ZERO, 0, 0);
        while waited < Duration::from_secs(600) {
            let said = setbacks.said.clone();
            let pause = setbacks.pause_after(&locked, &Ear::new());
            lines += u32::from(
                Setbacks { said, ..Setbacks::new("commands", Backoff::new(0)) }.is_news("RESOURCE_LOCKED", pause),
            );
            (waited, tries) = (waited + pause, tries + 1);
        }
        assert!((5..=21).contains(&lines) && tries <= 32, "{lines} lines for {tries} tries in ten minutes");
        assert!(setbacks.is_news("something else", Duration::ZERO));
        setbacks.end();
        assert!(setbacks.is_news("RESOURCE_LOCKED", Duration::ZERO));
        assert!(
            setbacks.pause_after(&locked, &Ear::new()) <= Duration::from_millis(50),
            "from the shortest pause again"
        );
    }
}
