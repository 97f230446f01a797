//! Durations as options write them: `10`, `1.5`, `"10s"`, `"500ms"`, `"2m"`, `"1h"`.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::{Error, Lit, Result};

/// The longest duration taken, in seconds: a century.
const LONGEST: f64 = 100.0 * 365.0 * 86_400.0;

/// The duration that `literal` writes.
pub(crate) fn parse(literal: &Lit) -> Result<TokenStream> {
    let seconds = match literal {
        Lit::Int(seconds) => seconds.base10_parse::<f64>().ok(),
        Lit::Float(seconds) => seconds.base10_parse::<f64>().ok(),
        Lit::Str(text) => seconds(&text.value()),
        _ => None,
    };
    match seconds {
        Some(seconds) if (0.0..=LONGEST).contains(&seconds) => Ok(tokens(seconds)),
        _ => Err(not_a_duration(literal.span())),
    }
}

/// One second: what `true` is to `retry_backoff`.
pub(crate) fn one_second() -> TokenStream {
    tokens(1.0)
}

fn tokens(seconds: f64) -> TokenStream {
    let milliseconds = (seconds * 1000.0).round() as u64;
    quote!(::core::time::Duration::from_millis(#milliseconds))
}

fn seconds(text: &str) -> Option<f64> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    digits.parse::<f64>().ok().map(|count| count * unit)
}

fn not_a_duration(span: Span) -> Error {
    Error::new(span, "expected a duration: seconds as a number, or text such as \"500ms\", \"10s\", \"2m\", \"1h\"")
}
