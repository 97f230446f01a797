//! What becomes of a signature when it is sent: chains, groups, chords and their callbacks as the messages that stock
//! Celery would send (celery/canvas.py), planned as data.
//!
//! A [`Planner`] takes a [`Signature`](crate::protocol::Signature) and gives a [`Plan`]: [`Step`]s to be done in their
//! order, of which most send a [`Call`]. [`continuation`] holds what follows when a task has ended. The functions
//! [`chain`], [`group`], [`chord`] and their like build signatures.
//!
//! Nothing here sends, stores, reads a clock or draws a random number: ids come from [`Ids`], the time is handed in. What
//! a message carries may be hostile: whatever its form, it is an error or a plan, never a panic, in linear time.

mod apply;
mod build;
mod call;
mod chord;
pub mod continuation;
mod draft;
mod freeze;
mod link;
mod node;
mod options;
mod pipe;
mod plan;
mod results;
mod rules;
mod stamp;
mod steps;

pub use build::{chain, chord, chunks, group, map, starmap};
pub use call::{Call, Defaults};
pub use draft::Planner;
pub use plan::{Plan, Step};
pub use rules::{Chords, Given, Ids, Parent, Rules};
