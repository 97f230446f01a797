//! Strings: found eight bytes at a time, borrowed unless they hold an escape.

use std::borrow::Cow;

use super::{Parser, scan};
use crate::Result;

/// Reads a string up to its closing quote; the opening one is behind.
pub(super) fn read<'a>(parser: &mut Parser<'a>) -> Result<Cow<'a, str>> {
    let plain = run(parser)?;
    if parser.text.as_bytes()[parser.at] == b'"' {
        parser.at += 1;
        return Ok(Cow::Borrowed(plain));
    }
    let mut text = String::with_capacity(plain.len() + 32);
    text.push_str(plain);
    loop {
        let mark = parser.text.as_bytes()[parser.at];
        parser.at += 1;
        if mark == b'"' {
            return Ok(Cow::Owned(text));
        }
        text.push(escape(parser)?);
        text.push_str(run(parser)?);
    }
}

/// The text before the next quote or backslash, on which the parser then stands.
#[inline]
fn run<'a>(parser: &mut Parser<'a>) -> Result<&'a str> {
    let start = parser.at;
    let bytes = parser.text.as_bytes();
    parser.at += scan::unescaped(&bytes[start..]);
    match bytes.get(parser.at) {
        Some(b'"' | b'\\') => Ok(&parser.text[start..parser.at]),
        Some(_) => Err(parser.error("no control character in a string")),
        None => Err(parser.error("the end of a string")),
    }
}

/// Reads what follows a backslash.
fn escape(parser: &mut Parser<'_>) -> Result<char> {
    let letter = parser.text.as_bytes().get(parser.at).copied().unwrap_or_default();
    let character = match letter {
        b'"' | b'\\' | b'/' => letter.into(),
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return code_point(parser),
        _ => return Err(parser.error("an escape that JSON knows")),
    };
    parser.at += 1;
    Ok(character)
}

/// Reads one `uXXXX`, or two that make a surrogate pair; a lone surrogate is U+FFFD.
fn code_point(parser: &mut Parser<'_>) -> Result<char> {
    let unit = hexadecimal(parser)?;
    if !(0xD800..0xDC00).contains(&unit) {
        return Ok(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER));
    }
    let after_high = parser.at;
    if parser.text.as_bytes()[after_high..].starts_with(b"\\u") {
        parser.at += 1;
        let low = hexadecimal(parser)?;
        if (0xDC00..0xE000).contains(&low) {
            let character = char::from_u32(0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00));
            return Ok(character.unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        parser.at = after_high;
    }
    Ok(char::REPLACEMENT_CHARACTER)
}

/// Reads `u` and four hexadecimal digits.
fn hexadecimal(parser: &mut Parser<'_>) -> Result<u32> {
    let digits = parser.text.as_bytes().get(parser.at + 1..parser.at + 5);
    let number = digits
        .and_then(|digits| digits.iter().try_fold(0, |sum, digit| Some(sum * 16 + char::from(*digit).to_digit(16)?)));
    match number {
        Some(number) => {
            parser.at += 5;
            Ok(number)
        }
        None => Err(parser.error("four hexadecimal digits")),
    }
}
