//! [`RedisUrl`]: the URLs of `broker_url` and `result_backend` that name Redis servers.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::TlsOptions;
use crate::url::{UrlParts, unshown};
use crate::{Error, ErrorKind, Result};

/// The port of a URL that names none.
const DEFAULT_PORT: u16 = 6379;

/// Where Redis is: one server or several, of which one is in use at a time and the next is tried after a failure
/// (kombu/connection.py `Connection.switch`, strategy `round-robin`).
///
/// Displayed and debugged with every password as `**`. A clone goes on with the same choice of server.
#[derive(Clone)]
pub struct RedisUrl {
    endpoints: Arc<[Endpoint]>,
    current: Arc<AtomicUsize>,
}

/// One server and how to log in to it.
#[derive(Clone, PartialEq)]
pub struct Endpoint {
    /// Where it listens.
    pub(super) address: Address,
    /// The number of the database.
    pub(super) db: i64,
    /// The ACL user; absent: the default user.
    pub(super) username: Option<String>,
    /// Never shown.
    pub(super) password: Option<String>,
    /// Present: the connection is encrypted.
    pub(super) tls: Option<TlsOptions>,
    /// What stands after the `?` and is not about TLS or the database.
    options: Vec<(String, String)>,
}

#[derive(Clone, PartialEq)]
pub(super) enum Address {
    Tcp { host: String, port: u16 },
    Socket(PathBuf),
}

/// What `rediss://` means without options, and options without `rediss://`: the broker and the result backend differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UrlPolicy {
    /// As kombu reads `broker_url`: no TLS option on `rediss://` stands for an unverified connection, and a TLS option
    /// on `redis://` for an encrypted one (kombu/connection.py `Connection._init_params`).
    Broker,
    /// As Celery reads `result_backend`: `rediss://` must say `ssl_cert_reqs`, and `redis://` must have no TLS option
    /// (celery/backends/redis.py `RedisBackend.__init__`).
    Backend,
}

impl RedisUrl {
    /// Reads one URL, or several with `;` between them: `redis://`, `rediss://`, `redis+socket://`, `socket://`.
    ///
    /// # Errors
    /// `Configuration`: an unknown scheme (`sentinel://` among them), a database that is no number, a wrong port or TLS
    /// option.
    pub fn parse(text: &str, policy: UrlPolicy) -> Result<Self> {
        let endpoints: Vec<_> =
            text.split(';').map(|part| Endpoint::parse(part.trim(), policy)).collect::<Result<_>>()?;
        Ok(RedisUrl { endpoints: endpoints.into(), current: Arc::default() })
    }

    /// The same servers with these TLS options, as `broker_use_ssl` and `redis_backend_use_ssl` set them.
    #[must_use]
    pub fn with_tls(self, tls: &TlsOptions) -> Self {
        let endpoints = self.endpoints.iter().cloned().map(|endpoint| Endpoint { tls: Some(tls.clone()), ..endpoint });
        RedisUrl { endpoints: endpoints.collect(), current: self.current }
    }

    /// The server in use.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoints[self.current.load(Ordering::Relaxed) % self.endpoints.len()]
    }

    /// Whether there is no other server to go on to.
    pub(crate) fn is_single(&self) -> bool {
        self.endpoints.len() == 1
    }

    /// Goes on to the next server, because the present one failed.
    pub fn fail_over(&self) {
        self.current.fetch_add(1, Ordering::Relaxed);
    }
}

