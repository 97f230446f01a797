//! Dead letters: messages that stock Celery would throw away, kept with the reason.
//!
//! A dead letter is an ordinary message in an ordinary queue (`celeriac.dead-letters` unless configured otherwise), so
//! that every tool that reads queues can read it: the original's headers, properties and body, and one more header,
//! [`HEADER`], with the reason and where it came from. Taking that header away and publishing the message to `queue`
//! again is all that a requeue needs.

use bytes::Bytes;
use jiff::Timestamp;

use crate::protocol::{DateTime, Exception, Map, Message, Properties};
use crate::transport::{Publication, Undecodable};

/// The header that makes a message a dead letter: a map of `reason`, `queue`, `exchange`, `routing_key`, `time`,
/// `hostname` and, where there is one, `exception`.
pub(crate) const HEADER: &str = "x-celeriac-death";

/// The content type of a dead letter whose message was not even an envelope: the raw bytes are its body.
const RAW: &str = "application/data";

/// Makes dead letters for one worker.
#[derive(Debug, Clone)]
pub(crate) struct DeadLetters {
    /// The queue that keeps them.
    pub(crate) queue: String,
    /// The worker's node name.
    pub(crate) hostname: String,
}

/// Why a message is a dead letter.
#[derive(Debug, Clone)]
pub(crate) struct Death<'a> {
    /// In words.
    pub(crate) reason: &'a str,
    /// The exception that was stored for the task, if one was.
    pub(crate) exception: Option<&'a Exception>,
    /// The queue that the message was taken from.
    pub(crate) queue: &'a str,
    /// When.
    pub(crate) time: Timestamp,
}

impl DeadLetters {
    /// The dead letter of a message.
    pub(crate) fn of_message(&self, mut message: Message, death: &Death<'_>) -> Publication {
        let note = self.note(death, &message.properties);
        message.headers.insert(HEADER, note);
        Publication::to_queue(&self.queue, message)
    }

    /// The dead letter of bytes that are no message.
    pub(crate) fn of_bytes(&self, undecodable: &Undecodable, death: &Death<'_>) -> Publication {
        let message = Message {
            headers: Map::default(),
            properties: Properties::default(),
            content_type: Some(RAW.to_owned()),
            content_encoding: Some("binary".to_owned()),
            body: Bytes::clone(&undecodable.raw),
        };
        self.of_message(message, death)
    }

    fn note(&self, death: &Death<'_>, properties: &Properties) -> Map {
        let mut note = Map::default();
        note.insert("reason", death.reason);
        note.insert("queue", death.queue);
        note.insert("exchange", properties.exchange.clone().unwrap_or_default());
        note.insert("routing_key", properties.routing_key.clone().unwrap_or_else(|| death.queue.to_owned()));
        note.insert("time", DateTime::from(death.time).to_string());
        note.insert("hostname", self.hostname.clone());
        if let Some(exception) = death.exception {
            note.insert("exception", exception.to_string());
        }
        note
    }
}
