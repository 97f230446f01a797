//! Bytes to characters, as PyYAML's reader takes them (yaml/reader.py `Reader`).

use std::borrow::Cow;

use super::reader::malformed;
use crate::Result;

/// The text of UTF-8, or of UTF-16 behind a byte order mark; a character that PyYAML does not allow is an error.
pub(super) fn text(bytes: &[u8]) -> Result<Cow<'_, str>> {
    let text = match bytes {
        [0xFF, 0xFE, rest @ ..] => Cow::Owned(utf16(rest, u16::from_le_bytes)?),
        [0xFE, 0xFF, rest @ ..] => Cow::Owned(utf16(rest, u16::from_be_bytes)?),
        _ => match std::str::from_utf8(bytes) {
            Ok(text) => Cow::Borrowed(text.strip_prefix('\u{FEFF}').unwrap_or(text)),
            Err(cause) => return Err(malformed("the text is not UTF-8").with_source(cause)),
        },
    };
    match text.chars().find(|character| !is_allowed(*character)) {
        Some(character) => Err(malformed(&format!("the character {character:?} is not allowed"))),
        None => Ok(text),
    }
}

fn utf16(bytes: &[u8], unit: impl Fn([u8; 2]) -> u16) -> Result<String> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let decoded: Result<String, _> = char::decode_utf16(pairs.iter().map(|pair| unit(*pair))).collect();
    decoded.ok().filter(|_| rest.is_empty()).ok_or_else(|| malformed("the text is not UTF-16"))
}

/// Whether YAML calls the character printable. (The parser would take a NUL for the end of the text.)
fn is_allowed(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{A0}'..='\u{FFFD}' | '\u{10000}'..)
}
