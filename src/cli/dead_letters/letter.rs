//! [`Letter`]: one entry of the queue of dead letters, as people and scripts see it.

use std::fmt::Write;

use super::options::Filter;
use crate::Result;
use crate::protocol::{AcceptContent, Body, Map, Message, Value, json, repr};
use crate::transport::Browsed;
use crate::worker::{DEATH_HEADER, DeathNote};

/// An entry of the queue of dead letters; usually, but not always, a dead letter.
pub(super) struct Letter<'a> {
    /// `None`: somebody put something else there.
    note: Option<DeathNote>,
    message: Option<&'a Message>,
    raw: &'a [u8],
}

impl<'a> Letter<'a> {
    pub(super) fn new(browsed: &'a Browsed) -> Self {
        let message = browsed.message.as_ref().ok();
        Letter { note: message.and_then(DeathNote::of), message, raw: &browsed.raw }
    }

    fn header(&self, name: &str) -> Option<&'a str> {
        self.message?.headers.get(name)?.as_str()
    }

    fn task_id(&self) -> Option<&'a str> {
        self.header("id")
    }

    fn letter_id(&self) -> Option<&str> {
        self.note.as_ref().map(|note| note.letter.as_str()).filter(|id| !id.is_empty())
    }

    /// Whether this is what somebody calls it.
    pub(super) fn is_called(&self, id: &str) -> bool {
        self.task_id() == Some(id) || self.letter_id() == Some(id)
    }

    /// Whether it is among those that are meant; how many that may be is for the caller to count.
    pub(super) fn passes(&self, filter: &Filter) -> bool {
        let task = filter.task.as_deref().is_none_or(|pattern| matches(pattern, self.header("task").unwrap_or("")));
        let reason = filter.reason.as_deref().map(str::to_lowercase);
        task && reason.is_none_or(|part| self.reason().to_lowercase().contains(&part))
    }

    fn reason(&self) -> &str {
        self.note.as_ref().map_or("not a dead letter", |note| note.reason.as_str())
    }

    /// The body: of bytes that were no message, those bytes.
    pub(super) fn body(&self) -> &[u8] {
        self.message.map_or(self.raw, |message| &message.body)
    }

    /// The cells of a row: id, task, queue, reason, time.
    pub(super) fn row(&self) -> [String; 5] {
        let note = |field: fn(&DeathNote) -> &str| self.note.as_ref().map_or("-", field).to_owned();
        [
            self.task_id().or(self.letter_id()).unwrap_or("-").to_owned(),
            self.header("task").unwrap_or("-").to_owned(),
            note(|note| &note.queue),
            self.reason().to_owned(),
            note(|note| note.time.split_once('.').map_or(&note.time, |(seconds, _)| seconds)),
        ]
    }

    /// What `list` prints of it for scripts.
    pub(super) fn summary(&self) -> Map {
        let text = |text: Option<&str>| Value::from(text);
        let note = |field: fn(&DeathNote) -> &str| text(self.note.as_ref().map(field));
        Map::from([
            ("letter", text(self.letter_id())),
            ("id", text(self.task_id())),
            ("task", text(self.header("task"))),
            ("queue", note(|note| &note.queue)),
            ("reason", text(Some(self.reason()))),
            ("time", note(|note| &note.time)),
        ])
    }

    /// What `show` prints of it for scripts: the summary, and everything else.
    pub(super) fn details(&self) -> Map {
        let mut map = self.summary();
        if let Some(note) = &self.note {
            map.insert("exchange", note.exchange.as_str());
            map.insert("routing_key", note.routing_key.as_str());
            map.insert("hostname", note.hostname.as_str());
            map.insert("exception", note.exception.as_deref());
            map.insert("raw", note.raw);
        }
        if let Some(message) = self.message {
            map.insert("headers", headers(message));
            map.insert("properties", properties(message));
            map.insert("content_type", message.content_type.as_deref());
            map.insert("content_encoding", message.content_encoding.as_deref());
            if let Ok(body) = arguments(message) {
                map.insert("args", Value::List(body.args));
                map.insert("kwargs", body.kwargs);
            }
        }
        map.insert("body", String::from_utf8_lossy(self.body()).into_owned());
        map
    }

    /// What `show` prints of it for people.
    pub(super) fn report(&self) -> String {
        let mut out = String::new();
        let mut line = |name: &str, value: &str| out.push_str(&format!("{name:<13}{value}\n"));
        line("letter", self.letter_id().unwrap_or("-"));
        line("id", self.task_id().unwrap_or("-"));
        line("task", self.header("task").unwrap_or("-"));
        line("reason", self.reason());
        if let Some(note) = &self.note {
            line("exception", note.exception.as_deref().unwrap_or("-"));
            line("time", &note.time);
            line("worker", &note.hostname);
            line("queue", &note.queue);
            line("exchange", &repr::repr(&note.exchange.as_str().into()));
            line("routing key", &repr::repr(&note.routing_key.as_str().into()));
        }
        if let Some(message) = self.message {
            line("content", message.content_type.as_deref().unwrap_or("-"));
            line("encoding", message.content_encoding.as_deref().unwrap_or("-"));
            if !self.note.as_ref().is_some_and(|note| note.raw) {
                describe_arguments(message, &mut line);
            }
        }
        line("body", &format!("{} bytes", self.body().len()));
        if let Some(message) = self.message {
            section("headers", &headers(message), &mut out);
            section("properties", &properties(message), &mut out);
        }
        let _ = write!(out, "\nbody:\n  {}", repr::repr(&Value::Bytes(self.body().to_vec())));
        out
    }
}

