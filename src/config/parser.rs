//! [`Parser`]: from a TOML value to a setting's type, and what to say when it does not fit.

use std::time::Duration;

use toml::Value;

/// What is wrong with a value, for people.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mismatch {
    /// The part of the setting that is wrong, when it is a table or a list.
    pub(super) part: Option<String>,
    /// What is wrong: "expected seconds, such as 30 or 1.5".
    pub(super) problem: String,
}

impl Mismatch {
    pub(super) fn new(expected: impl Into<String>) -> Self {
        Mismatch { part: None, problem: format!("expected {}", expected.into()) }
    }

    /// A part that nobody knows, and what is called nearly so.
    pub(super) fn misspelt(part: &str, near: &str) -> Self {
        Mismatch { part: Some(part.to_owned()), problem: format!("unknown, did you mean {near}?") }
    }

    /// The same mismatch, found at `part` of a larger value.
    pub(super) fn within(mut self, part: &str) -> Self {
        self.part = Some(match self.part {
            Some(inner) => format!("{part}.{inner}"),
            None => part.to_owned(),
        });
        self
    }
}

/// A struct whose fields can be set by name.
pub(crate) trait Settings {
    /// The names of all fields.
    const NAMES: &'static [&'static str];

    /// How text from a command line is read for the field of that name.
    fn kind(name: &str) -> Option<Kind>;

    /// Sets the field of that name; `false` when there is none.
    fn assign(&mut self, name: &str, value: &Value) -> Result<bool, Mismatch>;

    /// The field of that name as a project would write it; `None` is null.
    fn shown(&self, name: &str) -> Option<Value>;

    /// Whether the field of that name is as Celery has it by default.
    fn is_default(&self, name: &str) -> bool;
}

/// How text without a cast is read (celery/app/defaults.py `Option.typemap`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    Integer,
    Number,
    Text,
    List,
    Table,
}

impl Kind {
    /// The value that `text` stands for; text that does not fit stays text, and the parser refuses it.
    pub(super) fn read(self, text: &str) -> Value {
        let value = match self {
            Kind::Bool => truth(text).map(Value::Boolean),
            Kind::Integer => text.trim().parse().ok().map(Value::Integer),
            Kind::Number => text.trim().parse().ok().map(Value::Float),
            Kind::List => Some(text.split(',').map(|item| Value::from(item.trim())).collect::<Vec<_>>().into()),
            Kind::Text | Kind::Table => None,
        };
        value.unwrap_or_else(|| Value::from(text))
    }
}

/// Booleans as text (celery/utils/serialization.py `strtobool`).
pub(super) fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Some(true),
        "0" | "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// How the values of one kind of setting are read.
pub(super) struct Parser<T> {
    pub(super) kind: Kind,
    expected: &'static str,
    read: fn(&Value) -> Option<T>,
}

impl<T> Parser<T> {
    pub(super) const fn new(kind: Kind, expected: &'static str, read: fn(&Value) -> Option<T>) -> Self {
        Parser { kind, expected, read }
    }

    pub(super) fn parse(&self, value: &Value) -> Result<T, Mismatch> {
        (self.read)(value).ok_or_else(|| Mismatch::new(self.expected))
    }
}

/// How a setting is read that can say itself which part of it is wrong.
pub(super) struct NestedParser<T> {
    pub(super) kind: Kind,
    read: fn(&Value) -> Result<T, Mismatch>,
}

impl<T> NestedParser<T> {
    pub(super) const fn new(kind: Kind, read: fn(&Value) -> Result<T, Mismatch>) -> Self {
        NestedParser { kind, read }
    }

    pub(super) fn parse(&self, value: &Value) -> Result<T, Mismatch> {
        (self.read)(value)
    }
}

pub(super) const BOOL: Parser<bool> = Parser::new(Kind::Bool, "true or false", Value::as_bool);
pub(super) const OPTIONAL_BOOL: Parser<Option<bool>> =
    Parser::new(Kind::Bool, "true or false", |value| value.as_bool().map(Some));
pub(super) const TEXT: Parser<String> = Parser::new(Kind::Text, "a string", |value| value.as_str().map(str::to_owned));
/// An empty string unsets, as TOML has no null.
pub(super) const OPTIONAL_TEXT: Parser<Option<String>> =
    Parser::new(Kind::Text, "a string", |value| value.as_str().map(|text| (!text.is_empty()).then(|| text.to_owned())));
