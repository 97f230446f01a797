//! What rustls does not look at in a certificate: [`names_in_subject`], [`is_in_time`].

use rustls::pki_types::{CertificateDer, UnixTime};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// Whether the subject's common name is this host, in a certificate that names no host where hosts belong (libpq,
/// fe-secure-common.c `pq_verify_peer_name_matches_certificate`).
pub(super) fn names_in_subject(certificate: &CertificateDer<'_>, host: &str) -> bool {
    let Ok(certificate) = Certificate::from_der(certificate) else { return false };
    if has_alternative_names(&certificate) {
        return false;
    }
    let attributes = certificate.tbs_certificate.subject.0.iter().flat_map(|part| part.0.iter());
    let mut names = attributes.filter(|attribute| attribute.oid == COMMON_NAME).map(|name| name.value.value());
    names.any(|name| std::str::from_utf8(name).is_ok_and(|name| stands_for(name, host)))
}

fn has_alternative_names(certificate: &Certificate) -> bool {
    let is_host = |name: &GeneralName| matches!(name, GeneralName::DnsName(_) | GeneralName::IpAddress(_));
    match certificate.tbs_certificate.get::<SubjectAltName>() {
        Ok(found) => found.is_some_and(|(_, names)| names.0.iter().any(is_host)),
        Err(_) => true,
    }
}

/// A star stands for one label, the first.
fn stands_for(name: &str, host: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(domain) => host.split_once('.').is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(domain)),
        None => name.eq_ignore_ascii_case(host),
    }
}

/// Whether the certificate is valid by now, and still.
pub(super) fn is_in_time(certificate: &CertificateDer<'_>, now: UnixTime) -> bool {
    Certificate::from_der(certificate).is_ok_and(|certificate| {
        let validity = certificate.tbs_certificate.validity;
        let times = validity.not_before.to_unix_duration().as_secs()..=validity.not_after.to_unix_duration().as_secs();
        times.contains(&now.as_secs())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_the_first_label() {
        for (name, host, expected) in [
            ("db.example.com", "DB.example.com", true),
            ("*.example.com", "db.example.com", true),
            ("*.example.com", "a.db.example.com", false),
            ("*.example.com", "example.com", false),
            ("db.example.com", "example.com", false),
        ] {
            assert_eq!(stands_for(name, host), expected, "{name} {host}");
        }
    }
}
