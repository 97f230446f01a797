//! Events as values: what a node tells monitors of itself and of its tasks (celery/events).
//!
//! An [`Event`] has the fields that Celery gives it, in Celery's order; an [`Origin`] is the node that all of its events
//! come from; [`messages`] are what events are sent as, those of tasks many in one message: `Together` writes them as they
//! happen; [`Groups`] says which are wanted.
//! On the other side a [`Receiver`] reads messages of events; a [`Dumper`] writes events as lines; a [`Cluster`] is what
//! is known from them; a [`Party`] are the other workers that are there, and [`Elections`] say which of them does what one is to do.
//!
//! Nothing here sends or receives, reads a clock, or knows what happens in a worker: who makes an event says when it was.

mod cluster;
mod dumper;
mod election;
mod event;
mod fields;
mod groups;
mod json_events;
mod messages;
mod party;
mod receiver;
mod together;

use cluster::WORKERS;
pub use cluster::{Cluster, SeenTask, SeenWorker, WINDOW};
pub use dumper::Dumper;
pub use election::{CLAIMS, Elections, Step};
pub use event::{Event, Heartbeat, Kind, Load, Revocation, Sent, Stamp, Task};
pub use groups::Groups;
pub use messages::{EventMessage, Origin, messages};
pub use party::{News, Party};
pub use receiver::Receiver;
pub(crate) use together::{Bundle, TOGETHER, Together};
