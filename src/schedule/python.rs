//! A few of Python's builtins, whose rules decide what a crontab means and how it is shown.

use num_bigint::BigInt;

/// `int(text)`: blanks around it, a sign, and single underscores between digits are allowed; digits are those of ASCII.
pub(super) fn int(text: &str) -> Option<BigInt> {
    let text = text.trim_matches(is_space);
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !digits.split('_').all(|run| !run.is_empty() && run.bytes().all(|byte| byte.is_ascii_digit())) {
        return None;
    }
    let value: BigInt = digits.replace('_', "").parse().ok()?;
    Some(if text.starts_with('-') { -value } else { value })
}

/// `str.isspace`, which counts four separators that Unicode's White_Space does not.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// What `int` says of a text that is no number.
pub(super) fn no_int(text: &str) -> String {
    format!("invalid literal for int() with base 10: {}", repr(text))
}

/// `repr(text)`, but for characters outside ASCII that cannot be printed: these stay as they are.
pub(super) fn repr(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut shown = String::from(quote);
    for c in text.chars() {
        match c {
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            '\\' => shown.push_str("\\\\"),
            c if c == quote => shown.extend(['\\', c]),
            c if c.is_ascii_control() => shown.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => shown.push(c),
        }
    }
    shown.push(quote);
    shown
}

/// `celery.utils.time.humanize_seconds`: `1.00 minute`, `2.50 hours`, and `now` for less than a second.
pub(crate) fn humanize_seconds(seconds: f64) -> String {
    const UNITS: [(&str, f64); 4] = [("day", 86400.0), ("hour", 3600.0), ("minute", 60.0), ("second", 1.0)];
    let seconds: f64 = format!("{seconds:.2}").parse().unwrap_or(seconds);
    let Some((unit, divider)) = UNITS.into_iter().find(|(_, divider)| seconds >= *divider) else {
        return "now".to_owned();
    };
    let count = seconds / divider;
    format!("{count:.2} {unit}{}", if count == 1.0 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_pythons() {
        let rows = [
            ("07", Some(7)),
            (" +5\t", Some(5)),
            ("1_0", Some(10)),
            ("-3", Some(-3)),
            ("1__0", None),
            ("_1", None),
            ("", None),
            ("+", None),
            ("+ 1", None),
            ("0x1", None),
            ("1.0", None),
        ];
        for (text, expected) in rows {
            assert_eq!(int(text), expected.map(BigInt::from), "{text:?}");
        }
    }

    #[test]
    fn texts_are_shown_as_python_shows_them() {
        let rows = [("a", "'a'"), ("it's", "\"it's\""), ("'\"", "'\\'\"'"), ("\\\n\u{1}", "'\\\\\\n\\x01'")];
        for (text, expected) in rows {
            assert_eq!(repr(text), expected);
        }
    }

    #[test]
    fn seconds_for_people() {
        let rows =
            [(60.0, "1.00 minute"), (5400.0, "1.50 hours"), (0.5, "now"), (1.0, "1.00 second"), (90000.0, "1.04 days")];
        for (seconds, expected) in rows {
            assert_eq!(humanize_seconds(seconds), expected);
        }
    }
}
