//! [`Address`]: where a memcached listens, as Celery and pymemcache read its URL.

use std::fmt;
use std::path::PathBuf;

use crate::{Error, ErrorKind, Result};

/// pymemcache/client/base.py `normalize_server_spec`.
const DEFAULT_PORT: u16 = 11211;

/// The names by which Celery knows a memcached (celery/backends/cache.py `backends`); the client library is not ours.
pub(in crate::backend) const SCHEMES: [&str; 4] = ["memcached", "memcache", "pymemcache", "pylibmc"];

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// As Celery shows it (`CacheBackend.as_uri`).
    shown: String,
    pub(super) place: Place,
}

/// What is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl Address {
    /// Reads what follows `cache+` in `result_backend`, or what `cache_backend` says: `memcached://host:port/`,
    /// `memcached:///path/of.sock` (celery/backends/cache.py `CacheBackend.__init__`).
    ///
    /// # Errors
    /// `Configuration`: no server, several of them, or one with a login, which memcached's text protocol has no word for.
    pub(super) fn parse(url: &str) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").unwrap_or((url, ""));
        let servers: Vec<&str> = rest.trim_end_matches('/').split(';').filter(|server| !server.is_empty()).collect();
        let server = match servers[..] {
            [] => return Err(wrong("no memcached is named: cache+memcached://host:11211/")),
            [_, _, ..] => {
                return Err(wrong(
                    "several memcached servers are not supported by Rust workers: name one, as in cache+memcached://host:11211/",
                ));
            }
            [server] => server,
        };
        if server.contains('@') {
            return Err(wrong("a memcached takes no user and no password: cache+memcached://host:11211/"));
        }
        let place = place(server).ok_or_else(|| {
            wrong("a memcached is named as in cache+memcached://host:11211/ or cache+memcached:///path")
        })?;
        Ok(Address { shown: format!("{scheme}://{server}/"), place })
    }
}

/// The server's own text is not shown where it cannot be read: it may hold a password.
fn wrong(message: &str) -> Error {
    Error::new(ErrorKind::Configuration, format!("result_backend: {message}"))
}

fn place(server: &str) -> Option<Place> {
    if let Some(path) = server.strip_prefix("unix:").or_else(|| server.starts_with('/').then_some(server)) {
        return (!path.is_empty()).then(|| Place::Unix(path.into()));
    }
    let (host, port) = match server.rsplit_once(':').filter(|_| !server.ends_with(']')) {
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port > 0)?),
        None => (server, DEFAULT_PORT),
    };
    // An address with colons stands in brackets: which of them would be before the port?
    let is_bracketed = host.starts_with('[') && host.ends_with(']');
    let host = host.trim_matches(['[', ']']);
    let is_host =
        !host.is_empty() && !host.contains(['/', '?', '#', ' ', ',']) && (is_bracketed || !host.contains(':'));
    is_host.then(|| Place::Tcp { host: host.to_owned(), port })
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_celery_and_pymemcache_read_them() {
        let tcp = |host: &str, port| Place::Tcp { host: host.into(), port };
        let rows = [
            ("memcached://127.0.0.1:11211/", tcp("127.0.0.1", 11211), "memcached://127.0.0.1:11211/"),
            ("memcached://h", tcp("h", 11211), "memcached://h/"),
            ("memcache://h:1//", tcp("h", 1), "memcache://h:1/"),
            ("pymemcache://h:1;/", tcp("h", 1), "pymemcache://h:1/"),
            ("pylibmc://[::1]:1/", tcp("::1", 1), "pylibmc://[::1]:1/"),
            ("memcached://[::1]", tcp("::1", 11211), "memcached://[::1]/"),
            ("memcached:///run/m.sock/", Place::Unix("/run/m.sock".into()), "memcached:///run/m.sock/"),
            ("memcached://unix:/run/m.sock", Place::Unix("/run/m.sock".into()), "memcached://unix:/run/m.sock/"),
        ];
        for (url, place, shown) in rows {
            let address = Address::parse(url).unwrap();
            assert_eq!((address.place.clone(), address.to_string().as_str()), (place, shown), "{url}");
        }
    }

    #[test]
    fn what_names_no_server_is_refused_without_a_word_of_its_own() {
        let rows = [
            ("memcached://::1/", "is named as in"),
            ("memcached://::1:11211/", "is named as in"),
            ("memcached://h:0/", "is named as in"),
            ("memcached://h:secret/", "is named as in"),
            ("memcached://u:secret@h/", "no user and no password"),
            ("memcached://h:1;secret:2/", "several memcached servers"),
        ];
        for (url, words) in rows {
            let error = Address::parse(url).unwrap_err().to_string();
            assert!(error.contains(words) && !error.contains("secret"), "{url}: {error}");
        }
    }
}
