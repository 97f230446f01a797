//! [`Scope`]: within it, what is sent carries a trace on.

use std::sync::Arc;

use tokio::task::futures::TaskLocalFuture;
use tracing::Span;
use tracing::instrument::{Instrument, Instrumented};

use super::Carried;
use crate::protocol::Map;

tokio::task_local! {
    /// What the message of the running task says of its trace.
    static CARRIED: Option<Arc<Carried>>;
}

/// A trace and a span, to run something in.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    carried: Option<Arc<Carried>>,
    span: Span,
}

impl Scope {
    /// The scope of a message: in the trace that its headers speak of, and in a span that is made now. `None` where they
    /// speak of none and no subscriber wants the span.
    pub(crate) fn of_message(headers: &Map, span: impl FnOnce() -> Span) -> Option<Self> {
        let carried = Carried::of(headers).map(Arc::new);
        let span = span();
        #[cfg(feature = "otlp")]
        super::otlp::adopt(&span, carried.as_deref());
        (carried.is_some() || !span.is_disabled()).then_some(Scope { carried, span })
    }

    /// The same for a message of which nothing is run.
    pub(crate) fn of_headers(headers: &Map) -> Self {
        Scope { carried: Carried::of(headers).map(Arc::new), span: Span::none() }
    }

    /// The scope of whoever asks: for another thread.
    pub(crate) fn here() -> Self {
        Scope { carried: carried(), span: Span::current() }
    }

    /// Runs a future in it.
    pub(crate) fn run<F: Future>(self, future: F) -> TaskLocalFuture<Option<Arc<Carried>>, Instrumented<F>> {
        CARRIED.scope(self.carried, future.instrument(self.span))
    }

    /// Calls a function in it.
    pub(crate) fn call<T>(self, function: impl FnOnce() -> T) -> T {
        CARRIED.sync_scope(self.carried, || self.span.in_scope(function))
    }
}

/// Calls a function in the trace that headers speak of, wherever it is called: a handler may have handed its context to
/// a task of the runtime's that is outside of its scope.
pub(crate) fn within<T>(headers: &Map, function: impl FnOnce() -> T) -> T {
    if carried().is_some() {
        return function();
    }
    CARRIED.sync_scope(Carried::of(headers).map(Arc::new), function)
}

/// The trace that what is sent now belongs to.
pub(crate) fn current() -> Option<Arc<Carried>> {
    let carried = carried();
    #[cfg(feature = "otlp")]
    if let Some(active) = super::otlp::active(carried.as_deref()) {
        return Some(Arc::new(active));
    }
    carried
}

fn carried() -> Option<Arc<Carried>> {
    CARRIED.try_with(Clone::clone).ok().flatten()
}
