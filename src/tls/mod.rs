//! [`TlsOptions`]: how an encrypted connection is verified, in the words of `broker_use_ssl` and of URL options.
//!
//! What they mean to rustls is said here, what to a client library with a way of its own is that room's business. Files that
//! they name are read, and no connection is opened.

mod client;
mod names;

use std::path::{Path, PathBuf};

pub(crate) use client::{Reading, client_config};

use crate::{Error, ErrorKind, Result};

/// How an encrypted connection is verified (the `ssl_*` arguments of redis-py, the `ssl` ones of py-amqp).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsOptions {
    /// `ssl_cert_reqs`. Default: required.
    pub cert_reqs: CertificateRequirement,
    /// `ssl_ca_certs`: a PEM file of authorities; absent: those of the system.
    pub ca_certs: Option<PathBuf>,
    /// `ssl_certfile`: a PEM file with our own certificate.
    pub certfile: Option<PathBuf>,
    /// `ssl_keyfile`: a PEM file with its key.
    pub keyfile: Option<PathBuf>,
    /// `ssl_check_hostname`: whether the certificate must name the host. Default: yes.
    pub check_hostname: bool,
    /// `server_hostname`: the name that the certificate must hold; absent: the host of the URL.
    pub server_hostname: Option<String>,
}

/// What is asked of the server's certificate (Python's `ssl.VerifyMode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateRequirement {
    /// It must be valid.
    Required,
    /// For a client the same as required.
    Optional,
    /// It is not looked at.
    None,
}

impl Default for TlsOptions {
    fn default() -> Self {
        TlsOptions {
            cert_reqs: CertificateRequirement::Required,
            ca_certs: None,
            certfile: None,
            keyfile: None,
            check_hostname: true,
            server_hostname: None,
        }
    }
}

impl TlsOptions {
    /// An encrypted connection to whoever answers.
    pub fn unverified() -> Self {
        TlsOptions { cert_reqs: CertificateRequirement::None, ..TlsOptions::default() }
    }

    /// From names and values, the names with or without their `ssl_`.
    ///
    /// # Errors
    /// `Configuration`: an option that is not known, or a value that it cannot have.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        let mut options = TlsOptions::default();
        for (name, value) in pairs {
            match name.strip_prefix("ssl_").unwrap_or(name) {
                "cert_reqs" => options.cert_reqs = CertificateRequirement::parse(value)?,
                "ca_certs" => options.ca_certs = Some(value.into()),
                "certfile" => options.certfile = Some(value.into()),
                "keyfile" => options.keyfile = Some(value.into()),
                "check_hostname" => options.check_hostname = !value.eq_ignore_ascii_case("false"),
                "server_hostname" => options.server_hostname = (!value.is_empty()).then(|| value.to_owned()),
                _ => return Err(configuration(format!("the TLS option {name:?} is not supported"))),
            }
        }
        Ok(options)
    }

    /// The PEM files that these options name.
    pub(crate) fn files(&self) -> Result<TlsFiles> {
        let own = match (&self.certfile, &self.keyfile) {
            (None, None) => None,
            (Some(certificate), key) => Some((read(certificate)?, read(key.as_ref().unwrap_or(certificate))?)),
            (None, Some(_)) => return Err(configuration("ssl_keyfile is set, and ssl_certfile is not".into())),
        };
        Ok(TlsFiles { own, authorities: self.ca_certs.as_deref().map(read).transpose()? })
    }
}

/// PEM files that were read.
pub(crate) struct TlsFiles {
    /// Our own certificate and its key.
    pub(crate) own: Option<(Vec<u8>, Vec<u8>)>,
    /// The authorities; absent: those of the system.
    pub(crate) authorities: Option<Vec<u8>>,
}

impl CertificateRequirement {
    fn parse(text: &str) -> Result<Self> {
        match text {
            "CERT_REQUIRED" | "required" | "2" => Ok(CertificateRequirement::Required),
            "CERT_OPTIONAL" | "optional" | "1" => Ok(CertificateRequirement::Optional),
            "CERT_NONE" | "none" | "0" => Ok(CertificateRequirement::None),
            _ => Err(configuration(format!("ssl_cert_reqs cannot be {text:?}"))),
        }
    }
}

/// The TLS library asks for one cryptography provider in the process; a program that has chosen one keeps it.
pub(crate) fn install_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Losing a race against another installer leaves theirs, which will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

fn read(path: impl AsRef<Path>) -> Result<Vec<u8>> {
    let path = path.as_ref();
    std::fs::read(path).map_err(|error| configuration(format!("cannot read {}", path.display())).with_source(error))
}

fn configuration(message: String) -> Error {
    Error::new(ErrorKind::Configuration, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_with_and_without_their_prefix() {
        let read = TlsOptions::from_pairs([
            ("ssl_cert_reqs", "optional"),
            ("ca_certs", "/ca.pem"),
            ("ssl_check_hostname", "False"),
        ]);
        let expected = TlsOptions {
            cert_reqs: CertificateRequirement::Optional,
            ca_certs: Some("/ca.pem".into()),
            check_hostname: false,
            ..TlsOptions::default()
        };
        assert_eq!(read.unwrap(), expected);
        assert!(TlsOptions::from_pairs([("ssl_version", "3")]).is_err());
    }

    #[test]
    fn files_that_are_not_there_are_named() {
        let options = TlsOptions { ca_certs: Some("/no/such/ca.pem".into()), ..TlsOptions::default() };
        let error = options.files().err().expect("there is no such file");
        assert!(error.to_string().contains("/no/such/ca.pem"), "{error}");
    }
}
