//! [`LineFormat`]: `worker_log_format`, which is Python's `logging` format with `%(…)s` fields.

use std::fmt::Write as _;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use super::Level;
use crate::time::zone;
use crate::{Error, ErrorKind, Result};

/// A format of log lines, ready to be filled in.
#[derive(Debug, Clone)]
pub struct LineFormat {
    pieces: Vec<Piece>,
    zone: TimeZone,
    /// The form of `%(asctime)s` for strftime; `None`: Python's `2026-11-22 16:08:09,738`.
    pub date_format: Option<String>,
}

/// What a line is about.
#[derive(Debug)]
pub(super) struct Record<'a> {
    pub(super) level: Level,
    pub(super) message: &'a str,
    pub(super) now: Timestamp,
    pub(super) target: &'a str,
    pub(super) path: &'a str,
    pub(super) line: u32,
}

#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Literal(String),
    Field(Field, Padding),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Field {
    AscTime,
    LevelName,
    LevelNumber,
    ProcessName,
    Process,
    ThreadName,
    Message,
    Name,
    PathName,
    FileName,
    LineNumber,
    Created,
    Milliseconds,
}

/// `%(…)-8s`: the width, on which side, and with what.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Padding {
    width: usize,
    left: bool,
    zeros: bool,
}

/// No line needs more; a format that asks for more is a mistake.
const WIDEST: usize = 200;

impl LineFormat {
    /// Reads a format.
    ///
    /// # Errors
    /// `Configuration`: a field that is not known, or one that is not closed.
    pub fn parse(text: &str) -> Result<Self> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((literal, after)) = rest.split_once('%') {
            push_literal(&mut pieces, literal);
            rest = match after.strip_prefix('%') {
                Some(after) => {
                    push_literal(&mut pieces, "%");
                    after
                }
                None => field(&mut pieces, after)?,
            };
        }
        push_literal(&mut pieces, rest);
        Ok(LineFormat { pieces, zone: zone::local(), date_format: None })
    }

    /// Appends the line, without its end.
    pub(super) fn write(&self, line: &mut String, record: &Record<'_>) {
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => line.push_str(text),
                Piece::Field(field, padding) => {
                    let start = line.len();
                    self.write_field(line, *field, record);
                    padding.apply(line, start);
                }
            }
        }
    }

    fn write_field(&self, line: &mut String, field: Field, record: &Record<'_>) {
        match field {
            Field::AscTime => self.write_time(line, record.now),
            Field::LevelName => line.push_str(record.level.name()),
            Field::LevelNumber => push(line, record.level.number()),
            Field::ProcessName => line.push_str("MainProcess"),
            Field::Process => push(line, std::process::id()),
            Field::ThreadName => line.push_str(std::thread::current().name().unwrap_or("unnamed")),
            Field::Message => line.push_str(record.message),
            Field::Name => line.push_str(record.target),
            Field::PathName => line.push_str(record.path),
            Field::FileName => line.push_str(record.path.rsplit('/').next().unwrap_or_default()),
            Field::LineNumber => push(line, record.line),
            Field::Created => push(line, format_args!("{:.6}", record.now.as_microsecond() as f64 / 1e6)),
            Field::Milliseconds => push(line, record.now.subsec_millisecond()),
        }
    }

    fn write_time(&self, line: &mut String, now: Timestamp) {
        let local = now.to_zoned(self.zone.clone());
        match &self.date_format {
            // A directive that jiff does not know leaves the time out; the line matters more.
            Some(format) => drop(jiff::fmt::strtime::BrokenDownTime::from(&local).format(format, line)),
            None => write_local(line, &local),
        }
    }
}

/// Python's default (logging/__init__.py `Formatter.formatTime`). By hand: it is most of the work of a line.
fn write_local(line: &mut String, at: &Zoned) {
    digits(line, i32::from(at.year()), 4);
    for (separator, value) in
        [('-', at.month()), ('-', at.day()), (' ', at.hour()), (':', at.minute()), (':', at.second())]
    {
        line.push(separator);
        digits(line, i32::from(value), 2);
    }
    line.push(',');
    digits(line, i32::from(at.millisecond()), 3);
}

fn digits(line: &mut String, value: i32, width: u32) {
    for place in (0..width).rev() {
        let digit = value / 10_i32.pow(place) % 10;
        line.push(char::from_digit(digit.unsigned_abs(), 10).unwrap_or('0'));
    }
}

fn push(line: &mut String, value: impl std::fmt::Display) {
    // Writing to a String cannot fail.
    let _ = write!(line, "{value}");
}

fn push_literal(pieces: &mut Vec<Piece>, text: &str) {
    match pieces.last_mut() {
        Some(Piece::Literal(last)) => last.push_str(text),
        _ if text.is_empty() => {}
        _ => pieces.push(Piece::Literal(text.to_owned())),
    }
}

