//! The recorded canvases.

use celeriac::canvas::{Chords, Given, Parent, Rules};
use celeriac::protocol::{Map, Value, json};

/// What the recorder pins (scripts/fixtures/pinned.py).
pub const REPLY_TO: &str = "0c1e2d3f-4a5b-3c6d-8e7f-901234567890";
pub const ORIGIN: &str = "gen4242@producer";
pub const NOW: &str = "2026-01-02T03:04:05.678901Z";

/// One recorded canvas.
pub struct Row {
    pub case: String,
    pub kind: String,
    pub sig: String,
    pub fields: Map,
}

/// The canvases recorded from a version.
pub fn rows(version: &str) -> Vec<Row> {
    let path = format!("{}/protocol-fixtures/canvas/celery-{version}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let rows = json::parse(&text).unwrap().into_list().unwrap();
    rows.into_iter().map(|row| Row::new(row.into_map().unwrap())).collect()
}

impl Row {
    fn new(mut fields: Map) -> Self {
        let mut text = |name: &str| fields.remove(name).and_then(Value::into_string).unwrap();
        Row { case: text("case"), kind: text("kind"), sig: text("sig"), fields }
    }

    pub fn get(&self, name: &str) -> Value {
        self.fields.get(name).cloned().unwrap_or_default()
    }

    pub fn map(&self, name: &str) -> Map {
        self.get(name).into_map().unwrap_or_default()
    }

    pub fn rules(&self) -> Rules {
        let conf = self.map("conf");
        let is_set = |name: &str| conf.get(name).is_some_and(Value::is_truthy);
        Rules {
            reply_to: REPLY_TO.into(),
            inherit_parent_priority: is_set("task_inherit_parent_priority"),
            allow_error_cb_on_chord_header: is_set("task_allow_error_cb_on_chord_header"),
            chords: if self.get("unlock").is_truthy() { Chords::Unlock } else { Chords::Native },
        }
    }

    pub fn given(&self) -> Given {
        let mut given = self.map("given");
        let mut take = |name: &str| given.remove(name).unwrap_or_default();
        Given {
            args: take("args").into_list().unwrap_or_default(),
            kwargs: take("kwargs").into_map().unwrap_or_default(),
            options: take("options").into_map().unwrap_or_default(),
        }
    }

    pub fn parent(&self) -> Option<Parent> {
        let parent = self.get("parent").into_map()?;
        Some(Parent {
            id: text(&parent, "id")?,
            root_id: text(&parent, "root_id"),
            priority: parent.get("priority").and_then(Value::as_i64),
        })
    }

    /// What Celery did: the steps in order, the result, the children.
    pub fn done(&self) -> Value {
        let names = ["steps", "result", "children"];
        Value::Map(names.iter().map(|name| (*name, self.get(name))).collect())
    }
}

pub fn text(map: &Map, name: &str) -> Option<String> {
    map.get(name).and_then(Value::as_str).map(str::to_owned)
}
