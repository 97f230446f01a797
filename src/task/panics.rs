//! Panics of handlers: each is its own task's failure and nothing else.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};

use futures_util::FutureExt;

use super::Outcome;
use crate::protocol::Exception;

/// The failure that a panic is, from what [`catch_unwind`] or Tokio's `JoinError::into_panic` gives.
///
/// Clients raise `RuntimeError`: a panic has no class that Python could know.
pub fn outcome_of_panic(payload: Box<dyn Any + Send>) -> Outcome {
    let text = format!("panicked: {}", message(payload.as_ref()));
    Outcome::failure(Exception {
        exc_type: "RuntimeError".to_owned(),
        exc_module: Some("builtins".to_owned()),
        exc_message: vec![crate::protocol::Value::String(text)],
    })
}

/// What was handed to `panic!`, if it is text.
fn message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("with a value that is no text")
}

/// Calls `function`; a panic is a failure.
pub(super) fn guard_call(function: impl FnOnce() -> Outcome) -> Outcome {
    catch_unwind(AssertUnwindSafe(function)).unwrap_or_else(outcome_of_panic)
}

/// Awaits `future`; a panic is a failure.
pub(super) async fn guard_future(future: impl Future<Output = Outcome>) -> Outcome {
    AssertUnwindSafe(future).catch_unwind().await.unwrap_or_else(outcome_of_panic)
}