/// Reads `(name)-8s` at the start of `text` and returns what follows it.
fn field<'a>(pieces: &mut Vec<Piece>, text: &'a str) -> Result<&'a str> {
    let wrong = |what: &str| {
        let shown: String = text.chars().take(20).collect();
        Error::new(ErrorKind::Configuration, format!("worker_log_format: {what} at '%{shown}'"))
    };
    let (name, rest) =
        text.strip_prefix('(').and_then(|rest| rest.split_once(')')).ok_or_else(|| wrong("expected %(name)s"))?;
    let end = rest.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(|| wrong("expected %(name)s"))?;
    let padding = Padding::parse(&rest[..end]).ok_or_else(|| wrong("a width that cannot be read"))?;
    if !["s", "d", "f", "r"].contains(&&rest[end..=end]) {
        return Err(wrong("expected %(name)s"));
    }
    pieces.push(Piece::Field(Field::named(name).ok_or_else(|| wrong("unknown field"))?, padding));
    Ok(&rest[end + 1..])
}

impl Field {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "asctime" => Field::AscTime,
            "levelname" => Field::LevelName,
            "levelno" => Field::LevelNumber,
            "processName" => Field::ProcessName,
            "process" => Field::Process,
            "threadName" => Field::ThreadName,
            "message" => Field::Message,
            "name" | "module" => Field::Name,
            "pathname" => Field::PathName,
            "filename" => Field::FileName,
            "lineno" => Field::LineNumber,
            "created" => Field::Created,
            "msecs" => Field::Milliseconds,
            _ => return None,
        })
    }
}

impl Padding {
    fn parse(text: &str) -> Option<Self> {
        let flags = text.len() - text.trim_start_matches(['-', '0']).len();
        let (flags, width) = text.split_at(flags);
        let width = width.split('.').next().unwrap_or_default();
        let width = if width.is_empty() { 0 } else { width.parse().ok().filter(|width| *width <= WIDEST)? };
        Some(Padding { width, left: flags.contains('-'), zeros: flags.contains('0') && !flags.contains('-') })
    }

    fn apply(self, line: &mut String, start: usize) {
        if self.width == 0 {
            return;
        }
        let missing = self.width.saturating_sub(line[start..].chars().count());
        let at = if self.left { line.len() } else { start };
        line.insert_str(at, &(if self.zeros { "0" } else { " " }).repeat(missing));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(format: &str, expected: &str) {
        let mut format = LineFormat::parse(format).unwrap();
        format.zone = TimeZone::fixed(jiff::tz::offset(1));
        let record = Record {
            level: Level::Info,
            message: "100% done",
            now: "2026-11-22T15:08:09.0389Z".parse().unwrap(),
            target: "shop::tasks",
            path: "src/tasks.rs",
            line: 7,
        };
        let mut line = String::new();
        format.write(&mut line, &record);
        assert_eq!(line, expected);
    }

    #[test]
    fn fields() {
        check(
            "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s",
            "[2026-11-22 16:08:09,038: INFO/MainProcess] 100% done",
        );
        check("%(levelname)-8s|%(levelname)8s|%(lineno)04d|", "INFO    |    INFO|0007|");
        check("%% %(name)s %(filename)s:%(lineno)d %(levelno)d %(msecs)03d", "% shop::tasks tasks.rs:7 20 038");
        check("%(created)f", "1795360089.038900");
        check("", "");
    }

    #[test]
    fn formats_that_cannot_be_read() {
        let check = |format: &str, expected: &str| {
            let error = LineFormat::parse(format).unwrap_err().to_string();
            assert_eq!(error, format!("worker_log_format: {expected}"), "{format}");
        };
        check("%(task_id)s", "unknown field at '%(task_id)s'");
        check("%(message", "expected %(name)s at '%(message'");
        check("%d", "expected %(name)s at '%d'");
        check("100%", "expected %(name)s at '%'");
        check("%(message)x", "expected %(name)s at '%(message)x'");
        check("%(message)99999999s", "a width that cannot be read at '%(message)99999999s'");
    }

    #[test]
    fn dates_in_another_form() {
        let mut format = LineFormat::parse("%(asctime)s %(message)s").unwrap();
        format.zone = TimeZone::UTC;
        let mut shown = |date_format: &str| {
            format.date_format = Some(date_format.to_owned());
            let mut line = String::new();
            let now = "2026-11-22T15:08:09Z".parse().unwrap();
            format.write(&mut line, &Record { level: Level::Info, message: "m", now, target: "", path: "", line: 0 });
            line
        };
        assert_eq!(shown("%d.%m. %H:%M"), "22.11. 15:08 m");
    }
}
