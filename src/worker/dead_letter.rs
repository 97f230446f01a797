//! Dead letters: messages that stock Celery would throw away, kept with the reason.
//!
//! A dead letter is an ordinary message in an ordinary queue (`celeriac.dead-letters` unless configured otherwise), so
//! that every tool that reads queues can read it: the original's headers, properties and body, and one more header,
//! [`HEADER`], with the reason and where it came from. Taking that header away and putting the message into `queue`
//! again is all that a requeue needs: [`revived`].

use bytes::Bytes;
use jiff::Timestamp;
use uuid::Uuid;

use super::unknown;
use crate::config::{Config, QueueDefinition};
use crate::protocol::{DateTime, Exception, Map, Message, Properties, Value};
use crate::transport::{Content, Publication, Replacement, Undecodable};
use crate::{Error, ErrorKind, Result};

/// The header that makes a message a dead letter: a map with the fields of [`Note`].
pub(crate) const HEADER: &str = "x-celeriac-death";

/// The content type of a dead letter whose message was not even an envelope: the raw bytes are its body.
const RAW: &str = "application/data";

/// A worker that consumed its own dead letters would bury each of them again, for ever.
///
/// # Errors
/// `Configuration`
pub(crate) fn check(config: &Config, consumed: &[QueueDefinition]) -> Result<()> {
    let consumes = |queue: &&String| consumed.iter().any(|consumed| consumed.name == **queue);
    match config.dead_letter_queue.as_ref().filter(consumes) {
        None => Ok(()),
        Some(queue) => {
            let message = format!(
                "a worker cannot consume the queue of its own dead letters, {queue}: \
                 `dead-letters requeue` puts them back where they came from"
            );
            Err(Error::new(ErrorKind::Configuration, message))
        }
    }
}

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

/// What a dead letter says of itself.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Note {
    /// The letter's own id; a task that died twice has two letters.
    pub(crate) letter: String,
    /// Why it died, in words.
    pub(crate) reason: String,
    /// The queue that the message was taken from.
    pub(crate) queue: String,
    /// The exchange that the message had been sent to.
    pub(crate) exchange: String,
    /// The routing key that it had been sent with.
    pub(crate) routing_key: String,
    /// When it died, in ISO 8601.
    pub(crate) time: String,
    /// The node name of the worker that gave it up.
    pub(crate) hostname: String,
    /// The exception that was stored for the task, if one was.
    pub(crate) exception: Option<String>,
    /// The letter's body is all there was: bytes that are no message.
    pub(crate) raw: bool,
}

impl DeadLetters {
    /// The dead letter of a message.
    pub(crate) fn of_message(&self, message: Message, death: &Death<'_>) -> Publication {
        self.letter(message, death, false)
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
        self.letter(message, death, true)
    }

    fn letter(&self, mut message: Message, death: &Death<'_>, raw: bool) -> Publication {
        let note = Note {
            // Not from a generator that can be seeded: it must differ from those of all other workers.
            letter: Uuid::new_v4().simple().to_string()[..12].to_owned(),
            reason: death.reason.to_owned(),
            queue: death.queue.to_owned(),
            exchange: message.properties.exchange.clone().unwrap_or_default(),
            routing_key: message.properties.routing_key.clone().unwrap_or_else(|| death.queue.to_owned()),
            time: DateTime::from(death.time).to_string(),
            hostname: self.hostname.clone(),
            exception: death.exception.map(Exception::to_string),
            raw,
        };
        message.headers.insert(HEADER, note.into_map());
        Publication::to_queue(&self.queue, message)
    }
}