fn describe_arguments(message: &Message, line: &mut impl FnMut(&str, &str)) {
    match arguments(message) {
        Ok(body) => {
            line("args", &repr::tuple(&body.args));
            line("kwargs", &repr::repr(&Value::Map(body.kwargs.clone())));
            if !body.embed.is_empty() {
                let embed = body.into_value().as_list().and_then(|items| items.last()).map(repr::repr);
                line("continues", &embed.unwrap_or_default());
            }
        }
        Err(why) => line("arguments", &format!("not readable: {why}")),
    }
}

fn section(name: &str, map: &Map, out: &mut String) {
    let _ = writeln!(out, "\n{name}:");
    for (name, value) in map.iter() {
        let _ = writeln!(out, "  {name}: {}", repr::repr(value));
    }
}

/// The headers that the message had before it died.
fn headers(message: &Message) -> Map {
    let mut headers = message.headers.clone();
    headers.remove(DEATH_HEADER);
    headers
}

fn properties(message: &Message) -> Map {
    let properties = &message.properties;
    let mut map = Map::from([
        ("correlation_id", Value::from(properties.correlation_id.as_deref())),
        ("reply_to", properties.reply_to.as_deref().into()),
        ("delivery_mode", properties.delivery_mode.map(i64::from).into()),
        ("priority", properties.priority.into()),
        ("expiration", properties.expiration.as_deref().into()),
        ("redelivered", properties.redelivered.into()),
    ]);
    for (name, value) in properties.other.iter() {
        map.insert(name, value.clone());
    }
    map
}

/// Whatever serializer it was written with, if it is one that can be read without running code.
fn arguments(message: &Message) -> Result<Body> {
    let accept = AcceptContent::new(["json", "msgpack", "yaml"])?;
    let value = message.payload(&accept)?;
    Body::read(value).map_err(|error| crate::Error::new(crate::ErrorKind::Decode, error.to_string()))
}

/// One JSON line. What has no form in JSON, which only hostile nesting has not, is left out.
pub(super) fn line(map: Map) -> String {
    json::to_vec(&Value::Map(map)).map_or_else(|_| "{}".to_owned(), |text| String::from_utf8_lossy(&text).into_owned())
}

/// Whether a name fits a pattern in which `*` stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(first) else { return false };
    let (middle, last) = rest.rsplit_once('*').map_or(("", rest), |(middle, last)| (middle, last));
    // Each part as early as it can be: what follows then has the most room.
    for part in middle.split('*') {
        let Some(at) = name.find(part) else { return false };
        name = &name[at + part.len()..];
    }
    name.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_names() {
        for (pattern, name, expected) in [
            ("shop.add", "shop.add", true),
            ("shop.add", "shop.added", false),
            ("shop.*", "shop.add", true),
            ("shop.*", "shop", false),
            ("*.add", "shop.add", true),
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c", false),
            ("a*bc", "abc", true),
            ("ab*bc", "abc", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
