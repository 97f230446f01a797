//! Remote control as values: what a client asks of workers, and what a worker answers.
//!
//! A [`ControlRequest`] is one message of the mailbox (kombu/pidbox.py), which may be meant for others; a [`Command`] is
//! what it asks for, its arguments checked as Celery's handlers check theirs (celery/worker/control.py), or an
//! [`Inspection`] if it only wants to know something; a [`Reply`] is the answer's message. A client's side of it are
//! [`ControlCall`] and [`answer`]. [`Rate`], [`Signal`] and [`LamportClock`] are what commands are made of.
//!
//! Nothing here carries a command out, sends, receives, or knows a worker's state. Answers and errors are Celery's to the
//! letter, because people and tools compare them.

mod call;
mod clock;
mod command;
mod inspection;
mod matcher;
mod rate;
mod reply;
mod request;
mod signal;
mod steer;

pub use call::{ControlCall, Wanted, answer};
pub use clock::LamportClock;
pub use command::{Command, TimeLimit, is_known, revoked_ids};
pub use inspection::Inspection;
pub use rate::Rate;
pub use reply::{Reply, answering, error, ok};
pub use request::{ControlRequest, ReplyTo};
pub use signal::Signal;
pub use steer::{Bounds, Steering};

use crate::protocol::Exception;

/// What a client's request is refused with: the Python exception that Celery's worker would raise.
type Result<T> = std::result::Result<T, Exception>;

/// An exception of Python's own.
fn raise<T>(exc_type: &str, message: impl Into<String>) -> Result<T> {
    Err(Exception::new(exc_type, message.into()))
}
