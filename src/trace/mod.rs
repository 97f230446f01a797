//! The trace that a task belongs to: read from the headers of its message, handed on to whatever it sends, and a
//! [`tracing`] span around its run.
//!
//! Stock workers leave this to OpenTelemetry's and Sentry's integrations, which write into the headers of each task as it
//! is sent, and read them as it begins. [`Carried`] is what they write; [`Scope`] is a run within it: what is sent there,
//! in whatever way, carries the trace on ([`current`]). With the feature `otlp` and a subscriber that makes OpenTelemetry's
//! spans, the run's own span is the parent of what it sends.
//!
//! Nothing here sends, reads the environment, or knows what a task is.

mod carried;
#[cfg(feature = "otlp")]
mod otlp;
mod scope;
mod span;

pub(crate) use carried::Carried;
#[cfg(feature = "otlp")]
pub(crate) use otlp::Exporter;
pub(crate) use scope::{Scope, current, within};
pub(crate) use span::{ID, NAME, Run, TARGET, ended};
