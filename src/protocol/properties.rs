//! [`Properties`]: what a message carries beside its headers.

use super::{Map, Value};

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
        for (name, value) in map {
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
        for (name, value) in info {
            match (name.as_str(), value) {
                ("exchange", Value::String(text)) => self.exchange = Some(text),
                ("routing_key", Value::String(text)) => self.routing_key = Some(text),
                ("redelivered", value) => self.redelivered = value.is_truthy(),
                (_, value) => drop(rest.insert(name, value)),
            }
        }
        rest
    }

    /// The properties of a Redis envelope, in Kombu's order.
    pub(super) fn to_map(&self) -> Map {
        let mut map = Map::with_capacity(10 + self.other.len());
        set_text(&mut map, "correlation_id", self.correlation_id.as_deref());
        set_text(&mut map, "reply_to", self.reply_to.as_deref());
        for (name, value) in self.other.iter().filter(|(name, _)| *name != "delivery_info") {
            map.insert(name, value.clone());
        }
        if let Some(mode) = self.delivery_mode {
            map.insert("delivery_mode", mode);
        }
        set_text(&mut map, "expiration", self.expiration.as_deref());
        map.insert("delivery_info", self.delivery_info_to_write());
        if let Some(priority) = self.priority {
            map.insert("priority", priority);
        }
        map
    }

    fn delivery_info_to_write(&self) -> Value {
        let mut info = Map::with_capacity(3);
        set_text(&mut info, "exchange", self.exchange.as_deref());
        set_text(&mut info, "routing_key", self.routing_key.as_deref());
        if self.redelivered {
            info.insert("redelivered", true);
        }
        match self.other.get("delivery_info") {
            Some(Value::Map(rest)) => rest.iter().for_each(|(name, value)| drop(info.insert(name, value.clone()))),
            Some(odd) => return odd.clone(),
            None => {}
        }
        info.into()
    }
}

fn set_text(map: &mut Map, name: &str, text: Option<&str>) {
    if let Some(text) = text {
        map.insert(name, text);
    }
}
