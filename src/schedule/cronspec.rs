//! What a field of a crontab holds, in Celery's grammar (`crontab_parser` and `crontab._expand_cronspec` of
//! `celery/schedules.py`).
//!
//! The grammar is what Celery's regular expressions accept, which is more than it says it is: each looks at the
//! beginning of a part and leaves the rest alone, so `*/2/3` is `*/2`; where none matches, the part is a number or
//! a name, of which three letters count, so `sunny` is Sunday, and each field knows days as well as months.

use std::fmt;
use std::ops::RangeInclusive;

use num_bigint::BigInt;

use super::fault::{self, Fault};
use super::python;
use crate::error::Result;

/// The five fields of a crontab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Field {
    /// 0 to 59.
    Minute,
    /// 0 to 23.
    Hour,
    /// 0 to 6: Sunday is 0, and 7 is no day.
    DayOfWeek,
    /// 1 to 31.
    DayOfMonth,
    /// 1 to 12.
    MonthOfYear,
}

impl Field {
    /// The least and the greatest number of this field.
    pub fn range(self) -> RangeInclusive<u8> {
        match self {
            Field::Minute => 0..=59,
            Field::Hour => 0..=23,
            Field::DayOfWeek => 0..=6,
            Field::DayOfMonth => 1..=31,
            Field::MonthOfYear => 1..=12,
        }
    }

    /// The numbers that a text means, in their order: Celery's `crontab_parser`.
    ///
    /// # Errors
    ///
    /// It is not in the grammar, or a number is not of this field. [`exception`](super::exception) tells what Celery would
    /// raise.
    ///
    /// ```
    /// use celeriac::schedule::Field;
    ///
    /// assert_eq!(Field::Hour.parse("22-2,8-17/4")?, [0, 1, 2, 8, 12, 16, 22, 23]);
    /// assert_eq!(Field::DayOfWeek.parse("mon-fri/2")?, [1, 3, 5]);
    /// # Ok::<(), celeriac::Error>(())
    /// ```
    pub fn parse(self, text: &str) -> Result<Vec<u8>> {
        let set = parse(text, self).map_err(|fault| fault::failed(format!("read `{text}` of a crontab"), fault))?;
        Ok(self.range().filter(|number| set.contains(*number as i8)).collect())
    }

    /// All numbers of this field, in their order.
    fn all(self) -> Vec<u8> {
        self.range().collect()
    }
}

/// What is given for a field of a crontab: a number, a text in Celery's grammar, or a list of numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cronspec {
    /// A single number.
    Number(i64),
    /// A text, such as `*/15`, `8-17/2,20` or `mon-fri`.
    Text(String),
    /// A list or set of numbers.
    Numbers(Vec<i64>),
}

impl Default for Cronspec {
    fn default() -> Self {
        Cronspec::Text("*".to_owned())
    }
}

impl From<&str> for Cronspec {
    fn from(text: &str) -> Self {
        Cronspec::Text(text.to_owned())
    }
}

impl From<String> for Cronspec {
    fn from(text: String) -> Self {
        Cronspec::Text(text)
    }
}

impl From<i64> for Cronspec {
    fn from(number: i64) -> Self {
        Cronspec::Number(number)
    }
}

impl From<Vec<i64>> for Cronspec {
    fn from(numbers: Vec<i64>) -> Self {
        Cronspec::Numbers(numbers)
    }
}

/// As it was given, as Python's `str` shows it.
impl fmt::Display for Cronspec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cronspec::Number(number) => write!(f, "{number}"),
            Cronspec::Text(text) => f.write_str(text),
            Cronspec::Numbers(numbers) => write!(f, "{numbers:?}"),
        }
    }
}

impl Cronspec {
    /// As Python's `repr` shows it.
    pub(super) fn repr(&self) -> String {
        match self {
            Cronspec::Text(text) => python::repr(text),
            other => other.to_string(),
        }
    }

    /// The numbers that are meant, of which there is at least one.
    pub(super) fn expand(&self, field: Field) -> Result<Set, Fault> {
        let numbers = match self {
            Cronspec::Number(number) => vec![in_range(*number, field)?],
            Cronspec::Text(text) => return parse(text, field),
            Cronspec::Numbers(numbers) => {
                numbers.iter().map(|number| in_range(*number, field)).collect::<Result<Vec<_>, _>>()?
            }
        };
        Set::of(&numbers).ok_or_else(|| Fault::Value("Invalid crontab pattern.  A list is empty.".to_owned()))
    }
}

