//! Where a message goes: [`Router`] answers what Celery's would, from the settings `task_routes`, `task_queues` and
//! `task_default_*` and from the options of a call.
//!
//! The answer, a [`Route`], names exchange and routing key, and the queue to declare before the message is published.
//! `testdata/routes.json` holds what Celery 5.7 answers. [`DelayLevels`] plans how RabbitMQ keeps a message until its time.
//!
//! This room is pure: it declares nothing and sends nothing.

mod delayed;
mod glob;
mod router;
mod table;

pub use delayed::{Declaration, DelayLevels, delays_natively, is_direct, is_quorum};
pub(crate) use glob::translate;
pub use router::{Route, Router};
