//! [`AmqpUrl`]: a URL of `broker_url` or `result_backend` that names a RabbitMQ server.

use std::fmt;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::LoginMethod;
use crate::tls::TlsOptions;
use crate::url::{UrlParts, unshown};
use crate::{Error, ErrorKind, Result};

/// AMQP's short strings end here.
const LONGEST_NAME: usize = 255;
/// What Python's `quote` leaves as it is.
const UNQUOTED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'_').remove(b'.').remove(b'-').remove(b'~');

/// Where a RabbitMQ server is and how to log in to it. Displayed and debugged with its password as `**`.
#[derive(Clone, PartialEq)]
pub struct AmqpUrl {
    /// `amqp`, `amqps` or `pyamqp`, as it was written.
    scheme: String,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) username: String,
    /// Never shown.
    pub(super) password: String,
    pub(super) virtual_host: String,
    /// Present: the connection is encrypted.
    pub(super) tls: Option<TlsOptions>,
    /// `?heartbeat=`, in seconds; goes before `broker_heartbeat`.
    pub(super) heartbeat: Option<Duration>,
    /// `?connect_timeout=` or `?connection_timeout=`, in seconds; goes before `broker_connection_timeout`.
    pub(super) connect_timeout: Option<Duration>,
    /// `?login_method=`; goes before `broker_login_method`.
    pub(super) login_method: Option<LoginMethod>,
}

impl AmqpUrl {
    /// The schemes that are AMQP's.
    pub const SCHEMES: [&str; 3] = ["amqp", "amqps", "pyamqp"];

    /// Reads a URL as Kombu does (kombu/utils/url.py `parse_url`): what it lacks is `guest`, `guest`, `127.0.0.1`, 5672 or
    /// 5671, and the virtual host `/`.
    ///
    /// # Errors
    /// `Configuration`: an unknown scheme, a wrong port, or an option that is not known or cannot be read.
    pub fn parse(text: &str) -> Result<Self> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(configuration(text, "is not a URL"));
        };
        let scheme = scheme.to_ascii_lowercase();
        if !Self::SCHEMES.contains(&scheme.as_str()) {
            return Err(configuration(text, "has a scheme that is not RabbitMQ's"));
        }
        let parts = UrlParts::split(rest);
        let secure = scheme == "amqps" || parts.query.iter().any(|(name, _)| name.starts_with("ssl_"));
        let port = if secure { 5671 } else { 5672 };
        let (host, port) = parts.host_and_port(port).ok_or_else(|| configuration(text, "has a wrong port"))?;
        if parts.path.len() > LONGEST_NAME {
            return Err(configuration(text, "names a virtual host of more than 255 bytes"));
        }
        let mut url = AmqpUrl {
            scheme,
            // kombu/transport/pyamqp.py `Transport.establish_connection`.
            host: if host == "localhost" { "127.0.0.1".to_owned() } else { host },
            port,
            username: parts.username.unwrap_or_else(|| "guest".to_owned()),
            password: parts.password.unwrap_or_else(|| "guest".to_owned()),
            virtual_host: if parts.path.is_empty() { "/".to_owned() } else { parts.path },
            tls: secure.then(TlsOptions::default),
            heartbeat: None,
            connect_timeout: None,
            login_method: None,
        };
        url.read_options(text, &parts.query)?;
        Ok(url)
    }

    fn read_options(&mut self, text: &str, query: &[(String, String)]) -> Result<()> {
        let mut tls = Vec::new();
        for (name, value) in query {
            let wrong = || configuration(text, &format!("has a wrong {name}"));
            match name.as_str() {
                "heartbeat" => self.heartbeat = Some(seconds(value).ok_or_else(wrong)?),
                "connect_timeout" | "connection_timeout" => {
                    self.connect_timeout = Some(seconds(value).filter(|time| !time.is_zero()).ok_or_else(wrong)?);
                }
                "login_method" => self.login_method = Some(LoginMethod::parse(value)?),
                name if name.starts_with("ssl_") => tls.push((name, value.as_str())),
                _ => return Err(configuration(text, &format!("has the option {name:?}, which is not known"))),
            }
        }
        if !tls.is_empty() {
            self.tls = Some(TlsOptions::from_pairs(tls)?);
        }
        Ok(())
    }

    /// The same server with these TLS options, as `broker_use_ssl` sets them. A URL that names TLS options keeps them.
    #[must_use]
    pub fn with_tls(mut self, tls: &TlsOptions) -> Self {
        match &self.tls {
            Some(own) if *own != TlsOptions::default() => {}
            own => {
                if own.is_none() && self.port == 5672 {
                    self.port = 5671;
                }
                self.tls = Some(tls.clone());
            }
        }
        self
    }

    /// The virtual host.
    pub fn virtual_host(&self) -> &str {
        &self.virtual_host
    }
}

