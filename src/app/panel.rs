//! [`Panel`]: commands of remote control that are the program's own, and [`Reins`]: what they may do to the worker.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::Result;
use crate::protocol::{Map, Message, Value};

/// Commands of remote control that are the program's own (celery/worker/control.py `Panel`). All but [`Panel::overrides`]
/// and [`Panel::begins`] are called on threads that may block.
pub trait Panel: Send + Sync + fmt::Debug {
    /// A worker begins, and can be steered with these from now on until it has ended.
    fn begins(&self, reins: Arc<dyn Reins>);

    /// Whether a command of that name goes before the worker's own.
    fn overrides(&self, method: &str) -> bool;

    /// Carries out a command that is none of the worker's, or goes before it; with `is_asked` it returns what is answered. What
    /// it cannot do it says there, or in the log.
    fn obey(&self, method: &str, arguments: &Map, is_asked: bool) -> Option<Payload>;

    /// Reads a command whose serializer this library refuses: it may be one that it does not have.
    ///
    /// # Errors
    /// `Refused`: its content is not accepted, or cannot be read.
    fn read(&self, message: &Message) -> Result<Value>;

    /// Whether it writes the answers of the worker's own commands, too: in a serializer that this library does not have.
    fn writes(&self) -> bool {
        false
    }

    /// Writes such an answer: all of what the message holds.
    ///
    /// # Errors
    /// `Encode`: it has no form for it.
    fn write(&self, answer: &Value) -> Result<Payload>;
}

/// What a message bears, and in which form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// The serializer's.
    pub content_type: String,
    /// The same.
    pub content_encoding: String,
    /// What it has written.
    pub body: Bytes,
}

/// Steers a worker from a thread that may block. When the worker has ended nothing is done, and an error says so.
pub trait Reins: Send + Sync + fmt::Debug {
    /// Has one of the worker's own commands carried out, and returns its answer (`{"ok": …}`, `{"error": …}` or what was asked
    /// for).
    ///
    /// # Errors
    /// `Io`: the worker has ended.
    fn ask(&self, method: &str, arguments: Map) -> Result<Value>;

    /// The prefetch window, wider by so many from now on, or narrower; 0: it has no bounds, and gets none (kombu's
    /// `QoS.increment_eventually`, `decrement_eventually`).
    fn widen(&self, by: i64) -> usize;

    /// Has the worker stop, warmly or `cold`; with a reason it has failed.
    fn shut_down(&self, cold: bool, failure: Option<String>);
}
