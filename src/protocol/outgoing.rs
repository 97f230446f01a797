//! [`OutgoingTask`]: what a producer says, made into a message.

use std::time::Duration;

use super::{Body, Compression, Map, Message, Properties, Serializer, Value, datetime, repr};
use crate::Result;

/// A call of a task that is to be sent: the arguments of Celery's `as_task_v2` and of its sender (celery/app/amqp.py), and
/// those of Kombu's `Producer.publish`.
///
/// What is left at its default is what Celery 5.7 writes for a plain `delay()`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OutgoingTask {
    /// The registered name.
    pub task: String,
    /// The task's id.
    pub id: String,
    /// Arguments, and what is to follow.
    pub body: Body,
    /// A name that replaces `task` in logs and events.
    pub shadow: Option<String>,
    /// When to run at the earliest: a [`Value::DateTime`], or text that is passed on as it is.
    pub eta: Value,
    /// When no longer to run: a [`Value::DateTime`], or text that is passed on as it is. The transport needs `expiration`
    /// beside it.
    pub expires: Value,
    /// The group's id.
    pub group: Option<String>,
    /// The position in the group.
    pub group_index: Option<i64>,
    /// How often the task was retried.
    pub retries: u32,
    /// The hard limit in seconds.
    pub time_limit: Value,
    /// The soft limit in seconds.
    pub soft_time_limit: Value,
    /// The id of the workflow's first task; the task's own if there is none.
    pub root_id: Option<String>,
    /// The id of the task that sends this one.
    pub parent_id: Option<String>,
    /// What stands for the arguments in logs and events; computed if there is none.
    pub argsrepr: Option<String>,
    /// What stands for the keyword arguments in logs and events; computed if there is none.
    pub kwargsrepr: Option<String>,
    /// The sender: `gen<pid>@<host>`.
    pub origin: String,
    /// Whether the result is to be ignored; `None` leaves it to the task.
    pub ignore_result: Option<bool>,
    /// How often the task was replaced by another.
    pub replaced_task_nesting: i64,
    /// The names of the stamps.
    pub stamped_headers: Option<Vec<String>>,
    /// The stamps' values.
    pub stamps: Map,
    /// The user's own headers, which win over Celery's.
    pub headers: Map,
    /// Where an `rpc://` producer wants the result.
    pub reply_to: String,
    /// The priority. `None`: 0 on Redis, and none on RabbitMQ, as of a task that a stock worker knows.
    pub priority: Option<i64>,
    /// Whether the message may be lost with the broker (`delivery_mode` 1).
    pub transient: bool,
    /// After how long the broker may drop the message.
    pub expiration: Option<Duration>,
    /// The exchange, `""` for the default one.
    pub exchange: String,
    /// The routing key: on the default exchange, the queue's name.
    pub routing_key: String,
    /// How the body is written.
    pub serializer: Serializer,
    /// How the body is compressed.
    pub compression: Option<Compression>,
    /// Properties that Celery does not know.
    pub properties: Map,
}

impl OutgoingTask {
    /// A call with arguments by position; the rest at its default.
    pub fn new(task: impl Into<String>, id: impl Into<String>, args: Vec<Value>) -> Self {
        let body = Body { args, ..Body::default() };
        OutgoingTask { task: task.into(), id: id.into(), body, ..OutgoingTask::default() }
    }

    /// The message: headers and properties in the order of Celery 5.7, the body serialized and compressed. A value that
    /// the serializer has no form for is an error of kind [`ErrorKind::Encode`](crate::ErrorKind::Encode).
    pub fn into_message(mut self) -> Result<Message> {
        let mut headers = self.headers_of_celery();
        headers.extend(std::mem::take(&mut self.headers));
        let mut body = self.serializer.encode(&std::mem::take(&mut self.body).into_value())?;
        if let Some(compression) = self.compression {
            body = compression.compress(&body)?;
            headers.insert("compression", compression.header());
        }
        Ok(Message {
            headers,
            content_type: Some(self.serializer.content_type().to_owned()),
            content_encoding: Some(self.serializer.content_encoding().to_owned()),
            body: body.into(),
            properties: self.into_properties(),
        })
    }

