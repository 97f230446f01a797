//! The wire, as plain values: bytes to [`Message`] to typed headers and body, and back, with no connection in sight.
//!
//! Nothing here does I/O, reads a clock or knows a transport. What a producer wrote and we do not know is kept and
//! written again. Golden bytes recorded from real Celery stand in `protocol-fixtures/`.

mod body;
mod bridge;
mod compression;
mod datetime;
pub(crate) mod digits;
pub mod envelope;
mod exception;
pub(crate) mod float;
mod headers;
pub mod json;
mod message;
mod meta;
pub mod msgpack;
mod outgoing;
mod properties;
pub mod repr;
mod result_tuple;
mod serializer;
mod signature;
mod state;
mod value;
pub mod yaml;

pub use body::{Body, BodyError, Embed};
pub use bridge::{from_value, to_value};
pub use compression::Compression;
pub use datetime::{DateTime, Time};
pub use exception::Exception;
pub use headers::{HeaderError, TaskHeaders};
pub use message::Message;
pub use meta::{MetaResult, TaskMeta};
pub use outgoing::OutgoingTask;
pub use properties::Properties;
pub use result_tuple::ResultTuple;
pub use serializer::{AcceptContent, Serializer, deserialize};
pub use signature::{Kind, Signature};
pub use state::State;
pub use value::{Bytes, Date, Decimal, IntoIter, Map, Uuid, Value};

/// How deep values may be nested, as Python's recursion limit bounds them for Celery: what is within it can be copied,
/// compared and dropped on the stack of any thread.
const MAX_DEPTH: usize = 1000;
