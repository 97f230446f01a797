//! [`AmqpUrls`]: several servers, and which of them is tried next.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::AmqpUrl;
use crate::tls::TlsOptions;
use crate::{Error, ErrorKind, Result};

/// `broker_failover_strategy` (kombu/connection.py `failover_strategies`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Failover {
    /// One after the other, from the first on.
    #[default]
    RoundRobin,
    /// Any, at random.
    Shuffle,
}

/// The servers of a `broker_url`. Each connection is sought at the next of them; shown is the one that was sought last.
pub struct AmqpUrls {
    urls: Vec<AmqpUrl>,
    failover: Failover,
    /// The one that was taken last.
    current: AtomicUsize,
    /// How many were taken.
    taken: AtomicUsize,
    rng: Mutex<fastrand::Rng>,
}

impl AmqpUrls {
    /// Reads one URL, or several with `;` between them.
    ///
    /// # Errors
    /// `Configuration`: what [`AmqpUrl::parse`] refuses.
    pub fn parse(text: &str, failover: Failover, rng: fastrand::Rng) -> Result<Self> {
        let urls: Vec<_> = text.split(';').map(|part| AmqpUrl::parse(part.trim())).collect::<Result<_>>()?;
        Ok(AmqpUrls { urls, failover, current: AtomicUsize::new(0), taken: AtomicUsize::new(0), rng: Mutex::new(rng) })
    }

    /// The same servers with the TLS options of `broker_use_ssl`.
    #[must_use]
    pub fn with_tls(mut self, tls: &TlsOptions) -> Self {
        self.urls = self.urls.into_iter().map(|url| url.with_tls(tls)).collect();
        self
    }

    /// The server to try now.
    pub fn next(&self) -> &AmqpUrl {
        let taken = self.taken.fetch_add(1, Ordering::Relaxed);
        let next = match self.failover {
            Failover::RoundRobin => taken % self.urls.len(),
            Failover::Shuffle => self.rng.lock().unwrap_or_else(PoisonError::into_inner).usize(..self.urls.len()),
        };
        self.current.store(next, Ordering::Relaxed);
        &self.urls[next]
    }

    /// The server that was tried last; the first, before.
    pub fn current(&self) -> &AmqpUrl {
        &self.urls[self.current.load(Ordering::Relaxed)]
    }
}

impl Failover {
    /// From the setting's text.
    ///
    /// # Errors
    /// `Configuration`: another word.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "round-robin" => Ok(Failover::RoundRobin),
            "shuffle" => Ok(Failover::Shuffle),
            _ => {
                let message = format!("broker_failover_strategy: round-robin or shuffle, not {text:?}");
                Err(Error::new(ErrorKind::Configuration, message))
            }
        }
    }
}

impl fmt::Display for AmqpUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.current().fmt(f)
    }
}

impl fmt::Debug for AmqpUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.urls).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(failover: Failover) -> AmqpUrls {
        AmqpUrls::parse("amqp://a; amqp://:p@b/v;amqps://c", failover, fastrand::Rng::with_seed(1)).unwrap()
    }

    #[test]
    fn servers_are_taken_in_turn() {
        let urls = urls(Failover::RoundRobin);
        assert_eq!(urls.to_string(), "amqp://guest:**@a:5672//");
        let seen: Vec<_> = (0..4).map(|_| urls.next().host.clone()).collect();
        assert_eq!(seen, ["a", "b", "c", "a"]);
        assert!(!format!("{urls:?}").contains(":p@"));
    }

    #[test]
    fn servers_are_taken_at_random() {
        let urls = urls(Failover::Shuffle);
        let seen: Vec<_> = (0..100).map(|_| urls.next().host.clone()).collect();
        assert!(["a", "b", "c"].iter().all(|host| seen.iter().any(|seen| seen == host)));
        assert_ne!(seen[..50], seen[50..]);
        assert!(Failover::parse("random").is_err());
    }
}
