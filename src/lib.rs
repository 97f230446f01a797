//! Celeriac: the Celery worker in Rust.
//!
//! A Django project, or any other Python program, keeps calling `.delay()` with stock Celery; an [`App`] of this crate
//! consumes the same messages, runs the handlers that were declared with [`macro@task`], and writes results that
//! `AsyncResult` cannot tell from a stock worker's.
//!
//! The rooms are layered and imports point down only (`tests/tidy.rs` holds it):
//!
//! ```text
//! 6  cli  testing
//! 5  worker  beat
//! 4  app
//! 3  transport  backend  task  control  events
//! 2  redis_client  amqp_client  routing  canvas  trace
//! 1  protocol  config  url  tls  metrics  http  schedule    pure, but for tls and http: no tokio, no sockets, no reading of clocks
//! 0  error  time
//! ```

// Tests may unwrap and may share modules; what ships may not panic on what came from outside.
#![warn(clippy::unwrap_used, unreachable_pub)]

// The macro's code names the crate; so must that of our own tests.
extern crate self as celeriac;

pub mod amqp_client;
pub mod app;
pub mod backend;
pub mod beat;
pub mod canvas;
pub mod cli;
pub mod config;
pub mod control;
mod error;
pub mod events;
mod http;
mod metrics;
pub mod protocol;
pub mod redis_client;
pub mod routing;
pub mod schedule;
pub mod task;
#[cfg(feature = "testing")]
pub mod testing;
pub mod time;
pub mod tls;
mod trace;
pub mod transport;
mod url;
pub mod worker;

pub use app::{App, AsyncResult, Entry, GroupResult};
pub use async_trait::async_trait;
pub use canvas::{chain, chord, group};
#[doc = include_str!("task/attribute.md")]
pub use celeriac_macros::task;
pub use error::{Error, ErrorKind, Result};
pub use task::{Interrupt, Outcome, TaskContext, signature};

/// The README's examples compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
