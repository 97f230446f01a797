//! [`Keeper`]: a result backend that only the program has, for what a worker stores itself.

use std::fmt;

use crate::Result;
use crate::protocol::{Exception, Message};

/// Stores in a backend that this library does not have. What tasks come to is stored where they run; this is for those that
/// nobody runs. All but [`Keeper::uri`] is called on threads that may block.
pub trait Keeper: Send + Sync + fmt::Debug {
    /// The backend's address for people to read, without passwords.
    fn uri(&self) -> String;

    /// Stores that the task of this id has failed, whose message cannot be run, and tells its chord
    /// (celery/worker/consumer/consumer.py `Consumer.on_unknown_task`).
    ///
    /// # Errors
    /// `Backend`: it is not stored.
    fn fail(&self, id: &str, message: &Message, exception: &Exception) -> Result<()>;

    /// Stores that these tasks were revoked, but for those that somebody has begun or ended
    /// (celery/worker/control.py `_revoke`).
    ///
    /// # Errors
    /// `Backend`: not all of it is stored.
    fn revoke(&self, ids: &[String]) -> Result<()>;
}
