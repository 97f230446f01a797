//! Memcached's text protocol as values: what is asked, and what the server answers (memcached `doc/protocol.txt`). No socket
//! is in sight.
//!
//! Values bear the flags 0, as the bytes that pymemcache stores; whoever reads gets bytes. Flags that other clients have
//! written (python-memcached and pylibmc mark text) are not looked at: Celery's results are text or bytes.

use std::collections::HashMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

/// From here on memcached reads an expiry as an absolute time (celery/backends/cache.py `MAX_RELATIVE_EXPIRES`).
const LONGEST_RELATIVE: u64 = 30 * 24 * 60 * 60;

/// How long a key may be.
pub(super) const LONGEST_KEY: usize = 250;

/// A line of the server's that is longer is none: keys are short, and so is what it says of errors.
const LONGEST_LINE: usize = 4096;

/// The largest value that memcached can be told to keep (`-I`).
const LONGEST_VALUE: usize = 1 << 30;

/// How many keys one command asks for.
const KEYS: usize = 100;

/// Commands that leave at once.
#[derive(Debug, Default)]
pub(super) struct Request {
    bytes: Vec<u8>,
    /// What is answered to each of them.
    forms: Vec<Form>,
    /// Whether some do another thing when they are done twice.
    is_once: bool,
}

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// One line.
    Line,
    /// Values, and a line after them.
    Values,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is done.
    Done,
    /// `NOT_STORED`: the key is there already.
    Taken,
    /// `EXISTS`: the value has been changed meanwhile.
    Changed,
    /// `NOT_FOUND`
    Missing,
    /// `SERVER_ERROR`, with the server's words: the connection is as good as before.
    Refused(String),
    /// What was found, by key.
    Values(HashMap<String, Item>),
}

/// A value, and the number by which a change of it is noticed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) payload: Bytes,
    pub(super) unique: u64,
}

/// The bytes on a connection are not those of the protocol, or the server could not read ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Broken(pub(super) String);

impl Request {
    /// Stores, whatever is there.
    pub(super) fn set(&mut self, key: &str, expires: u32, payload: &[u8]) {
        self.storage(&format!("set {key} 0 {expires} {}", payload.len()), payload);
    }

    /// Stores what is not there yet.
    pub(super) fn add(&mut self, key: &str, expires: u32, payload: &[u8]) {
        self.is_once = true;
        self.storage(&format!("add {key} 0 {expires} {}", payload.len()), payload);
    }

    /// Stores in the place of what had this number.
    pub(super) fn replace(&mut self, key: &str, expires: u32, payload: &[u8], unique: u64) {
        self.is_once = true;
        self.storage(&format!("cas {key} 0 {expires} {} {unique}", payload.len()), payload);
    }

    /// Adds to a number.
    pub(super) fn increment(&mut self, key: &str, by: u64) {
        self.is_once = true;
        self.line(&format!("incr {key} {by}"));
    }

    /// Makes it expire at another time.
    pub(super) fn touch(&mut self, key: &str, expires: u32) {
        self.line(&format!("touch {key} {expires}"));
    }

    pub(super) fn delete(&mut self, key: &str) {
        self.line(&format!("delete {key}"));
    }

    /// Asks for values; the answers, one or more, are [`Answer::Values`].
    pub(super) fn get(&mut self, keys: &[String]) {
        for chunk in keys.chunks(KEYS) {
            self.bytes.extend_from_slice(b"gets");
            for key in chunk {
                self.bytes.push(b' ');
                self.bytes.extend_from_slice(key.as_bytes());
            }
            self.bytes.extend_from_slice(b"\r\n");
            self.forms.push(Form::Values);
        }
    }

    fn line(&mut self, line: &str) {
        self.bytes.extend_from_slice(line.as_bytes());
        self.bytes.extend_from_slice(b"\r\n");
        self.forms.push(Form::Line);
    }

    fn storage(&mut self, line: &str, payload: &[u8]) {
        self.line(line);
        self.bytes.extend_from_slice(payload);
        self.bytes.extend_from_slice(b"\r\n");
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn forms(&self) -> &[Form] {
        &self.forms
    }

    /// Whether it may be sent again when nobody knows what became of it.
    pub(super) fn is_repeatable(&self) -> bool {
        !self.is_once
    }
}

/// An answer of which not all has come.
#[derive(Debug)]
pub(super) struct Reading {
    form: Form,
    found: HashMap<String, Item>,
}

impl Reading {
    pub(super) fn new(form: Form) -> Self {
        Reading { form, found: HashMap::new() }
    }