impl Endpoint {
    fn parse(text: &str, policy: UrlPolicy) -> Result<Self> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(configuration(text, "is not a URL"));
        };
        let parts = UrlParts::split(rest);
        let endpoint = match scheme.to_ascii_lowercase().as_str() {
            "redis" | "rediss" => Endpoint::tcp(parts, text)?,
            "redis+socket" | "socket" => Endpoint::socket(parts, text)?,
            "sentinel" | "redis+sentinel" => {
                return Err(Error::new(ErrorKind::Configuration, "sentinel:// URLs are not supported yet"));
            }
            _ => return Err(configuration(text, "has a scheme that is not Redis's")),
        };
        endpoint.settle_tls(scheme.eq_ignore_ascii_case("rediss"), policy, text)
    }

    /// Takes the TLS options out of the query, and decides whether the connection is encrypted.
    fn settle_tls(mut self, secure: bool, policy: UrlPolicy, text: &str) -> Result<Self> {
        let (tls, options) = self.options.into_iter().partition(|(name, _)| name.starts_with("ssl_"));
        let tls: Vec<(String, String)> = tls;
        self.options = options;
        self.tls = match (secure, tls.is_empty(), policy) {
            (false, true, _) => None,
            (true, true, UrlPolicy::Broker) => {
                tracing::warn!("rediss:// without TLS options: the server's certificate is not verified");
                Some(TlsOptions::unverified())
            }
            (false, false, UrlPolicy::Backend) => {
                return Err(configuration(text, "has TLS options: use rediss:// with them"));
            }
            (true, _, UrlPolicy::Backend) if !tls.iter().any(|(name, _)| name == "ssl_cert_reqs") => {
                let why = "must say ssl_cert_reqs: CERT_REQUIRED, CERT_OPTIONAL, or CERT_NONE";
                return Err(configuration(text, why));
            }
            _ => Some(TlsOptions::from_pairs(tls.iter().map(|(name, value)| (name.as_str(), value.as_str())))?),
        };
        Ok(self)
    }

    /// The number of the database.
    pub fn db(&self) -> i64 {
        self.db
    }

    /// An option from behind the `?`, such as `socket_timeout`; those about TLS and `virtual_host` are not among them.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The names of all options from behind the `?` that this room has not read itself.
    pub fn option_names(&self) -> impl Iterator<Item = &str> {
        self.options.iter().map(|(name, _)| name.as_str())
    }
}

// What the pieces of a URL mean.
impl Endpoint {
    fn tcp(parts: UrlParts<'_>, text: &str) -> Result<Self> {
        let (host, port) = parts.host_and_port(DEFAULT_PORT).ok_or_else(|| configuration(text, "has a wrong port"))?;
        let path = parts.path.clone();
        Endpoint::of(parts, Address::Tcp { host, port }, &path, text)
    }

    fn socket(parts: UrlParts<'_>, text: &str) -> Result<Self> {
        if parts.path.is_empty() {
            return Err(configuration(text, "names no socket"));
        }
        let path = PathBuf::from(format!("/{}", parts.path));
        Endpoint::of(parts, Address::Socket(path), "", text)
    }

    fn of(mut parts: UrlParts<'_>, address: Address, virtual_host: &str, text: &str) -> Result<Self> {
        let named = parts.take("virtual_host");
        let virtual_host = if virtual_host.is_empty() { named.as_deref().unwrap_or_default() } else { virtual_host };
        let db = database(virtual_host).ok_or_else(|| {
            configuration(text, &format!("names the database {virtual_host:?}, which is not a number from 0 up"))
        })?;
        // redis-py logs in with an empty password where there is a user alone.
        let password = parts.password.or_else(|| parts.username.as_ref().map(|_| String::new()));
        Ok(Endpoint { address, db, username: parts.username, password, tls: None, options: parts.query })
    }
}

/// kombu/transport/redis.py `Channel._prepare_virtual_host`.
fn database(virtual_host: &str) -> Option<i64> {
    match virtual_host.strip_prefix('/').unwrap_or(virtual_host) {
        "" => Some(0),
        digits => digits.trim().parse().ok().filter(|db| *db >= 0),
    }
}

