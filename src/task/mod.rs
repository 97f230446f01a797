//! Tasks: what a handler is, what it is given and what it may answer.
//!
//! Most users write `#[celeriac::task]` and never name [`Task`]; the macro implements it with the helpers of
//! [`binding`]. A worker finds tasks in a [`Registry`], begins a [`Run`] with a [`TaskContext`] and gets an [`Outcome`];
//! [`RetryPolicy`] then decides what a wish to be run again comes to.
//!
//! A task that is run elsewhere, in a Python process, names the [`Pool`] that its messages are handed to.
//!
//! Nothing here does I/O: what a handler asks of the worker goes through [`StateSink`] (to store a state) and
//! [`SignatureSink`] (to send tasks), which the worker implements. Nothing here reads a clock or draws a random number of its own.

pub mod binding;
mod context;
mod failure;
mod options;
mod outcome;
mod panics;
mod pool;
mod python_names;
mod registry;
mod request;
mod retry;
mod retry_policy;
mod run;

use std::sync::Arc;

pub use binding::signature;
pub use context::{SignatureSink, StateSink, TaskContext};
pub use options::TaskOptions;
pub use outcome::{Interrupt, Outcome};
pub use panics::outcome_of_panic;
pub use pool::{Call, CallEnd, Fate, How, Line, Order, Pool, Raised, Report, StoredMeta};
pub use registry::Registry;
pub use request::Request;
pub use retry::Retry;
pub use retry_policy::{RetryDecision, RetryPolicy, RetryTime};
pub use run::{Arguments, Run};

/// A task that a worker can run.
pub trait Task: Send + Sync + 'static {
    /// The registered name.
    fn name(&self) -> &str;

    /// The options that the declaration gave.
    fn options(&self) -> &TaskOptions;

    /// The handler's parameters; `None` for one that takes whatever comes.
    fn signature(&self) -> Option<&'static binding::Signature> {
        None
    }

    /// Where its messages are run, if that is not here: [`Task::run`] is then for those alone who call the task within a
    /// worker, as an errback is called.
    fn pool(&self) -> Option<Arc<dyn Pool>> {
        None
    }

    /// Prepares one run. Arguments that do not fit are an [`Outcome::Failure`] with `TypeError`, not a panic.
    fn run(&self, context: TaskContext, arguments: Arguments) -> Run;
}

/// A task that is shared already.
impl Task for Arc<dyn Task> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn options(&self) -> &TaskOptions {
        (**self).options()
    }

    fn signature(&self) -> Option<&'static binding::Signature> {
        (**self).signature()
    }

    fn pool(&self) -> Option<Arc<dyn Pool>> {
        (**self).pool()
    }

    fn run(&self, context: TaskContext, arguments: Arguments) -> Run {
        (**self).run(context, arguments)
    }
}

/// What stands for a task that `#[celeriac::task]` made: `App::task(add)` is given the function `add`.
impl<F, T> Task for F
where
    F: Fn() -> &'static T + Send + Sync + 'static,
    T: Task,
{
    fn name(&self) -> &str {
        self().name()
    }

    fn options(&self) -> &TaskOptions {
        self().options()
    }

    fn signature(&self) -> Option<&'static binding::Signature> {
        self().signature()
    }

    fn pool(&self) -> Option<Arc<dyn Pool>> {
        self().pool()
    }

    fn run(&self, context: TaskContext, arguments: Arguments) -> Run {
        self().run(context, arguments)
    }
}
