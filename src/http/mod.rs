//! The small web server that tells how a process is, and who asks it: [`Listening`], [`Site`] and [`ask`].
//!
//! It has a thread and a runtime of its own, so that it answers while every other thread is busy or stuck, and takes no
//! time from them. It reads requests for pages and nothing else: no bodies, one request for each connection. What a page
//! says is its [`Site`]'s affair. Only this room names hyper.

mod ask;
mod serve;

pub(crate) use ask::{Answer, ask};
pub(crate) use serve::{Listening, Page, Serving, Site};

use std::net::{SocketAddr, ToSocketAddrs};

use crate::{Error, ErrorKind, Result};

/// Where there is a server unless somebody says otherwise: the port of celery-exporter.
pub(crate) const DEFAULT_ADDRESS: &str = "127.0.0.1:9808";

/// Whether it has the form `host:port`.
pub(crate) fn has_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

/// What `host:port` stands for.
///
/// # Errors
/// `Configuration`: it has no port, or the host has no address.
fn addresses(address: &str) -> Result<Vec<SocketAddr>> {
    let wrong = || Error::new(ErrorKind::Configuration, format!("serve http at {address:?}: expected host:port"));
    if !has_port(address) {
        return Err(wrong());
    }
    Ok(address.to_socket_addrs().map_err(|error| wrong().with_source(error))?.collect())
}

#[cfg(test)]
mod tests;
