//! Messages as AMQP carries them: basic properties and a body.

use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::ShortString;

use super::fields::{map, size, table};
use super::short;
use crate::protocol::{Map, Message, Properties, Value};
use crate::{Error, ErrorKind, Result};

/// What a header frame holds beside the table of headers, at most: twelve short strings and a few numbers.
const BESIDE_HEADERS: usize = 14 + 2 + 1 + 1 + 8 + 10 * 256;

/// The properties that Kombu does not name, as py-amqp calls them.
const OTHER: [&str; 6] = ["message_id", "timestamp", "type", "user_id", "app_id", "cluster_id"];

/// The message of a delivery, taken out of it.
///
/// # Errors
/// `Decode`: its headers cannot be read.
pub(crate) fn read(delivery: &mut Delivery) -> Result<Message> {
    let properties = std::mem::take(&mut delivery.properties);
    let text = |text: &Option<ShortString>| text.as_ref().map(ShortString::to_string);
    Ok(Message {
        headers: properties.headers().as_ref().map(map).transpose()?.unwrap_or_default(),
        properties: Properties {
            correlation_id: text(properties.correlation_id()),
            reply_to: text(properties.reply_to()),
            delivery_mode: *properties.delivery_mode(),
            priority: properties.priority().map(i64::from),
            expiration: text(properties.expiration()),
            exchange: Some(std::mem::take(&mut delivery.exchange).into()),
            routing_key: Some(std::mem::take(&mut delivery.routing_key).into()),
            redelivered: delivery.redelivered,
            other: read_other(&properties),
        },
        content_type: text(properties.content_type()),
        content_encoding: text(properties.content_encoding()),
        body: std::mem::take(&mut delivery.data).into(),
    })
}

/// The properties of a message that is to be published over a connection with frames of up to `frame_max` bytes.
///
/// # Errors
/// `Encode`: something has no form in AMQP, or the headers do not fit into one frame, for which the server would end
/// the connection.
pub(crate) fn properties(message: &Message, frame_max: usize) -> Result<BasicProperties> {
    let headers = table(&message.headers)?;
    let bytes = size(&headers);
    if bytes + BESIDE_HEADERS > frame_max {
        let message = format!("headers of {bytes} bytes do not fit into a frame of {frame_max}");
        return Err(Error::new(ErrorKind::Encode, message));
    }
    let known = &message.properties;
    let mut properties = BasicProperties::default().with_headers(headers);
    for (text, with) in [
        (
            &message.content_type,
            BasicProperties::with_content_type as fn(BasicProperties, ShortString) -> BasicProperties,
        ),
        (&message.content_encoding, BasicProperties::with_content_encoding),
        (&known.correlation_id, BasicProperties::with_correlation_id),
        (&known.reply_to, BasicProperties::with_reply_to),
        (&known.expiration, BasicProperties::with_expiration),
    ] {
        if let Some(text) = text {
            properties = with(properties, short(text.as_str())?);
        }
    }
    // A stock worker says nothing of the priority of what follows a task, unless that has one.
    if let Some(priority) = known.priority {
        let priority = u8::try_from(priority);
        let priority = priority.map_err(|_| Error::new(ErrorKind::Encode, "a priority is not between 0 and 255"))?;
        properties = properties.with_priority(priority);
    }
    properties = properties.with_delivery_mode(known.delivery_mode.unwrap_or(2));
    write_other(properties, &known.other)
}

fn read_other(properties: &BasicProperties) -> Map {
    let text = |text: &Option<ShortString>| text.as_ref().map(|text| Value::from(text.as_str()));
    let values = [
        text(properties.message_id()),
        properties.timestamp().and_then(|seconds| i64::try_from(seconds).ok()).map(Value::Int),
        text(properties.kind()),
        text(properties.user_id()),
        text(properties.app_id()),
        text(properties.cluster_id()),
    ];
    let mut other = Map::new();
    for (name, value) in OTHER.into_iter().zip(values) {
        if let Some(value) = value {
            other.insert(name, value);
        }
    }
    other
}

/// Of other properties AMQP has room for these; what a message got from another broker stays behind.
fn write_other(mut properties: BasicProperties, other: &Map) -> Result<BasicProperties> {
    for name in OTHER.iter().filter(|_| !other.is_empty()) {
        properties = match (*name, other.get(name)) {
            ("timestamp", Some(Value::Int(seconds))) => match u64::try_from(*seconds) {
                Ok(seconds) => properties.with_timestamp(seconds),
                Err(_) => properties,
            },
            (name, Some(Value::String(text))) => {
                let text = short(text.as_str())?;
                match name {
                    "message_id" => properties.with_message_id(text),
                    "type" => properties.with_type(text),
                    // A user id that is not the connection's closes the channel: it is not ours to claim.
                    "app_id" => properties.with_app_id(text),
                    "cluster_id" => properties.with_cluster_id(text),
                    _ => properties,
                }
            }
            _ => properties,
        };
    }
    Ok(properties)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: usize = 131_072;

    fn sent() -> Message {
        Message {
            headers: Map::from([("task", "proj.add"), ("id", "1")]),
            properties: Properties {
                correlation_id: Some("1".into()),
                reply_to: Some("r".into()),
                delivery_mode: Some(1),
                priority: Some(9),
                expiration: Some("1000".into()),
                other: Map::from([("message_id", "m")]),
                ..Properties::default()
            },
            content_type: Some("application/json".into()),
            content_encoding: Some("utf-8".into()),
            body: vec![1, 2].into(),
        }
    }

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let sent = sent();
        let mut delivery = Delivery::mock(1, "x".into(), "k".into(), true, vec![1, 2]);
        delivery.properties = properties(&sent, FRAME).unwrap();
        let mut received = read(&mut delivery).unwrap();
        let properties = &mut received.properties;
        assert_eq!((properties.exchange.take(), properties.routing_key.take()), (Some("x".into()), Some("k".into())));
        assert!(std::mem::take(&mut properties.redelivered));
        assert_eq!(received, sent);
    }

    #[test]
    fn what_the_server_would_not_take_is_refused_here() {
        let long = "n".repeat(256);
        let changes: [fn(&mut Message, &str); 4] = [
            |message, long| message.properties.correlation_id = Some(long.to_owned()),
            |message, _| message.properties.priority = Some(256),
            |message, long| message.content_type = Some(long.to_owned()),
            |message, long| drop(message.headers.insert("h", long.repeat(FRAME / 256))),
        ];
        for (nth, change) in changes.into_iter().enumerate() {
            let mut message = sent();
            change(&mut message, &long);
            assert_eq!(properties(&message, FRAME).unwrap_err().kind(), ErrorKind::Encode, "{nth}");
        }
    }
}
