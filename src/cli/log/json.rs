//! [`write`]: a log line as one JSON object.

use std::fmt::{self, Write as _};

use super::format::Record;

/// What only a JSON line has beside its [`Record`].
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Details<'a> {
    /// The task in whose run the line was logged: its id and its name.
    pub(super) task: Option<(&'a str, &'a str)>,
    /// The event's other fields, as [`push_field`] has gathered them.
    pub(super) fields: &'a str,
    pub(super) traceback: &'a str,
}

/// Appends the line, without its end.
pub(super) fn write(line: &mut String, record: &Record<'_>, details: Details<'_>) {
    line.push('{');
    push_field(line, "time", format_args!("{:.6}", record.now), true);
    push_field(line, "level", format_args!("{}", record.level), true);
    push_field(line, "logger", format_args!("{}", record.target), true);
    push_field(line, "message", format_args!("{}", record.message), true);
    push_field(line, "process", format_args!("{}", std::process::id()), false);
    if let Some((id, name)) = details.task {
        push_field(line, "task_id", format_args!("{id}"), true);
        push_field(line, "task_name", format_args!("{name}"), true);
    }
    if !details.traceback.is_empty() {
        push_field(line, "traceback", format_args!("{}", details.traceback), true);
    }
    if !details.fields.is_empty() {
        // They are written already.
        let _ = write!(line, ", \"fields\": {{{}}}", details.fields);
    }
    line.push('}');
}

/// Appends `"name": value` to an object, with a comma where it is not the first. What is not `quoted` is a number, true or
/// false.
pub(super) fn push_field(object: &mut String, name: &str, value: fmt::Arguments<'_>, quoted: bool) {
    if !object.is_empty() && !object.ends_with('{') {
        object.push_str(", ");
    }
    // Writing fails only when a value's own formatting does; what it wrote until then is kept.
    let _ = write!(object, "\"{}\": ", Escaped(name));
    match quoted {
        true => {
            object.push('"');
            let _ = Escaping(object).write_fmt(value);
            object.push('"');
        }
        false => drop(object.write_fmt(value)),
    }
}

/// A text as it stands within the quotes.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut escaped = String::new();
        Escaping(&mut escaped).write_str(self.0)?;
        f.write_str(&escaped)
    }
}

/// Escapes what is written through it.
struct Escaping<'a>(&'a mut String);

impl fmt::Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(|c: char| c.is_control() || matches!(c, '"' | '\\' | '\u{2028}' | '\u{2029}')) {
            let (plain, tail) = rest.split_at(at);
            self.0.push_str(plain);
            let mut characters = tail.chars();
            match characters.next() {
                Some('"') => self.0.push_str("\\\""),
                Some('\\') => self.0.push_str("\\\\"),
                Some('\n') => self.0.push_str("\\n"),
                Some('\t') => self.0.push_str("\\t"),
                // All of these are of the first plane.
                Some(other) => write!(self.0, "\\u{:04x}", u32::from(other))?,
                None => {}
            }
            rest = characters.as_str();
        }
        self.0.push_str(rest);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::log::Level;

    fn record(message: &str) -> Record<'_> {
        let now = "2026-11-22T15:08:09.0389Z".parse().unwrap();
        Record { level: Level::Info, message, now, target: "shop::tasks", path: "src/tasks.rs", line: 7 }
    }

    #[test]
    fn a_line_is_an_object() {
        let mut line = String::new();
        let details = Details { task: Some(("id", "add")), fields: "\"count\": 3", traceback: "" };
        write(&mut line, &record("done"), details);
        let expected = format!(
            r#"{{"time": "2026-11-22T15:08:09.038900Z", "level": "INFO", "logger": "shop::tasks", "message": "done", "process": {}, "task_id": "id", "task_name": "add", "fields": {{"count": 3}}}}"#,
            std::process::id()
        );
        assert_eq!(line, expected);
    }

    #[test]
    fn any_text_is_one_line_that_can_be_read() {
        let texts = ["", "\"\\\n\t\r\0", "a\u{7f}\u{85}\u{2028}b", "größer 🌱", "{\"a\": 1}", "\u{1b}[31m"];
        for text in texts {
            let mut line = String::new();
            write(&mut line, &record(text), Details { traceback: text, ..Details::default() });
            assert_eq!(line.lines().count(), 1, "{line}");
            let read: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(read["message"], text);
            assert_eq!(read.get("traceback").and_then(|value| value.as_str()).unwrap_or_default(), text);
        }
    }
}