fn in_range(number: i64, field: Field) -> Result<u8, Fault> {
    let range = field.range();
    u8::try_from(number).ok().filter(|number| range.contains(number)).ok_or_else(|| {
        let (min, max) = (range.start(), range.end());
        Fault::Value(format!("Invalid crontab pattern.  Valid range is {min}-{max}. '{number}' was found."))
    })
}

/// Some numbers of a field, and at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Set(u64);

impl Set {
    fn of(numbers: &[u8]) -> Option<Set> {
        let bits = numbers.iter().fold(0, |bits, number| bits | 1 << number);
        (bits != 0).then_some(Set(bits))
    }

    pub(super) fn contains(self, number: i8) -> bool {
        u32::try_from(number).is_ok_and(|number| self.0.checked_shr(number).unwrap_or(0) & 1 == 1)
    }

    pub(super) fn first(self) -> i8 {
        // A set has a number, and none is above 59.
        self.0.trailing_zeros() as i8
    }

    /// The least number above `number`.
    pub(super) fn after(self, number: i8) -> Option<i8> {
        let above = self.0 & u64::MAX.checked_shl(u32::try_from(number + 1).ok()?).unwrap_or(0);
        (above != 0).then(|| Set(above).first())
    }

    pub(super) fn is_all(self, field: Field) -> bool {
        field.range().all(|number| self.contains(number as i8))
    }

    pub(super) fn numbers(self) -> impl Iterator<Item = i8> {
        (0..=59).filter(move |number| self.contains(*number))
    }
}

/// `crontab_parser.parse`.
pub(super) fn parse(text: &str, field: Field) -> Result<Set, Fault> {
    let mut numbers = Vec::new();
    for part in text.split(',') {
        if part.is_empty() {
            return Err(Fault::Parse("empty part".to_owned()));
        }
        numbers.extend(parse_part(part, field)?);
    }
    // Each part stands for at least one number.
    Set::of(&numbers).ok_or_else(|| Fault::Parse("empty part".to_owned()))
}

fn parse_part(part: &str, field: Field) -> Result<Vec<u8>, Fault> {
    if let Some((from, to, rest)) = as_range(part) {
        let range = || expand_range(from, to, field);
        return if let Some(rest) = rest.strip_prefix('/') { step(range, leading_word(rest)) } else { range() };
    }
    if let Some(rest) = part.strip_prefix("*/") {
        return step(|| Ok(field.all()), leading_word(rest));
    }
    // Python's `$` stands before a newline at the end, too.
    if part == "*" || part == "*\n" {
        return Ok(field.all());
    }
    Ok(vec![expand_number(part, field)?])
}

/// What begins with words around a `-`, and what follows these: `(\w+?)-(\w+)`.
fn as_range(part: &str) -> Option<(&str, &str, &str)> {
    let from = leading_word(part);
    let rest = part[from.len()..].strip_prefix('-')?;
    let to = leading_word(rest);
    (!from.is_empty() && !to.is_empty()).then(|| (from, to, &rest[to.len()..]))
}

/// `\w*`.
fn leading_word(text: &str) -> &str {
    let end = text.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(text.len());
    &text[..end]
}

fn expand_range(from: &str, to: &str, field: Field) -> Result<Vec<u8>, Fault> {
    let (from, to) = (expand_number(from, field)?, expand_number(to, field)?);
    if to < from {
        let (min, max) = field.range().into_inner();
        return Ok((from..=max).chain(min..=to).collect());
    }
    Ok((from..=to).collect())
}

/// Every n-th of a list that already begins where it should: Python's `[::n]`.
fn step(numbers: impl FnOnce() -> Result<Vec<u8>, Fault>, step: &str) -> Result<Vec<u8>, Fault> {
    if step.is_empty() {
        return Err(Fault::Parse("empty filter".to_owned()));
    }
    let numbers = numbers()?;
    let step = python::int(step).ok_or_else(|| Fault::Value(python::no_int(step)))?;
    // A word has no sign: what does not fit is larger than any list.
    match usize::try_from(&step).unwrap_or(usize::MAX) {
        0 => Err(Fault::Value("slice step cannot be zero".to_owned())),
        step => Ok(numbers.into_iter().step_by(step).collect()),
    }
}

