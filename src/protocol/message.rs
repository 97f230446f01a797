//! [`Message`]: one message as a broker hands it over, its body not yet decoded.

use bytes::Bytes;

use super::{Map, Value};

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

/// The properties of a message (`spec`: kombu/messaging.py `Producer.publish`), unknown ones kept in `other`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Properties {
    /// The task's id.
    pub correlation_id: Option<String>,
    /// Where an `rpc://` producer wants the result; always set by Celery, `""` possible.
    pub reply_to: Option<String>,
    /// 2 persistent, 1 transient.
    pub delivery_mode: Option<u8>,
    /// 0 to 9 on Redis, where 0 is taken first; 0 to 255 on AMQP, where 0 is taken last.
    pub priority: Option<i64>,
    /// Milliseconds as text, present when the task expires.
    pub expiration: Option<String>,
    /// The exchange that the message was published to, `""` for the default one.
    pub exchange: Option<String>,
    /// The routing key that it was published with.
    pub routing_key: Option<String>,
    /// Whether the broker, or a restoring worker, says that it was delivered before.
    pub redelivered: bool,
    /// Every other property, in the producer's order.
    pub other: Map,
}

impl Properties {
    /// A property kept in `other`.
    pub fn other(&self, name: &str) -> Option<&Value> {
        self.other.get(name)
    }
}