    /// Takes what has come; `None`: there must be more.
    pub(super) fn take(&mut self, buffer: &mut BytesMut) -> Result<Option<Answer>, Broken> {
        loop {
            let Some(end) = line_end(buffer)? else { return Ok(None) };
            let line = String::from_utf8_lossy(&buffer[..end]).into_owned();
            let words: Vec<&str> = line.split(' ').collect();
            if let (Form::Values, ["VALUE", key, _, length, unique]) = (self.form, &words[..]) {
                let numbers = length.parse::<usize>().ok().zip(unique.parse().ok());
                let numbers = numbers.filter(|(length, _)| *length <= LONGEST_VALUE);
                let Some((length, unique)) = numbers else { return Err(Broken(line)) };
                if buffer.len() < end + 2 + length + 2 {
                    return Ok(None);
                }
                let _ = buffer.split_to(end + 2);
                let payload = buffer.split_to(length).freeze();
                let _ = buffer.split_to(2);
                self.found.insert((*key).to_owned(), Item { payload, unique });
                continue;
            }
            let _ = buffer.split_to(end + 2);
            return self.last(&line).map(Some);
        }
    }

    fn last(&mut self, line: &str) -> Result<Answer, Broken> {
        if let Some(words) = line.strip_prefix("SERVER_ERROR ") {
            return Ok(Answer::Refused(words.to_owned()));
        }
        match (self.form, line) {
            (Form::Values, "END") => Ok(Answer::Values(std::mem::take(&mut self.found))),
            (Form::Line, "STORED" | "DELETED" | "TOUCHED") => Ok(Answer::Done),
            (Form::Line, "NOT_STORED") => Ok(Answer::Taken),
            (Form::Line, "EXISTS") => Ok(Answer::Changed),
            (Form::Line, "NOT_FOUND") => Ok(Answer::Missing),
            (Form::Line, number) if number.parse::<u64>().is_ok() => Ok(Answer::Done),
            _ => Err(Broken(line.to_owned())),
        }
    }
}

fn line_end(buffer: &[u8]) -> Result<Option<usize>, Broken> {
    let line = &buffer[..buffer.len().min(LONGEST_LINE)];
    match line.windows(2).position(|two| two == b"\r\n") {
        None if buffer.len() >= LONGEST_LINE => Err(Broken("a line without an end".to_owned())),
        end => Ok(end),
    }
}

/// What memcached is told of how long a value is kept: seconds, or from thirty days on the time when it expires, which
/// Celery leaves unsaid, so that such results expire at once. 0: never, also where the time is beyond what it can count to.
pub(super) fn expiry(kept: Option<Duration>, now: i64) -> u32 {
    let Some(kept) = kept.map(|kept| kept.as_secs()) else { return 0 };
    let told = if kept <= LONGEST_RELATIVE { kept } else { kept.saturating_add(u64::try_from(now).unwrap_or(0)) };
    u32::try_from(told).ok().filter(|told| i32::try_from(*told).is_ok()).unwrap_or(0)
}

/// Whether pymemcache would take that for a key (pymemcache/client/base.py `check_key_helper`); control characters, which
/// it lets pass, would end the command.
pub(super) fn is_key(key: &str) -> bool {
    !key.is_empty() && key.len() <= LONGEST_KEY && key.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(payload: &'static str, unique: u64) -> Item {
        Item { payload: payload.into(), unique }
    }

    #[test]
    fn commands_are_written_in_the_text_protocol() {
        let mut request = Request::default();
        request.set("k", 60, b"a\r\nb");
        request.get(&["k".into(), "l".into()]);
        request.touch("k", 0);
        request.delete("k");
        assert!(request.is_repeatable());
        request.add("k", 0, b"");
        request.replace("k", 5, b"x", 7);
        request.increment("k", 3);
        assert!(!request.is_repeatable());
        let expected = "set k 0 60 4\r\na\r\nb\r\ngets k l\r\ntouch k 0\r\ndelete k\r\nadd k 0 0 0\r\n\r\n\
                        cas k 0 5 1 7\r\nx\r\nincr k 3\r\n";
        assert_eq!(String::from_utf8_lossy(request.bytes()), expected);
        let values = request.forms().iter().filter(|form| **form == Form::Values).count();
        assert_eq!((request.forms().len(), values), (7, 1));
    }

    #[test]
    fn many_keys_are_asked_for_in_several_commands() {
        let keys: Vec<String> = (0..250).map(|number| format!("k{number}")).collect();
        let mut request = Request::default();
        request.get(&keys);
        assert_eq!(request.forms(), [Form::Values; 3]);
    }

    /// However the bytes come, one by one or all at once.
    #[test]
    fn answers_are_read_in_pieces() {
        let found = HashMap::from([("a".to_owned(), item("x\r\nEND\r\n", 4)), ("b".to_owned(), item("", 5))]);
        let rows: [(Form, &str, Result<Answer, &str>); 14] = [
            (Form::Line, "STORED\r\n", Ok(Answer::Done)),
            (Form::Line, "DELETED\r\n", Ok(Answer::Done)),
            (Form::Line, "TOUCHED\r\n", Ok(Answer::Done)),
            (Form::Line, "18\r\n", Ok(Answer::Done)),
            (Form::Line, "NOT_STORED\r\n", Ok(Answer::Taken)),
            (Form::Line, "EXISTS\r\n", Ok(Answer::Changed)),
            (Form::Line, "NOT_FOUND\r\n", Ok(Answer::Missing)),
            (Form::Line, "SERVER_ERROR too large\r\n", Ok(Answer::Refused("too large".into()))),
            (Form::Values, "END\r\n", Ok(Answer::Values(HashMap::new()))),
            (Form::Values, "VALUE a 16 8 4\r\nx\r\nEND\r\n\r\nVALUE b 0 0 5\r\n\r\nEND\r\n", Ok(Answer::Values(found))),
            (Form::Values, "VALUE a 0 x 4\r\n", Err("VALUE a 0 x 4")),
            (Form::Values, "VALUE a 0 18446744073709551615 4\r\n", Err("VALUE a 0 18446744073709551615 4")),
            (Form::Line, "CLIENT_ERROR bad\r\n", Err("CLIENT_ERROR bad")),
            (Form::Values, "STORED\r\n", Err("STORED")),
        ];
        for (form, text, expected) in rows {
            let expected = expected.map(Some).map_err(|line| Broken(line.to_owned()));
            assert_eq!(Reading::new(form).take(&mut BytesMut::from(text)), expected, "{text:?}");
            let (mut reading, mut buffer) = (Reading::new(form), BytesMut::new());
            let steps = text.bytes().map(|byte| {
                buffer.extend_from_slice(&[byte]);
                reading.take(&mut buffer)
            });
            let steps: Vec<_> = steps.collect();
            let (last, before) = steps.split_last().unwrap();
            assert_eq!((last, before.iter().all(|step| *step == Ok(None))), (&expected, true), "{text:?}");
        }
        assert!(Reading::new(Form::Line).take(&mut BytesMut::from(&[b'x'; LONGEST_LINE][..])).is_err());
    }

    #[test]
    fn more_than_thirty_days_are_told_as_a_time() {
        let days = |days: u64| Some(Duration::from_secs(days * 86_400));
        let now = 1_800_000_000;
        let rows = [
            (None, 0),
            (Some(Duration::from_secs(1)), 1),
            (days(30), 2_592_000),
            (days(31), 1_802_678_400),
            (days(100_000), 0),
            (Some(Duration::from_secs(u64::MAX)), 0),
        ];
        for (kept, told) in rows {
            assert_eq!(expiry(kept, now), told, "{kept:?}");
        }
    }

    #[test]
    fn keys_are_what_pymemcache_takes_for_some() {
        let longest = "k".repeat(LONGEST_KEY);
        for (key, is_one) in [
            ("celery-task-meta-a", true),
            (&longest[..], true),
            (&format!("{longest}k"), false),
            ("", false),
            ("a b", false),
            ("a\r\nflush_all", false),
            ("a\0", false),
            ("ä", false),
        ] {
            assert_eq!(is_key(key), is_one, "{key:?}");
        }
    }
}
