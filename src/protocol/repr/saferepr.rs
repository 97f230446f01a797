//! Celery's shortened `repr` (celery/utils/saferepr.py), character for character: what it makes stands in message
//! headers, events, logs and Flower's search.

use super::super::{Map, Value};
use super::literal;

/// How much [`saferepr`] shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Characters; closing brackets may come on top. `None` is no limit.
    pub length: Option<usize>,
    /// Levels of nesting; deeper ones are `[...]`. 0 is no limit.
    pub levels: usize,
}

/// Celery's defaults: `argsrepr_maxsize`, `kwargsrepr_maxsize` and `resultrepr_maxsize` of 1024, three levels.
impl Default for Limits {
    fn default() -> Self {
        Limits { length: Some(1024), levels: 3 }
    }
}

/// Celery's `saferepr(value, maxlen, maxlevels)`.
pub fn saferepr(value: &Value, limits: Limits) -> String {
    let mut writer = Writer::new(limits);
    let _ = writer.value(value);
    writer.out
}

/// The `argsrepr` header: the arguments as a tuple.
pub fn argsrepr(args: &[Value], limits: Limits) -> String {
    let mut writer = Writer::new(limits);
    let end = if args.len() == 1 { ",)" } else { ")" };
    let _ = writer.container("(", end, |writer| writer.items(args));
    writer.out
}

/// The `kwargsrepr` header.
pub fn kwargsrepr(kwargs: &Map, limits: Limits) -> String {
    let mut writer = Writer::new(limits);
    let _ = writer.map(kwargs);
    writer.out
}

/// The budget is spent: nothing more is written but the brackets that are open.
struct Spent;

struct Writer {
    out: String,
    /// What is left of the length.
    left: Option<isize>,
    levels: usize,
    level: usize,
}

impl Writer {
    fn new(limits: Limits) -> Self {
        let left = limits.length.map(|length| isize::try_from(length).unwrap_or(isize::MAX));
        Writer { out: String::new(), left, levels: limits.levels, level: 0 }
    }

    fn is_spent(&self) -> bool {
        self.left.is_some_and(|left| left <= 0)
    }

    /// Writes a token that may not be cut, if there is any budget left.
    fn token(&mut self, token: &str) -> Result<(), Spent> {
        if self.is_spent() {
            self.out.push_str(", ...");
            return Err(Spent);
        }
        self.push(token);
        Ok(())
    }

    fn push(&mut self, token: &str) {
        self.out.push_str(token);
        if let Some(left) = &mut self.left {
            *left -= token.chars().count() as isize;
        }
    }

    fn value(&mut self, value: &Value) -> Result<(), Spent> {
        match value {
            Value::List(items) => self.container("[", "]", |writer| writer.items(items)),
            Value::Map(map) => self.map(map),
            Value::String(text) => self.text(text),
            Value::Bytes(bytes) => {
                let shown = self.shown_bytes(bytes);
                self.token(&shown)
            }
            scalar => {
                let mut shown = String::new();
                literal::write(scalar, &mut shown);
                let shown = self.truncated(&shown);
                self.token(&shown)
            }
        }
    }

    fn items(&mut self, items: &[Value]) -> Result<(), Spent> {
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                self.token(", ")?;
            }
            self.value(item)?;
        }
        Ok(())
    }

    fn map(&mut self, map: &Map) -> Result<(), Spent> {
        self.container("{", "}", |writer| {
            for (at, (key, value)) in map.iter().enumerate() {
                if at > 0 {
                    writer.token(", ")?;
                }
                writer.text(key)?;
                writer.token(": ")?;
                writer.value(value)?;
            }
            Ok(())
        })
    }

    fn container(
        &mut self,
        start: &str,
        end: &str,
        content: impl FnOnce(&mut Self) -> Result<(), Spent>,
    ) -> Result<(), Spent> {
        if self.levels > 0 && self.level >= self.levels {
            return self.token(&format!("{start}...{end}"));
        }
        self.token(start)?;
        self.level += 1;
        let written = content(self);
        self.level -= 1;
        // An open bracket is closed in any case, and beyond the budget its closing is not counted.
        if written.is_err() || self.is_spent() {
            self.out.push_str(end)
        } else {
            self.push(end)
        }
        written
    }

    /// Python writes the quotes of a `str` without looking for those within, which it escapes.
    fn text(&mut self, text: &str) -> Result<(), Spent> {
        let shown = format!("'{}'", self.truncated(text).replace('\'', "\\'"));
        self.token(&shown)
    }

    /// The text up to the last space within the budget (celery/utils/text.py `truncate`).
    fn truncated(&self, text: &str) -> String {
        let Some(left) = self.left.and_then(|left| usize::try_from(left).ok()).filter(|left| *left > 0) else {
            return text.to_owned();
        };
        match text.char_indices().nth(left - 1) {
            None => text.to_owned(),
            Some((last, character)) => {
                let cut = &text[..last + character.len_utf8()];
                let cut = cut.rsplit_once(' ').map_or(cut, |(before, _)| before);
                format!("{cut}...")
            }
        }
    }

    /// Bytes as text if they are UTF-8, else as hexadecimal digits.
    fn shown_bytes(&self, bytes: &[u8]) -> String {
        let cut = self.left.and_then(|left| usize::try_from(left).ok()).filter(|left| *left > 0 && bytes.len() > *left);
        let shown = &bytes[..cut.unwrap_or(bytes.len())];
        let text = match std::str::from_utf8(shown) {
            Ok(text) => text.to_owned(),
            Err(_) => shown.iter().map(|byte| format!("{byte:02x}")).collect(),
        };
        format!("b'{text}{}'", if cut.is_some() { "..." } else { "" })
    }
}
