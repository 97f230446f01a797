//! [`Party`]: which other workers are there, as their own events tell (celery/worker/consumer/gossip.py `Gossip`,
//! celery/events/state.py `State`).

use indexmap::IndexMap;

use super::cluster::{number, text};
use super::{SeenWorker, WORKERS};
use crate::protocol::Map;

/// Who is there, but for this node itself.
#[derive(Debug, Clone, Default)]
pub struct Party {
    workers: IndexMap<String, SeenWorker>,
}

/// What an event of a worker says of who is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// It was not there before, or begins anew.
    Joined,
    /// It has said that it ends.
    Left,
}

impl Party {
    /// Takes in an event of another worker, heard at `now`. One that lacks what it needs says nothing.
    pub fn hear(&mut self, event: &Map, now: f64) -> Option<News> {
        let (hostname, what) = (text(event, "hostname")?, text(event, "type")?.strip_prefix("worker-")?);
        number(event, "timestamp")?;
        if what == "offline" {
            self.workers.shift_remove(hostname);
            return Some(News::Left);
        }
        let is_new = !self.workers.contains_key(hostname);
        if is_new && self.workers.len() >= WORKERS {
            self.workers.shift_remove_index(0);
        }
        let worker = self.workers.entry(hostname.to_owned()).or_insert_with(|| SeenWorker::new(hostname));
        worker.freq = number(event, "freq").filter(|freq| *freq > 0.0).unwrap_or(worker.freq);
        worker.heard = Some(now);
        (is_new || what == "online").then_some(News::Joined)
    }

    /// Forgets those whose heartbeats are missed, and says who they are.
    pub fn miss(&mut self, now: f64) -> Vec<String> {
        let missed = self.workers.values().filter(|worker| !worker.is_alive(now));
        let missed: Vec<_> = missed.map(|worker| worker.hostname.clone()).collect();
        self.workers.retain(|_, worker| worker.is_alive(now));
        missed
    }

    /// Those whose hearts beat.
    pub fn alive(&self, now: f64) -> impl Iterator<Item = &str> {
        self.workers.values().filter(move |worker| worker.is_alive(now)).map(|worker| worker.hostname.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, hostname: &str, freq: f64) -> Map {
        let mut event = Map::from([("type", kind), ("hostname", hostname)]);
        event.insert("timestamp", 1.0);
        event.insert("freq", freq);
        event
    }

    #[test]
    fn workers_join_leave_and_are_missed() {
        let mut party = Party::default();
        let rows = [
            ("worker-online", "a@h", 100.0, Some(News::Joined), "a@h"),
            ("worker-heartbeat", "a@h", 102.0, None, "a@h"),
            ("worker-heartbeat", "b@h", 103.0, Some(News::Joined), "a@h b@h"),
            ("worker-online", "b@h", 104.0, Some(News::Joined), "a@h b@h"),
            ("worker-anything", "c@h", 104.0, Some(News::Joined), "a@h b@h c@h"),
            ("worker-offline", "c@h", 104.0, Some(News::Left), "a@h b@h"),
            ("worker-offline", "d@h", 105.0, Some(News::Left), "a@h b@h"),
            ("task-started", "e@h", 105.0, None, "a@h b@h"),
            ("worker-heartbeat", "b@h", 106.5, None, "b@h"),
        ];
        for (kind, hostname, now, news, alive) in rows {
            assert_eq!(party.hear(&event(kind, hostname, 2.0), now), news, "{kind} {hostname}");
            assert_eq!(party.alive(now).collect::<Vec<_>>().join(" "), alive, "{kind} {hostname}");
        }
        assert_eq!(party.miss(106.5), ["a@h"]);
        assert_eq!(party.miss(106.5), [""; 0], "it is missed once");
        assert_eq!(party.hear(&event("worker-heartbeat", "a@h", 2.0), 107.0), Some(News::Joined));
    }

    #[test]
    fn a_heart_beats_as_often_as_it_says() {
        let mut party = Party::default();
        for (freq, heard, missed) in [(0.5, 0.9, 1.1), (30.0, 59.9, 60.1), (-1.0, 119.9, 120.1)] {
            party.hear(&event("worker-heartbeat", "a@h", freq), 0.0);
            assert_eq!(party.miss(heard), [""; 0], "{freq}");
            assert_eq!(party.miss(missed), ["a@h"], "{freq}");
        }
    }

    #[test]
    fn what_lacks_a_field_says_nothing_and_crowds_are_bounded() {
        let mut party = Party::default();
        for field in ["type", "hostname", "timestamp"] {
            let mut event = event("worker-online", "a@h", 2.0);
            event.remove(field);
            assert_eq!(party.hear(&event, 1.0), None, "{field}");
        }
        for number in 0..WORKERS + 3 {
            party.hear(&event("worker-heartbeat", &number.to_string(), 2.0), 1.0);
        }
        assert_eq!((party.alive(1.0).count(), party.alive(1.0).next()), (WORKERS, Some("3")));
    }
}