impl Note {
    /// What a message says of its death, if it is a dead letter.
    pub(crate) fn of(message: &Message) -> Option<Self> {
        let map = message.headers.get(HEADER)?.as_map()?;
        let text = |name| map.get(name).and_then(Value::as_str).map(str::to_owned);
        Some(Note {
            letter: text("letter").unwrap_or_default(),
            reason: text("reason").unwrap_or_default(),
            queue: text("queue").filter(|queue| !queue.is_empty())?,
            exchange: text("exchange").unwrap_or_default(),
            routing_key: text("routing_key").unwrap_or_default(),
            time: text("time").unwrap_or_default(),
            hostname: text("hostname").unwrap_or_default(),
            exception: text("exception"),
            raw: map.get("raw").is_some_and(Value::is_truthy),
        })
    }

    fn into_map(self) -> Map {
        let mut map = Map::from([
            ("letter", self.letter),
            ("reason", self.reason),
            ("queue", self.queue),
            ("exchange", self.exchange),
            ("routing_key", self.routing_key),
            ("time", self.time),
            ("hostname", self.hostname),
        ]);
        if let Some(exception) = self.exception {
            map.insert("exception", exception);
        }
        if self.raw {
            map.insert("raw", true);
        }
        map
    }
}

/// What a dead letter was before it died, and the queue that it is to go back to; `None`: it is no dead letter.
///
/// What workers counted of its life is forgotten with its death: it begins anew.
pub(crate) fn revived(message: &Message) -> Option<Replacement> {
    let note = Note::of(message)?;
    let queue = note.queue.as_str().into();
    if note.raw {
        return Some(Replacement { queue, content: Content::Raw(message.body.clone()) });
    }
    let mut message = message.clone();
    message.headers.remove(HEADER);
    message.headers.remove(unknown::HEADER);
    message.properties.exchange = Some(note.exchange);
    message.properties.routing_key = Some(note.routing_key);
    Some(Replacement { queue, content: Content::Message(Box::new(message)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(publication: Publication) -> Message {
        assert_eq!(publication.routing_key, "dead");
        publication.message
    }

    fn death(exception: &Exception) -> Death<'_> {
        Death { reason: "why", exception: Some(exception), queue: "q", time: Timestamp::UNIX_EPOCH }
    }

    fn letters() -> DeadLetters {
        DeadLetters { queue: "dead".into(), hostname: "celery@h".into() }
    }

    #[test]
    fn a_message_is_revived_as_it_was() {
        let mut message = Message {
            headers: Map::from([("task", "t"), ("id", "i")]),
            content_type: Some("application/json".into()),
            body: Bytes::from_static(b"[]"),
            ..Message::default()
        };
        message.properties.exchange = Some("topics".into());
        message.properties.routing_key = Some("a.b".into());
        message.properties.priority = Some(3);
        let exception = Exception::new("ValueError", "bad");
        let letter = letter(letters().of_message(message.clone(), &death(&exception)));
        let note = Note::of(&letter).unwrap();
        assert_eq!((note.reason.as_str(), note.queue.as_str(), note.raw), ("why", "q", false));
        assert_eq!((note.letter.len(), note.exception), (12, Some(exception.to_string())));
        let replacement = Replacement { queue: "q".into(), content: Content::Message(Box::new(message)) };
        assert_eq!(revived(&letter), Some(replacement));
    }

    #[test]
    fn bytes_that_were_no_message_are_revived_as_they_were() {
        let raw = Bytes::from_static(b"\xffno");
        let undecodable = Undecodable { reason: "bad".into(), raw: raw.clone() };
        let letter = letter(letters().of_bytes(&undecodable, &death(&Exception::new("E", "x"))));
        assert_eq!(revived(&letter), Some(Replacement { queue: "q".into(), content: Content::Raw(raw) }));
    }

    #[test]
    fn what_is_no_dead_letter_is_not_revived() {
        let with = |value: Value| Message { headers: Map::from([(HEADER, value)]), ..Message::default() };
        for message in [
            Message::default(),
            with("text".into()),
            with(Value::Map(Map::new())),
            with(Value::Map(Map::from([("queue", "")]))),
            with(Value::Map(Map::from([("queue", 5)]))),
        ] {
            assert_eq!(revived(&message), None, "{message:?}");
        }
    }
}
