//! Python tasks in Celeriac.
//!
//! A worker of a Python project has three kinds of processes. The *parent* is Celeriac's worker: it talks to broker and
//! backend, and hands messages to children. The *nursery* is forked from the parent before that has any thread; it has the
//! project imported, and does nothing but fork children and tell how they ended. A *child* runs one task at a time through
//! Celery's own tracer.
//!
//! [`frame`] is what parent and child say to each other, as bytes, and [`claims`] settles which of them has a call; [`pool`] is the parent's side of it, an implementation of
//! [`celeriac::task::Pool`]. Both are plain Rust. `extension` is the Python module `celeriac._celeriac`, and the only place
//! that names pyo3: it converts types and calls the rest. A crate of somebody's own tasks, which is a Python module too ([`python_tasks!`],
//! with the feature `extension`), has all of this in it, and so is the worker that runs them.

// Tests may unwrap; what ships may not panic on what came from outside.
#![warn(clippy::unwrap_used, unreachable_pub)]

pub mod claims;
#[cfg(feature = "extension")]
#[doc(hidden)]
pub mod extension;
pub mod frame;
pub mod pool;
pub mod request;