fn configuration(text: &str, why: &str) -> Error {
    Error::new(ErrorKind::Configuration, format!("{} {why}", unshown(text, "Redis")))
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match (&self.address, &self.tls) {
            (Address::Socket(_), _) => "redis+socket",
            (Address::Tcp { .. }, Some(_)) => "rediss",
            (Address::Tcp { .. }, None) => "redis",
        };
        write!(f, "{scheme}://{}", self.username.as_deref().unwrap_or_default())?;
        if self.password.is_some() {
            f.write_str(":**@")?;
        }
        match &self.address {
            Address::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}/{}", self.db),
            Address::Tcp { host, port } => write!(f, "{host}:{port}/{}", self.db),
            Address::Socket(path) if self.db == 0 => write!(f, "{}", path.display()),
            Address::Socket(path) => write!(f, "{}?virtual_host={}", path.display(), self.db),
        }
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.endpoint().fmt(f)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.endpoints.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        RedisUrl::parse(text, UrlPolicy::Broker).unwrap().to_string()
    }

    #[test]
    fn urls_are_read_as_kombu_reads_them_and_shown_without_passwords() {
        let rows = [
            ("redis://", "redis://localhost:6379/0"),
            ("redis://localhost", "redis://localhost:6379/0"),
            ("redis://localhost/", "redis://localhost:6379/0"),
            ("redis://H.Example/1", "redis://h.example:6379/1"),
            ("redis://h//4", "redis://h:6379/4"),
            ("redis://h?virtual_host=3", "redis://h:6379/3"),
            ("redis://:p%40w@h:6380/3", "redis://:**@h:6380/3"),
            ("redis://u:a@b:c@h/1", "redis://u:**@h:6379/1"),
            ("redis://u@h", "redis://u:**@h:6379/0"),
            ("redis://[::1]:77/1", "redis://[::1]:77/1"),
            ("rediss://h", "rediss://h:6379/0"),
            ("redis://h?ssl_cert_reqs=none", "rediss://h:6379/0"),
            ("redis+socket:///tmp/x%20y.sock?virtual_host=2", "redis+socket:///tmp/x y.sock?virtual_host=2"),
            ("socket://u:pw@/tmp/x.sock", "redis+socket://u:**@/tmp/x.sock"),
            ("redis://a/0;redis://:p@b/1", "redis://a:6379/0"),
        ];
        for (text, expected) in rows {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn credentials_are_percent_decoded() {
        let url = RedisUrl::parse("redis://us%3Aer:p%2Fw%40%25@h", UrlPolicy::Broker).unwrap();
        assert_eq!(url.endpoint().username.as_deref(), Some("us:er"));
        assert_eq!(url.endpoint().password.as_deref(), Some("p/w@%"));
    }

    #[test]
    fn wrong_urls_are_refused_without_showing_them() {
        let rows = [
            ("localhost:6379", UrlPolicy::Broker),
            ("amqp://u:secret@h", UrlPolicy::Broker),
            ("sentinel://:secret@h:26379/0", UrlPolicy::Broker),
            ("redis://:secret@h/x", UrlPolicy::Broker),
            ("redis://h/-1", UrlPolicy::Broker),
            ("redis://h/99999999999999999999", UrlPolicy::Broker),
            ("redis://h:99999/1", UrlPolicy::Broker),
            ("redis://u:secret/b@h/1", UrlPolicy::Broker),
            ("redis+socket://", UrlPolicy::Broker),
            ("rediss://:secret@h?ssl_cert_reqs=maybe", UrlPolicy::Broker),
            ("rediss://:secret@h", UrlPolicy::Backend),
            ("rediss://:secret@h?ssl_ca_certs=/x", UrlPolicy::Backend),
            ("redis://:secret@h?ssl_cert_reqs=none", UrlPolicy::Backend),
        ];
        for (text, policy) in rows {
            let error = RedisUrl::parse(text, policy).expect_err(text);
            assert_eq!(error.kind(), ErrorKind::Configuration, "{text}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_list_is_used_in_turn() {
        let url = RedisUrl::parse("redis://a;redis://:p@b/1;redis://c", UrlPolicy::Broker).unwrap();
        let mut seen = Vec::new();
        for _ in 0..4 {
            seen.push(url.to_string());
            url.clone().fail_over();
        }
        assert_eq!(seen, ["redis://a:6379/0", "redis://:**@b:6379/1", "redis://c:6379/0", "redis://a:6379/0"]);
        assert!(!format!("{url:?}").contains(":p@"));
    }
}
