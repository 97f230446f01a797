//! [`Certificates`]: what a server that speaks TLS shows to its clients.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Files that the `openssl` command made.
pub(crate) struct Certificates {
    pub(crate) authority: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Certificates {
    /// An authority, and a certificate for 127.0.0.1 and localhost.
    pub(crate) fn make(directory: &Path) -> io::Result<Self> {
        let file = |name: &str| directory.join(name);
        let extensions = file("extensions");
        std::fs::write(&extensions, "subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n")?;
        let (authority, authority_key) = (file("ca.pem"), file("ca-key.pem"));
        let (certificate, key, request) = (file("cert.pem"), file("key.pem"), file("request.pem"));
        let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        openssl(|command| {
            command.args(["req", "-x509", "-days", "2", "-subj", "/CN=test authority"]).args(new_key);
            command.arg("-keyout").arg(&authority_key).arg("-out").arg(&authority);
        })?;
        openssl(|command| {
            command.args(["req", "-subj", "/CN=localhost"]).args(new_key);
            command.arg("-keyout").arg(&key).arg("-out").arg(&request);
        })?;
        openssl(|command| {
            command.args(["x509", "-req", "-days", "2", "-CAcreateserial"]).arg("-in").arg(&request);
            command.arg("-CA").arg(&authority).arg("-CAkey").arg(&authority_key);
            command.arg("-extfile").arg(&extensions).arg("-out").arg(&certificate);
        })?;
        Ok(Certificates { authority, certificate, key })
    }

    /// A certificate that is its own authority, with its key in another file: it names localhost as the subject alone.
    pub(crate) fn make_own(directory: &Path) -> io::Result<Self> {
        let (certificate, key) = (directory.join("own.pem"), directory.join("own-key.pem"));
        openssl(|command| {
            command.args(["req", "-x509", "-days", "2", "-subj", "/CN=localhost", "-newkey", "ec", "-nodes"]);
            command.args(["-pkeyopt", "ec_paramgen_curve:prime256v1"]);
            command.arg("-keyout").arg(&key).arg("-out").arg(&certificate);
        })?;
        Ok(Certificates { authority: certificate.clone(), certificate, key })
    }
}

fn openssl(arguments: impl FnOnce(&mut Command)) -> io::Result<()> {
    let mut command = Command::new("openssl");
    arguments(&mut command);
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("openssl ended with {status}"))) }
}
