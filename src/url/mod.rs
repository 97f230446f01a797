//! [`UrlParts`]: the URL of a broker or a backend in the pieces that Python makes of it (`urllib.parse.urlsplit`,
//! kombu/utils/url.py `url_to_parts`).
//!
//! What the pieces mean is for the room of each client library. A URL that is not understood is never shown: it may
//! hold a password anywhere.

use percent_encoding::percent_decode_str;

/// A URL's text between `://` and the end.
pub(crate) struct UrlParts<'a> {
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    /// `host:port`, the host perhaps in brackets.
    authority: &'a str,
    /// Without its first slash, percent-decoded.
    pub(crate) path: String,
    /// What stands after the `?`; options without a value are left out.
    pub(crate) query: Vec<(String, String)>,
}

impl<'a> UrlParts<'a> {
    pub(crate) fn split(rest: &'a str) -> Self {
        let rest = rest.split('#').next().unwrap_or_default();
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, authority) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (username, password) = login.split_once(':').unwrap_or((login, ""));
        UrlParts {
            username: login_part(username),
            password: login_part(password),
            authority,
            path: decode(path),
            query: pairs(query),
        }
    }

    /// Takes an option out of the query: its last value, as Python's dictionaries have it.
    pub(crate) fn take(&mut self, option: &str) -> Option<String> {
        let taken = self.query.extract_if(.., |(name, _)| name == option).last();
        taken.map(|(_, value)| value)
    }

    /// Whether a host is named.
    pub(crate) fn has_host(&self) -> bool {
        !self.authority.is_empty()
    }

    /// The host, in lower case, and the port; `None`: the port is wrong.
    pub(crate) fn host_and_port(&self, default_port: u16) -> Option<(String, u16)> {
        let (host, port) = match self.authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, after)) => (host, after.strip_prefix(':').unwrap_or(after)),
            None => self.authority.split_once(':').unwrap_or((self.authority, "")),
        };
        let port = if port.is_empty() { default_port } else { port.parse().ok().filter(|port| *port > 0)? };
        let host = if host.is_empty() { "localhost".to_owned() } else { decode(host).to_lowercase() };
        Some((host, port))
    }
}

/// What to call a URL that cannot be shown: by its scheme.
pub(crate) fn unshown(text: &str, server: &str) -> String {
    text.split_once("://").map_or(format!("the {server} URL"), |(scheme, _)| format!("the {scheme}:// URL"))
}

fn pairs(query: &str) -> Vec<(String, String)> {
    let pair = |text: &str| {
        let (name, value) = text.split_once('=')?;
        (!value.is_empty()).then(|| (decode(&name.replace('+', " ")), decode(&value.replace('+', " "))))
    };
    query.split('&').filter_map(pair).collect()
}

fn login_part(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| decode(text))
}

fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}
