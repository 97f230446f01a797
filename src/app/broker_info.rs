//! [`broker_info`]: a broker as Kombu describes it to monitors (kombu/connection.py `Connection.info`).

use crate::config::Config;
use crate::protocol::{Map, Value, to_value};
use crate::url::UrlParts;

/// The broker at this address, which is shown without its password, as these settings reach it. No key of Kombu's is
/// missing; the password is no key of it, and neither is any in the addresses of its `alternates`.
pub(crate) fn broker_info(uri: &str, config: &Config) -> Map {
    let (scheme, rest) = uri.split_once("://").unwrap_or((uri, ""));
    let (is_redis, is_amqp) = (scheme.starts_with("redis"), scheme.contains("amqp"));
    let parts = UrlParts::split(rest);
    let (default_port, login) = if is_amqp { (5672, Some("PLAIN")) } else { (6379, None) };
    let (host, port) = parts.host_and_port(default_port).unzip();
    let is_socket = scheme == "redis+socket";
    let is_local = !is_redis && !is_amqp;
    let ssl = config.broker_use_ssl.is_some() || matches!(scheme, "rediss" | "amqps");
    let virtual_host = if parts.path.is_empty() || is_socket { "/" } else { &parts.path };
    Map::from([
        ("hostname", if is_socket { uri.into() } else { Value::from(host) }),
        ("userid", parts.username.into()),
        ("virtual_host", virtual_host.into()),
        ("port", port.filter(|_| !is_local).into()),
        ("insist", false.into()),
        ("ssl", ssl.into()),
        ("transport", Value::from(if is_socket { "redis" } else { scheme.trim_start_matches("py") })),
        ("connect_timeout", seconds(config.broker_connection_timeout.as_secs_f64())),
        ("transport_options", options(config).into()),
        ("login_method", config.broker_login_method.as_deref().or(login).filter(|_| is_amqp).into()),
        ("uri_prefix", is_socket.then_some("redis").into()),
        ("heartbeat", config.broker_heartbeat.map(|beat| beat.as_secs_f64()).into()),
        ("failover_strategy", config.broker_failover_strategy.as_str().into()),
        ("alternates", alternates(config.read_url()).into()),
        ("credential_provider", Value::Null),
    ])
}

fn options(config: &Config) -> Map {
    // A TOML table has a form as a value.
    let options = to_value(&config.broker_transport_options.table()).ok().and_then(Value::into_map);
    super::conf::without_secrets(options.unwrap_or_default())
}

/// All of several addresses; none of one.
fn alternates(urls: &str) -> Vec<String> {
    let urls: Vec<_> = urls.split(';').map(|url| super::conf::sanitized(url.trim())).collect();
    if urls.len() > 1 { urls } else { Vec::new() }
}

fn seconds(seconds: f64) -> Value {
    if seconds.fract() == 0.0 { (seconds as i64).into() } else { seconds.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::json;

    fn shown(uri: &str, toml: &str) -> String {
        let mut config = Config::default();
        config.merge_toml(toml, "test.toml").unwrap();
        String::from_utf8(json::to_vec(&broker_info(uri, &config).into()).unwrap()).unwrap()
    }

    /// Recorded from stock workers, 5.7.0.
    #[test]
    fn brokers_are_described_as_kombu_describes_them() {
        let redis = r#"{"hostname": "127.0.0.1", "userid": null, "virtual_host": "0", "port": 44333, "insist": false, "ssl": false, "transport": "redis", "connect_timeout": 4, "transport_options": {"unacked_mutex_expire": 1}, "login_method": null, "uri_prefix": null, "heartbeat": 120.0, "failover_strategy": "round-robin", "alternates": [], "credential_provider": null}"#;
        assert_eq!(shown("redis://127.0.0.1:44333/0", "broker_transport_options.unacked_mutex_expire = 1"), redis);
        let amqp = r#"{"hostname": "127.0.0.1", "userid": "guest", "virtual_host": "tests/0", "port": 15606, "insist": false, "ssl": false, "transport": "amqp", "connect_timeout": 4, "transport_options": {}, "login_method": "PLAIN", "uri_prefix": null, "heartbeat": 120.0, "failover_strategy": "round-robin", "alternates": [], "credential_provider": null}"#;
        assert_eq!(shown("amqp://guest:**@127.0.0.1:15606/tests/0", ""), amqp);
    }

    #[test]
    fn no_password_is_told() {
        let toml = "broker_url = 'amqp://u:secret@a//;amqp://u:secret@b//'\n\
                    broker_transport_options.sentinel_kwargs = { password = 'secret', port = 1 }";
        let text = shown("amqps://u:**@a:5671//", toml);
        assert!(!text.contains("secret") && text.contains(r#""ssl": true"#), "{text}");
        assert!(text.contains(r#""alternates": ["amqp://u:********@a//", "amqp://u:********@b//"]"#), "{text}");
        assert!(text.contains(r#""sentinel_kwargs": {"password": "********", "port": 1}"#), "{text}");
    }
}
