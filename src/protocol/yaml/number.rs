//! Plain scalars that are numbers (yaml/resolver.py, yaml/constructor.py `construct_yaml_int`, `construct_yaml_float`).

use std::sync::LazyLock;

use num_bigint::BigInt;
use regex::Regex;

use super::super::Value;

/// More digits than these Python turns neither into an `int` nor into text, for the time that it would take.
const MAX_DIGITS: usize = 4300;

/// As many bits as the largest number of so many digits has.
const MAX_BITS: u64 = 14_285;

static INT: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"^(?:[-+]?0b[01_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+|[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+)$",
    )
});

static FLOAT: LazyLock<Regex> = LazyLock::new(|| {
    pattern(concat!(
        r"^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?",
        r"|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ))
});

#[expect(clippy::unwrap_used, reason = "the patterns are constants, and every test compiles them")]
fn pattern(text: &str) -> Regex {
    Regex::new(text).unwrap()
}

/// Whether a plain scalar is an `int`.
pub(super) fn is_int(text: &str) -> bool {
    INT.is_match(text)
}

/// Whether a plain scalar is a `float`.
pub(super) fn is_float(text: &str) -> bool {
    FLOAT.is_match(text)
}

/// Reads an `int`: decimal, `0b`, `0x`, octal behind a zero, or sexagesimal. One of more than 4300 digits is none.
pub(super) fn int(text: &str) -> Option<Value> {
    let (negative, digits) = split(text);
    let number = if let Some(digits) = digits.strip_prefix("0b") {
        in_radix(digits, 2)
    } else if let Some(digits) = digits.strip_prefix("0x") {
        in_radix(digits, 16)
    } else if digits.starts_with('0') {
        in_radix(&digits, 8)
    } else if digits.len() > MAX_DIGITS {
        None
    } else {
        digits.split(':').try_fold(BigInt::ZERO, |sum, part| Some(sum * 60 + in_radix(part, 10)?))
    };
    let number = number.filter(|number| number.bits() <= MAX_BITS)?;
    Some(Value::from(if negative { -number } else { number }))
}

fn in_radix(digits: &str, radix: u32) -> Option<BigInt> {
    let unsigned = digits.chars().all(|digit| digit.is_digit(radix));
    if unsigned { BigInt::parse_bytes(digits.as_bytes(), radix) } else { None }
}

/// Reads a `float`, sexagesimal ones too.
pub(super) fn float(text: &str) -> Option<Value> {
    let (negative, digits) = split(&text.to_ascii_lowercase());
    let number = match digits.as_str() {
        ".inf" => f64::INFINITY,
        ".nan" => f64::NAN,
        digits if digits.contains(':') => sexagesimal(digits)?,
        digits => digits.parse().ok()?,
    };
    Some(Value::Float(if negative { -number } else { number }))
}

/// Python sums from the last part to the first, and so must we for the same rounding.
fn sexagesimal(digits: &str) -> Option<f64> {
    let mut base = 1.0;
    digits.rsplit(':').try_fold(0.0, |sum, part| {
        let sum = sum + part.parse::<f64>().ok()? * base;
        base *= 60.0;
        Some(sum)
    })
}

/// Whether there is a minus, and the rest without underscores.
fn split(text: &str) -> (bool, String) {
    let text = text.replace('_', "");
    match text.strip_prefix('-') {
        Some(rest) => (true, rest.to_owned()),
        None => (false, text.strip_prefix('+').unwrap_or(&text).to_owned()),
    }
}
