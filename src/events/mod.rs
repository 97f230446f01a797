//! Events as values: what a node tells monitors of itself and of its tasks (celery/events/event.py, dispatcher.py).
//!
//! An [`Event`] has the fields that Celery gives it, in Celery's order; an [`Origin`] is the node that all of its events
//! come from; [`messages`] are what events are sent as, those of tasks many in one message; [`Groups`] says which are wanted.
//!
//! Nothing here sends or receives, reads a clock, or knows what happens in a worker: who makes an event says when it was.

mod event;
mod groups;
mod messages;

pub use event::{Event, Heartbeat, Kind, Load, Revocation, Sent, Stamp, Task};
pub use groups::Groups;
pub use messages::{EventMessage, Origin, messages};
