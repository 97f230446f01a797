//! What real producers tell RabbitMQ (`protocol-fixtures/amqp/`) is read as the newest py-amqp reads it, and what is
//! written again is read as the same.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::protocol::basic::{gen_properties, parse_properties};
use lapin::types::ShortString;
use serde_json::Value as Json;

use super::{properties, read};
use crate::protocol::{Message, Value};

#[path = "../../tests/fixtures/typed.rs"]
mod typed;

/// Class, weight and size of the body stand before the properties.
const BEFORE_PROPERTIES: usize = 12;

/// RabbitMQ's `frame_max`.
const FRAME: usize = 131_072;

/// One recorded publication.
struct Recorded {
    name: String,
    content: Json,
}

impl Recorded {
    fn header(&self) -> Vec<u8> {
        STANDARD.decode(self.content["header_base64"].as_str().unwrap()).unwrap()
    }

    fn body(&self) -> Vec<u8> {
        match self.content["raw"].as_str() {
            Some(text) => text.as_bytes().to_vec(),
            None => STANDARD.decode(self.content["raw_base64"].as_str().unwrap()).unwrap(),
        }
    }

    /// As a consumer gets it.
    fn delivery(&self, properties: BasicProperties) -> Delivery {
        let text = |name: &str| ShortString::from(self.content[name].as_str().unwrap());
        let mut delivery = Delivery::mock(1, text("exchange"), text("routing_key"), false, self.body());
        delivery.properties = properties;
        delivery
    }

    fn message(&self) -> Message {
        read(&mut self.delivery(parsed(&self.header()[BEFORE_PROPERTIES..]))).expect(&self.name)
    }

    fn expected(&self, part: &str) -> Value {
        typed::value(&self.content["expect"][part])
    }
}

fn parsed(bytes: &[u8]) -> BasicProperties {
    let (rest, properties) = parse_properties(bytes).unwrap();
    assert!(rest.is_empty(), "all of it is read");
    properties
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn recorded() -> Vec<Recorded> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("protocol-fixtures/amqp");
    let files = entries(&root).into_iter().filter(|path| path.is_dir()).flat_map(|folder| entries(&folder));
    files.flat_map(|path| publications(&path)).collect()
}

fn publications(path: &Path) -> Vec<Recorded> {
    let mut file: Json = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let folder = path.parent().unwrap().file_name().unwrap().to_string_lossy().into_owned();
    let name = format!("{folder}/{}", path.file_stem().unwrap().to_string_lossy());
    let Json::Array(messages) = file["messages"].take() else { panic!("{name} has no messages") };
    messages.into_iter().map(|content| Recorded { name: name.clone(), content }).collect()
}

/// The properties by the names that py-amqp gives them.
fn shown(message: &Message) -> Value {
    let known = &message.properties;
    let text = |text: &Option<String>| text.as_deref().map(Value::from);
    let values = [
        ("content_type", text(&message.content_type)),
        ("content_encoding", text(&message.content_encoding)),
        ("delivery_mode", known.delivery_mode.map(|mode| i64::from(mode).into())),
        ("priority", known.priority.map(Value::from)),
        ("correlation_id", text(&known.correlation_id)),
        ("reply_to", text(&known.reply_to)),
        ("expiration", text(&known.expiration)),
    ];
    let mut shown = known.other.clone();
    for (name, value) in values {
        if let Some(value) = value {
            shown.insert(name, value);
        }
    }
    Value::Map(shown)
}

fn assert_same(name: &str, found: &Value, expected: &Value) {
    assert!(typed::same(found, expected), "{name}\n   is {found:?}\n  not {expected:?}");
}

#[test]
fn every_recorded_message_is_read_as_py_amqp_reads_it() {
    let recorded = recorded();
    assert!(recorded.len() > 225, "a message or more of each case");
    for one in &recorded {
        let message = one.message();
        assert_same(&one.name, &Value::Map(message.headers.clone()), &one.expected("headers"));
        assert_same(&one.name, &shown(&message), &one.expected("properties"));
        assert_eq!(message.body.len() as u64, one.content["expect"]["body_size"], "{}", one.name);
        let to = (message.properties.exchange.as_deref(), message.properties.routing_key.as_deref());
        assert_eq!(to, (one.content["exchange"].as_str(), one.content["routing_key"].as_str()), "{}", one.name);
    }
}

#[test]
fn what_is_written_again_is_read_as_the_same() {
    for one in recorded() {
        let message = one.message();
        let properties = properties(&message, FRAME).expect(&one.name);
        let bytes = gen_properties(&properties)(Vec::new().into()).unwrap().into_inner().0;
        let again = read(&mut one.delivery(parsed(&bytes))).unwrap();
        let mut expected = message.clone();
        // It is not ours to say on whose behalf we publish: the server ends channels for it.
        expected.properties.other.remove("user_id");
        assert_same(&one.name, &Value::Map(again.headers.clone()), &Value::Map(expected.headers.clone()));
        assert_same(&one.name, &shown(&again), &shown(&expected));
    }
}
