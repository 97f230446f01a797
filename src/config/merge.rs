//! Putting files, command lines and the environment over a [`Config`].

use std::fmt;

use toml::{Table, Value};

use super::names;
use super::parser::{Kind, Mismatch, Settings, truth};
use super::settings::Config;
use crate::{Error, ErrorKind, Result};

/// A setting that was read and has no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The setting's name.
    pub name: String,
    /// The file or the part of the command line that it comes from.
    pub origin: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = if names::is_known(&self.name) { "not supported yet" } else { "none that this worker knows," };
        write!(f, "{}: the setting {} is {why} and has no effect", self.origin, self.name)
    }
}

impl Config {
    /// Reads the text of a TOML file; `file` is its name for messages.
    ///
    /// # Errors
    /// `Configuration`: not TOML, a name that neither Celery nor Celeriac knows, or a value of the wrong type. The
    /// message names the file, the key and what was expected.
    pub fn merge_toml(&mut self, text: &str, file: &str) -> Result<Vec<Warning>> {
        let table: Table = text.parse().map_err(|error: toml::de::Error| not_toml(text, file, &error))?;
        let mut warnings = Vec::new();
        for (name, value) in &table {
            warnings.extend(self.assign_setting(name, value, file)?);
        }
        Ok(warnings)
    }

    /// The settings that were changed, in whatever way, and that this version reads without heeding them.
    pub fn without_effect(&self) -> Vec<Warning> {
        let warn = |name| Warning { name, origin: "configuration".to_owned() };
        names::without_effect(self).into_iter().map(warn).collect()
    }

    /// Reads `ns.key=value` from the end of a command line: `worker.prefetch_multiplier=10`, `.concurrency=(int)5`
    /// (celery/loaders/base.py `BaseLoader.cmdline_config_parser`). A key that begins with `.` or `_` is a worker's. What
    /// Celery has no words for: one key of a table, `broker_transport_options.visibility_timeout=60`.
    ///
    /// # Errors
    /// As [`Config::merge_toml`].
    pub fn merge_assignments(&mut self, assignments: &[String]) -> Result<Vec<Warning>> {
        let mut warnings = Vec::new();
        for assignment in assignments {
            warnings.extend(self.merge_assignment(assignment)?);
        }
        Ok(warnings)
    }

    /// Reads Celery's environment variables, which win over everything else (celery/app/utils.py `Settings`);
    /// and those that bound what a worker remembers (celery/worker/state.py); `variable` looks one up. Empty ones count
    /// as absent.
    ///
    /// # Errors
    /// `Configuration`: a number that is none. The message names the variable.
    pub fn merge_environment(&mut self, variable: impl Fn(&str) -> Option<String>) -> Result<()> {
        for (variable_name, setting) in ENVIRONMENT {
            let Some(text) = variable(variable_name).filter(|text| !text.is_empty()) else { continue };
            let value = Config::kind(setting).unwrap_or(Kind::Text).read(&text);
            self.assign(setting, &value).map_err(|mismatch| mismatched("environment", variable_name, &mismatch))?;
        }
        Ok(())
    }

    fn merge_assignment(&mut self, assignment: &str) -> Result<Option<Warning>> {
        let (key, text) = assignment
            .split_once('=')
            .filter(|(key, _)| !key.is_empty())
            .ok_or_else(|| configuration(format!("{assignment}: expected a setting, such as worker.concurrency=10")))?;
        let name = key.to_lowercase().replace('.', "_");
        let name = if name.starts_with('_') { format!("worker{name}") } else { name };
        if let Some((table, key)) = in_table(&name) {
            return self.assign_in_table(table, key, text).map(|()| None);
        }
        let value = typed::<Config>(&name, text).map_err(|mismatch| mismatched(COMMAND_LINE, &name, &mismatch))?;
        self.assign_setting(&name, &value, COMMAND_LINE)
    }

    /// Sets one key of a table and leaves the others alone.
    fn assign_in_table(&mut self, table: &str, key: &str, text: &str) -> Result<()> {
        let (known, nearest) = match table {
            BROKER_OPTIONS => put(&mut self.broker_transport_options, key, text),
            RESULT_OPTIONS => put(&mut self.result_backend_transport_options, key, text),
            CACHE_OPTIONS => put(&mut self.cache_backend_options, key, text),
            _ => put(&mut self.task_publish_retry_policy, key, text),
        }
        .map_err(|mismatch| mismatched(COMMAND_LINE, table, &mismatch.within(key)))?;
        let hint = nearest.map(|near| format!(", did you mean {near}?")).unwrap_or_default();
        if known { Ok(()) } else { Err(configuration(format!("{COMMAND_LINE}: unknown setting {table}.{key}{hint}"))) }
    }

