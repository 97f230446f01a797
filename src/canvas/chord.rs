//! Sending a chord (celery/canvas.py `_chord.apply_async`, `_chord.run`).

use std::sync::Arc;

use super::apply::{Applied, take_text};
use super::draft::Draft;
use super::freeze::{Freezing, strip_header_links};
use super::link::move_to_body;
use super::node::{ChordParts, Node, Parts, malformed};
use super::results::ResultId;
use super::steps::{ensure_chords_allowed, unroll_chords};
use super::{Chords, Step};
use crate::Result;
use crate::protocol::{Map, Value};

/// Options that delay the header, and not the body or `celery.chord_unlock`.
const DELAYS: [&str; 2] = ["countdown", "eta"];

/// How `celery.chord_unlock` polls: arguments of Celery's `chord.run`.
const POLLING: [&str; 2] = ["interval", "max_retries"];

/// What `celery.chord_unlock` takes from a chord and its body.
struct Unlocking {
    body_name: String,
    body_options: Map,
    polling: [(&'static str, Value); 2],
}

impl Draft<'_> {
    pub(super) fn apply_chord(&mut self, node: Node, given: Applied) -> Result<ResultId> {
        let Applied { args, kwargs, options: mut given, chord, chain } = given;
        let Parts::Chord(parts) = node.parts else { return Err(malformed("is no chord")) };
        let ChordParts { header, group, body } = *parts;
        let mut body = body.ok_or_else(|| malformed("is a chord without a body"))?;
        let args = if args.is_empty() || node.immutable { node.args } else { [args, node.args].concat() };
        let mut header_kwargs = node.kwargs.get("kwargs").and_then(Value::as_map).cloned().unwrap_or_default();
        header_kwargs.extend(kwargs);
        let task_id = take_text(&mut given, "task_id");
        let delay = delays(&mut given, &node.options);
        let own_id = node.options.get("task_id").cloned();
        let links = ["link", "link_error"].map(|name| (name, given.remove(name)));
        body.merge_options(body_options(&given));
        let root_id = body.option("root_id");
        let mut options = node.options;
        options.extend(given);
        options.extend(links.into_iter().filter_map(|(name, links)| Some((name, links?))));
        for name in DELAYS {
            options.remove(name);
        }
        let option_id = take_text(&mut options, "task_id");
        move_to_body(&mut options, &mut body)?;
        body.options.extend(body_options(&options));
        body.chord = chord.or(node.chord).or(body.chord);
        body.chain = chain.or(node.chain).or(body.chain);
        let header_options = group.unwrap_or_else(|| own_id.map(|id| Map::from([("task_id", id)])).unwrap_or_default());
        let header = Node { options: header_options, ..Node::group(header) };
        let polling = POLLING.map(|name| (name, options.remove(name).unwrap_or_default()));
        options.extend(delay);
        let header_call = Applied { args, kwargs: header_kwargs, options, ..Applied::default() };
        let ids = [task_id.or(option_id), root_id];
        self.run_chord(header, body, ids, header_call, polling)
    }

    /// The header is sent with the body in each of its tasks; an empty one sends the body at once.
    fn run_chord(
        &mut self,
        mut header: Node,
        mut body: Node,
        [task_id, root_id]: [Option<String>; 2],
        mut header_call: Applied,
        polling: [(&'static str, Value); 2],
    ) -> Result<ResultId> {
        let group_id = self.id_of(&mut header.options, None);
        unroll_chords(&mut body, self.rules)?;
        let task_id = task_id.unwrap_or_else(|| self.ids.next_id());
        let freezing = Freezing {
            id: Some(&task_id),
            group_id: Some(&group_id),
            root_id: root_id.as_deref(),
            ..Freezing::default()
        };
        let body_result = self.freeze(&mut body, freezing)?;
        strip_header_links(&mut body);
        let unlocking = Unlocking { body_name: body.task.clone(), body_options: body.options.clone(), polling };
        let shared = Arc::new(Value::from(body));
        let freezing = Freezing { id: None, chord: Some(&shared), ..freezing };
        let (_, members) = self.freeze_members(&mut header, freezing)?;
        let header_result = if header.is_empty_group() {
            let body = Node::from_value(Arc::unwrap_or_clone(shared))?;
            self.apply(body, Applied { args: vec![Value::List(Vec::new())], ..Applied::default() })?;
            self.results.group(group_id, members)
        } else {
            let header_result = self.results.group(group_id.clone(), members);
            self.announce(header_result, &shared, unlocking)?;
            header_call.options.insert("task_id", group_id);
            header_call.chord = Some(shared);
            self.apply_group(header, header_call)?
        };
        self.results.set_parent(body_result, Some(header_result));
        Ok(body_result)
    }

    /// What the backend does before a header is sent (`apply_chord` of celery/backends/redis.py and base.py).
    fn announce(&mut self, header: ResultId, body: &Arc<Value>, unlocking: Unlocking) -> Result<()> {
        ensure_chords_allowed(self.rules)?;
        match self.rules.chords {
            Chords::Native | Chords::Announced => {
                let is_announced = self.rules.chords == Chords::Announced;
                if is_announced || self.results.children(header).iter().any(|&child| self.results.is_group(child)) {
                    let group_id = self.results.id(header).to_owned();
                    let result = self.results.tuple(header);
                    self.step(Step::SaveGroup { group_id, result });
                }
            }
            Chords::Unlock => {
                let unlock = self.unlock(header, body, unlocking);
                self.apply(unlock, Applied::default())?;
            }
            Chords::Refused(_) => {}
        }
        Ok(())
    }

    /// The task that polls for the header (celery/backends/base.py `fallback_chord_unlock`): routed as the body is.
    fn unlock(&self, header: ResultId, body: &Arc<Value>, unlocking: Unlocking) -> Node {
        let Unlocking { body_name, body_options, polling } = unlocking;
        let stamps = body_options.get("stamped_headers").and_then(Value::as_list).unwrap_or_default();
        let option = |name: &str| body_options.get(name).filter(|value| !value.is_null()).cloned();
        let is_stamp = |name: &str| stamps.iter().any(|stamp| stamp.as_str() == Some(name));
        let routing =
            ["exchange", "exchange_type", "routing_key", "headers"].into_iter().filter(|name| !is_stamp(name));
        let mut options: Map = routing.filter_map(|name| Some((name, option(name)?))).collect();
        let exchange_type = options.get("exchange_type").cloned().unwrap_or_else(|| "direct".into());
        let results = self.results.children(header).iter().map(|&child| Value::from(self.results.tuple(child)));
        let mut kwargs = Map::from(polling);
        kwargs.insert("result", results.collect::<Value>());
        kwargs.insert("_chord_unlock_exchange_type", exchange_type);
        options.insert("countdown", 1);
        options.insert("ignore_result", true);
        options.insert("route_name", body_name);
        for name in ["queue", "priority"] {
            if let Some(value) = option(name) {
                options.insert(name, value);
            }
        }
        let args = vec![self.results.id(header).into(), Value::clone(body)];
        Node { args, kwargs, options, ..Node::task("celery.chord_unlock") }
    }
}

/// The options that a chord's body gets: the header task that completes it is its parent, so that is not among them
/// (celery/canvas.py `_chord._body_options`).
fn body_options(options: &Map) -> Map {
    options.iter().filter(|(name, _)| *name != "parent_id").map(|(name, value)| (name, value.clone())).collect()
}

/// Takes those that are given; where none is, the chord's own.
fn delays(given: &mut Map, own: &Map) -> Map {
    let mut delays = Map::new();
    for name in DELAYS {
        let taken = given.remove(name).filter(|value| !value.is_null());
        if let Some(value) = taken.or_else(|| own.get(name).filter(|value| !value.is_null()).cloned()) {
            delays.insert(name, value);
        }
    }
    delays
}
