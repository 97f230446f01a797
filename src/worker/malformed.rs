//! [`Malformed`]: a message that cannot be run, why, and what the log says of it.

use tracing::{error, warn};

use crate::app::Observer;
use crate::protocol::{BodyError, Embed, Exception, HeaderError, Map, Message, TaskHeaders, Value, repr};
use crate::task::Request;
use crate::transport::{Receipt, Undecodable};
use crate::{Error, ErrorKind};

/// A message that cannot be run.
#[derive(Debug)]
pub(crate) struct Malformed {
    pub(crate) delivery: Receipt,
    /// The message, or the bytes that are none.
    pub(crate) message: Result<Message, Undecodable>,
    /// Why, for the log and the dead letter.
    pub(crate) reason: String,
    /// Under what a FAILURE is stored; `None` without an id.
    pub(crate) request: Option<Request>,
    /// What `AsyncResult.get()` raises.
    pub(crate) exception: Exception,
    /// What was to follow it, where the body could be read.
    pub(crate) embed: Embed,
    class: Class,
}

/// What is wrong with a message.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Not a task message.
    NoTask,
    /// A header.
    Header(HeaderError),
    /// Nobody here knows the task.
    NotRegistered(String),
    /// Nothing says how to decode the body.
    NoContentType,
    /// The body does not decode, or is refused.
    Payload(Error),
    /// The body decodes to something else.
    Body(BodyError),
}

/// Which of Celery's four log messages fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Unknown,
    NotRegistered,
    Invalid,
    Undecodable,
}

impl Fault {
    /// The fault as an error, for where a message that was good before is read once more.
    pub(crate) fn into_error(self) -> Error {
        match self {
            Fault::Payload(error) => error,
            fault => Error::new(ErrorKind::Decode, fault.reason()),
        }
    }

    fn reason(&self) -> String {
        match self {
            Fault::NoTask => {
                "not a task message: no header 'task', and the payload is not a task of version 1".to_owned()
            }
            Fault::Header(error) => error.to_string(),
            Fault::NotRegistered(name) => format!("Received unregistered task of type {}", quoted(name)),
            Fault::NoContentType => "the message has no content type".to_owned(),
            Fault::Payload(error) => error.to_string(),
            Fault::Body(error) => error.to_string(),
        }
    }

    fn class(&self) -> Class {
        match self {
            Fault::NoTask => Class::Unknown,
            Fault::NotRegistered(_) => Class::NotRegistered,
            Fault::Payload(error) if error.kind() != ErrorKind::Refused => Class::Undecodable,
            _ => Class::Invalid,
        }
    }

    fn exception(&self) -> Exception {
        match self {
            Fault::NotRegistered(name) => Exception::celery("NotRegistered", name.as_str()),
            Fault::Header(HeaderError::TimeOutOfRange { .. }) => Exception::new("OverflowError", self.reason()),
            Fault::Payload(error) => {
                let class = if error.kind() == ErrorKind::Refused { "ContentDisallowed" } else { "DecodeError" };
                Exception::with_args(class, "kombu.exceptions", [self.reason()])
            }
            _ => Exception::celery("InvalidTaskError", self.reason()),
        }
    }
}

impl Malformed {
    /// Tells what stock Celery tells of such a message; of one that does not decode it tells nothing
    /// (celery/worker/consumer/consumer.py `Consumer.on_unknown_message`, `on_unknown_task`, `on_invalid_task`).
    pub(crate) fn tell(&self, observer: &dyn Observer) {
        let Ok(message) = &self.message else { return };
        match (self.class, &self.request) {
            (Class::Unknown, _) => observer.rejected(message, None),
            (Class::Invalid, _) => observer.rejected(message, Some(&self.reason)),
            (Class::NotRegistered, Some(request)) => observer.unknown(message, &request.task, &request.id),
            (Class::NotRegistered, None) | (Class::Undecodable, _) => {}
        }
    }

