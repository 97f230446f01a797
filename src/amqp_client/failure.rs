//! [`failure`]: what the client library reports, as this crate's error.

use std::fmt::Display;
use std::io;

use lapin::types::ShortString;
use lapin::{Error as AmqpError, ErrorKind as Kind};

use crate::{Error, ErrorKind, Result};

/// The error of `doing` something at `place`, for example `cannot connect to` `amqp://guest:**@127.0.0.1:5672//`.
pub(crate) fn failure(doing: &str, place: impl Display, error: &AmqpError) -> Error {
    caused(Error::new(kind(error), format!("{doing} {place}: {}", reason(error))), error)
}

/// The error of a request that the server at `place` refused: see [`is_refusal`].
pub(crate) fn refusal(doing: &str, place: impl Display, error: &AmqpError) -> Error {
    let kind = match kind(error) {
        ErrorKind::Connection => ErrorKind::Broker,
        kind => kind,
    };
    caused(Error::new(kind, format!("{doing} {place}: {}", reason(error))), error)
}

/// What the server says is said already, and the library's own words say no more.
fn caused(failure: Error, error: &AmqpError) -> Error {
    match error.kind() {
        Kind::IOError(cause) => failure.with_source(io::Error::new(cause.kind(), cause.to_string())),
        _ => failure,
    }
}

/// Whether the server has refused one thing and closed the channel that it was asked on: the connection is as good as
/// before.
pub(crate) fn is_refusal(error: &AmqpError) -> bool {
    error.is_amqp_soft_error()
}

/// The connection to `place` is gone, for a reason that nobody told.
pub(crate) fn lost(place: impl Display) -> Error {
    Error::new(ErrorKind::Connection, format!("the connection to {place} was lost"))
}

/// The server's number for what went wrong: 404, 406, …
pub(crate) fn code(error: &AmqpError) -> Option<u16> {
    match error.kind() {
        Kind::ProtocolError(error) => Some(error.get_id()),
        _ => None,
    }
}

/// A name as the protocol has it.
///
/// # Errors
/// `Encode`: it is longer than 255 bytes.
pub(crate) fn short(text: impl Into<String>) -> Result<ShortString> {
    ShortString::try_new(text).map_err(|error| Error::new(ErrorKind::Encode, "a name is too long").with_source(error))
}

fn kind(error: &AmqpError) -> ErrorKind {
    match (code(error), error.kind()) {
        (Some(403), _) => ErrorKind::Authentication,
        (Some(406), _) => ErrorKind::Configuration,
        // No such virtual host; not one that this user may enter.
        (Some(530), _) if text(error).contains("refused") => ErrorKind::Authentication,
        (Some(530), _) | (None, Kind::AuthProviderError(_)) => ErrorKind::Configuration,
        (None, Kind::IOError(error)) if is_certificate(error) => ErrorKind::Configuration,
        _ => ErrorKind::Connection,
    }
}

fn reason(error: &AmqpError) -> String {
    match error.kind() {
        // As py-amqp writes it.
        Kind::ProtocolError(error) => format!("({}) {}", error.get_id(), error.get_message()),
        Kind::IOError(error) => io_reason(error),
        Kind::MissingHeartbeatError => "nothing was heard from the server for too long".to_owned(),
        Kind::InvalidConnectionState(_) | Kind::InvalidChannelState(..) | Kind::InvalidChannel(_) => {
            "it was closed".to_owned()
        }
        _ => error.to_string(),
    }
}

fn text(error: &AmqpError) -> &str {
    match error.kind() {
        Kind::ProtocolError(error) => error.get_message().as_str(),
        _ => "",
    }
}

fn io_reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut => "timed out".to_owned(),
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::UnexpectedEof => "the server ended it".to_owned(),
        _ if error.to_string().contains("failed to lookup address") => "unknown host".to_owned(),
        _ => error.to_string(),
    }
}

/// Whether the server's certificate was not accepted: another try would not help.
fn is_certificate(error: &io::Error) -> bool {
    let source = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    matches!(source, Some(rustls::Error::InvalidCertificate(_)))
}