    fn assign_setting(&mut self, name: &str, value: &Value, origin: &str) -> Result<Option<Warning>> {
        if self.assign(name, value).map_err(|mismatch| mismatched(origin, name, &mismatch))? {
            return Ok(None);
        }
        if !names::is_unsupported(name) {
            return Err(unknown(origin, name));
        }
        let warning = Warning { name: name.to_owned(), origin: origin.to_owned() };
        Ok((!names::is_default(name, value)).then_some(warning))
    }
}

/// Celery's variables and the settings that they stand for.
const ENVIRONMENT: [(&str, &str); 8] = [
    ("CELERY_BROKER_URL", "broker_url"),
    ("CELERY_BROKER_READ_URL", "broker_read_url"),
    ("CELERY_BROKER_WRITE_URL", "broker_write_url"),
    ("CELERY_RESULT_BACKEND", "result_backend"),
    ("CELERY_WORKER_REVOKES_MAX", "worker_revokes_max"),
    ("CELERY_WORKER_REVOKE_EXPIRES", "worker_revoke_expires"),
    ("CELERY_WORKER_SUCCESSFUL_MAX", "worker_successful_max"),
    ("CELERY_WORKER_SUCCESSFUL_EXPIRES", "worker_successful_expires"),
];

const COMMAND_LINE: &str = "command line";

const BROKER_OPTIONS: &str = "broker_transport_options";
const RESULT_OPTIONS: &str = "result_backend_transport_options";
const CACHE_OPTIONS: &str = "cache_backend_options";

/// The settings that are tables with keys of their own.
const TABLES: [&str; 4] = [BROKER_OPTIONS, RESULT_OPTIONS, CACHE_OPTIONS, "task_publish_retry_policy"];

/// Which table's which key a name is, once its dots are underscores.
fn in_table(name: &str) -> Option<(&'static str, &str)> {
    TABLES.into_iter().find_map(|table| Some((table, name.strip_prefix(table)?.strip_prefix('_')?)))
}

/// Sets the field of that name; whether there is one, and if not, what is called nearly so.
fn put<S: Settings>(settings: &mut S, key: &str, text: &str) -> Result<(bool, Option<&'static str>), Mismatch> {
    let known = key != "other" && settings.assign(key, &typed::<S>(key, text)?)?;
    Ok((known, names::misspelt(key, S::NAMES)))
}

/// The value that `text` stands for: by its cast, or else by the setting's own type.
fn typed<S: Settings>(name: &str, text: &str) -> Result<Value, Mismatch> {
    let cast = text.strip_prefix('(').and_then(|rest| rest.split_once(')'));
    let Some((cast, text)) = cast else {
        return Ok(S::kind(name).unwrap_or(Kind::Text).read(text));
    };
    let value = match cast {
        "int" => text.trim().parse().ok().map(Value::Integer),
        "float" => text.trim().parse().ok().map(Value::Float),
        "bool" => truth(text).map(Value::Boolean),
        "string" | "any" => Some(Value::from(text)),
        "json" | "list" | "tuple" | "dict" => serde_json::from_str(text).ok(),
        _ => return Err(Mismatch::new("one of the casts int, float, bool, string, json, list, tuple, dict")),
    };
    value.ok_or_else(|| Mismatch::new(format!("text that ({cast}) can read")))
}

fn configuration(message: String) -> Error {
    Error::new(ErrorKind::Configuration, message)
}

fn mismatched(origin: &str, name: &str, mismatch: &Mismatch) -> Error {
    let part = mismatch.part.as_ref().map(|part| format!(".{part}").replace(".[", "[")).unwrap_or_default();
    configuration(format!("{origin}: {name}{part}: {}", mismatch.problem))
}

fn unknown(origin: &str, name: &str) -> Error {
    let hint = names::nearest(name).map(|near| format!(", did you mean {near}?")).unwrap_or_default();
    configuration(format!("{origin}: unknown setting {name}{hint}"))
}

