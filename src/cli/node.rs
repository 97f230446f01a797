//! [`NodeName`]: `celery@host`, and the `%` abbreviations of names and files (celery/utils/nodenames.py).

use std::fmt;

use crate::{Error, ErrorKind, Result};

/// The name under which a worker is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NodeName {
    name: String,
    host: String,
}

impl NodeName {
    /// The name of `--hostname`, or `celery@host`.
    ///
    /// # Errors
    /// `Configuration`: an abbreviation that does not exist.
    pub(super) fn new(option: Option<&str>, host: &str) -> Result<Self> {
        let short = host.split('.').next().unwrap_or(host);
        let option = expand(option.unwrap_or_default(), short, host, "")?;
        let (name, own_host) = option.split_once('@').unwrap_or(("", &option));
        let or = |text: &str, default: &str| (if text.is_empty() { default } else { text }).to_owned();
        Ok(NodeName { name: or(name, "celery"), host: or(own_host, host) })
    }

    /// A file's name with its abbreviations expanded.
    ///
    /// # Errors
    /// `Configuration`: an abbreviation that does not exist.
    pub(super) fn expand(&self, template: &str) -> Result<String> {
        expand(template, &self.name, &self.host, &self.to_string())
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.host)
    }
}

fn expand(template: &str, name: &str, host: &str, node: &str) -> Result<String> {
    let mut text = String::with_capacity(template.len());
    let mut rest = template.chars();
    while let Some(letter) = rest.next() {
        let key = rest.clone().next().filter(|key| letter == '%' && (*key == '%' || key.is_alphanumeric()));
        match key {
            None => {
                text.push(letter);
                continue;
            }
            Some('%') => text.push('%'),
            Some('h') => text.push_str(host),
            Some('n') => text.push_str(name),
            Some('d') => text.push_str(host.split_once('.').map_or("", |(_, domain)| domain)),
            Some('p') if !node.is_empty() => text.push_str(node),
            // The index of a child process: the main process has none.
            Some('i') => text.push('0'),
            Some('I') => {}
            Some(key) => {
                let message = format!("unknown abbreviation %{key} in '{template}': write %% for a percent sign");
                return Err(Error::new(ErrorKind::Configuration, message));
            }
        }
        rest.next();
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_names() {
        let check = |option: Option<&str>, expected: &str| {
            let node = NodeName::new(option, "web1.example.com");
            assert_eq!(node.unwrap().to_string(), expected, "{option:?}");
        };
        check(None, "celery@web1.example.com");
        check(Some("w1@%h"), "w1@web1.example.com");
        check(Some("w1@"), "w1@web1.example.com");
        check(Some("box"), "celery@box");
        check(Some("%n@%d"), "web1@example.com");
        check(Some("a%%b@h"), "a%b@h");
        check(Some("100%"), "celery@100%");
        check(Some("w-%i%I@%h"), "w-0@web1.example.com");
        assert_eq!(
            NodeName::new(Some("x%z"), "h").unwrap_err().to_string(),
            "unknown abbreviation %z in 'x%z': write %% for a percent sign",
        );
    }

    #[test]
    fn files() {
        let node = NodeName::new(Some("w1@h.example.com"), "elsewhere").unwrap();
        assert_eq!(
            node.expand("/log/%n-%h-%d%I-%i-%p.log").unwrap(),
            "/log/w1-h.example.com-example.com-0-w1@h.example.com.log"
        );
    }
}
