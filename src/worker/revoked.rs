//! [`Revoked`]: which tasks are not to run.

use tokio::time::Instant;

use super::limited_set::{Bounds, LimitedSet};
use crate::protocol::{Map, Value, repr};

/// The tasks that are not to run: by id, and by the stamps that they bear (celery/worker/state.py `revoked`,
/// `revoked_stamps`).
///
/// Stamps are bounded as ids are; Celery keeps any number of them. A task that has expired is not counted in, as Celery
/// counts it: a wave of expired tasks would push out what people revoked.
#[derive(Debug)]
pub(crate) struct Revoked {
    ids: LimitedSet,
    /// `header=repr(value)`.
    stamps: LimitedSet,
}

/// Why a task is not to run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Reason {
    /// Somebody named it.
    Id,
    /// It bears this stamp.
    Stamp(Map),
}

impl Revoked {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Revoked { ids: LimitedSet::new(bounds), stamps: LimitedSet::new(bounds) }
    }

    /// Why a task with this id and these headers is not to run, if it is not
    /// (celery/worker/request.py `Request.revoked`).
    pub(crate) fn reason(&self, id: &str, headers: &Map) -> Option<Reason> {
        if self.ids.contains(id) {
            return Some(Reason::Id);
        }
        if self.stamps.is_empty() {
            return None;
        }
        stamps_of(headers)
            .find(|(header, value)| self.stamps.contains(&key(header, value)))
            .map(|(header, value)| Reason::Stamp(Map::from([(header, value.clone())])))
    }

    /// Whether anything was revoked at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.stamps.is_empty()
    }

    /// The ids that were revoked.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        self.ids.iter()
    }

    /// Whether any stamp was revoked.
    pub(crate) fn has_stamps(&self) -> bool {
        !self.stamps.is_empty()
    }

    pub(crate) fn revoke(&mut self, id: &str, now: Instant) {
        self.ids.insert(id, now);
    }

    /// Revokes what bears any of these stamps: for each header a value or a list of them.
    pub(crate) fn revoke_stamps(&mut self, headers: &Map, now: Instant) {
        for (header, value) in
            headers.iter().flat_map(|(header, value)| values(value).map(move |value| (header, value)))
        {
            self.stamps.insert(&key(header, value), now);
        }
    }

    /// Takes what another run remembered, oldest first, as if it were revoked now: its times mean nothing here
    /// (celery/worker/state.py `merge_revoked`).
    pub(crate) fn merge(&mut self, ids: &[String], stamps: &[String], now: Instant) {
        ids.iter().for_each(|id| self.ids.insert(id, now));
        stamps.iter().for_each(|stamp| self.stamps.insert(stamp, now));
    }

    /// What another run is to remember, oldest first: ids, and stamps.
    pub(crate) fn remembered(&mut self, now: Instant) -> (Vec<String>, Vec<String>) {
        self.ids.purge(now);
        self.stamps.purge(now);
        (self.ids.iter().map(str::to_owned).collect(), self.stamps.iter().map(str::to_owned).collect())
    }
}

/// The stamps that a message bears and names as such: each header with each of its values.
pub(crate) fn stamps_of(headers: &Map) -> impl Iterator<Item = (&str, &Value)> {
    let names = headers.get("stamped_headers").and_then(Value::as_list).unwrap_or_default();
    let stamps = headers.get("stamps").and_then(Value::as_map);
    let stamped = names.iter().filter_map(Value::as_str).filter_map(move |name| Some((name, stamps?.get(name)?)));
    stamped.flat_map(|(name, value)| values(value).map(move |value| (name, value)))
}

/// A list's members, or the one value; null is none.
pub(crate) fn values(value: &Value) -> impl Iterator<Item = &Value> {
    let values = match value {
        Value::List(values) => values.as_slice(),
        one => std::slice::from_ref(one),
    };
    values.iter().filter(|value| !value.is_null())
}

fn key(header: &str, value: &Value) -> String {
    format!("{header}={}", repr::repr(value))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::protocol::json;

    fn map(text: &str) -> Map {
        json::parse(text.as_bytes()).unwrap().into_map().unwrap()
    }

    fn revoked(stamps: &str) -> Revoked {
        let mut revoked = Revoked::new(Bounds { max: 100, expires: Duration::ZERO });
        revoked.revoke("gone", Instant::now());
        revoked.revoke_stamps(&map(stamps), Instant::now());
        revoked
    }

    #[test]
    fn tasks_are_found_by_id_or_by_stamp() {
        let revoked = revoked(r#"{"tenant": ["a", 7], "batch": "b"}"#);
        let rows = [
            ("gone", "{}", Some("")),
            ("here", "{}", None),
            ("here", r#"{"stamped_headers": ["tenant"], "stamps": {"tenant": "a"}}"#, Some(r#"{"tenant": "a"}"#)),
            ("here", r#"{"stamped_headers": ["tenant"], "stamps": {"tenant": [6, 7]}}"#, Some(r#"{"tenant": 7}"#)),
            ("here", r#"{"stamped_headers": ["batch"], "stamps": {"batch": ["b"]}}"#, Some(r#"{"batch": "b"}"#)),
            ("here", r#"{"stamped_headers": ["tenant"], "stamps": {"tenant": "b"}}"#, None),
            ("here", r#"{"stamped_headers": ["tenant"], "stamps": {"tenant": null}}"#, None),
            ("here", r#"{"stamped_headers": [], "stamps": {"tenant": "a"}}"#, None),
            ("here", r#"{"stamped_headers": ["tenant"], "stamps": null}"#, None),
            ("here", r#"{"stamped_headers": "tenant", "stamps": [1]}"#, None),
        ];
        for (id, headers, expected) in rows {
            let expected = expected.map(|stamp| match stamp {
                "" => Reason::Id,
                stamp => Reason::Stamp(map(stamp)),
            });
            assert_eq!(revoked.reason(id, &map(headers)), expected, "{id} {headers}");
        }
    }

    #[test]
    fn what_is_remembered_is_merged_again() {
        let now = Instant::now();
        let (ids, stamps) = revoked(r#"{"k": ["v", 1]}"#).remembered(now);
        assert_eq!((ids.join(" "), stamps.join(" ")), ("gone".to_owned(), "k='v' k=1".to_owned()));
        let mut again = Revoked::new(Bounds { max: 100, expires: Duration::ZERO });
        again.merge(&ids, &stamps, now);
        assert_eq!(again.remembered(now), (ids, stamps));
    }
}
