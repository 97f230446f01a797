//! [`FileName`]: what a message's file says of its place and its queue, and [`Namer`], which makes new ones.

use std::sync::{Mutex, PoisonError};

use uuid::Uuid;

use crate::time::Clock;

/// `<milliseconds>_<uuid>.<queue>.msg` (kombu/transport/filesystem.py `Channel._put`). Stock workers take the names in the
/// order of their letters, so one with more digits comes before others with less; here the number counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileName {
    /// When it was made, by a clock that starts with the machine. What has no number comes last, as it does by letters.
    time: u64,
    text: String,
}

const SUFFIX: &str = ".msg";

impl FileName {
    /// Reads a name; `None`: it is no message's. A queue is what stands behind the first dot (`Channel._get`).
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (stem, queue) = text.split_once('.')?;
        queue.strip_suffix(SUFFIX).filter(|queue| !queue.is_empty())?;
        let time = stem.split('_').next().and_then(|digits| digits.parse().ok()).unwrap_or(u64::MAX);
        Some(FileName { time, text: text.to_owned() })
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn queue(&self) -> &str {
        let queue = self.text.split_once('.').map_or("", |(_, queue)| queue);
        queue.strip_suffix(SUFFIX).unwrap_or(queue)
    }
}

/// Makes names, each later than those before it.
#[derive(Debug)]
pub(super) struct Namer {
    clock: Clock,
    /// How many were made: it stands in the UUID's first digits, so that names of one millisecond keep their order.
    made: Mutex<u32>,
}

impl Namer {
    pub(super) fn new(clock: Clock) -> Self {
        Namer { clock, made: Mutex::default() }
    }

    /// A name at the end of this queue.
    pub(super) fn next(&self, queue: &str) -> FileName {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        *made = made.wrapping_add(1);
        let random = Uuid::new_v4().as_u128() & (u128::MAX >> 32);
        let uuid = Uuid::from_u128((u128::from(*made) << 96) | random);
        // Python's `round(monotonic() * 1000)`.
        let time = u64::try_from((self.clock.since_boot().as_micros() + 500) / 1000).unwrap_or(u64::MAX);
        FileName { time, text: format!("{time}_{uuid}.{queue}{SUFFIX}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_where_and_when() {
        let rows = [
            ("12_5f.celery.msg", Some((12, "celery"))),
            ("12_5f.w@host.name.celery.pidbox.msg", Some((12, "w@host.name.celery.pidbox"))),
            ("hand-made.celery.msg", Some((u64::MAX, "celery"))),
            ("12_5f.celery.msg.tmp", None),
            ("12_5f.msg", None),
            ("12_5f..msg", None),
            ("celery", None),
            (".celeriac", None),
        ];
        for (text, expected) in rows {
            let name = FileName::parse(text);
            assert_eq!(name.as_ref().map(|name| (name.time, name.queue())), expected, "{text}");
        }
    }

    #[test]
    fn later_names_come_later_for_us_and_for_stock_workers() {
        let namer = Namer::new(Clock::system());
        let names: Vec<_> = (0..1000).map(|_| namer.next("q")).collect();
        assert!(names.is_sorted());
        assert!(names.is_sorted_by_key(FileName::as_str));
        assert!(names.iter().all(|name| FileName::parse(name.as_str()).as_ref() == Some(name)));
        assert!(FileName::parse("999_f.q.msg") < FileName::parse("1000_a.q.msg"));
    }
}