pub(super) const TEXTS: Parser<Vec<String>> = Parser::new(Kind::List, "a list of strings", texts);
pub(super) const OPTIONAL_TEXTS: Parser<Option<Vec<String>>> =
    Parser::new(Kind::List, "a list of strings", |value| texts(value).map(Some));
pub(super) const URLS: Parser<Option<String>> =
    Parser::new(Kind::Text, "a URL, or a list of URLs", |value| Some(Some(texts(value)?.join(";"))));
pub(super) const COUNT: Parser<u32> = Parser::new(Kind::Integer, "a whole number, 0 or more", count);
/// 0 is no limit.
pub(super) const LIMIT: Parser<Option<u32>> =
    Parser::new(Kind::Number, "a whole number (0: no limit)", |value| match value.as_float() {
        Some(number) if number.is_infinite() && number > 0.0 => Some(None),
        _ => whole(value).map(|number| (number > 0).then_some(number)),
    });
pub(super) const OPTIONAL_COUNT: Parser<Option<u32>> =
    Parser::new(Kind::Integer, "a whole number, 0 or more", |value| count(value).map(Some));
pub(super) const SECONDS: Parser<Duration> = Parser::new(Kind::Number, "seconds, such as 30 or 1.5", seconds);
/// 0 stays 0.
pub(super) const OPTIONAL_SECONDS: Parser<Option<Duration>> =
    Parser::new(Kind::Number, "seconds, such as 30 or 1.5", |value| seconds(value).map(Some));
/// 0 switches off, as TOML has no null.
pub(super) const SECONDS_OR_OFF: Parser<Option<Duration>> =
    Parser::new(Kind::Number, "seconds, such as 30 or 1.5 (0: none)", |value| {
        seconds(value).map(|time| (!time.is_zero()).then_some(time))
    });
pub(super) const MILLISECONDS: Parser<Duration> = Parser::new(Kind::Integer, "whole milliseconds", |value| {
    value.as_integer().and_then(|number| u64::try_from(number).ok()).map(Duration::from_millis)
});

fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

fn count(value: &Value) -> Option<u32> {
    value.as_integer().and_then(|number| u32::try_from(number).ok())
}

/// A whole number, also one that was read as a float ("5" where infinity is allowed).
fn whole(value: &Value) -> Option<u32> {
    let float = value.as_float().filter(|number| number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(number));
    count(value).or(float.map(|number| number as u32))
}

fn seconds(value: &Value) -> Option<Duration> {
    let number = value.as_float().or(value.as_integer().map(|number| number as f64))?;
    Duration::try_from_secs_f64(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_by_the_kind_of_the_setting() {
        let check = |kind: Kind, text: &str, expected: Value| assert_eq!(kind.read(text), expected, "{kind:?} {text}");
        check(Kind::Bool, "Yes", Value::Boolean(true));
        check(Kind::Bool, "off", Value::Boolean(false));
        check(Kind::Bool, "perhaps", Value::from("perhaps"));
        check(Kind::Integer, " 7", Value::Integer(7));
        check(Kind::Integer, "7.5", Value::from("7.5"));
        check(Kind::Number, "7", Value::Float(7.0));
        check(Kind::List, "a, b", vec!["a", "b"].into());
        check(Kind::Text, "5", Value::from("5"));
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused() {
        for value in [Value::Float(f64::NAN), Value::Float(-1.0), Value::Float(1e300), Value::Integer(-1)] {
            assert!(SECONDS.parse(&value).is_err(), "{value:?}");
            assert!(LIMIT.parse(&value).is_err(), "{value:?}");
        }
        assert_eq!(LIMIT.parse(&Value::Float(f64::INFINITY)), Ok(None));
        assert_eq!(LIMIT.parse(&Value::Integer(0)), Ok(None));
        assert_eq!(LIMIT.parse(&Value::Float(3.0)), Ok(Some(3)));
        assert_eq!(COUNT.parse(&Value::Integer(1 << 40)), Err(Mismatch::new("a whole number, 0 or more")));
    }
}
