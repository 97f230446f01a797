//! [`translate`]: globs as Python's `fnmatch` reads them.

use std::fmt::Write;

/// The regular expression of a glob (Lib/fnmatch.py `translate`): `*`, `?`, `[abc]`, `[!a-c]`; it matches a whole name.
pub(crate) fn translate(glob: &str) -> String {
    let letters: Vec<char> = glob.chars().collect();
    let mut expression = String::from(r"\A(?s:");
    let mut at = 0;
    while let Some(letter) = letters.get(at) {
        at += 1;
        match letter {
            '*' => expression.push_str(".*"),
            '?' => expression.push('.'),
            '[' => match class_end(&letters, at) {
                Some(end) => {
                    class(&letters[at..end], &mut expression);
                    at = end + 1;
                }
                None => literal('[', &mut expression),
            },
            letter => literal(*letter, &mut expression),
        }
    }
    expression + r")\z"
}

/// Where the class that begins at `start` ends: a `]` that is its first member does not end it.
fn class_end(letters: &[char], start: usize) -> Option<usize> {
    let mut from = start;
    if letters.get(from) == Some(&'!') {
        from += 1;
    }
    if letters.get(from) == Some(&']') {
        from += 1;
    }
    (from..letters.len()).find(|&at| letters[at] == ']')
}

/// A range that runs backwards has no members; a class without members matches nothing, or with `!` anything.
fn class(members: &[char], expression: &mut String) {
    let (negated, members) = match members {
        ['!', members @ ..] => (true, members),
        members => (false, members),
    };
    let mut ranges = String::new();
    let mut at = 0;
    while let Some(&first) = members.get(at) {
        let last = members.get(at + 2).copied().filter(|_| members.get(at + 1) == Some(&'-'));
        at += if last.is_some() { 3 } else { 1 };
        if last.is_none_or(|last| first <= last) {
            literal(first, &mut ranges);
            ranges.push('-');
            literal(last.unwrap_or(first), &mut ranges);
        }
    }
    match (ranges.is_empty(), negated) {
        (true, true) => expression.push('.'),
        // Rust's expressions have no negative look-ahead; this class has no members.
        (true, false) => expression.push_str(r"[^\s\S]"),
        (false, true) => expression.extend(["[^", &ranges, "]"]),
        (false, false) => expression.extend(["[", &ranges, "]"]),
    }
}

fn literal(letter: char, expression: &mut String) {
    // Writing to a `String` cannot fail.
    let _ = write!(expression, r"\x{{{:x}}}", u32::from(letter));
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;

    /// The answers are those of Python 3.11's `fnmatch.fnmatchcase`.
    #[test]
    fn globs_match_what_pythons_match() {
        let rows = [
            ("a*", "a", true),
            ("a*", "ba", false),
            ("a.*", "a\nb", false),
            ("a*b", "a\nb", true),
            ("?", "", false),
            ("[]]", "]", true),
            ("[!]]", "]", false),
            ("[!]]", "a", true),
            ("[]-a]", "_", true),
            ("[a-c-e]", "-", true),
            ("[a-c-e]", "d", false),
            ("[c-a]", "b", false),
            ("[!c-a]", "b", true),
            ("[--0]", ".", true),
            ("[^a]", "^", true),
            ("[&&a]", "&", true),
            ("[\\]", "\\", true),
            ("[", "[", true),
            ("[a", "[a", true),
            ("(x)+$", "(x)+$", true),
            ("é?", "éü", true),
        ];
        for (glob, name, expected) in rows {
            assert_eq!(Regex::new(&translate(glob)).unwrap().is_match(name), expected, "{glob} {name}");
        }
    }
}
