//! Looking through text eight bytes at a time.

const ONES: u64 = u64::MAX / 255;
const HIGHS: u64 = ONES << 7;

/// How many bytes come before the first quote, backslash or control character.
pub(super) fn unescaped(bytes: &[u8]) -> usize {
    count(bytes, special, |byte| byte >= 0x20 && !matches!(byte, b'"' | b'\\'))
}

/// How many bytes come before the first that a JSON text in ASCII must escape.
pub(super) fn printable(bytes: &[u8]) -> usize {
    let beyond = |word: u64| word | word.wrapping_add(ONES);
    count(
        bytes,
        |word| special(word) | beyond(word),
        |byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\'),
    )
}

/// The high bits of the bytes that are a quote, a backslash or a control character. A borrow can only mark bytes above a
/// true hit, so the lowest mark is right.
fn special(word: u64) -> u64 {
    let equal = |byte: u8| {
        let difference = word ^ (ONES * u64::from(byte));
        difference.wrapping_sub(ONES) & !difference
    };
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    equal(b'"') | equal(b'\\') | control
}

fn count(bytes: &[u8], marks: impl Fn(u64) -> u64, is_plain: impl Fn(u8) -> bool) -> usize {
    let mut at = 0;
    while let Some(Ok(chunk)) = bytes.get(at..at + 8).map(<[u8; 8]>::try_from) {
        let marks = marks(u64::from_le_bytes(chunk)) & HIGHS;
        if marks != 0 {
            return at + (marks.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    at + bytes[at..].iter().take_while(|byte| is_plain(**byte)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every byte at every place of a word and behind it, among neighbours that could mislead the arithmetic.
    #[test]
    fn words_and_single_bytes_agree() {
        for neighbour in [b'a', 0x21, 0x5b, 0x5d, 0x7e, 0x80, 0xff] {
            for byte in 0..=255u8 {
                for at in 0..12 {
                    let mut bytes = [neighbour; 12];
                    bytes[at] = byte;
                    let plain = |byte: &u8| *byte >= 0x20 && *byte != b'"' && *byte != b'\\';
                    assert_eq!(unescaped(&bytes), bytes.iter().take_while(|byte| plain(byte)).count(), "{bytes:?}");
                    let ascii = |byte: &u8| plain(byte) && *byte < 0x7f;
                    assert_eq!(printable(&bytes), bytes.iter().take_while(|byte| ascii(byte)).count(), "{bytes:?}");
                }
            }
        }
    }
}