fn seconds(text: &str) -> Option<Duration> {
    text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
}

fn configuration(text: &str, why: &str) -> Error {
    Error::new(ErrorKind::Configuration, format!("{} {why}", unshown(text, "AMQP")))
}

/// As Celery shows it (kombu/connection.py `Connection.as_uri`).
impl fmt::Display for AmqpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |text| utf8_percent_encode(text, UNQUOTED);
        write!(f, "{}://{}", self.scheme, quoted(&self.username))?;
        if !self.password.is_empty() {
            f.write_str(":**")?;
        }
        match self.host.contains(':') {
            true => write!(f, "@[{}]", self.host)?,
            false => write!(f, "@{}", self.host)?,
        }
        write!(f, ":{}/{}", self.port, quoted(&self.virtual_host))
    }
}

impl fmt::Debug for AmqpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AmqpUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::CertificateRequirement;

    #[test]
    fn urls_are_read_as_kombu_reads_them_and_shown_without_passwords() {
        let rows = [
            ("amqp://", "amqp://guest:**@127.0.0.1:5672//"),
            ("amqp://localhost", "amqp://guest:**@127.0.0.1:5672//"),
            ("amqp://localhost/", "amqp://guest:**@127.0.0.1:5672//"),
            ("amqp://localhost//", "amqp://guest:**@127.0.0.1:5672//"),
            ("pyamqp://H.Example:77/v", "pyamqp://guest:**@h.example:77/v"),
            ("amqp://h//v", "amqp://guest:**@h:5672//v"),
            ("amqp://h/%2Fa%20b", "amqp://guest:**@h:5672//a%20b"),
            ("amqp://u@h/v", "amqp://u:**@h:5672/v"),
            ("amqp://u%40x:p%2Fw@h/v", "amqp://u%40x:**@h:5672/v"),
            ("amqp://u:a@b:c@h/v", "amqp://u:**@h:5672/v"),
            ("amqp://[::1]:77/v", "amqp://guest:**@[::1]:77/v"),
            ("amqps://h", "amqps://guest:**@h:5671//"),
            ("amqp://h?heartbeat=30&connection_timeout=1.5", "amqp://guest:**@h:5672//"),
        ];
        for (text, expected) in rows {
            assert_eq!(AmqpUrl::parse(text).expect(text).to_string(), expected, "{text}");
        }
        let url = AmqpUrl::parse("amqp://us%3Aer:p%2Fw%40%25@h").unwrap();
        assert_eq!((url.username.as_str(), url.password.as_str()), ("us:er", "p/w@%"));
    }

    #[test]
    fn options_are_read() {
        let text = "amqps://h?heartbeat=30&connect_timeout=1.5&login_method=EXTERNAL&ssl_cert_reqs=none";
        let url = AmqpUrl::parse(text).unwrap();
        assert_eq!(
            (url.heartbeat, url.connect_timeout),
            (Some(Duration::from_secs(30)), Some(Duration::from_millis(1500)))
        );
        assert_eq!(url.login_method, Some(LoginMethod::External));
        assert_eq!(url.tls.unwrap().cert_reqs, CertificateRequirement::None);
        let tls = TlsOptions::unverified();
        let url = AmqpUrl::parse("amqp://h").unwrap().with_tls(&tls);
        assert_eq!((url.port, url.tls), (5671, Some(tls)));
    }

    #[test]
    fn wrong_urls_are_refused_without_showing_them() {
        let long = format!("amqp://u:secret@h/{}", "v".repeat(256));
        let rows = [
            "h:5672",
            "redis://u:secret@h",
            "amqp://u:secret@h:99999/v",
            "amqp://u:secret@h:x/v",
            "amqp://u:secret@h?heartbeat=soon",
            "amqp://u:secret@h?connect_timeout=0",
            "amqp://u:secret@h?login_method=GSSAPI",
            "amqp://u:secret@h?frobnicate=1",
            "amqps://u:secret@h?ssl_cert_reqs=maybe",
            long.as_str(),
        ];
        for text in rows {
            let error = AmqpUrl::parse(text).expect_err(text);
            assert_eq!(error.kind(), ErrorKind::Configuration, "{text}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
