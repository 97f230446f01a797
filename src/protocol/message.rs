//! [`Message`]: one message as a broker hands it over, its body not yet decoded.

use bytes::Bytes;

use super::{Map, Properties};

/// One message, whichever broker it came from. The body stays as the producer's bytes until somebody decodes it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Message {
    /// The headers, in the producer's order, unknown ones included.
    pub headers: Map,
    /// The properties beside the headers.
    pub properties: Properties,
    /// The MIME type that the body is decoded with; absent in malformed messages.
    pub content_type: Option<String>,
    /// `utf-8` or `binary`; absent in malformed messages.
    pub content_encoding: Option<String>,
    /// The serialised body, still compressed if the header `compression` says so.
    pub body: Bytes,
}
