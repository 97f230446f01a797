//! [`ask`]: fetches one page, for who probes. It needs no runtime.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::addresses;
use crate::{Error, ErrorKind, Result};

/// How long each step may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Of what is answered so much is read.
const LONGEST: u64 = 64 * 1024;

/// What a server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// 200 to 299.
    pub(crate) is_good: bool,
    pub(crate) text: String,
}

/// Asks the server at `host:port` for the page at `path`.
///
/// # Errors
/// `Configuration`: that is no address. `Connection`: nobody answers there, or not in HTTP.
pub(crate) fn ask(address: &str, path: &str) -> Result<Answer> {
    let addresses = addresses(address)?;
    let failed = |error| Error::new(ErrorKind::Connection, format!("ask http://{address}{path}")).with_source(error);
    let mut tried = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for each in addresses {
        match TcpStream::connect_timeout(&each, PATIENCE) {
            Ok(stream) => return fetch(stream, address, path).map_err(failed),
            Err(error) => tried = error,
        }
    }
    Err(failed(tried))
}

fn fetch(mut stream: TcpStream, host: &str, path: &str) -> io::Result<Answer> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut said = Vec::new();
    stream.take(LONGEST).read_to_end(&mut said)?;
    let no_http = || io::Error::new(io::ErrorKind::InvalidData, "the answer is no HTTP");
    read(&String::from_utf8_lossy(&said)).ok_or_else(no_http)
}

/// `HTTP/1.1 200 OK`, header lines, an empty line, the text.
fn read(said: &str) -> Option<Answer> {
    let (head, text) = said.split_once("\r\n\r\n")?;
    let status: u16 = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { is_good: (200..300).contains(&status), text: text.to_owned() })
}
