//! [`Item`]: a task as it is told to whoever asks (celery/worker/request.py `Request.info`).

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use crate::Result;
use crate::protocol::{AcceptContent, Body, Map, Message, Serializer, Value, repr};
use crate::task::Request;
use crate::worker::malformed::Fault;
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
    content_type: Option<Cow<'static, str>>,
    content_encoding: Option<Cow<'static, str>>,
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
            content_type: message.content_type.as_deref().map(copy),
            content_encoding: message.content_encoding.as_deref().map(copy),
            body: message.body.clone(),
        }
    }

    /// Decodes it; the headers say how it is compressed.
    ///
    /// # Errors
    /// `Decode` or `Refused`, which they were not when the message came.
    pub(crate) fn body(self, headers: &Map, accept: &AcceptContent) -> Result<Body> {
        let compression = headers.get("compression").cloned();
        let message = Message {
            headers: compression.map(|compression| ("compression", compression)).into_iter().collect(),
            content_type: self.content_type.map(Cow::into_owned),
            content_encoding: self.content_encoding.map(Cow::into_owned),
            body: self.body,
            ..Message::default()
        };
        Body::read(message.payload(accept)?).map_err(|error| Fault::Body(error).into_error())
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
        let body = |accept| self.content.clone().body(&self.request.headers, accept);
        let values = |accept| body(accept).map_or_else(|_| texts(), |body| (body.args.into(), body.kwargs.into()));
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

/// What nearly all messages say takes no memory: this is done for each task that begins.
fn copy(text: &str) -> Cow<'static, str> {
    match text {
        "application/json" => Cow::Borrowed("application/json"),
        "utf-8" => Cow::Borrowed("utf-8"),
        other => Cow::Owned(other.to_owned()),
    }
}

fn encodable(value: Value, serializer: Serializer) -> Value {
    match serializer.encode(&value) {
        Ok(_) => value,
        Err(_) => repr::saferepr(&value, repr::Limits::default()).into(),
    }
}

#[cfg(test)]
mod tests {
    use num_bigint::BigInt;

    use super::*;
    use crate::protocol::Compression;

    fn item(body: &Body, compression: Option<Compression>) -> Item {
        let mut message = Message { content_type: Some("application/json".to_owned()), ..Message::default() };
        let headers = Map::from([
            ("compression", Value::from(compression.map(|_| "application/x-gzip"))),
            ("argsrepr", "(1,)".into()),
            ("kwargsrepr", "{}".into()),
        ]);
        message.headers = headers.clone();
        message.set_body(body).unwrap();
        let request = Request { id: "i".into(), task: "t".into(), headers, ..Request::default() };
        Item::thawed(request, &message)
    }

    fn args(item: &Item, how: Arguments<'_>) -> Value {
        item.info(how).as_map().and_then(|info| info.get("args")).cloned().unwrap_or_default()
    }

    #[test]
    fn arguments_are_values_or_texts() {
        let accept = AcceptContent::default();
        let one = Body { args: vec![1.into()], ..Body::default() };
        for compression in [None, Some(Compression::Zlib)] {
            let item = item(&one, compression);
            assert_eq!(args(&item, Arguments::Values(&accept)), [1].into());
            assert_eq!(args(&item, Arguments::Texts), "(1,)".into());
        }
        // No number of MessagePack's.
        let large = BigInt::from(2).pow(70);
        let item = item(&Body { args: vec![large.clone().into()], ..Body::default() }, None);
        assert_eq!(args(&item, Arguments::Encodable(&accept, Serializer::Json)), [large].into());
        assert_eq!(args(&item, Arguments::Encodable(&accept, Serializer::Msgpack)), "[1180591620717411303424]".into());
    }
}