fn expand_number(text: &str, field: Field) -> Result<u8, Fault> {
    if text.starts_with('-') {
        return Err(Fault::Parse("negative numbers not supported".to_owned()));
    }
    let number = python::int(text).or_else(|| named(text));
    let number = number.ok_or_else(|| Fault::Value(format!("Invalid weekday literal {}.", python::repr(text))))?;
    let (min, max) = field.range().into_inner();
    if number > BigInt::from(max) {
        return Err(Fault::Value(format!("Invalid end range: {number} > {max}.")));
    }
    u8::try_from(&number)
        .ok()
        .filter(|number| *number >= min)
        .ok_or_else(|| Fault::Value(format!("Invalid beginning range: {number} < {min}.")))
}

/// Months before days, as Celery looks: `yearmonth` and `weekday` of `celery/utils/time.py`. No name is both.
fn named(text: &str) -> Option<BigInt> {
    const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
    let short = text.chars().take(3).collect::<String>().to_lowercase();
    let month = MONTHS.iter().position(|month| *month == short).map(|month| month + 1);
    month.or_else(|| DAYS.iter().position(|day| *day == short)).map(BigInt::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, field: Field, expected: &[i8]) {
        let found: Vec<i8> = parse(text, field).unwrap_or_else(|fault| panic!("{text}: {fault}")).numbers().collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn what_the_grammar_says() {
        check("*/15", Field::Minute, &[0, 15, 30, 45]);
        check("*/15,7", Field::Minute, &[0, 7, 15, 30, 45]);
        check("*/2", Field::MonthOfYear, &[1, 3, 5, 7, 9, 11]);
        check("22-2", Field::Hour, &[0, 1, 2, 22, 23]);
        check("10-5/20", Field::Minute, &[10, 30, 50]);
        check("fri-mon", Field::DayOfWeek, &[0, 1, 5, 6]);
        check("nov-Feb", Field::MonthOfYear, &[1, 2, 11, 12]);
        check("mon-fri/2", Field::DayOfWeek, &[1, 3, 5]);
    }

    #[test]
    fn what_it_does_not_say() {
        check("*/70", Field::Minute, &[0]);
        check("*/2/3", Field::DayOfWeek, &[0, 2, 4, 6]);
        check("1-3-5", Field::Hour, &[1, 2, 3]);
        check("SUNny", Field::DayOfWeek, &[0]);
        check("mon/2", Field::Minute, &[1]);
        check("jan", Field::DayOfWeek, &[1]);
        check(" 07,+5 ,1_0", Field::Minute, &[5, 7, 10]);
        check("*\n", Field::DayOfWeek, &[0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn what_is_refused_and_in_which_words() {
        let rows = [
            ("", Field::Minute, "ParseException: empty part"),
            ("1,,2", Field::Minute, "ParseException: empty part"),
            ("*/", Field::Minute, "ParseException: empty filter"),
            ("*/-1", Field::Minute, "ParseException: empty filter"),
            ("1-5/", Field::Minute, "ParseException: empty filter"),
            ("-1", Field::Minute, "ParseException: negative numbers not supported"),
            ("*/0", Field::Minute, "ValueError: slice step cannot be zero"),
            ("1-5/x", Field::Minute, "ValueError: invalid literal for int() with base 10: 'x'"),
            ("5/10", Field::Minute, "ValueError: Invalid weekday literal '5/10'."),
            ("1 - 5", Field::Minute, "ValueError: Invalid weekday literal '1 - 5'."),
            ("7", Field::DayOfWeek, "ValueError: Invalid end range: 7 > 6."),
            ("0", Field::MonthOfYear, "ValueError: Invalid beginning range: 0 < 1."),
        ];
        for (text, field, expected) in rows {
            let fault = parse(text, field).expect_err(text);
            assert_eq!(format!("{}: {fault}", fault.exception()), expected, "{text}");
        }
    }
}
