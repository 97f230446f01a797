//! The wire, as plain values: bytes to [`Message`] to typed headers and body, and back, with no connection in sight.
//!
//! Nothing here does I/O, reads a clock or knows a transport. What a producer wrote and we do not know is kept and
//! written again. Golden bytes recorded from real Celery stand in `protocol-fixtures/`.

mod compression;
mod datetime;
mod exception;
mod message;
mod meta;
mod value;

pub use compression::Compression;
pub use datetime::DateTime;
pub use exception::Exception;
pub use message::{Message, Properties};
pub use meta::{MetaResult, State, TaskMeta};
pub use value::{Map, Value};
