//! What is wrong with a schedule, in the words and under the exceptions that Celery has for it.

use crate::error::{Error, ErrorKind};

/// What Celery raises for it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// `celery.schedules.ParseException`.
    #[error("{0}")]
    Parse(String),
    /// `ValueError`.
    #[error("{0}")]
    Value(String),
    /// `RuntimeError`: there is no next run.
    #[error("{0}")]
    Runtime(String),
}

impl Fault {
    /// The name of Celery's or Python's exception.
    pub(super) fn exception(&self) -> &'static str {
        match self {
            Fault::Parse(_) => "ParseException",
            Fault::Value(_) => "ValueError",
            Fault::Runtime(_) => "RuntimeError",
        }
    }
}

/// `tried` failed for `fault`.
pub(super) fn failed(tried: impl Into<String>, fault: Fault) -> Error {
    Error::new(ErrorKind::Configuration, tried).with_source(fault)
}

/// The exception that Celery raises where this room returned `error`, and its words: `ParseException` of
/// `celery.schedules`, or Python's `ValueError` or `RuntimeError`. `None` for an error of elsewhere.
pub fn exception(error: &Error) -> Option<(&'static str, String)> {
    let fault = std::error::Error::source(error)?.downcast_ref::<Fault>()?;
    Some((fault.exception(), fault.to_string()))
}
