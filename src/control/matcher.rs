//! Which nodes a request is for (kombu/pidbox.py `Node.handle_message`, kombu/matcher.py).

use regex::Regex;

use super::{Result, raise};
use crate::protocol::{Exception, Value, repr};
use crate::routing::translate;

/// Whether `hostname` is meant: by `destination` where there is one, else by `pattern` in the language of `matcher` where
/// there are both; otherwise everybody is.
pub(super) fn is_for(hostname: &str, destination: &Value, pattern: &Value, matcher: &Value) -> Result<bool> {
    if destination.is_truthy() {
        return names(destination, hostname);
    }
    if pattern.is_truthy() && matcher.is_truthy() {
        return matches(hostname, pattern, matcher);
    }
    Ok(true)
}

/// Python's `hostname in destination`.
fn names(destination: &Value, hostname: &str) -> Result<bool> {
    match destination {
        Value::List(names) => Ok(names.iter().any(|name| name.as_str() == Some(hostname))),
        Value::Map(names) => Ok(names.contains_key(hostname)),
        Value::String(text) => Ok(text.contains(hostname)),
        other => raise("TypeError", format!("argument of type '{}' is not iterable", other.type_name())),
    }
}

fn matches(hostname: &str, pattern: &Value, matcher: &Value) -> Result<bool> {
    let (Some(pattern), Some(matcher)) = (pattern.as_str(), matcher.as_str()) else {
        return raise("TypeError", "pattern and matcher must be strings");
    };
    match matcher {
        "glob" => Ok(regex(&translate(pattern))?.is_match(hostname)),
        // Anchored at the start, as `re.match` is: the leftmost match begins there if any does.
        "pcre" => Ok(regex(pattern)?.find(hostname).is_some_and(|found| found.start() == 0)),
        other => Err(Exception::with_args(
            "MatcherNotInstalled",
            "kombu.matcher",
            [format!("No matcher installed for {other}")],
        )),
    }
}

fn regex(pattern: &str) -> Result<Regex> {
    Regex::new(pattern).or_else(|_| raise("error", format!("cannot compile {}", repr::repr(&Value::from(pattern)))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(destination: impl Into<Value>, pattern: &str, matcher: &str, expected: std::result::Result<bool, &str>) {
        let (destination, shown) = (destination.into(), format!("{pattern} {matcher}"));
        let found = is_for("w1@host.example", &destination, &pattern.into(), &matcher.into());
        assert_eq!(found.map_err(|error| error.exc_type), expected.map_err(str::to_owned), "{destination:?} {shown}");
    }

    #[test]
    fn nodes_are_named_or_matched_or_all_are_meant() {
        check(Value::Null, "", "", Ok(true));
        check(Value::List(Vec::new()), "", "", Ok(true));
        check(["w1@host.example"], "nobody", "glob", Ok(true));
        check(["w2@host.example"], "*", "glob", Ok(false));
        check(7, "", "", Err("TypeError"));
        check(Value::Null, "w1@*", "", Ok(true));
        check(Value::Null, "w1@*", "glob", Ok(true));
        check(Value::Null, "w?@host[.-]exam[!x]le", "glob", Ok(true));
        check(Value::Null, "W1@*", "glob", Ok(false));
        check(Value::Null, "host", "glob", Ok(false));
        check(Value::Null, "w[", "glob", Ok(false));
        check(Value::Null, "w[]1]@*", "glob", Ok(true));
        // A range that runs backwards has no members, and is no error.
        check(Value::Null, "w[9-0]@*", "glob", Ok(false));
        check(Value::Null, "w[!9-0]@*", "glob", Ok(true));
        check(Value::Null, r"w\d@", "pcre", Ok(true));
        check(Value::Null, "1@host", "pcre", Ok(false));
        check(Value::Null, "(", "pcre", Err("error"));
        check(Value::Null, "w1@*", "none", Err("MatcherNotInstalled"));
    }
}