    pub(crate) fn new(
        delivery: Receipt,
        message: Message,
        fault: Fault,
        named: Option<(String, String)>,
        followed: Option<(TaskHeaders, Embed)>,
    ) -> Self {
        let mut request = named.map(|(id, task)| request(id, task, &message));
        let embed = match (&mut request, followed) {
            (Some(request), Some((headers, embed))) => {
                (request.group, request.group_index) = (headers.group, headers.group_index);
                (request.root_id, request.parent_id) = (headers.root_id, headers.parent_id);
                embed
            }
            _ => Embed::default(),
        };
        Malformed {
            reason: fault.reason(),
            exception: fault.exception(),
            class: fault.class(),
            delivery,
            message: Ok(message),
            request,
            embed,
        }
    }

    pub(crate) fn no_message(delivery: Receipt, undecodable: Undecodable) -> Self {
        Malformed {
            delivery,
            reason: undecodable.reason.clone(),
            exception: Exception::with_args("DecodeError", "kombu.exceptions", [undecodable.reason.clone()]),
            class: Class::Undecodable,
            message: Err(undecodable),
            request: None,
            embed: Embed::default(),
        }
    }

    /// Whether nobody here knows its task.
    pub(crate) fn is_unregistered(&self) -> bool {
        self.class == Class::NotRegistered
    }

    /// Whether monitors are told: of what cannot be run only the task that nobody knows has an event
    /// (celery/worker/consumer/consumer.py `Consumer.on_unknown_task`).
    pub(crate) fn is_told(&self) -> bool {
        self.is_unregistered() && self.request.is_some()
    }

    /// The words of celery/worker/consumer/consumer.py: `UNKNOWN_FORMAT`, `UNKNOWN_TASK_ERROR`, `INVALID_TASK_ERROR`,
    /// `MESSAGE_DECODE_ERROR`; the message is not "discarded" here but kept.
    pub(crate) fn log(&self) {
        let (reason, dump) = (&self.reason, self.dump());
        match self.class {
            Class::Unknown => {
                warn!(
                    "Received and deleted unknown message.  Wrong destination?!?\n\nThe full contents of the message body was: {dump}\n"
                );
            }
            Class::NotRegistered => error!(
                "{reason}.\nThe message has been ignored and is kept as a dead letter.\n\n\
                 Did you remember to register the task with the app?\n\nThe full contents of the message body was:\n{dump}\n"
            ),
            Class::Invalid => error!(
                "Received invalid task message: {reason}\nThe message has been ignored and is kept as a dead letter.\n\n\
                 The full contents of the message body was:\n{dump}\n"
            ),
            Class::Undecodable => error!(critical = true, "Can't decode message body: {reason} {dump}"),
        }
    }

    /// The message as `Consumer._message_report` shows it; long bodies are cut.
    fn dump(&self) -> String {
        let message = match &self.message {
            Ok(message) => message,
            Err(undecodable) => return format!("[body: {}]", shown(&undecodable.raw)),
        };
        let headers = repr::saferepr(&Value::Map(message.headers.clone()), repr::Limits::default());
        format!(
            "[type:{} encoding:{} headers:{headers}]\n\nbody: {}",
            quoted(message.content_type.as_deref().unwrap_or("None")),
            quoted(message.content_encoding.as_deref().unwrap_or("None")),
            shown(&message.body),
        )
    }
}

fn quoted(text: &str) -> String {
    repr::repr(&Value::from(text))
}

fn shown(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(1024)];
    format!("{} ({}b)", repr::saferepr(&Value::Bytes(cut.to_vec()), repr::Limits::default()), bytes.len())
}

/// As much of a request as a refused message has.
fn request(id: String, task: String, message: &Message) -> Request {
    Request {
        id,
        task,
        headers: Map::new(),
        reply_to: message.properties.reply_to.clone(),
        correlation_id: message.properties.correlation_id.clone(),
        ..Request::default()
    }
}
