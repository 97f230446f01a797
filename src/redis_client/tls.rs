//! [`TlsOptions`]: how an encrypted connection is verified, in the words of `broker_use_ssl` and of URL options.

use std::path::{Path, PathBuf};

use redis::{Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, TlsCertificates};

use crate::{Error, ErrorKind, Result};

/// How an encrypted connection is verified (redis-py's `ssl_*` arguments).
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
                _ => return Err(configuration(format!("the TLS option {name:?} is not supported"))),
            }
        }
        Ok(options)
    }

    /// The address of `host` and `port` with everything that these options say.
    pub(super) fn address(&self, host: &str, port: u16) -> Result<ConnectionAddr> {
        install_provider();
        let insecure = self.cert_reqs == CertificateRequirement::None;
        let address = ConnectionAddr::TcpTls { host: host.to_owned(), port, insecure, tls_params: None };
        let certificates = self.certificates()?;
        let information = redis::IntoConnectionInfo::into_connection_info(address);
        let client =
            information.and_then(|information: ConnectionInfo| Client::build_with_tls(information, certificates));
        let client =
            client.map_err(|error| configuration("cannot use the TLS certificates".into()).with_source(error))?;
        let mut address = client.get_connection_info().addr().clone();
        if !self.check_hostname {
            address.set_danger_accept_invalid_hostnames(true);
        }
        Ok(address)
    }

    fn certificates(&self) -> Result<TlsCertificates> {
        let client_tls = match (&self.certfile, &self.keyfile) {
            (None, None) => None,
            (Some(certificate), key) => Some(ClientTlsConfig {
                client_cert: read(certificate)?,
                client_key: read(key.as_ref().unwrap_or(certificate))?,
            }),
            (None, Some(_)) => return Err(configuration("ssl_keyfile is set, and ssl_certfile is not".into())),
        };
        Ok(TlsCertificates { client_tls, root_cert: self.ca_certs.as_deref().map(read).transpose()? })
    }
}

impl CertificateRequirement {
    fn parse(text: &str) -> Result<Self> {
        match text {
            "CERT_REQUIRED" | "required" => Ok(CertificateRequirement::Required),
            "CERT_OPTIONAL" | "optional" => Ok(CertificateRequirement::Optional),
            "CERT_NONE" | "none" => Ok(CertificateRequirement::None),
            _ => Err(configuration(format!("ssl_cert_reqs cannot be {text:?}"))),
        }
    }
}

/// The TLS library asks for one cryptography provider in the process; a program that has chosen one keeps it.
fn install_provider() {
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
        let error = options.address("h", 1).unwrap_err();
        assert!(error.to_string().contains("/no/such/ca.pem"), "{error}");
    }
}
