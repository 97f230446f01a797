//! The reader: one pass, no recursion, so that no nesting can exhaust the stack.

use num_bigint::BigInt;

use super::super::value::MapBuilder;
use super::super::{MAX_DEPTH, Value};
use super::{string, typed};
use crate::{Error, ErrorKind, Result};

/// Python refuses to convert longer ones (`sys.int_info.default_max_str_digits`), and so costs stay linear.
const MAX_DIGITS: usize = 4300;

/// A JSON text and how far it is read.
pub(in crate::protocol) struct Parser<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
}

/// A list or map that is not closed yet.
enum Open {
    List(Vec<Value>),
    Map(MapBuilder, String),
}

impl<'a> Parser<'a> {
    /// A reader of `bytes`, which must be UTF-8.
    pub(in crate::protocol) fn new(bytes: &'a [u8]) -> Result<Self> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Parser { text, at: 0 }),
            Err(cause) => Err(Error::new(ErrorKind::Decode, "reading JSON: the text is not UTF-8").with_source(cause)),
        }
    }

    pub(super) fn error(&self, expected: &str) -> Error {
        Error::new(ErrorKind::Decode, format!("reading JSON: expected {expected} at byte {}", self.at))
    }

    /// The next byte that is not white space.
    pub(in crate::protocol) fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    /// Steps over `byte` if it comes next.
    pub(in crate::protocol) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Requires `byte` to come next.
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
    pub(in crate::protocol) fn key(&mut self) -> Result<std::borrow::Cow<'a, str>> {
        self.expect(b'"', "a key in double quotes")?;
        let key = string::read(self)?;
        self.expect(b':', "a colon")?;
        Ok(key)
    }

    /// Reads a value whose text is not wanted as a [`Value`]: a string is borrowed where it can be.
    pub(in crate::protocol) fn string_or_value(&mut self) -> Result<Result<std::borrow::Cow<'a, str>, Value>> {
        if self.take(b'"') { string::read(self).map(Ok) } else { self.value().map(Err) }
    }

    /// Reads one value.
    pub(in crate::protocol) fn value(&mut self) -> Result<Value> {
        let mut open: Vec<Open> = Vec::new();
        loop {
            let mut value = match self.begin()? {
                Begun::Scalar(value) => value,
                Begun::Open(inner) => {
                    if open.len() >= MAX_DEPTH {
                        return Err(self.error("less than 1000 levels of nesting"));
                    }
                    open.push(inner);
                    continue;
                }
            };
            // The value may close what it stands in, which is then a value that may close what it stands in itself.
            loop {
                match open.pop() {
                    None => return Ok(value),
                    Some(container) => match self.add(container, value)? {
                        Begun::Scalar(closed) => value = closed,
                        Begun::Open(container) => {
                            open.push(container);
                            break;
                        }
                    },
                }
            }
        }
    }

    /// Reads a scalar or an empty container whole, of any other container all that comes before its first value.
    fn begin(&mut self) -> Result<Begun> {
        let scalar = |value| Ok(Begun::Scalar(value));
        match self.peek() {
            Some(b'"') => {
                self.at += 1;
                scalar(Value::String(string::read(self)?.into_owned()))
            }
            Some(b'[') => {
                self.at += 1;
                if self.take(b']') { scalar(Value::List(Vec::new())) } else { Ok(Begun::Open(Open::List(Vec::new()))) }
            }
            Some(b'{') => {
                self.at += 1;
                match self.take(b'}') {
                    true => scalar(Value::Map(Default::default())),
                    false => Ok(Begun::Open(Open::Map(MapBuilder::default(), self.key()?.into_owned()))),
                }
            }
            Some(b'-' | b'0'..=b'9') => scalar(self.number()?),
            _ => scalar(self.literal()?),
        }
    }

    /// Adds a value to its container, and reads on to the next value or closes the container.
    fn add(&mut self, container: Open, value: Value) -> Result<Begun> {
        match container {
            Open::List(mut list) => {
                list.push(value);
                if self.take(b',') {
                    return Ok(Begun::Open(Open::List(list)));
                }
                self.expect(b']', "a comma or the end of the list")?;
                Ok(Begun::Scalar(Value::List(list)))
            }
            Open::Map(mut map, key) => {
                map.insert(key, value);
                if self.take(b',') {
                    let key = self.key()?.into_owned();
                    return Ok(Begun::Open(Open::Map(map, key)));
                }
                self.expect(b'}', "a comma or the end of the object")?;
                typed::unwrap(map.finish()).map(Begun::Scalar)
            }
        }
    }

    fn literal(&mut self) -> Result<Value> {
        const LITERALS: [(&str, Value); 5] = [
            ("null", Value::Null),
            ("true", Value::Bool(true)),
            ("false", Value::Bool(false)),
            ("NaN", Value::Float(f64::NAN)),
            ("Infinity", Value::Float(f64::INFINITY)),
        ];
        let rest = &self.text.as_bytes()[self.at..];
        match LITERALS.into_iter().find(|(name, _)| rest.starts_with(name.as_bytes())) {
            Some((name, value)) => {
                self.at += name.len();
                Ok(value)
            }
            None => Err(self.error("a value")),
        }
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
                return self.literal().map(|_| Value::Float(f64::NEG_INFINITY));
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

/// What reading a little further made of a value.
enum Begun {
    /// It is whole.
    Scalar(Value),
    /// It is a container whose next value comes now.
    Open(Open),
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
