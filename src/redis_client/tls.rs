//! What [`TlsOptions`] mean to the Redis client library.

use redis::{Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, TlsCertificates};

use crate::tls::{CertificateRequirement, TlsFiles, TlsOptions, install_provider};
use crate::{Error, ErrorKind, Result};

/// The address of `host` and `port` with everything that the options say.
pub(super) fn address(options: &TlsOptions, host: &str, port: u16) -> Result<ConnectionAddr> {
    if options.server_hostname.is_some() {
        return Err(Error::new(ErrorKind::Configuration, "the TLS option \"server_hostname\" is not Redis's"));
    }
    install_provider();
    let insecure = options.cert_reqs == CertificateRequirement::None;
    let address = ConnectionAddr::TcpTls { host: host.to_owned(), port, insecure, tls_params: None };
    let TlsFiles { own, authorities } = options.files()?;
    let client_tls = own.map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
    let certificates = TlsCertificates { client_tls, root_cert: authorities };
    let information = redis::IntoConnectionInfo::into_connection_info(address);
    let client = information.and_then(|information: ConnectionInfo| Client::build_with_tls(information, certificates));
    let client = client
        .map_err(|error| Error::new(ErrorKind::Configuration, "cannot use the TLS certificates").with_source(error))?;
    let mut address = client.get_connection_info().addr().clone();
    if !options.check_hostname {
        address.set_danger_accept_invalid_hostnames(true);
    }
    Ok(address)
}
