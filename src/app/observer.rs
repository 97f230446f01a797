//! [`Observer`]: what a program is told of its worker, at the moments at which stock Celery's main process sends signals.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::protocol::Message;
use crate::task::Request;

/// Is told what happens. It is called from the worker's loop and from the runs themselves, and must not wait.
#[async_trait]
pub trait Observer: Send + Sync + fmt::Debug {
    /// Of how many messages more it can be told now; resolves when that is at least one. The worker takes in no more than that, so
    /// that who is slow to hear slows the intake, as a receiver of `task_received` does under Celery. Without limit, unless
    /// it says otherwise.
    async fn room(&self) -> usize {
        usize::MAX
    }

    /// A message was accepted and will be run: `task_received`.
    fn received(&self, _request: &Arc<Request>, _message: &Message) {}

    /// It was revoked, or its time has passed: `task_revoked`.
    fn revoked(&self, _request: &Arc<Request>, _message: &Message, _revocation: Revocation) {}

    /// A message that is no task's, without a reason, or one whose headers or body are wrong: `task_rejected`.
    fn rejected(&self, _message: &Message, _reason: Option<&str>) {}

    /// A message whose task nobody here knows: `task_unknown`.
    fn unknown(&self, _message: &Message, _name: &str, _id: &str) {}

    /// The worker consumes, over a new connection.
    fn connected(&self) {}

    /// It has lost its connection.
    fn disconnected(&self) {}

    /// It takes nothing more, and ends what runs if it is `cold`; told once.
    fn stopping(&self, _cold: bool) {}

    /// The worker consumes for the first time: `worker_ready`.
    fn ready(&self) {}

    /// A heartbeat leaves: `heartbeat_sent`.
    fn beats(&self) {}

    /// A signal of that name begins a shutdown, `Warm` or `Cold`, after which the process exits so: `worker_shutting_down`.
    fn shutting_down(&self, _signal: &str, _how: &str, _exit_code: u8) {}
}

/// Why a task is not run, or not to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revocation {
    /// Its time had passed.
    pub expired: bool,
    /// The signal with which it was ended while it ran.
    pub signal: Option<i64>,
}
