//! How the arguments of a message meet the parameters of a handler: what `#[celeriac::task]` calls.
//!
//! The macro writes down a [`Declaration`] and a few calls of [`Call`]; everything that can go wrong is decided here.
//! A call that does not fit fails as the same call of a Python function would, word for word.

mod answer;
mod argument;
mod call;
mod declaration;
mod mismatch;
mod name;
mod signature;

pub use answer::{Answer, AnswerKind, IntoOutcome, PlainAnswer, PlainKind, run_async, run_blocking};
pub use argument::{IntoArgument, argument, signature};
pub use call::Call;
pub use declaration::Declaration;
pub use name::{name_length, name_of};
pub use signature::{Kind, Parameter, Signature};
