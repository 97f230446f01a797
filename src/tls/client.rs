//! What [`TlsOptions`] mean to rustls: [`client_config`].

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::names::{is_in_time, names_in_subject};
use super::{CertificateRequirement, TlsOptions, install_provider};
use crate::{Error, ErrorKind, Result};

/// Whose reading of certificates is followed where rustls is stricter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// That of Python's `ssl`: the host stands in the certificate's extension for names.
    Python,
    /// That of PostgreSQL's libpq: in a certificate without such names it may be the subject's common name, and the file of
    /// authorities may hold the server's own certificate.
    Libpq,
}

/// What encrypts a connection as the options say.
///
/// # Errors
/// `Configuration`: a file that cannot be read, or holds nothing that can be used.
pub(crate) fn client_config(options: &TlsOptions, reading: Reading) -> Result<Arc<ClientConfig>> {
    install_provider();
    let files = options.files()?;
    let authorities = match &files.authorities {
        _ if options.cert_reqs == CertificateRequirement::None => Vec::new(),
        Some(authorities) => certificates(authorities)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    let config = ClientConfig::builder();
    let config = match (options.cert_reqs, options.check_hostname, reading) {
        (CertificateRequirement::None, ..) => {
            let lenient = Lenient::new(config.crypto_provider(), None, Names::Ignored);
            config.dangerous().with_custom_certificate_verifier(Arc::new(lenient))
        }
        (_, true, Reading::Python) => config.with_root_certificates(roots(authorities)?),
        (_, check_hostname, reading) => {
            let names = if check_hostname { Names::InSubjectToo } else { Names::Ignored };
            let chain =
                WebPkiServerVerifier::builder(Arc::new(roots(authorities.clone())?)).build().map_err(unusable)?;
            let mut lenient = Lenient::new(config.crypto_provider(), Some(chain), names);
            if reading == Reading::Libpq {
                lenient.pinned = authorities;
            }
            config.dangerous().with_custom_certificate_verifier(Arc::new(lenient))
        }
    };
    let config = match files.own {
        Some((certificate, key)) => {
            let key = PrivateKeyDer::from_pem_slice(&key).map_err(unusable)?;
            config.with_client_auth_cert(certificates(&certificate)?, key).map_err(unusable)?
        }
        None => config.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem).collect::<std::result::Result<_, _>>().map_err(unusable)
}

/// A system's store often holds certificates that are of no use; it need only hold some that are.
fn roots(certificates: Vec<CertificateDer<'static>>) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match roots.add_parsable_certificates(certificates) {
        (0, _) => Err(Error::new(ErrorKind::Configuration, "there are no TLS authorities: set ca_certs")),
        _ => Ok(roots),
    }
}

fn unusable(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Configuration, "cannot use the TLS certificates").with_source(error)
}

/// Asks less than rustls does; without a `chain`, not even who signed a certificate.
#[derive(Debug)]
struct Lenient {
    provider: Arc<CryptoProvider>,
    chain: Option<Arc<WebPkiServerVerifier>>,
    names: Names,
    /// Certificates that are trusted as they are, though they may be an authority's.
    pinned: Vec<CertificateDer<'static>>,
}

/// Where the server's name must stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    Ignored,
    InSubjectToo,
}

impl Lenient {
    fn new(provider: &Arc<CryptoProvider>, chain: Option<Arc<WebPkiServerVerifier>>, names: Names) -> Self {
        Lenient { provider: provider.clone(), chain, names, pinned: Vec::new() }
    }

    fn has_name(&self, certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> bool {
        self.names == Names::Ignored || names_in_subject(certificate, &name.to_str())
    }

    fn named(
        &self,
        certificate: &CertificateDer<'_>,
        name: &ServerName<'_>,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        verify_server_name(&ParsedCertificate::try_from(certificate)?, name).map(|()| ServerCertVerified::assertion())
    }

    fn is_pinned(&self, certificate: &CertificateDer<'_>, now: UnixTime) -> bool {
        self.pinned.contains(certificate) && is_in_time(certificate, now)
    }
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        use CertificateError::{NotValidForName, NotValidForNameContext};
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        let verified = match chain.verify_server_cert(certificate, intermediates, name, ocsp_response, now) {
            // That it is an authority's, or signed by nobody known, does not matter then; the name still does.
            Err(rustls::Error::InvalidCertificate(_)) if self.is_pinned(certificate, now) => {
                self.named(certificate, name)
            }
            verified => verified,
        };
        match verified {
            Err(rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }))
                if self.has_name(certificate, name) =>
            {
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
