//! [`failure`]: what the client library reports, as this crate's error.

use std::fmt::Display;

use redis::{RedisError, ServerErrorKind};

use crate::{Error, ErrorKind};

/// The error of `doing` something at `place`, for example `cannot connect to` `redis://localhost:6379/0`.
pub(crate) fn failure(doing: &str, place: impl Display, error: RedisError) -> Error {
    hinted(doing, place, error, "")
}

/// The same, with `hint` behind the reason.
pub(super) fn hinted(doing: &str, place: impl Display, error: RedisError, hint: &str) -> Error {
    Error::new(kind(&error), format!("{doing} {place}: {}{hint}", reason(&error))).with_source(error)
}

/// The error of a request that the server at `place` refused: see [`is_refusal`].
pub(crate) fn refusal(doing: &str, place: impl Display, error: RedisError) -> Error {
    let kind = match kind(&error) {
        ErrorKind::Connection if is_passing(&error) => ErrorKind::Unready,
        ErrorKind::Connection => ErrorKind::Broker,
        kind => kind,
    };
    Error::new(kind, format!("{doing} {place}: {}", reason(&error))).with_source(error)
}

/// Whether the server does nothing of this kind for now, for anybody: it has no memory or no disk, too few replicas, or
/// runs somebody's endless script.
pub(crate) fn is_passing(error: &RedisError) -> bool {
    matches!(error.code(), Some("OOM" | "MISCONF" | "NOREPLICAS" | "BUSY"))
}

/// Whether the server has answered that it does not do this one thing, and another connection would answer no other.
pub(crate) fn is_refusal(error: &RedisError) -> bool {
    use ServerErrorKind::{Ask, BusyLoading, ClusterDown, MasterDown, Moved, ReadOnly, TryAgain};
    match error.kind() {
        redis::ErrorKind::Server(kind) => {
            !matches!(kind, Ask | BusyLoading | ClusterDown | MasterDown | Moved | ReadOnly | TryAgain)
        }
        redis::ErrorKind::Extension => error.code() != Some("NOAUTH"),
        _ => false,
    }
}

/// The connection to `place` is gone, for a reason that nobody told.
pub(crate) fn lost(place: impl Display) -> Error {
    Error::new(ErrorKind::Connection, format!("the connection to {place} was lost"))
}

/// Redis has no code of its own for some refusals, so the text decides (redis-py's `BaseParser.EXCEPTION_CLASSES`).
fn kind(error: &RedisError) -> ErrorKind {
    let text = error.to_string();
    match error.kind() {
        redis::ErrorKind::AuthenticationFailed => ErrorKind::Authentication,
        redis::ErrorKind::InvalidClientConfig => ErrorKind::Configuration,
        redis::ErrorKind::Server(ServerErrorKind::NoPerm) => ErrorKind::Authentication,
        _ if is_login(error, &text) => ErrorKind::Authentication,
        _ if text.contains("DB index") || text.contains("invalid DB") => ErrorKind::Configuration,
        _ => ErrorKind::Connection,
    }
}

fn is_login(error: &RedisError, text: &str) -> bool {
    matches!(error.code(), Some("WRONGPASS" | "NOAUTH" | "NOPERM"))
        || has_no_password(text)
        || text.contains("invalid password")
}

fn has_no_password(text: &str) -> bool {
    text.contains("no password is set") || text.contains("without any password configured")
}

fn reason(error: &RedisError) -> String {
    let text = error.to_string();
    match error.kind() {
        redis::ErrorKind::Io if error.is_timeout() => "timed out".into(),
        redis::ErrorKind::Io if text.contains("failed to lookup address") => "unknown host".into(),
        redis::ErrorKind::Io if error.is_connection_refusal() => "connection refused".into(),
        _ if error.code() == Some("NOAUTH") => "it asks for a password, and the URL has none".into(),
        _ if has_no_password(&text) => "a password is given, and the server has none".into(),
        _ if is_login(error, &text) => "the user name or password was refused".into(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn kinds_follow_what_a_caller_can_do() {
        let server = |code: &str, text: &str| redis::make_extension_error(code.into(), Some(text.into()));
        let rows = [
            (server("WRONGPASS", "invalid username-password pair or user is disabled."), ErrorKind::Authentication),
            (server("NOAUTH", "Authentication required."), ErrorKind::Authentication),
            (server("ERR", "DB index is out of range"), ErrorKind::Configuration),
            (server("LOADING", "Redis is loading the dataset in memory"), ErrorKind::Connection),
            (server("READONLY", "You can't write against a read only replica."), ErrorKind::Connection),
            (io::Error::from(io::ErrorKind::ConnectionRefused).into(), ErrorKind::Connection),
        ];
        for (error, expected) in rows {
            let text = error.to_string();
            assert_eq!(failure("cannot connect to", "redis://h/0", error).kind(), expected, "{text}");
        }
    }

    #[test]
    fn a_refusal_is_told_from_a_connection_that_is_of_no_use() {
        let known = |kind| (redis::ErrorKind::Server(kind), "said the server").into();
        let server = |code: &str, text: &str| redis::make_extension_error(code.into(), Some(text.into()));
        let rows = [
            (server("OOM", "command not allowed when used memory > 'maxmemory'."), Some(ErrorKind::Unready)),
            (server("WRONGTYPE", "Operation against a key holding the wrong kind of value"), Some(ErrorKind::Broker)),
            (server("MISCONF", "Redis is configured to save RDB snapshots"), Some(ErrorKind::Unready)),
            (server("BUSY", "Redis is busy running a script."), Some(ErrorKind::Unready)),
            (known(ServerErrorKind::ResponseError), Some(ErrorKind::Broker)),
            (known(ServerErrorKind::NoPerm), Some(ErrorKind::Authentication)),
            (known(ServerErrorKind::ReadOnly), None),
            (known(ServerErrorKind::BusyLoading), None),
            (server("NOAUTH", "Authentication required."), None),
            (io::Error::from(io::ErrorKind::TimedOut).into(), None),
            (io::Error::from(io::ErrorKind::BrokenPipe).into(), None),
        ];
        for (error, expected) in rows {
            let text = error.to_string();
            let kind = is_refusal(&error).then(|| refusal("cannot publish to", "redis://h/0", error).kind());
            assert_eq!(kind, expected, "{text}");
        }
    }
}
