//! What becomes of a signature when it is sent: chains, groups, chords and their callbacks as the messages that stock
//! Celery would send (celery/canvas.py), planned as data.
//!
//! A [`Planner`] takes a [`Signature`](crate::protocol::Signature) and gives a [`Plan`]: [`Step`]s to be done in their
//! order, of which most send a [`Call`]. [`continuation`] holds what follows when a task has ended. //!
//! Nothing here sends, stores, reads a clock or draws a random number: ids come from [`Ids`], the time is handed in. What
//! a message carries may be hostile: whatever its form, it is an error or a plan, never a panic, in linear time.

mod call;
pub mod continuation;
mod plan;
mod rules;

pub use call::{Call, Defaults};
pub use plan::{Plan, Step};
pub use rules::{Chords, Given, Ids, Parent, Rules};
