//! What a Rust error is to Python: [`Exception`]'s and [`Interrupt`]'s conversions from errors.

use std::error::Error as StdError;

use super::Interrupt;
use crate::protocol::{Exception, Value};

type BoxedError = Box<dyn StdError + Send + Sync>;

impl<E: Into<BoxedError>> From<E> for Exception {
    fn from(error: E) -> Self {
        let error: BoxedError = error.into();
        Exception {
            exc_type: "RuntimeError".to_owned(),
            exc_module: Some("builtins".to_owned()),
            exc_message: vec![Value::String(error.to_string())],
        }
    }
}

impl<E: Into<BoxedError>> From<E> for Interrupt {
    fn from(error: E) -> Self {
        Interrupt::Failure { exception: Exception::from(error), traceback: None }
    }
}

impl From<Exception> for Interrupt {
    fn from(exception: Exception) -> Self {
        Interrupt::Failure { exception, traceback: None }
    }
}
