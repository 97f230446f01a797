//! What [`TlsOptions`] mean to an AMQP connection.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::tls::{CertificateRequirement, TlsOptions, install_provider};
use crate::{Error, ErrorKind, Result};

/// What encrypts a connection as the options say.
pub(super) fn config(options: &TlsOptions) -> Result<Arc<ClientConfig>> {
    install_provider();
    let files = options.files()?;
    let roots = match &files.authorities {
        _ if options.cert_reqs == CertificateRequirement::None => RootCertStore::empty(),
        Some(authorities) => roots(certificates(authorities)?)?,
        None => roots(rustls_native_certs::load_native_certs().certs)?,
    };
    let config = ClientConfig::builder();
    let provider = Arc::clone(config.crypto_provider());
    let config = match (options.cert_reqs, options.check_hostname) {
        (CertificateRequirement::None, _) => {
            config.dangerous().with_custom_certificate_verifier(Arc::new(Lenient { provider, chain: None }))
        }
        (_, true) => config.with_root_certificates(roots),
        (_, false) => {
            let chain = WebPkiServerVerifier::builder(Arc::new(roots)).build().map_err(unusable)?;
            config.dangerous().with_custom_certificate_verifier(Arc::new(Lenient { provider, chain: Some(chain) }))
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

/// Does not ask whom the certificate names; without a `chain`, not even who signed it.
#[derive(Debug)]
struct Lenient {
    provider: Arc<CryptoProvider>,
    chain: Option<Arc<WebPkiServerVerifier>>,
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
        match chain.verify_server_cert(certificate, intermediates, name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. })) => {
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
