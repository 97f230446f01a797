//! The reader: one pass, no recursion, so that no nesting can exhaust the stack.

use std::borrow::Cow;

use num_bigint::BigInt;

use super::super::value::{Key, MapBuilder, known};
use super::super::{MAX_DEPTH, Map, Value};
use super::{string, typed};
use crate::{Error, ErrorKind, Result};

/// Python refuses to convert longer ones (`sys.int_info.default_max_str_digits`), and so costs stay linear.
const MAX_DIGITS: usize = 4300;

/// A JSON text and how far it is read.
pub(in crate::protocol) struct Parser<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
    /// Envelopes of `__type__` stay the maps that they are.
    pub(super) is_plain: bool,
}

/// A list or map that is not closed yet.
enum Open {
    List(Vec<Value>),
    Map(MapBuilder, Key),
}

/// What reading a little further found.
enum Begun {
    /// A value that is whole.
    Whole(Value),
    /// A container, whose first value comes now.
    Open(Open),
}

/// The keys that an outermost map is given room for: as many as a task's headers are.
const OUTERMOST: usize = 24;

impl<'a> Parser<'a> {
    /// A reader of `bytes`, which must be UTF-8.
    pub(in crate::protocol) fn new(bytes: &'a [u8]) -> Result<Self> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Parser { text, at: 0, is_plain: false }),
            Err(cause) => Err(Error::new(ErrorKind::Decode, "reading JSON: the text is not UTF-8").with_source(cause)),
        }
    }

    #[cold]
    pub(super) fn error(&self, expected: &str) -> Error {
        Error::new(ErrorKind::Decode, format!("reading JSON: expected {expected} at byte {}", self.at))
    }

    /// The next byte that is not white space.
    #[inline]
    pub(in crate::protocol) fn peek(&mut self) -> Option<u8> {
        match self.text.as_bytes().get(self.at) {
            Some(byte) if *byte > b' ' => Some(*byte),
            _ => self.peek_beyond_space(),
        }
    }

    fn peek_beyond_space(&mut self) -> Option<u8> {
        let rest = &self.text.as_bytes()[self.at..];
        let spaces = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\n' | b'\r' | b'\t')).count();
        self.at += spaces;
        rest.get(spaces).copied()
    }

    /// Steps over `byte` if it comes next.
    #[inline]
    pub(in crate::protocol) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Steps over the one space that Python writes behind a comma and a colon.
    #[inline]
    fn usual_space(&mut self) {
        self.at += usize::from(self.text.as_bytes().get(self.at) == Some(&b' '));
    }

    /// Requires `byte` to come next.
    #[inline]
    pub(in crate::protocol) fn expect(&mut self, byte: u8, what: &str) -> Result<()> {
        if self.take(byte) { Ok(()) } else { Err(self.error(what)) }
    }

    /// Requires that nothing more comes.
    pub(in crate::protocol) fn end(&mut self) -> Result<()> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.error("the end of the text")),
        }
    }

    /// Reads a key and the colon after it.
    pub(in crate::protocol) fn key(&mut self) -> Result<Cow<'a, str>> {
        self.usual_space();
        self.expect(b'"', "a key in double quotes")?;
        let key = string::read(self)?;
        self.expect(b':', "a colon")?;
        self.usual_space();
        Ok(key)
    }

    /// Reads a value whose text is not wanted as a [`Value`]: a string is borrowed where it can be.
    pub(in crate::protocol) fn string_or_value(&mut self) -> Result<Result<Cow<'a, str>, Value>> {
        if self.take(b'"') { string::read(self).map(Ok) } else { self.value().map(Err) }
    }

    /// Reads a key as maps hold it, and the colon after it.
    fn map_key(&mut self) -> Result<Key> {
        Ok(match self.key()? {
            Cow::Borrowed(key) => known(key).map_or_else(|| Cow::Owned(key.to_owned()), Cow::Borrowed),
            Cow::Owned(key) => Cow::Owned(key),
        })
    }

    /// Reads one value.
    pub(in crate::protocol) fn value(&mut self) -> Result<Value> {
        if !matches!(self.peek(), Some(b'[' | b'{')) {
            return self.scalar();
        }
        let mut inner = match self.open(OUTERMOST)? {
            Begun::Whole(value) => return Ok(value),
            Begun::Open(container) => container,
        };
        let mut outer: Vec<Open> = Vec::new();
        loop {
            let mut value = if !matches!(self.peek(), Some(b'[' | b'{')) {
                self.scalar()?
            } else {
                if outer.len() + 1 >= MAX_DEPTH {
                    return Err(self.error("no more than 1000 levels of nesting"));
                }
                match self.open(0)? {
                    Begun::Whole(value) => value,
                    Begun::Open(container) => {
                        outer.push(std::mem::replace(&mut inner, container));
                        continue;
                    }
                }
            };
            // The value may close what it stands in, which is then a value that may close what it stands in itself.
            while self.add(&mut inner, value)? {
                match outer.pop() {
                    None => return close(inner, self.is_plain),
                    Some(container) => value = close(std::mem::replace(&mut inner, container), self.is_plain)?,
                }
            }
        }
    }

    /// Reads an empty container whole, of any other one all that comes before its first value.
    fn open(&mut self, capacity: usize) -> Result<Begun> {
        if self.take(b'[') {
            return Ok(match self.take(b']') {
                true => Begun::Whole(Value::List(Vec::new())),
                false => Begun::Open(Open::List(Vec::new())),
            });
        }
        self.expect(b'{', "a value")?;
        Ok(match self.take(b'}') {
            true => Begun::Whole(Value::Map(Map::new())),
            false => Begun::Open(Open::Map(MapBuilder::new(capacity), self.map_key()?)),
        })
    }

    fn scalar(&mut self) -> Result<Value> {
        match self.peek() {
            Some(b'"') => {
                self.at += 1;
                Ok(Value::String(string::read(self)?.into_owned()))
            }
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'n') => self.literal("null", Value::Null),
            Some(b't') => self.literal("true", Value::Bool(true)),
            Some(b'f') => self.literal("false", Value::Bool(false)),
            Some(b'N') => self.literal("NaN", Value::Float(f64::NAN)),
            _ => self.literal("Infinity", Value::Float(f64::INFINITY)),
        }
    }

    /// Adds a value to its container and reads on to the next value; true if the container ends instead.
    #[inline]
    fn add(&mut self, container: &mut Open, value: Value) -> Result<bool> {
        match container {
            Open::List(list) => {
                list.push(value);
                if self.take(b',') {
                    self.usual_space();
                    return Ok(false);
                }
                self.expect(b']', "a comma or the end of the list")?;
            }
            Open::Map(map, key) => {
                map.insert(std::mem::take(key), value);
                if self.take(b',') {
                    *key = self.map_key()?;
                    return Ok(false);
                }
                self.expect(b'}', "a comma or the end of the object")?;
            }
        }
        Ok(true)
    }

    fn literal(&mut self, name: &str, value: Value) -> Result<Value> {
        if self.text.as_bytes()[self.at..].starts_with(name.as_bytes()) {
            self.at += name.len();
            return Ok(value);
        }
        Err(self.error("a value"))
    }

    fn digits(&mut self) -> usize {
        let length = self.text.as_bytes()[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += length;
        length
    }

    fn next_is(&self, among: &[u8]) -> bool {
        self.text.as_bytes().get(self.at).is_some_and(|byte| among.contains(byte))
    }

    fn number(&mut self) -> Result<Value> {
        let start = self.at;
        if self.next_is(b"-") {
            self.at += 1;
            if self.next_is(b"I") {
                return self.literal("Infinity", Value::Float(f64::NEG_INFINITY));
            }
        }
        let leading_zero = self.next_is(b"0");
        let digits = self.digits();
        if digits == 0 || (leading_zero && digits > 1) {
            return Err(self.error("a number"));
        }
        let whole = !self.fraction_and_exponent();
        let text = &self.text[start..self.at];
        let read = if whole { integer(text, digits) } else { text.parse().ok().map(Value::Float) };
        read.ok_or_else(|| self.error("a number of less digits"))
    }

    /// Steps over a fraction and an exponent; false if there is neither. A point or an `e` without digits is not part of
    /// the number, as in Python's reader.
    fn fraction_and_exponent(&mut self) -> bool {
        let start = self.at;
        for (marks, signs) in [(&b"."[..], &b""[..]), (b"eE", b"+-")] {
            let before = self.at;
            if self.next_is(marks) {
                self.at += 1;
                self.at += usize::from(self.next_is(signs));
                if self.digits() == 0 {
                    self.at = before;
                }
            }
        }
        self.at > start
    }
}

/// The value of a container that has ended.
fn close(container: Open, is_plain: bool) -> Result<Value> {
    match container {
        Open::List(list) => Ok(Value::List(list)),
        Open::Map(map, _) if is_plain => Ok(Value::Map(map.finish())),
        Open::Map(map, _) => typed::unwrap(map.finish()),
    }
}

fn integer(text: &str, digits: usize) -> Option<Value> {
    if digits > MAX_DIGITS {
        return None;
    }
    match text.parse() {
        Ok(number) => Some(Value::Int(number)),
        Err(_) => text.parse::<BigInt>().ok().map(Value::from),
    }
}
