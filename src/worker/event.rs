//! [`Event`]: all that can happen to a worker.

use tokio::sync::oneshot;

use crate::Error;
use crate::control::ControlRequest;
use crate::transport::Delivery;

use super::intake::Intake;
use super::poison::Judgement;
use super::reins::Asked;
use super::request::Work;

/// All that can happen to a worker; its loop takes one at a time.
#[derive(Debug)]
pub(crate) enum Event {
    /// Messages arrived.
    Received(Vec<Delivery>),
    /// All that was sent before this has been seen; who wants to know is told.
    Reached(oneshot::Sender<()>),
    /// A large message has been read.
    Read(Box<Intake>),
    /// A connection is up and consuming.
    Connected,
    /// The connection is gone; the next one is being sought.
    Disconnected,
    /// It is known which messages may have killed a worker.
    Judged(Vec<(Box<Work>, Judgement)>),
    /// A suspect is no longer alone.
    Left,
    /// This place in the pool is free again.
    Freed(usize),
    /// A client asks for something.
    Control(Box<ControlRequest>),
    /// The program itself asks for something.
    Asked(Box<Asked>),
    /// Another worker tells what was revoked.
    RevokedElsewhere(Vec<String>),
    /// Somebody asked the worker to stop.
    Shutdown(Shutdown),
    /// Somebody asked what the worker is doing.
    LogState,
    /// The worker cannot go on.
    Unrecoverable(Error),
}

/// How a worker stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shutdown {
    /// Takes nothing more, finishes what runs and gives the rest back.
    Warm,
    /// Ends what runs, and gives back what was to be acknowledged late.
    Cold,
}
