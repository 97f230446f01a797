//! What waits: for a place, for its turn, or for its ETA.

use std::collections::HashSet;

use jiff::Timestamp;
use jiff::tz::Offset;
use tracing::warn;

use super::items::{Arguments, Item};
use super::{MOST, Snapshot};
use crate::protocol::{DateTime, Map, Value};
use crate::worker::consumer::Consumer;
use crate::worker::frozen::{FrozenCopy, Thawer};
use crate::worker::intake;

/// Tasks that are held for their ETA, still compressed.
pub(super) struct Scheduled {
    entries: Vec<(Timestamp, FrozenCopy)>,
    thawer: Thawer,
    hostname: String,
}

/// Celery's timer has one priority for all of them (celery/worker/strategy.py).
const PRIORITY: i64 = 6;

impl Consumer {
    /// What was taken and has not begun. Celery does not tell of what waits for a rate limit; this does.
    pub(super) fn reserved_items(&self) -> Vec<Item> {
        let items: Vec<_> = self.works().take(MOST).map(Item::waiting).collect();
        let suspects = self.quarantine.as_ref().map_or(0, |quarantine| quarantine.len());
        tell_of_part("reserved", items.len(), self.reserved.len() + self.limits.waiting() + suspects);
        items
    }

    /// What is held for its ETA, the earliest first.
    pub(super) fn scheduled(&self) -> Scheduled {
        let held = self.held.earliest(MOST);
        tell_of_part("scheduled", held.len(), self.held.len());
        self.copied(held.into_iter().map(|(eta, frozen)| (eta, frozen.copy())).collect())
    }

    /// What becomes of the tasks with these ids, in the order of the ids; unknown ones are left out.
    pub(super) fn query(&self, ids: &[String]) -> Snapshot {
        let named: HashSet<&str> = ids.iter().map(String::as_str).collect();
        let is_named = |id: &str| named.contains(id);
        let running = self.running.iter().filter(|run| is_named(&run.request.id));
        let waiting = self.works().filter(|work| is_named(&work.request.id));
        let items = running.map(|run| ("active", Item::running(run)));
        let items = items.chain(waiting.map(|work| ("reserved", Item::waiting(work)))).collect();
        let hashes: HashSet<u64> =
            ids.iter().map(|id| self.freezer.hash(id)).filter(|id| self.held.contains(*id)).collect();
        let held = match hashes.is_empty() {
            true => Vec::new(),
            false => self.held.named(&hashes).map(|(eta, frozen)| (eta, frozen.copy())).collect(),
        };
        Snapshot::Query { ids: ids.to_vec(), items, scheduled: self.copied(held) }
    }

    fn copied(&self, entries: Vec<(Timestamp, FrozenCopy)>) -> Scheduled {
        Scheduled { entries, thawer: self.freezer.thawer(), hostname: self.remote.metas.hostname.clone() }
    }
}

impl Scheduled {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Each with its ETA as it was written. Ours alone can be unreadable, if memory has gone bad; it is left out then.
    pub(super) fn thaw(&mut self) -> Vec<(String, Item)> {
        let Scheduled { entries, thawer, hostname } = self;
        let thawed = entries.iter().filter_map(|(eta, copy)| {
            let mut message = thawer.message(copy).ok()?;
            let request = intake::request_of(&mut message, copy.queue(), hostname)?;
            Some((written(request.headers.get("eta"), *eta), Item::thawed(request, &message)))
        });
        thawed.collect()
    }
}

/// A held task as it is told.
pub(super) fn entry(eta: &str, item: &Item, how: Arguments<'_>) -> Value {
    Value::Map(Map::from([("eta", Value::from(eta)), ("priority", PRIORITY.into()), ("request", item.info(how))]))
}

/// Python's `isoformat()` of an ETA in the offset that the producer gave it.
fn written(header: Option<&Value>, eta: Timestamp) -> String {
    let given = header.and_then(|value| match value {
        Value::String(text) => text.parse().ok(),
        other => other.as_datetime().copied(),
    });
    let given = given.filter(|given: &DateTime| given.offset.is_some());
    given.unwrap_or_else(|| DateTime::at(eta, Offset::UTC)).to_string()
}

fn tell_of_part(what: &str, told: usize, all: usize) {
    if told < all {
        warn!("inspect {what}: {all} tasks are {what}, and the answer has {told} of them");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etas_are_told_in_the_offset_that_they_were_given_in() {
        let eta: Timestamp = "2026-11-28T08:25:25.5Z".parse().unwrap();
        let rows = [
            (Some("2026-11-28T09:25:25.500000+01:00"), "2026-11-28T09:25:25.500000+01:00"),
            (Some("2026-11-28T08:25:25.5Z"), "2026-11-28T08:25:25.500000+00:00"),
            (Some("2026-11-28T08:25:25.5"), "2026-11-28T08:25:25.500000+00:00"),
            (None, "2026-11-28T08:25:25.500000+00:00"),
        ];
        for (header, expected) in rows {
            assert_eq!(written(header.map(Value::from).as_ref(), eta), expected, "{header:?}");
        }
    }
}
