//! [`Item`]: a task as it is told to whoever asks (celery/worker/request.py `Request.info`).

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use crate::Result;
use crate::protocol::{AcceptContent, Body, Map, Message, Serializer, Value, repr};
use crate::task::Request;
use crate::worker::request::Work;
use crate::worker::running::Run;

/// A task that this worker has, copied out of the loop's state without decoding anything.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) request: Arc<Request>,
    content: Content,
    begun: Option<Begun>,
}

/// What a message's arguments are decoded from, beside its headers. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Content {
    content_type: Option<String>,
    content_encoding: Option<String>,
    body: Bytes,
}

#[derive(Debug)]
struct Begun {
    at: Timestamp,
    is_acknowledged: bool,
}

/// How arguments are told.
#[derive(Debug, Clone, Copy)]
pub(super) enum Arguments<'a> {
    /// As the texts that the producer wrote.
    Texts,
    /// As values.
    Values(&'a AcceptContent),
    /// As values where this serializer has a form for them, and as texts where not.
    Encodable(&'a AcceptContent, Serializer),
}

impl Content {
    pub(crate) fn of(message: &Message) -> Self {
        Content {
            content_type: message.content_type.clone(),
            content_encoding: message.content_encoding.clone(),
            body: message.body.clone(),
        }
    }

    /// The arguments by position and by name.
    fn arguments(&self, headers: &Map, accept: &AcceptContent) -> Result<(Value, Value)> {
        let compression = headers.get("compression").cloned();
        let message = Message {
            headers: compression.map(|compression| ("compression", compression)).into_iter().collect(),
            content_type: self.content_type.clone(),
            content_encoding: self.content_encoding.clone(),
            body: self.body.clone(),
            ..Message::default()
        };
        // What is no body was refused when it came.
        let body = Body::read(message.payload(accept)?).unwrap_or_default();
        Ok((body.args.into(), body.kwargs.into()))
    }
}

impl Item {
    /// One that waits.
    pub(super) fn waiting(work: &Work) -> Self {
        Item { request: Arc::clone(&work.request), content: Content::of(&work.message), begun: None }
    }

    /// One that waits, and was kept as its message.
    pub(super) fn thawed(request: Request, message: &Message) -> Self {
        Item { request: Arc::new(request), content: Content::of(message), begun: None }
    }

    /// One that runs.
    pub(super) fn running(run: &Run) -> Self {
        let begun = Begun { at: run.at, is_acknowledged: !run.is_late };
        Item { request: Arc::clone(&run.request), content: run.content.clone(), begun: Some(begun) }
    }

    /// What is told of it.
    pub(super) fn info(&self, arguments: Arguments<'_>) -> Value {
        let request = &*self.request;
        let shadow = request.headers.get("shadow").and_then(Value::as_str).filter(|shadow| !shadow.is_empty());
        let (args, kwargs) = self.arguments(arguments);
        let begun = self.begun.as_ref();
        Value::Map(Map::from([
            ("id", Value::from(request.id.as_str())),
            ("name", shadow.unwrap_or(&request.task).into()),
            ("args", args),
            ("kwargs", kwargs),
            ("type", request.task.as_str().into()),
            ("hostname", request.hostname.as_str().into()),
            ("time_start", begun.map(|begun| begun.at.as_microsecond() as f64 / 1e6).into()),
            ("acknowledged", begun.is_some_and(|begun| begun.is_acknowledged).into()),
            ("delivery_info", request.delivery_info.clone().into()),
            ("worker_pid", begun.map(|_| std::process::id()).into()),
        ]))
    }

    fn arguments(&self, how: Arguments<'_>) -> (Value, Value) {
        let text = |name| self.request.headers.get(name).cloned().unwrap_or_else(|| "".into());
        let texts = || (text("argsrepr"), text("kwargsrepr"));
        let values = |accept| self.content.arguments(&self.request.headers, accept).unwrap_or_else(|_| texts());
        match how {
            Arguments::Texts => texts(),
            Arguments::Values(accept) => values(accept),
            Arguments::Encodable(accept, serializer) => {
                let (args, kwargs) = values(accept);
                (encodable(args, serializer), encodable(kwargs, serializer))
            }
        }
    }
}

fn encodable(value: Value, serializer: Serializer) -> Value {
    match serializer.encode(&value) {
        Ok(_) => value,
        Err(_) => repr::saferepr(&value, repr::Limits::default()).into(),
    }
}
