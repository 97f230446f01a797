//! The one public error of the crate.

use std::error::Error as StdError;
use std::fmt;

/// What the functions of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Something that Celeriac tried and could not do.
///
/// The message says what was tried and on what, in lower case and without passwords; [`Error::kind`] says what a caller
/// can do about it; the cause is chained as [`StdError::source`].
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What a caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting, a URL or an option is wrong: trying again will not help.
    Configuration,
    /// The broker or backend cannot be reached, or the connection was lost: try again after a pause.
    Connection,
    /// The broker or backend refused the credentials.
    Authentication,
    /// Bytes do not have the form that the protocol gives them.
    Decode,
    /// A value cannot be written in the serializer asked for, or is larger than who is to keep it takes.
    Encode,
    /// The content type is known, and the configuration does not accept it (or nobody should: pickle, auth).
    Refused,
    /// The broker is there and refused what was asked of it: it is out of memory, the key is of another type, the user
    /// may not do that. The connection is as good as before.
    Broker,
    /// The broker or backend is there and cannot do it for now: it is out of memory, or cannot write to its disk. Try again after a
    /// pause; the connection is as good as before.
    Unready,
    /// Another connection has it for itself, perhaps one of our own that the broker has yet to miss: try again after a pause.
    Locked,
    /// The result backend did not store or return a result.
    Backend,
    /// A file or another resource of the operating system failed.
    Io,
}

impl Error {
    /// A new error of `kind`; `message` says what was tried on what.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), source: None }
    }

    /// The same error with what caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the broker or backend is away, and another connection is to be tried after a pause.
    pub fn is_connection(&self) -> bool {
        self.kind == ErrorKind::Connection
    }

    /// Whether what was asked can succeed after a pause, over this connection or another.
    pub fn can_pass(&self) -> bool {
        matches!(self.kind, ErrorKind::Connection | ErrorKind::Unready | ErrorKind::Locked)
    }

    /// Whether a message, and not the connection it came over, is at fault.
    pub fn is_bad_message(&self) -> bool {
        matches!(self.kind, ErrorKind::Decode | ErrorKind::Refused)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Many errors repeat their cause's text in their own; it is said once.
        let mut said = self.message.clone();
        let mut cause = self.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !said.contains(&text) {
                said.push_str(": ");
                said.push_str(&text);
            }
            cause = error.source();
        }
        f.write_str(&said)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What a `main` that returns it prints, so it is for people.
        fmt::Display::fmt(self, f)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn main_prints_it_in_words() {
        let error = Error::new(ErrorKind::Io, "read the file x").with_source("it is no file");
        let returned: Box<dyn StdError> = error.into();
        assert_eq!(format!("Error: {returned:?}"), "Error: read the file x: it is no file");
    }
}
