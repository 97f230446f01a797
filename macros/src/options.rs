//! The attribute's options: `#[task(name = "shop.add", acks_late)]`.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Error, Lit, LitStr, Result, Token};

use crate::duration;
use crate::option_table::{self, Takes};

/// What the attribute says.
#[derive(Default)]
pub(crate) struct Options {
    /// The task's name, if it is given.
    pub(crate) name: Option<LitStr>,
    /// `acks_late: Some(true)` and so on: fields of `TaskOptions`.
    pub(crate) fields: Vec<TokenStream>,
}

/// `acks_late`, `max_retries = None` or `time_limit = "10s"`.
struct Entry {
    option: Ident,
    value: Setting,
}

enum Setting {
    Bare,
    Nothing,
    Literal(Lit),
}

impl Options {
    /// The options that `tokens` holds; all mistakes are told at once.
    pub(crate) fn parse(tokens: TokenStream) -> Result<Self> {
        let entries = syn::parse::Parser::parse2(Punctuated::<Entry, Token![,]>::parse_terminated, tokens)?;
        let mut options = Options::default();
        let mut seen: Vec<Ident> = Vec::new();
        let mut mistakes = Vec::new();
        for entry in entries {
            if seen.contains(&entry.option) {
                mistakes.push(Error::new(entry.option.span(), format!("`{}` is given twice", entry.option)));
                continue;
            }
            seen.push(entry.option.clone());
            mistakes.extend(options.add(entry).err());
        }
        combine(mistakes).map_or(Ok(options), Err)
    }

