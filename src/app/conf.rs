//! Settings for people to read: secrets are left out (celery/app/utils.py `filter_hidden_settings`, `sanitize_url`).

use std::fmt;
use std::sync::{Arc, LazyLock};

use regex::Regex;

use crate::Result;
use crate::config::Config;
use crate::protocol::{Map, Value, to_value};

/// What stands where a secret was.
const MASK: &str = "********";

/// Names of settings that may be secrets: Celery's `HIDDEN_SETTINGS`.
static HIDDEN: LazyLock<Regex> =
    LazyLock::new(|| pattern("(?i)API|TOKEN|KEY|SECRET|PASS|PROFANITIES_LIST|SIGNATURE|DATABASE|BEAT_DBURI"));

/// Names of options that are secrets.
static SECRET: LazyLock<Regex> = LazyLock::new(|| pattern("(?i)TOKEN|SECRET|PASS"));

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a constant pattern")
}

/// How an app in another language tells its own settings, secrets left out: those that are not the default, or all.
#[derive(Clone)]
pub(crate) struct Teller(pub(super) Arc<dyn Fn(bool) -> Result<Map> + Send + Sync>);

impl Teller {
    pub(crate) fn tell(&self, with_defaults: bool) -> Result<Map> {
        (self.0)(with_defaults)
    }
}

impl fmt::Debug for Teller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Teller")
    }
}

/// The settings under Celery's names: those that are not the default, or all that this program knows.
pub(crate) fn table(config: &Config, with_defaults: bool) -> Map {
    let shown = config.table(with_defaults).into_iter();
    // What TOML can say has a form as a value.
    shown
        .map(|(name, value)| (name, censored(name, value.and_then(|value| to_value(&value).ok()).unwrap_or_default())))
        .collect()
}

fn censored(name: &str, value: Value) -> Value {
    let is_url = matches!(name, "broker_url" | "broker_read_url" | "broker_write_url") || name.contains("backend");
    match value {
        Value::Map(map) => {
            map.into_iter().map(|(name, value)| (name.clone(), censored(&name, value))).collect::<Map>().into()
        }
        _ if HIDDEN.is_match(name) => MASK.into(),
        Value::String(url) if is_url => {
            url.split(';').map(|url| sanitized(url.trim())).collect::<Vec<_>>().join(";").into()
        }
        value => value,
    }
}

/// The options without those that are secrets.
pub(crate) fn without_secrets(options: Map) -> Map {
    let hide = |(name, value): (String, Value)| {
        let value = match value {
            Value::Map(inner) => without_secrets(inner).into(),
            _ if SECRET.is_match(&name) => MASK.into(),
            value => value,
        };
        (name, value)
    };
    options.into_iter().map(hide).collect()
}

/// A URL without its password, and without those among its options. What is no URL and may hold one is not shown.
pub(crate) fn sanitized(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return if url.contains('@') { MASK.to_owned() } else { url.to_owned() };
    };
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    // A password with a question mark in it.
    if !rest.contains('@') && query.is_some_and(|query| query.contains('@')) {
        return MASK.to_owned();
    }
    let mut shown = match rest.rsplit_once('@') {
        Some((login, place)) => match login.split_once(':') {
            Some((user, _)) => format!("{scheme}://{user}:{MASK}@{place}"),
            None => format!("{scheme}://{login}@{place}"),
        },
        None => format!("{scheme}://{rest}"),
    };
    if let Some(query) = query {
        let options = query.split('&').map(|option| match option.split_once('=') {
            Some((name, _)) if SECRET.is_match(name) => format!("{name}={MASK}"),
            _ => option.to_owned(),
        });
        shown.push('?');
        shown.push_str(&options.collect::<Vec<_>>().join("&"));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_shown_without_passwords() {
        let rows = [
            ("redis://h:1/0", "redis://h:1/0"),
            ("redis://:pw@h:1/0", "redis://:********@h:1/0"),
            ("amqp://u:p@w@h//", "amqp://u:********@h//"),
            ("amqp://u@h//", "amqp://u@h//"),
            ("redis://:p/w@h/0", "redis://:********@h/0"),
            ("rediss://h/0?ssl_keyfile=a&ssl_password=b", "rediss://h/0?ssl_keyfile=a&ssl_password=********"),
            ("disabled", "disabled"),
            ("u:pw@h", "********"),
            ("redis://:p?w@h", "********"),
        ];
        for (url, expected) in rows {
            assert_eq!(sanitized(url), expected);
        }
    }

    #[test]
    fn secrets_among_settings_are_hidden() {
        let mut config = Config::default();
        let toml = "broker_url = 'redis://:pw@h/0;redis://:pw@i/0'\nresult_backend = 'redis://:pw@h/1'\n\
                    task_default_routing_key = 'k'\nbroker_transport_options.sentinel_kwargs = { password = 'pw' }\n\
                    task_acks_late = true";
        config.merge_toml(toml, "test.toml").unwrap();
        let shown = table(&config, false);
        let expected = Map::from([
            ("broker_url", Value::from("redis://:********@h/0;redis://:********@i/0")),
            ("broker_transport_options", Map::from([("sentinel_kwargs", Map::from([("password", MASK)]))]).into()),
            ("result_backend", "redis://:********@h/1".into()),
            ("task_acks_late", true.into()),
            ("task_default_routing_key", MASK.into()),
        ]);
        assert_eq!(shown, expected);
        assert!(table(&config, true).len() > 100);
    }
}
