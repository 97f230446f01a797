//! [`Content`]: what stands in the file of a [`FileStore`](super::FileStore), as bytes and back; JSON.

use super::entry::{Kept, Run};
use crate::Result;
use crate::protocol::{Map, Value, json};

/// The key that says whose file it is; its value is the version of the format.
const MARK: &str = "celeriac-beat";
/// The mark of a run that has begun; it takes the place of [`WAITS`].
pub(super) const BEGUN: u8 = b'+';
/// The mark of a run that has not begun.
const WAITS: u8 = b'-';
/// What stands behind the marks, which are the last value of the last table.
const BEHIND: &[u8] = b"\"}}";

/// The settings that the runs were made with. With others they are forgotten, as with Celery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// `timezone`.
    pub timezone: Option<String>,
    /// `enable_utc`.
    pub enable_utc: bool,
}

impl Setting {
    /// The zone as Python shows it.
    pub(super) fn zone(&self) -> String {
        self.timezone.as_ref().map_or("None".to_owned(), |name| format!("'{name}'"))
    }

    pub(super) fn utc(&self) -> &'static str {
        if self.enable_utc { "enabled" } else { "disabled" }
    }
}

/// What stands in a file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Content {
    pub(super) setting: Setting,
    /// All runs; those that were kept together last count as sent.
    pub(super) kept: Kept,
    pub(super) together: Option<Together>,
}

/// Runs that were kept together.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Together {
    /// Which start of the machine it was.
    pub(super) boot: String,
    /// Of each run, in the order of sending, the entry and the run before.
    pub(super) before: Vec<(String, Run)>,
    /// How many of them have begun.
    pub(super) begun: usize,
}

impl Content {
    /// The text, and where in it the first mark stands.
    pub(super) fn to_bytes(&self) -> Result<(Vec<u8>, usize)> {
        let entries: Map = self.kept.iter().map(|(name, run)| (name.clone(), Value::Map(of_run(run)))).collect();
        let mut map = Map::from([
            (MARK, Value::from(1)),
            ("timezone", self.setting.timezone.clone().map_or(Value::Null, Value::from)),
            ("enable_utc", self.setting.enable_utc.into()),
            ("entries", Value::Map(entries)),
        ]);
        let marks = self.together.as_ref().map_or(0, |together| together.before.len());
        if let Some(together) = &self.together {
            map.insert("together", together.to_value());
        }
        let text = json::to_vec(&Value::Map(map))?;
        let offset = text.len().saturating_sub(BEHIND.len() + marks);
        Ok((text, offset))
    }

    /// What a text says, if it can be understood.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let value = json::parse(bytes).ok()?;
        let map = value.as_map().filter(|map| map.get(MARK).and_then(Value::as_u64) == Some(1))?;
        let timezone = match map.get("timezone")? {
            Value::Null => None,
            name => Some(name.as_str()?.to_owned()),
        };
        let setting = Setting { timezone, enable_utc: map.get("enable_utc")?.as_bool()? };
        let run = |(name, run): (&str, &Value)| Some((name.to_owned(), to_run(run)?));
        let kept: Option<Kept> = map.get("entries")?.as_map()?.iter().map(run).collect();
        let together = match map.get("together") {
            None => None,
            Some(together) => Some(Together::parse(together)?),
        };
        Some(Content { setting, kept: kept?, together })
    }

    /// The runs for who reads them at this start of the machine, and how many of those that were kept are known not to have
    /// begun: they do not count.
    pub(super) fn runs(self, boot: Option<&str>) -> (Kept, usize) {
        let mut kept = self.kept;
        let Some(together) = self.together.filter(|together| Some(together.boot.as_str()) == boot) else {
            return (kept, 0);
        };
        let unsent: Vec<_> = together.before.into_iter().skip(together.begun).collect();
        let count = unsent.len();
        // The last first: what stands twice gets the run before both.
        for (name, before) in unsent.into_iter().rev() {
            kept.insert(name, before);
        }
        (kept, count)
    }
}

impl Together {
    fn to_value(&self) -> Value {
        let before = self.before.iter().map(|(name, run)| {
            let mut map = of_run(run);
            map.insert("name", name.as_str());
            Value::Map(map)
        });
        let mark = |index| char::from(if index < self.begun { BEGUN } else { WAITS });
        let marks: String = (0..self.before.len()).map(mark).collect();
        Value::Map(Map::from([
            ("boot", Value::from(self.boot.as_str())),
            ("before", Value::List(before.collect())),
            // They stay at the end: see `BEHIND`.
            ("begun", Value::from(marks)),
        ]))
    }

    fn parse(value: &Value) -> Option<Self> {
        let map = value.as_map()?;
        let before = map.get("before")?.as_list()?.iter();
        let before = before.map(|run| Some((run.as_map()?.get("name")?.as_str()?.to_owned(), to_run(run)?)));
        // They begin in their order: one that could not be marked has begun when one behind it has.
        let begun = map.get("begun")?.as_str()?.bytes().rposition(|mark| mark == BEGUN).map_or(0, |at| at + 1);
        Some(Together { boot: map.get("boot")?.as_str()?.to_owned(), before: before.collect::<Option<_>>()?, begun })
    }
}

fn of_run(run: &Run) -> Map {
    let last_run_at = Value::from(run.last_run_at.to_string());
    Map::from([("last_run_at", last_run_at), ("total_run_count", run.total_run_count.into())])
}

fn to_run(value: &Value) -> Option<Run> {
    let map = value.as_map()?;
    let last_run_at = map.get("last_run_at")?.as_str()?.parse().ok()?;
    Some(Run { last_run_at, total_run_count: map.get("total_run_count")?.as_u64()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(count: u64) -> Run {
        Run { last_run_at: "2026-11-28T12:00:00.5Z".parse().unwrap(), total_run_count: count }
    }

    #[test]
    fn a_mark_is_changed_in_its_place() {
        let names = ["a \"-\" ü", "b", "a \"-\" ü"];
        let before = names.iter().zip(1..).map(|(name, count)| ((*name).to_owned(), run(count))).collect();
        let together = Some(Together { boot: "this".to_owned(), before, begun: 0 });
        let kept = Kept::from(["a \"-\" ü", "b"].map(|name| (name.to_owned(), run(9))));
        let setting = Setting { timezone: None, enable_utc: true };
        let content = Content { setting, kept, together };
        let (mut text, offset) = content.to_bytes().unwrap();
        let counts = |text: &[u8]| {
            let (kept, unsent) = Content::parse(text).unwrap().runs(Some("this"));
            (kept.values().map(|run| run.total_run_count).collect::<Vec<_>>(), unsent)
        };
        // The one that stands twice has what it had before the first, or the second, of its runs.
        let rows = [(vec![1, 2], 3), (vec![3, 2], 2), (vec![3, 9], 1), (vec![9, 9], 0)];
        for (begun, expected) in rows.into_iter().enumerate() {
            assert_eq!(counts(&text), expected, "{begun} have begun");
            if begun < 3 {
                text[offset + begun] = BEGUN;
            }
        }
    }
}