    fn headers_of_celery(&self) -> Map {
        let Body { args, kwargs, .. } = &self.body;
        let argsrepr = self.argsrepr.clone().unwrap_or_else(|| repr::argsrepr(args, repr::Limits::default()));
        let kwargsrepr = self.kwargsrepr.clone().unwrap_or_else(|| repr::kwargsrepr(kwargs, repr::Limits::default()));
        let root_id = self.root_id.as_deref().filter(|id| !id.is_empty()).unwrap_or(&self.id);
        Map::from([
            ("lang", Value::from("py")),
            ("task", self.task.as_str().into()),
            ("id", self.id.as_str().into()),
            ("shadow", self.shadow.as_deref().into()),
            ("eta", moment(&self.eta)),
            ("expires", moment(&self.expires)),
            ("group", self.group.as_deref().into()),
            ("group_index", self.group_index.into()),
            ("retries", self.retries.into()),
            ("timelimit", [self.time_limit.clone(), self.soft_time_limit.clone()].into()),
            ("root_id", root_id.into()),
            ("parent_id", self.parent_id.as_deref().into()),
            ("argsrepr", argsrepr.into()),
            ("kwargsrepr", kwargsrepr.into()),
            ("origin", self.origin.as_str().into()),
            ("ignore_result", self.ignore_result.into()),
            ("replaced_task_nesting", self.replaced_task_nesting.into()),
            ("stamped_headers", self.stamped_headers.clone().into()),
            ("stamps", self.stamps.clone().into()),
        ])
    }

    fn into_properties(self) -> Properties {
        Properties {
            correlation_id: Some(self.id),
            reply_to: Some(self.reply_to),
            delivery_mode: Some(if self.transient { 1 } else { 2 }),
            priority: self.priority,
            expiration: self.expiration.map(|expiration| expiration.as_millis().to_string()),
            exchange: Some(self.exchange),
            routing_key: Some(self.routing_key),
            redelivered: false,
            other: self.properties,
        }
    }
}

/// A time as the headers hold it: text, or null.
fn moment(value: &Value) -> Value {
    match value {
        Value::DateTime(moment) => datetime::text_of(|out| moment.write(out)).into(),
        value if value.is_truthy() => value.clone(),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Embed, envelope, json};

    /// The call that `testdata/envelope.json` records.
    fn recorded_call() -> OutgoingTask {
        let link = r#"[{"task": "proj.add", "args": [4], "kwargs": {}, "options": {}, "subtask_type": null, "immutable": false}]"#;
        let callbacks = Some(json::parse(link.as_bytes()).unwrap());
        OutgoingTask {
            body: Body {
                args: vec![2.into(), 3.into()],
                kwargs: Map::from([("z", "é😀")]),
                embed: Embed { callbacks, ..Embed::default() },
            },
            shadow: Some("sh".into()),
            eta: Value::DateTime("2026-11-22T18:48:48.014844+00:00".parse().unwrap()),
            expires: "2026-11-22T18:49:43.014844+00:00".into(),
            time_limit: 10.into(),
            soft_time_limit: 5.into(),
            origin: "gen13241@vm".into(),
            ignore_result: Some(false),
            headers: Map::from([("user", "h")]),
            reply_to: "76e089cf-dca5-3c33-9f5a-548766a81cd1".into(),
            priority: Some(3),
            expiration: Some(Duration::from_secs(60)),
            routing_key: "celery".into(),
            ..OutgoingTask::new("proj.add", "bb8b6c91-00e9-4d18-a9cc-a11fa84b97cd", vec![])
        }
    }

    #[test]
    fn a_message_is_celerys_own_byte_for_byte() {
        let message = recorded_call().into_message().unwrap();
        let mut out = Vec::new();
        envelope::write(&message, "d3675ddb-f13a-48f7-b0d3-f1ececefed02", &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), include_str!("testdata/envelope.json").trim());
    }

    #[test]
    fn the_users_headers_win() {
        let call = OutgoingTask { headers: Map::from([("eta", "mine"), ("retries", "9")]), ..recorded_call() };
        let headers = call.into_message().unwrap().headers;
        assert_eq!(headers.get("eta"), Some(&"mine".into()));
        assert_eq!(headers.get("retries"), Some(&"9".into()));
        assert_eq!(headers.len(), 19);
    }

    #[test]
    fn a_compressed_body_names_its_compression() {
        let call = OutgoingTask { compression: Some(Compression::Zstd), ..recorded_call() };
        let message = call.into_message().unwrap();
        assert_eq!(message.headers.get("compression"), Some(&"application/zstd".into()));
        let body = Body::read(message.payload(&Default::default()).unwrap()).unwrap();
        assert_eq!(body, recorded_call().body);
    }
}
