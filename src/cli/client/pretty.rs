//! Answers as Celery's command line shows them (celery/bin/base.py `CLIContext.pretty`).

use std::io::{self, IsTerminal};

use crate::protocol::{Map, Value, json, repr};

/// Whether something is shown in colours.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    pub(super) colored: bool,
}

impl Style {
    pub(super) fn new(no_color: bool) -> Self {
        Style { colored: !no_color && io::stdout().is_terminal() }
    }

    fn paint(self, text: &str, code: &str) -> String {
        if self.colored { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// One node's answer: a line, and with `body` what it said.
    pub(super) fn answer(self, node: &str, value: &Value, quiet: bool, body: bool) -> String {
        let (is_ok, text) = pretty(value);
        let status = if is_ok { self.paint("OK", "32;1") } else { self.paint("ERROR", "31;1") };
        let arrow = if quiet { String::new() } else { format!("{} ", self.paint("->", "37;1")) };
        let mut said = format!("{arrow} {}{status}", self.paint(&format!("{node}: "), "36;1"));
        if body && !text.is_empty() {
            said.push('\n');
            said.push_str(&indented(&text));
        }
        said
    }
}

/// Whether it is no error, and what it says.
fn pretty(value: &Value) -> (bool, String) {
    match value {
        Value::List(items) if items.is_empty() => (true, "- empty -".to_owned()),
        Value::List(items) => {
            let lines: Vec<_> = items.iter().map(|item| format!("* {}", text(item))).collect();
            (true, lines.join("\n"))
        }
        Value::Map(map) => match (map.get("ok"), map.get("error")) {
            (Some(ok), _) => (true, indented(&pretty(ok).1)),
            (None, Some(error)) => (false, indented(&pretty(error).1)),
            (None, None) => (true, sorted_json(map)),
        },
        value => (true, text(value)),
    }
}

/// What Python's `str()` makes of it.
pub(super) fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| repr::repr(value), str::to_owned)
}

/// What click's `echo` makes of it: nothing of `None`.
pub(super) fn echo(value: &Value) -> String {
    if value.is_null() { String::new() } else { text(value) }
}

/// In one line, as `json.dumps` writes it.
pub(super) fn json_line(value: &Value) -> String {
    // What came as JSON has a form in JSON.
    json::to_vec(value).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_else(|| repr::repr(value))
}

fn indented(text: &str) -> String {
    text.split('\n').map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

/// `json.dumps(…, sort_keys=True, indent=4)`.
fn sorted_json(map: &Map) -> String {
    let mut out = String::new();
    write(&map.clone().into(), 0, &mut out);
    out
}

fn write(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Map(map) if !map.is_empty() => write_map(map, depth + 1, out),
        Value::List(items) if !items.is_empty() => {
            write_all(items, ['[', ']'], depth + 1, out, |item, out| write(item, depth + 1, out));
        }
        value => out.push_str(&json_line(value)),
    }
}

fn write_map(map: &Map, depth: usize, out: &mut String) {
    let mut items: Vec<_> = map.iter().collect();
    items.sort_by_key(|(key, _)| *key);
    write_all(&items, ['{', '}'], depth, out, |(key, value), out| {
        out.push_str(&json_line(&Value::from(*key)));
        out.push_str(": ");
        write(value, depth, out);
    });
}

fn write_all<T>(items: &[T], [open, close]: [char; 2], depth: usize, out: &mut String, one: impl Fn(&T, &mut String)) {
    out.push(open);
    for (at, item) in items.iter().enumerate() {
        out.push_str(if at > 0 { ",\n" } else { "\n" });
        out.push_str(&"    ".repeat(depth));
        one(item, out);
    }
    out.push('\n');
    out.push_str(&"    ".repeat(depth - 1));
    out.push(close);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from `celery inspect` of 5.7.
    #[test]
    fn answers_are_shown_as_celery_shows_them() {
        let rows = [
            (r#"{"ok": "pong"}"#, "->  w1@h: OK\n        pong"),
            (r#"{"error": "KeyError('x')"}"#, "->  w1@h: ERROR\n        KeyError('x')"),
            ("[]", "->  w1@h: OK\n    - empty -"),
            (r#"["a", {"b": [1, null, true]}]"#, "->  w1@h: OK\n    * a\n    * {'b': [1, None, True]}"),
            (
                r#"{"b": [], "a": {"d": [1, "é"], "c": {}}}"#,
                "->  w1@h: OK\n    {\n        \"a\": {\n            \"c\": {},\n            \"d\": [\n                1,\n                \"\\u00e9\"\n            ]\n        },\n        \"b\": []\n    }",
            ),
            (r#""59.98MB""#, "->  w1@h: OK\n    59.98MB"),
            ("{}", "->  w1@h: OK\n    {}"),
            ("null", "->  w1@h: OK\n    None"),
            (r#"{"ok": null}"#, "->  w1@h: OK\n        None"),
        ];
        let style = Style { colored: false };
        for (answer, expected) in rows {
            let value = json::parse(answer.as_bytes()).unwrap();
            assert_eq!(style.answer("w1@h", &value, false, true), expected, "{answer}");
        }
        assert_eq!(style.answer("w1@h", &Value::Null, true, false), " w1@h: OK");
    }
}
