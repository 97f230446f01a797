//! Comparing what Celery did with what is planned: new ids may differ, but each stands for the same one everywhere.

use std::collections::HashMap;

use celeriac::protocol::{Map, Value, json};

/// One comparison: which of our ids stands for which of Celery's.
#[derive(Default)]
pub struct Comparison {
    ours: HashMap<String, String>,
    theirs: HashMap<String, String>,
}

impl Comparison {
    pub fn compare(&mut self, expected: &Value, planned: &Value) -> Result<(), String> {
        self.values(expected, planned, true, "")
    }

    fn values(&mut self, expected: &Value, planned: &Value, strict: bool, path: &str) -> Result<(), String> {
        match (expected, planned) {
            (Value::Map(expected), Value::Map(planned)) => self.maps(expected, planned, strict, path),
            (Value::List(expected), Value::List(planned)) => self.lists(expected, planned, strict, path),
            (Value::String(expected), Value::String(planned)) if self.is_same_id(expected, planned, strict) => Ok(()),
            (expected, planned) if expected == planned => Ok(()),
            (expected, planned) if expected.as_f64().is_some() && expected.as_f64() == planned.as_f64() => Ok(()),
            _ => Err(format!("{path}: Celery {}, planned {}", text(expected), text(planned))),
        }
    }

    /// A null option is none.
    fn maps(&mut self, expected: &Map, planned: &Map, strict: bool, path: &str) -> Result<(), String> {
        let names = expected.keys().chain(planned.keys().filter(|name| !expected.contains_key(name)));
        for name in names {
            let get = |map: &Map| map.get(name).cloned().unwrap_or_default();
            // Celery freezes a chain's header twice, the second time with an id of its own, in results only.
            let strict = strict && !matches!(name, "result" | "children");
            let (expected, planned) = match name {
                "stamped_headers" => (sorted(get(expected)), sorted(get(planned))),
                "argsrepr" | "kwargsrepr" => (squashed(get(expected)), squashed(get(planned))),
                _ => (get(expected), get(planned)),
            };
            self.values(&expected, &planned, strict, &format!("{path}.{name}"))?;
        }
        Ok(())
    }

    fn lists(&mut self, expected: &[Value], planned: &[Value], strict: bool, path: &str) -> Result<(), String> {
        if expected.len() != planned.len() {
            let all = |values: &[Value]| values.iter().map(text).collect::<Vec<_>>().join("\n      ");
            return Err(format!(
                "{path}: Celery {}, planned {}\n   {}\n   ---\n   {}",
                expected.len(),
                planned.len(),
                all(expected),
                all(planned)
            ));
        }
        for (at, (expected, planned)) in expected.iter().zip(planned).enumerate() {
            self.values(expected, planned, strict, &format!("{path}[{at}]"))?;
        }
        Ok(())
    }

    fn is_same_id(&mut self, expected: &str, planned: &str, strict: bool) -> bool {
        if !is_id(expected) || !is_id(planned) {
            return false;
        }
        let ours = self.ours.entry(expected.to_owned()).or_insert_with(|| planned.to_owned());
        if ours != planned {
            return false;
        }
        !strict || self.theirs.entry(planned.to_owned()).or_insert_with(|| expected.to_owned()) == expected
    }
}

/// What is sent at once, without what is to follow.
pub fn skeleton(done: Value) -> Value {
    let steps = done.as_map().and_then(|done| done.get("steps")?.as_list()).unwrap_or_default();
    steps.iter().filter_map(Value::as_map).filter_map(bare).collect()
}

fn bare(step: &Map) -> Option<Value> {
    let Some(message) = step.get("send").and_then(Value::as_map) else {
        return step.get("size").cloned();
    };
    let headers = message.get("headers")?.as_map()?;
    let body = message.get("body")?.as_list()?;
    let header = |name: &str| headers.get(name).cloned().unwrap_or_default();
    let names = ["task", "group_index", "root_id", "parent_id", "eta"];
    Some(names.into_iter().map(header).chain(body.iter().take(2).cloned()).collect())
}

fn is_id(text: &str) -> bool {
    text.len() == 36 && text.bytes().enumerate().all(|(at, byte)| matches!(at, 8 | 13 | 18 | 23) == (byte == b'-'))
}

/// Stamps are a set.
fn sorted(names: Value) -> Value {
    let Value::List(mut names) = names else { return names };
    names.sort_by_key(text);
    Value::List(names)
}

/// Celery shows tuples where arguments were built in the same process, and lists where they came over the wire; ids may be
/// new.
fn squashed(repr: Value) -> Value {
    let Value::String(repr) = repr else { return repr };
    let mut text = repr.replace(",)", "]").replace('(', "[").replace(')', "]");
    while let Some(at) =
        text.match_indices('\'').map(|(at, _)| at + 1).find(|&at| text.get(at..at + 36).is_some_and(is_id))
    {
        text.replace_range(at..at + 36, "id");
    }
    text.into()
}

fn text(value: &Value) -> String {
    String::from_utf8(json::to_vec(value).unwrap()).unwrap()
}