/// One line: where the text stops being TOML, and why.
fn not_toml(text: &str, file: &str, error: &toml::de::Error) -> Error {
    let start = error.span().map_or(0, |span| span.start);
    let line = text.get(..start).map_or(1, |before| before.matches('\n').count() + 1);
    configuration(format!("{file}:{line}: not TOML: {}", error.message().lines().next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Annotation, QueueDefinition, RetryPolicy, RouteDefinition, TaskAttributes};

    fn check(toml: &str, expected: Config) {
        let mut config = Config::default();
        config.merge_toml(toml, "test.toml").unwrap();
        assert_eq!(config, expected, "{toml}");
    }

    fn refused(toml: &str, expected: &str) {
        let error = Config::default().merge_toml(toml, "test.toml").unwrap_err();
        assert_eq!(error.to_string(), expected, "{toml}");
        assert_eq!(error.kind(), ErrorKind::Configuration);
    }

    #[test]
    fn settings_of_a_file() {
        let default = Config::default;
        check("", default());
        check(
            "broker_url = 'redis://h/1'\ntask_acks_late = true",
            Config { broker_url: Some("redis://h/1".into()), task_acks_late: true, ..default() },
        );
        check(
            "broker_url = ['redis://a', 'redis://b']",
            Config { broker_url: Some("redis://a;redis://b".into()), ..default() },
        );
        check("result_expires = 0", Config { result_expires: None, ..default() });
        check("result_expires = 1.5", Config { result_expires: Some(Duration::from_millis(1500)), ..default() });
        check("result_failure_expires = 0", Config { result_failure_expires: Some(Duration::ZERO), ..default() });
        check("worker_concurrency = 'auto'", default());
        check("worker_concurrency = 7", Config { worker_concurrency: Some(7), ..default() });
        check("broker_connection_max_retries = 0", Config { broker_connection_max_retries: None, ..default() });
        check("result_backend_max_retries = inf", default());
        check("task_default_rate_limit = 5", Config { task_default_rate_limit: Some("5".into()), ..default() });
        check("task_default_delivery_mode = 'transient'", Config { task_default_delivery_mode: 1, ..default() });
        check("dead_letter_queue = ''", Config { dead_letter_queue: None, ..default() });
        check(
            "unknown_tasks = 'hand-back'",
            Config { unknown_tasks: crate::config::UnknownTasks::HandBack, ..default() },
        );
        check(
            "task_queues = ['a']",
            Config {
                task_queues: vec![QueueDefinition { routing_key: Some("a".into()), ..QueueDefinition::named("a") }],
                ..default()
            },
        );
        check(
            "[task_publish_retry_policy]\nmax_retries = 5",
            Config {
                task_publish_retry_policy: RetryPolicy { max_retries: Some(5), ..RetryPolicy::default() },
                ..default()
            },
        );
    }

    #[test]
    fn transport_options_keep_what_they_do_not_know() {
        let mut config = Config::default();
        let text = "[broker_transport_options]\nvisibility_timeout = 5\nmaster_name = 'm'\nother = 1";
        config.merge_toml(text, "test.toml").unwrap();
        let options = config.broker_transport_options;
        assert_eq!(options.visibility_timeout, Duration::from_secs(5));
        assert_eq!(options.other, "master_name = 'm'\nother = 1".parse().unwrap());
    }

    #[test]
    fn errors_name_the_file_the_key_and_what_was_expected() {
        refused("task_acks_late = 1", "test.toml: task_acks_late: expected true or false");
        refused("task_time_limit = -1", "test.toml: task_time_limit: expected seconds, such as 30 or 1.5 (0: none)");
        refused("broker_ur = 'x'", "test.toml: unknown setting broker_ur, did you mean broker_url?");
        refused("zzz = 'x'", "test.toml: unknown setting zzz");
        refused("CELERY_BROKER_URL = 'x'", "test.toml: unknown setting CELERY_BROKER_URL, did you mean broker_url?");
        refused("BROKER_URL = 'x'", "test.toml: unknown setting BROKER_URL, did you mean broker_url?");
        refused(
            "broker_transport_options = { visibility_timeot = 3 }",
            "test.toml: broker_transport_options.visibility_timeot: unknown, did you mean visibility_timeout?",
        );
        refused("a = 1\nb = ", "test.toml:2: not TOML: string values must be quoted, expected literal string");
        refused(
            "[broker_transport_options]\nvisibility_timeout = 'x'",
            "test.toml: broker_transport_options.visibility_timeout: expected seconds, such as 30 or 1.5",
        );
        refused(
            "[broker_transport_options]\npriority_steps = [3, 0]",
            "test.toml: broker_transport_options.priority_steps: expected a list of priorities from 0 to 255, ascending",
        );
        refused(
            "[result_backend_transport_options.retry_policy]\ntimes = 1",
            "test.toml: result_backend_transport_options.retry_policy.times: expected only max_retries, interval_start, \
             interval_step, interval_max, timeout",
        );
        refused(
            "[[task_queues]]\nname = 'a'\nexchange_type = 'x'",
            "test.toml: task_queues[0].exchange_type: expected direct, topic or fanout",
        );
        refused(
            "task_default_rate_limit = '5/d'",
            "test.toml: task_default_rate_limit: expected a rate, such as \"10/s\", \"100/m\" or 5",
        );
    }

    #[test]
    fn settings_without_effect_are_warned_about_unless_they_are_defaults() {
        let check = |toml: &str, expected: &[&str]| {
            let warnings = Config::default().merge_toml(toml, "test.toml").unwrap();
            let shown: Vec<String> = warnings.iter().map(ToString::to_string).collect();
            assert_eq!(shown, expected, "{toml}");
        };
        check("worker_pool = 'prefork'\nbroker_heartbeat = 120.0\nbeat_schedule = {}\nredis_host = ''", &[]);
        check(
            "worker_pool_restarts = true",
            &["test.toml: the setting worker_pool_restarts is not supported yet and has no effect"],
        );
        check(
            "cassandra_options = { x = 1 }",
            &["test.toml: the setting cassandra_options is not supported yet and has no effect"],
        );
    }

    #[test]
    fn settings_that_are_read_and_not_heeded_are_named() {
        let text = "task_protocol = 1\nworker_direct = true\nworker_eta_task_limit = 0\n\
                    [broker_transport_options]\n\
                    fanout_prefix = true\nmax_connections = 3\nmaster_name = 'm'\n\
                    [cache_backend_options]\n\
                    timeout = 1\nkey_prefix = 'p'";
        let mut config = Config::default();
        assert_eq!(config.merge_toml(text, "test.toml").unwrap(), []);
        let named: Vec<String> = config.without_effect().into_iter().map(|warning| warning.name).collect();
        let expected = ["task_protocol", "worker_direct"].map(str::to_owned);
        let options = ["max_connections", "master_name"].map(|name| format!("broker_transport_options.{name}"));
        let cache = vec!["cache_backend_options.key_prefix".to_owned()];
        assert_eq!(named, [&expected[..], &options, &cache].concat());
        assert_eq!(Config::default().without_effect(), []);
        let said: Vec<String> = config.without_effect().iter().skip(2).map(ToString::to_string).collect();
        let said_of = |option: &str, why: &str| {
            format!("configuration: the setting broker_transport_options.{option} is {why} and has no effect")
        };
        let known = said_of("max_connections", "not supported yet");
        assert_eq!(said[..2], [known, said_of("master_name", "none that this worker knows,")]);
    }

    #[test]
    fn settings_of_a_command_line() {
        let check = |assignment: &str, expected: Config| {
            let mut config = Config::default();
            config.merge_assignments(&[assignment.to_owned()]).unwrap();
            assert_eq!(config, expected, "{assignment}");
        };
        let default = Config::default;
        check("worker.prefetch_multiplier=10", Config { worker_prefetch_multiplier: 10, ..default() });
        check("worker_prefetch_multiplier=(int)10", Config { worker_prefetch_multiplier: 10, ..default() });
        check(".concurrency=3", Config { worker_concurrency: Some(3), ..default() });
        check("_concurrency=(int)3", Config { worker_concurrency: Some(3), ..default() });
        check("TASK.acks_late=yes", Config { task_acks_late: true, ..default() });
        check("result_expires=10", Config { result_expires: Some(Duration::from_secs(10)), ..default() });
        check("accept_content=json,yaml", Config { accept_content: vec!["json".into(), "yaml".into()], ..default() });
        check("accept_content=(list)[\"yaml\"]", Config { accept_content: vec!["yaml".into()], ..default() });
        let timeout = |seconds| crate::config::BrokerTransportOptions {
            visibility_timeout: Duration::from_secs(seconds),
            ..Default::default()
        };
        check(
            "broker_transport_options.visibility_timeout=6",
            Config { broker_transport_options: timeout(6), ..default() },
        );
        check(
            "task.publish_retry_policy.max_retries=(int)5",
            Config {
                task_publish_retry_policy: RetryPolicy { max_retries: Some(5), ..RetryPolicy::default() },
                ..default()
            },
        );
        check("result_backend_max_retries=5", Config { result_backend_max_retries: Some(5), ..default() });
    }

    #[test]
    fn mistakes_of_a_command_line() {
        let check = |assignment: &str, expected: &str| {
            let error = Config::default().merge_assignments(&[assignment.to_owned()]).unwrap_err();
            assert_eq!(error.to_string(), expected);
        };
        check("loud", "loud: expected a setting, such as worker.concurrency=10");
        check("=3", "=3: expected a setting, such as worker.concurrency=10");
        check(
            "worker.concurency=3",
            "command line: unknown setting worker_concurency, did you mean worker_concurrency?",
        );
        check(
            "broker_transport_options.visibility_timeot=6",
            "command line: unknown setting broker_transport_options.visibility_timeot, did you mean visibility_timeout?",
        );
        check(
            "broker_transport_options.visibility_timeout=soon",
            "command line: broker_transport_options.visibility_timeout: expected seconds, such as 30 or 1.5",
        );
        check("broker_transport_options.other=6", "command line: unknown setting broker_transport_options.other");
        check("task_acks_late=(int)x", "command line: task_acks_late: expected text that (int) can read");
        check(
            "task_acks_late=(lambda)x",
            "command line: task_acks_late: expected one of the casts int, float, bool, string, json, list, tuple, dict",
        );
    }

    #[test]
    fn the_environment_wins() {
        let mut config = Config { broker_url: Some("redis://file".into()), ..Config::default() };
        let environment = |name: &str| match name {
            "CELERY_BROKER_URL" => Some("redis://environment".to_owned()),
            "CELERY_RESULT_BACKEND" => Some(String::new()),
            "CELERY_WORKER_REVOKES_MAX" => Some("7".to_owned()),
            "CELERY_WORKER_REVOKE_EXPIRES" => Some("1.5".to_owned()),
            _ => None,
        };
        config.merge_environment(environment).unwrap();
        assert_eq!((config.worker_revokes_max, config.worker_revoke_expires), (7, Duration::from_millis(1500)));
        assert_eq!((config.read_url(), config.write_url()), ("redis://environment", "redis://environment"));
        assert_eq!(config.result_backend, None);
        let wrong = config.merge_environment(|name| (name == "CELERY_WORKER_REVOKES_MAX").then(|| "many".to_owned()));
        let expected = "environment: CELERY_WORKER_REVOKES_MAX: expected a whole number, 0 or more";
        assert_eq!(wrong.unwrap_err().to_string(), expected);
    }

    #[test]
    fn routes_and_annotations_of_a_file() {
        let route = |pattern: &str, options: &str| RouteDefinition {
            pattern: pattern.to_owned(),
            options: options.parse().unwrap(),
        };
        let default = Config::default;
        check(
            "[task_routes]\nb = 'q'\n'a*' = { priority = 1 }",
            Config { task_routes: vec![vec![route("b", "queue = 'q'"), route("a*", "priority = 1")]], ..default() },
        );
        let attributes =
            TaskAttributes { max_retries: Some(None), rate_limit: Some("10/m".into()), ..Default::default() };
        check(
            "[[task_annotations]]\n'*' = { max_retries = inf, rate_limit = '10/m' }",
            Config { task_annotations: vec![Annotation { task: "*".into(), attributes }], ..default() },
        );
        refused(
            "[task_routes]\n'/(/' = 'q'",
            "test.toml: task_routes./(/: expected a regular expression between the slashes",
        );
        let routed = |options: &str, expected: &str| {
            refused(&format!("[task_routes.t]\n{options}"), &format!("test.toml: task_routes.t.{expected}"));
        };
        routed("queue = 5", "queue: expected a name");
        routed("priority = 'high'", "priority: expected a whole number");
        routed("delivery_mode = 3", "delivery_mode: expected 2 (persistent) or 1 (transient)");
        refused(
            "[task_annotations.t]\nrate_limit = 'x'",
            "test.toml: task_annotations.t.rate_limit: expected a rate, such as \"10/s\", \"100/m\" or 5",
        );
        refused("unknown_tasks = 'drop'", "test.toml: unknown_tasks: expected \"fail\" or \"hand-back\"");
    }
}
