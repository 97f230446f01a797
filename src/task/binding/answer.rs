//! What a handler returns, as an [`Outcome`].

use std::any::Any;

use serde::Serialize;

use crate::protocol::{Exception, Value, to_value};
use crate::task::{Interrupt, Outcome, Run};

/// A run that awaits `body`, the macro's translation of an `async fn`.
pub fn run_async(body: impl Future<Output = Result<Outcome, Interrupt>> + Send + 'static) -> Run {
    Run::from_future(async { body.await.unwrap_or_else(Outcome::from) })
}

/// A run that calls `body`, the macro's translation of a plain `fn`.
pub fn run_blocking(body: impl FnOnce() -> Result<Outcome, Interrupt> + Send + 'static) -> Run {
    Run::from_function(|| body().unwrap_or_else(Outcome::from))
}

/// What is more than a value: a `Result`, or an [`Outcome`].
#[diagnostic::on_unimplemented(
    message = "a task cannot return `{Self}`",
    label = "not what a task returns",
    note = "a task returns what serde can serialize, or a `Result` of that and of an error: `celeriac::Interrupt` or \
            what `?` turns into it"
)]
pub trait IntoOutcome {
    /// The outcome that it is.
    fn into_outcome(self) -> Outcome;
}

impl IntoOutcome for Outcome {
    fn into_outcome(self) -> Outcome {
        self
    }
}

impl<E: Into<Interrupt>> IntoOutcome for Result<Outcome, E> {
    fn into_outcome(self) -> Outcome {
        self.unwrap_or_else(|error| error.into().into())
    }
}

impl<T: Serialize + 'static, E: Into<Interrupt>> IntoOutcome for Result<T, E> {
    fn into_outcome(self) -> Outcome {
        self.map_or_else(|error| error.into().into(), success)
    }
}

/// The outcome of a handler that returned `value`; one that cannot be encoded is a failure, as in Celery.
fn success<T: Serialize + 'static>(value: T) -> Outcome {
    // A `Value` is what it is: there is no need to walk through it.
    let mut value = Some(value);
    let slot: &mut dyn Any = &mut value;
    if let Some(value) = slot.downcast_mut::<Option<Value>>() {
        return Outcome::Success(value.take().unwrap_or_default());
    }
    match to_value(&value) {
        Ok(value) => Outcome::Success(value),
        Err(error) => Outcome::failure(Exception::with_args("EncodeError", "kombu.exceptions", [error.to_string()])),
    }
}

/// Tells the macro's code what kind of answer a handler gives. A `Result` can be serialized too, and must not be: the
/// call `(&answer).answer_kind()` finds this trait one reference earlier than [`PlainKind`], and so prefers it.
pub trait AnswerKind {
    /// The kind.
    fn answer_kind(&self) -> Answer {
        Answer
    }
}

impl<T: IntoOutcome> AnswerKind for T {}

/// See [`AnswerKind`].
pub trait PlainKind {
    /// The kind.
    fn answer_kind(&self) -> PlainAnswer {
        PlainAnswer
    }
}

// Without bound, so that the error for a type that serde does not know names serde's trait.
impl<T> PlainKind for &T {}

/// An answer that is more than a value.
#[derive(Debug, Clone, Copy)]
pub struct Answer;

/// An answer that is a value.
#[derive(Debug, Clone, Copy)]
pub struct PlainAnswer;

impl Answer {
    /// The outcome that `answer` is.
    pub fn outcome(self, answer: impl IntoOutcome) -> Outcome {
        answer.into_outcome()
    }
}

impl PlainAnswer {
    /// Success with `answer`.
    pub fn outcome(self, answer: impl Serialize + 'static) -> Outcome {
        success(answer)
    }
}
