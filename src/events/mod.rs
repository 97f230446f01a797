//! Events as values: what a node tells monitors of itself and of its tasks (celery/events).
//!
//! A [`Receiver`] reads messages of events; a [`Dumper`] writes events as lines; a [`Cluster`] is what is known from them.
//! Nothing here sends or receives, or reads a clock.

mod cluster;
mod dumper;
mod receiver;

pub use cluster::{Cluster, Task, WINDOW, Worker};
pub use dumper::Dumper;
pub use receiver::Receiver;
