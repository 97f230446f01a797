//! [`Encryption`]: `sslmode` and the files beside it, with libpq's meanings (fe-secure-openssl.c `initialize_SSL`,
//! fe-connect.c `PQconnectPoll`).
//!
//! What libpq takes from the environment and the home folder is not looked at here: whoever wants it writes it into the URL.

use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};

use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::tls::{CertificateRequirement, Reading, TlsOptions, client_config};
use crate::{Error, ErrorKind, Result};

/// How a connection to PostgreSQL is encrypted, and whom it trusts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Encryption {
    mode: Option<Mode>,
    /// `sslrootcert`: a PEM file of authorities, or `system`.
    authorities: Option<String>,
    /// `sslcert`: a PEM file with our own certificate.
    certificate: Option<PathBuf>,
    /// `sslkey`: a PEM file with its key.
    key: Option<PathBuf>,
}

/// `sslmode`, from what asks least to what asks most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Mode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// What `sslrootcert` means the system's authorities by.
const SYSTEM: &str = "system";

impl Encryption {
    /// None.
    pub(super) fn none() -> Self {
        Encryption { mode: Some(Mode::Disable), ..Encryption::default() }
    }

    /// Takes an option of a URL; `false`: it is none of these.
    ///
    /// # Errors
    /// `Configuration`: an `sslmode` that there is not.
    pub(super) fn take(&mut self, name: &str, value: &str) -> Result<bool> {
        match name {
            "sslmode" => self.mode = Some(Mode::parse(value)?),
            "sslrootcert" => self.authorities = Some(value.to_owned()),
            "sslcert" => self.certificate = Some(value.into()),
            "sslkey" => self.key = Some(value.into()),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Whether the options fit together, and their files can be used.
    ///
    /// # Errors
    /// `Configuration`: they do not, or cannot.
    pub(super) fn check(&self) -> Result<()> {
        if self.certificate.is_some() != self.key.is_some() {
            return Err(wrong("sslcert and sslkey belong together"));
        }
        match (self.mode, self.authorities.as_deref()) {
            (Some(mode), Some(SYSTEM)) if mode < Mode::VerifyFull => {
                return Err(wrong("sslrootcert=system asks for sslmode=verify-full"));
            }
            (Some(Mode::VerifyCa | Mode::VerifyFull), None) => {
                return Err(wrong("sslmode=verify-ca and verify-full need sslrootcert: a file, or system"));
            }
            _ => {}
        }
        self.connector().map(|_| ())
    }

    /// What is tried, one after the other, for as long as [`may_do_otherwise`] says so.
    pub(super) fn tries(&self) -> &'static [SslMode] {
        match self.mode() {
            Mode::Disable => &[SslMode::Disable],
            Mode::Allow => &[SslMode::Disable, SslMode::Require],
            Mode::Prefer => &[SslMode::Prefer, SslMode::Disable],
            _ => &[SslMode::Require],
        }
    }

    /// What encrypts; the files are read anew each time, as certificates are replaced.
    ///
    /// # Errors
    /// `Configuration`: a file cannot be used.
    pub(super) fn connector(&self) -> Result<MakeRustlsConnect> {
        let mode = self.mode();
        // libpq goes without a certificate of its own whose file is not there, and, unless it has to verify, without authorities.
        let has_certificate = self.certificate.as_deref().is_some_and(is_there);
        let must_verify = mode >= Mode::VerifyCa;
        let authorities = self.authorities.as_deref().filter(|path| must_verify || is_there(Path::new(path)));
        let options = TlsOptions {
            // With authorities a certificate is verified whatever the mode.
            cert_reqs: match authorities {
                Some(_) => CertificateRequirement::Required,
                None => CertificateRequirement::None,
            },
            ca_certs: authorities.filter(|path| *path != SYSTEM).map(PathBuf::from),
            certfile: self.certificate.clone().filter(|_| has_certificate),
            keyfile: self.key.clone().filter(|_| has_certificate),
            check_hostname: mode == Mode::VerifyFull,
            server_hostname: None,
        };
        let config = client_config(&options, Reading::Libpq)?;
        Ok(MakeRustlsConnect::new((*config).clone()))
    }

    fn mode(&self) -> Mode {
        let default = if self.authorities.as_deref() == Some(SYSTEM) { Mode::VerifyFull } else { Mode::Prefer };
        self.mode.unwrap_or(default)
    }
}

impl Mode {
    fn parse(text: &str) -> Result<Self> {
        Ok(match text {
            "disable" => Mode::Disable,
            "allow" => Mode::Allow,
            "prefer" => Mode::Prefer,
            "require" => Mode::Require,
            "verify-ca" => Mode::VerifyCa,
            "verify-full" => Mode::VerifyFull,
            _ => return Err(wrong("sslmode is one of disable, allow, prefer, require, verify-ca and verify-full")),
        })
    }
}

/// Whether a connection may come about with the encryption that was not tried: the server refused who comes like this, or the
/// two could not agree on how to encrypt.
pub(super) fn may_do_otherwise(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION) || is_of_tls(error)
}

fn is_of_tls(error: &tokio_postgres::Error) -> bool {
    let within = error.source().and_then(|source| source.downcast_ref::<io::Error>()).and_then(io::Error::get_ref);
    within.is_some_and(|within| within.is::<rustls::Error>())
}

fn is_there(path: &Path) -> bool {
    path == Path::new(SYSTEM) || path.exists()
}

fn wrong(what: &str) -> Error {
    Error::new(ErrorKind::Configuration, format!("result_backend: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_do_not_fit_together_are_refused() {
        let rows: [(&[(&str, &str)], &str); 7] = [
            (&[], ""),
            (&[("sslmode", "require"), ("sslrootcert", "/no/such/file")], ""),
            (&[("sslrootcert", "system")], ""),
            (&[("sslmode", "prefer"), ("sslrootcert", "system")], "verify-full"),
            (&[("sslmode", "verify-ca")], "need sslrootcert"),
            (&[("sslmode", "verify-ca"), ("sslrootcert", "/no/such/file")], "cannot read /no/such/file"),
            (&[("sslcert", "/no/such/file")], "belong together"),
        ];
        for (options, expected) in rows {
            let mut encryption = Encryption::default();
            for (name, value) in options {
                assert!(encryption.take(name, value).unwrap());
            }
            let refused = encryption.check().err().map(|error| error.to_string()).unwrap_or_default();
            assert!(refused.contains(expected) && refused.is_empty() == expected.is_empty(), "{options:?}: {refused}");
        }
        assert!(Encryption::default().take("sslmode", "always").is_err());
        assert!(!Encryption::default().take("sslcrl", "x").unwrap());
    }
}
