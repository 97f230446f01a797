//! [`Keys`]: the names of everything that the transport keeps in Redis. Other workers and tools use the same names.

use super::RedisOptions;
use crate::transport::broadcast;

/// What the keys of notes begin with.
const NOTES: &str = "celeriac.notes.";

/// Names keys, each with the global prefix.
#[derive(Debug)]
pub(super) struct Keys {
    prefix: String,
    sep: String,
    /// Ascending; the first stands for the bare queue name.
    steps: Vec<u8>,
    /// What stands before the names of fanout channels, `{db}` already replaced, the global prefix included.
    fanout: String,
    /// Whether those names carry routing keys.
    fanout_patterns: bool,
    pub(super) unacked: String,
    pub(super) unacked_index: String,
    pub(super) unacked_mutex: String,
}

impl Keys {
    pub(super) fn new(options: &RedisOptions, db: i64) -> Self {
        let prefixed = |name: &str| format!("{}{name}", options.global_keyprefix);
        let mut steps = options.priority_steps.clone();
        steps.sort_unstable();
        steps.dedup();
        if steps.is_empty() {
            steps.push(0);
        }
        Keys {
            fanout: prefixed(&options.fanout_prefix.replace("{db}", &db.to_string())),
            fanout_patterns: options.fanout_patterns,
            unacked: prefixed(&options.unacked_key),
            unacked_index: prefixed(&options.unacked_index_key),
            unacked_mutex: prefixed(&options.unacked_mutex_key),
            prefix: options.global_keyprefix.clone(),
            sep: options.sep.clone(),
            steps,
        }
    }

    /// The priorities that have a list of their own, the one to take first in front.
    pub(super) fn steps(&self) -> &[u8] {
        &self.steps
    }

    /// The list of a queue's messages of one step (kombu/transport/redis.py `Channel._q_for_pri`).
    pub(super) fn list(&self, queue: &str, step: u8) -> String {
        match step {
            0 => format!("{}{queue}", self.prefix),
            step => format!("{}{queue}{}{step}", self.prefix, self.sep),
        }
    }

    /// The list for a message of this priority: that of the next lower step.
    pub(super) fn list_for(&self, queue: &str, priority: i64) -> String {
        let priority = priority.clamp(0, 9);
        let step = self.steps.iter().copied().rfind(|step| i64::from(*step) <= priority);
        self.list(queue, step.unwrap_or(self.steps[0]))
    }

    /// A note's key.
    pub(super) fn note(&self, name: &str) -> String {
        format!("{}{NOTES}{name}", self.prefix)
    }

    /// The table of an exchange's bindings.
    pub(super) fn binding(&self, exchange: &str) -> String {
        format!("{}_kombu.binding.{exchange}", self.prefix)
    }

    /// The table of those bindings that must not be swept (kombu 5.7).
    pub(super) fn binding_permanent(&self, exchange: &str) -> String {
        format!("{}_kombu.binding_permanent.{exchange}", self.prefix)
    }

    /// The channel that a broadcast is published on.
    pub(super) fn channel(&self, exchange: &str, routing_key: &str) -> String {
        format!("{}{}", self.fanout, broadcast::topic(exchange, routing_key, self.fanout_patterns))
    }

    /// The pattern of the channels that are heard by a queue.
    pub(super) fn channel_pattern(&self, exchange: &str, routing_key: &str) -> String {
        format!("{}{}", self.fanout, broadcast::pattern(exchange, routing_key, self.fanout_patterns))
    }

    /// One row of a table of bindings, and back.
    pub(super) fn member(&self, parts: [&str; 3]) -> String {
        parts.join(&self.sep)
    }

    pub(super) fn split_member<'a>(&self, member: &'a str) -> Option<[&'a str; 3]> {
        let mut parts = member.split(self.sep.as_str());
        let row = [parts.next()?, parts.next()?, parts.next()?];
        (parts.next().is_none() && !row[2].is_empty()).then_some(row)
    }

    /// Whether a key can be a list of messages: the others' changes wake nobody.
    pub(super) fn is_list(&self, key: &[u8]) -> bool {
        let ours = [&self.unacked, &self.unacked_index, &self.unacked_mutex];
        let bindings = format!("{}_kombu.", self.prefix);
        let notes = self.note("");
        !ours.iter().any(|own| own.as_bytes() == key)
            && !key.starts_with(bindings.as_bytes())
            && !key.starts_with(notes.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(prefix: &str) -> Keys {
        Keys::new(&RedisOptions { global_keyprefix: prefix.to_owned(), ..RedisOptions::default() }, 10)
    }

    #[test]
    fn priorities_round_down_to_their_step() {
        let rows = [
            (-5, "q"),
            (0, "q"),
            (2, "q"),
            (3, "q\x06\x163"),
            (5, "q\x06\x163"),
            (8, "q\x06\x166"),
            (99, "q\x06\x169"),
        ];
        for (priority, expected) in rows {
            assert_eq!(keys("").list_for("q", priority), expected, "{priority}");
        }
    }

    #[test]
    fn the_prefix_stands_before_every_key() {
        let keys = keys("app:");
        assert_eq!(keys.list("q", 3), "app:q\x06\x163");
        assert_eq!(keys.unacked, "app:unacked");
        assert_eq!(keys.binding("celery"), "app:_kombu.binding.celery");
        assert!(keys.is_list(b"app:q"));
        assert!(!keys.is_list(b"app:unacked_index"));
        assert!(!keys.is_list(b"app:_kombu.binding.celery"));
        assert!(!keys.is_list(keys.note("x").as_bytes()));
    }

    #[test]
    fn channels_are_kombus() {
        let check = |options: RedisOptions, exchange: &str, key: &str, expected: &str| {
            assert_eq!(Keys::new(&options, 10).channel_pattern(exchange, key), expected);
        };
        let prefixed = |prefix: &str| RedisOptions { fanout_prefix: prefix.to_owned(), ..RedisOptions::default() };
        let flat = RedisOptions { fanout_patterns: false, ..RedisOptions::default() };
        let global = RedisOptions { global_keyprefix: "app:".to_owned(), ..RedisOptions::default() };
        check(RedisOptions::default(), "celery.pidbox", "", "/10.celery.pidbox");
        check(RedisOptions::default(), "celeryev", "worker.#", "/10.celeryev/worker.*");
        check(flat, "celeryev", "worker.#", "/10.celeryev");
        check(prefixed(""), "celery.pidbox", "", "celery.pidbox");
        check(prefixed("{db}-x."), "celery.pidbox", "", "10-x.celery.pidbox");
        check(global, "celery.pidbox", "", "app:/10.celery.pidbox");
        assert_eq!(keys("").channel("celeryev", "task.multi"), "/10.celeryev/task.multi");
    }

    #[test]
    fn members_are_split_as_they_were_joined() {
        let keys = keys("");
        let member = keys.member(["celery", "", "celery"]);
        assert_eq!(member, "celery\x06\x16\x06\x16celery");
        assert_eq!(keys.split_member(&member), Some(["celery", "", "celery"]));
        assert_eq!(keys.split_member("celery\x06\x16"), None);
    }
}
