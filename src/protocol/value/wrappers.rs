//! Newtypes for fields of structs: what serde alone cannot tell from text or a list arrives in Python as its own type.

use std::fmt;

use jiff::civil;

use crate::{Error, ErrorKind, Result};

/// `bytes`, where a `Vec<u8>` would be a list of numbers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Bytes(pub Vec<u8>);

/// A `datetime.date`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Date(pub civil::Date);

/// A `uuid.UUID`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uuid(pub uuid::Uuid);

/// A `decimal.Decimal`, as the text that Python's class writes and reads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Decimal(pub(super) String);

impl Decimal {
    /// A decimal from its text: `1.50`, `-1E+3`, `NaN`. Text that Python's `Decimal` refuses is an error of kind
    /// [`ErrorKind::Decode`].
    pub fn new(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        match is_decimal(&text) {
            true => Ok(Decimal(text)),
            false => Err(Error::new(ErrorKind::Decode, format!("not a decimal number: {text:?}"))),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether Python's `Decimal` takes the text (its grammar is in the documentation of `decimal.Decimal`).
pub(in crate::protocol) fn is_decimal(text: &str) -> bool {
    let text = text.trim();
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let lower = unsigned.to_ascii_lowercase();
    if let Some(digits) = lower.strip_prefix("snan").or_else(|| lower.strip_prefix("nan")) {
        return digits.bytes().all(|byte| byte.is_ascii_digit());
    }
    matches!(lower.as_str(), "inf" | "infinity") || is_finite(&lower)
}

fn is_finite(text: &str) -> bool {
    let (number, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    digits(whole) && digits(fraction) && whole.len() + fraction.len() > 0 && digits(exponent) && !exponent.is_empty()
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes(bytes)
    }
}

impl From<uuid::Uuid> for Uuid {
    fn from(uuid: uuid::Uuid) -> Self {
        Uuid(uuid)
    }
}

impl From<civil::Date> for Date {
    fn from(date: civil::Date) -> Self {
        Date(date)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_as_python_reads_them() {
        for good in ["1", "-1.50", ".5", "5.", "1E+3", "1e-3", "NaN", "-sNaN12", "Infinity", "-inf", " 7 ", "+0"] {
            assert!(is_decimal(good), "{good:?}");
        }
        for bad in ["", ".", "1e", "e5", "1.2.3", "--1", "abc", "1_", "infinit", "nanx"] {
            assert!(!is_decimal(bad), "{bad:?}");
        }
    }
}
