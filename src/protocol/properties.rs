//! [`Properties`]: what a message carries beside its headers.

use super::json::{self, ObjectWriter};
use super::{Map, Value};
use crate::Result;

/// The properties of a message (kombu/messaging.py `Producer.publish`), unknown ones kept in `other`.
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
    /// Every other property, in the producer's order; also a known one whose value is of another type than Kombu's.
    pub other: Map,
}

impl Properties {
    /// A property kept in `other`.
    pub fn other(&self, name: &str) -> Option<&Value> {
        self.other.get(name)
    }

    /// What a task sees as `request.delivery_info` (celery/worker/request.py `Request.__init__`): `exchange`,
    /// `routing_key`, `priority` and `redelivered`.
    pub fn delivery_info(&self) -> Map {
        Map::from([
            ("exchange", Value::from(self.exchange.as_deref())),
            ("routing_key", self.routing_key.as_deref().into()),
            ("priority", self.priority.into()),
            ("redelivered", self.redelivered.into()),
        ])
    }

    /// Sorts the properties of a Redis envelope into fields.
    pub(super) fn from_map(map: Map) -> Self {
        let mut properties = Properties::default();
        for (name, value) in map.into_pairs() {
            if let Some(value) = properties.set(&name, value) {
                properties.other.insert(name, value);
            }
        }
        properties
    }

    /// Sets a known property; gives the value back if it does not fit.
    fn set(&mut self, name: &str, value: Value) -> Option<Value> {
        match (name, value) {
            ("correlation_id", Value::String(text)) => self.correlation_id = Some(text),
            ("reply_to", Value::String(text)) => self.reply_to = Some(text),
            ("expiration", Value::String(text)) => self.expiration = Some(text),
            ("priority", Value::Int(number)) => self.priority = Some(number),
            ("delivery_mode", Value::Int(number @ 0..=255)) => self.delivery_mode = u8::try_from(number).ok(),
            ("delivery_info", Value::Map(info)) => {
                let rest = self.set_delivery_info(info);
                return Some(Value::Map(rest)).filter(Value::is_truthy);
            }
            (_, value) => return Some(value),
        }
        None
    }

    /// Takes what is known out of the delivery info and gives back the rest.
    fn set_delivery_info(&mut self, info: Map) -> Map {
        let mut rest = Map::new();
        for (name, value) in info.into_pairs() {
            match (&*name, value) {
                ("exchange", Value::String(text)) => self.exchange = Some(text),
                ("routing_key", Value::String(text)) => self.routing_key = Some(text),
                ("redelivered", value) => self.redelivered = value.is_truthy(),
                (_, value) => drop(rest.insert(name, value)),
            }
        }
        rest
    }

    /// Appends the properties of a Redis envelope, in Kombu's order, with what the envelope adds to them.
    pub(super) fn write(&self, delivery_tag: &str, out: &mut Vec<u8>) -> Result<()> {
        let mut object = ObjectWriter::begin(out);
        object.text_if_any("correlation_id", self.correlation_id.as_deref());
        object.text_if_any("reply_to", self.reply_to.as_deref());
        for (name, value) in self.other.iter().filter(|(name, _)| *name != "delivery_info") {
            object.value(name, value)?;
        }
        if let Some(mode) = self.delivery_mode {
            object.value("delivery_mode", &mode.into())?;
        }
        object.text_if_any("expiration", self.expiration.as_deref());
        self.write_delivery_info(object.key("delivery_info"))?;
        if self.priority.is_some() || !self.other.contains_key("priority") {
            object.value("priority", &self.priority.unwrap_or(0).into())?;
        }
        object.text("body_encoding", "base64");
        object.text("delivery_tag", delivery_tag);
        object.end();
        Ok(())
    }

    fn write_delivery_info(&self, out: &mut Vec<u8>) -> Result<()> {
        let rest = match self.other.get("delivery_info") {
            Some(Value::Map(rest)) => Some(rest),
            Some(odd) => return json::write(odd, out),
            None => None,
        };
        let mut info = ObjectWriter::begin(out);
        info.text_if_any("exchange", self.exchange.as_deref());
        info.text_if_any("routing_key", self.routing_key.as_deref());
        if self.redelivered {
            info.value("redelivered", &true.into())?;
        }
        rest.map_or(Ok(()), |rest| info.pairs(rest))?;
        info.end();
        Ok(())
    }
}