    fn add(&mut self, entry: Entry) -> Result<()> {
        let Entry { option, value } = entry;
        let takes = option_table::find(&option.to_string()).map_err(|text| Error::new(option.span(), text))?;
        let field = match takes {
            Takes::Name => {
                self.name = Some(name(&option, value)?);
                return Ok(());
            }
            Takes::Flag => some(flag(&option, value)?),
            Takes::PlainFlag => flag(&option, value)?,
            Takes::Count => some(count(&option, value)?),
            Takes::Duration => some(duration::parse(&literal(&option, value)?)?),
            Takes::Backoff => backoff(&option, value)?,
            Takes::Rate => text(rate(&option, value)?),
            Takes::Serializer => text(serializer(&option, value)?),
            Takes::Queue => text(queue(&option, value)?),
            Takes::Priority => some(priority(&option, value)?),
        };
        self.fields.push(quote_spanned!(option.span()=> #option: #field));
        Ok(())
    }
}

/// All of `mistakes` as one error.
pub(crate) fn combine(mistakes: Vec<Error>) -> Option<Error> {
    mistakes.into_iter().reduce(|mut all, mistake| {
        all.combine(mistake);
        all
    })
}

impl Parse for Entry {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let option = input.parse()?;
        if !input.peek(Token![=]) {
            return Ok(Entry { option, value: Setting::Bare });
        }
        input.parse::<Token![=]>()?;
        let value = if input.peek(Lit) { Setting::Literal(input.parse()?) } else { nothing(input)? };
        Ok(Entry { option, value })
    }
}

fn nothing(input: ParseStream<'_>) -> Result<Setting> {
    let word: Ident = input.parse().map_err(|error| Error::new(error.span(), "expected a literal or `None`"))?;
    if word == "None" { Ok(Setting::Nothing) } else { Err(Error::new(word.span(), "expected a literal or `None`")) }
}

fn some(value: TokenStream) -> TokenStream {
    quote!(::core::option::Option::Some(#value))
}

fn text(value: String) -> TokenStream {
    some(quote!(::std::string::String::from(#value)))
}

fn literal(option: &Ident, value: Setting) -> Result<Lit> {
    match value {
        Setting::Literal(literal) => Ok(literal),
        Setting::Bare | Setting::Nothing => Err(Error::new(option.span(), format!("`{option}` needs a value"))),
    }
}

fn name(option: &Ident, value: Setting) -> Result<LitStr> {
    match literal(option, value)? {
        Lit::Str(name) if !name.value().is_empty() => Ok(name),
        other => Err(Error::new(other.span(), "expected the task's name, such as \"shop.tasks.add\"")),
    }
}

fn flag(option: &Ident, value: Setting) -> Result<TokenStream> {
    match value {
        Setting::Bare => Ok(quote!(true)),
        Setting::Literal(Lit::Bool(flag)) => Ok(quote!(#flag)),
        Setting::Literal(other) => Err(not_a_flag(option, other.span())),
        Setting::Nothing => Err(not_a_flag(option, option.span())),
    }
}

fn not_a_flag(option: &Ident, span: Span) -> Error {
    Error::new(span, format!("`{option}` is `true` or `false`"))
}

fn count(option: &Ident, value: Setting) -> Result<TokenStream> {
    match value {
        Setting::Nothing => Ok(quote!(::core::option::Option::None)),
        Setting::Literal(Lit::Int(count)) if count.base10_parse::<u32>().is_ok() => Ok(some(quote!(#count))),
        Setting::Literal(other) => Err(not_a_count(option, other.span())),
        Setting::Bare => Err(not_a_count(option, option.span())),
    }
}

fn not_a_count(option: &Ident, span: Span) -> Error {
    Error::new(span, format!("`{option}` is a number, or `None` for no limit"))
}

fn backoff(option: &Ident, value: Setting) -> Result<TokenStream> {
    match value {
        Setting::Bare => Ok(some(duration::one_second())),
        Setting::Literal(Lit::Bool(flag)) if flag.value => Ok(some(duration::one_second())),
        Setting::Literal(Lit::Bool(_)) | Setting::Nothing => Ok(quote!(::core::option::Option::None)),
        Setting::Literal(other) => duration::parse(&other).map(some),
    }
    .map_err(|error: Error| Error::new(error.span(), format!("`{option}`: {error}")))
}

/// celery/utils/time.py `rate`: a number for each second, or `"10/s"`, `"10/m"`, `"10/h"`.
fn rate(option: &Ident, value: Setting) -> Result<String> {
    let literal = literal(option, value)?;
    let rate = match &literal {
        Lit::Str(text) => text.value(),
        Lit::Int(number) => number.base10_digits().to_owned(),
        Lit::Float(number) => number.base10_digits().to_owned(),
        _ => String::new(),
    };
    let (count, unit) = rate.split_once('/').unwrap_or((&rate, "s"));
    let is_rate = count.parse::<f64>().is_ok_and(|count| count.is_finite() && count >= 0.0);
    if is_rate && matches!(unit, "s" | "m" | "h") {
        return Ok(rate);
    }
    Err(Error::new(literal.span(), "expected a rate: \"10/s\", \"10/m\" or \"10/h\""))
}

fn serializer(option: &Ident, value: Setting) -> Result<String> {
    let literal = literal(option, value)?;
    match &literal {
        Lit::Str(text) if matches!(text.value().as_str(), "json" | "msgpack" | "yaml") => Ok(text.value()),
        _ => Err(Error::new(literal.span(), "expected a serializer: \"json\", \"msgpack\" or \"yaml\"")),
    }
}

fn queue(option: &Ident, value: Setting) -> Result<String> {
    match literal(option, value)? {
        Lit::Str(name) if !name.value().is_empty() => Ok(name.value()),
        other => Err(Error::new(other.span(), "expected the queue's name, such as \"mail\"")),
    }
}

fn priority(option: &Ident, value: Setting) -> Result<TokenStream> {
    match literal(option, value)? {
        Lit::Int(priority) if priority.base10_parse::<u8>().is_ok() => {
            let priority: u8 = priority.base10_parse()?;
            Ok(quote!(#priority))
        }
        other => Err(Error::new(other.span(), "expected a priority from 0 to 255")),
    }
}
