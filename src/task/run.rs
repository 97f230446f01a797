//! [`Run`]: one run of a task, and the [`Arguments`] it is begun with.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use super::{Outcome, panics};
use crate::protocol::{Map, Value};

/// One run of a task, not begun.
pub enum Run {
    /// A future for the runtime's own threads.
    Async(Pin<Box<dyn Future<Output = Outcome> + Send>>),
    /// A function for a thread that may block.
    Blocking(Box<dyn FnOnce() -> Outcome + Send>),
}

impl Run {
    /// A run on the runtime's own threads.
    pub fn from_future(future: impl Future<Output = Outcome> + Send + 'static) -> Self {
        Run::Async(Box::pin(future))
    }

    /// A run on a thread that may block.
    pub fn from_function(function: impl FnOnce() -> Outcome + Send + 'static) -> Self {
        Run::Blocking(Box::new(function))
    }

    /// The same run, in which a panic is an [`Outcome::Failure`] that names the place.
    ///
    /// The first call installs a panic hook that notes where a guarded run panicked and then calls the hook that was
    /// there before.
    #[must_use]
    pub fn guarded(self) -> Self {
        match self {
            Run::Async(future) => Run::Async(Box::pin(panics::guard_future(future))),
            Run::Blocking(function) => Run::Blocking(Box::new(move || panics::guard_call(function))),
        }
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Run::Async(_) => "Run::Async",
            Run::Blocking(_) => "Run::Blocking",
        })
    }
}

/// The arguments of a call, as the message's body holds them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Arguments {
    /// By position.
    pub args: Vec<Value>,
    /// By name.
    pub kwargs: Map,
}
