//! [`Show`]: settings as values, for people to read.

use std::collections::BTreeMap;
use std::time::Duration;

use toml::{Table, Value};

use super::annotations::{Annotation, TaskAttributes};
use super::options::{BrokerTransportOptions, CacheBackendOptions, ResultTransportOptions, RetryPolicy};
use super::parser::Settings;
use super::periodic::{PeriodicTask, ScheduleDefinition};
use super::routes::RouteDefinition;
use super::settings::{Config, LogLines, UnknownTasks};
use super::{QueueDefinition, names};

/// A setting's value as a project would write it.
pub(super) trait Show {
    /// `None` is Celery's null.
    fn show(&self) -> Option<Value>;
}

impl Config {
    /// The settings that this worker knows and their values, by name: all of them, or those that are not the default
    /// (celery/app/utils.py `Settings.table`). `None` is null. Passwords are not hidden here.
    pub fn table(&self, with_defaults: bool) -> Vec<(&'static str, Option<Value>)> {
        let wanted = Config::NAMES.iter().copied().filter(|name| with_defaults || !self.is_default(name));
        wanted.map(|name| (name, self.shown_as(name))).collect()
    }

    fn shown_as(&self, name: &str) -> Option<Value> {
        let value = self.shown(name)?;
        match value.as_float().or(value.as_integer().map(|seconds| seconds as f64)) {
            Some(seconds) if names::is_in_milliseconds(name) => Some(number(seconds * 1e3)),
            _ => Some(value),
        }
    }
}

impl BrokerTransportOptions {
    /// What of them is not the default.
    pub fn table(&self) -> Table {
        changed(self)
    }
}

/// The fields that are not the default. What others read, kept under `other`, stands among them.
fn changed<S: Settings>(settings: &S) -> Table {
    let changed = S::NAMES.iter().copied().filter(|name| !settings.is_default(name));
    let mut table = Table::new();
    for (name, value) in changed.filter_map(|name| Some((name, settings.shown(name)?))) {
        match value {
            Value::Table(others) if name == "other" => table.extend(others),
            value => drop(table.insert(name.to_owned(), value)),
        }
    }
    table
}

/// A whole number where it is one.
fn number(number: f64) -> Value {
    match number.fract() == 0.0 && number.abs() < 1e15 {
        true => Value::Integer(number as i64),
        false => Value::Float(number),
    }
}

impl Show for bool {
    fn show(&self) -> Option<Value> {
        Some(Value::Boolean(*self))
    }
}

impl Show for u8 {
    fn show(&self) -> Option<Value> {
        Some(Value::Integer((*self).into()))
    }
}

impl Show for u32 {
    fn show(&self) -> Option<Value> {
        Some(Value::Integer((*self).into()))
    }
}

impl Show for String {
    fn show(&self) -> Option<Value> {
        Some(Value::String(self.clone()))
    }
}

/// In seconds.
impl Show for Duration {
    fn show(&self) -> Option<Value> {
        Some(number(self.as_secs_f64()))
    }
}

impl Show for Table {
    fn show(&self) -> Option<Value> {
        Some(Value::Table(self.clone()))
    }
}

impl Show for BTreeMap<String, String> {
    fn show(&self) -> Option<Value> {
        Some(Value::Table(self.iter().map(|(name, text)| (name.clone(), Value::from(text.as_str()))).collect()))
    }
}

impl<T: Show> Show for Option<T> {
    fn show(&self) -> Option<Value> {
        self.as_ref()?.show()
    }
}

/// An empty list is Celery's null.
impl<T: Show> Show for Vec<T> {
    fn show(&self) -> Option<Value> {
        (!self.is_empty()).then(|| Value::Array(self.iter().filter_map(Show::show).collect()))
    }
}

impl Show for LogLines {
    fn show(&self) -> Option<Value> {
        Some(Value::from(match self {
            LogLines::Text => "text",
            LogLines::Json => "json",
        }))
    }
}

impl Show for UnknownTasks {
    fn show(&self) -> Option<Value> {
        Some(Value::from(match self {
            UnknownTasks::Fail => "fail",
            UnknownTasks::HandBack => "hand-back",
        }))
    }
}

impl Show for BrokerTransportOptions {
    fn show(&self) -> Option<Value> {
        Some(changed(self).into())
    }
}

impl Show for ResultTransportOptions {
    fn show(&self) -> Option<Value> {
        Some(changed(self).into())
    }
}

impl Show for CacheBackendOptions {
    fn show(&self) -> Option<Value> {
        Some(changed(self).into())
    }
}

impl Show for RetryPolicy {
    fn show(&self) -> Option<Value> {
        let known = RetryPolicy::NAMES.iter().filter_map(|name| Some(((*name).to_owned(), self.shown(name)?)));
        Some(Value::Table(known.collect()))
    }
}

impl Show for TaskAttributes {
    fn show(&self) -> Option<Value> {
        Some(changed(self).into())
    }
}

impl Show for Annotation {
    fn show(&self) -> Option<Value> {
        Some(Value::Table([(self.task.clone(), self.attributes.show()?)].into_iter().collect()))
    }
}

/// A table of entries by name, as `beat_schedule` has it; with none it is empty, and not null.
impl Show for Vec<PeriodicTask> {
    fn show(&self) -> Option<Value> {
        Some(Value::Table(self.iter().map(|task| (task.name.clone(), Value::Table(entry(task)))).collect()))
    }
}

/// What stands under the entry's name.
fn entry(task: &PeriodicTask) -> Table {
    let (schedule, relative) = match &task.schedule {
        ScheduleDefinition::Interval { seconds, relative } => (number(*seconds), *relative),
        ScheduleDefinition::CrontabText(text) => (of_kind("crontab", Value::from(text.as_str())), false),
        ScheduleDefinition::Crontab(fields) => (of_kind("crontab", Value::Table(fields.clone())), false),
        ScheduleDefinition::Solar { event, latitude, longitude } => {
            let (event, lat, lon) = (Value::from(event.as_str()), number(*latitude), number(*longitude));
            (
                of_kind("solar", Table::from_iter([("event", event), ("lat", lat), ("lon", lon)].map(named)).into()),
                false,
            )
        }
    };
    let fields = [
        ("task", Some(Value::from(task.task.as_str()))),
        ("schedule", Some(schedule)),
        ("args", (!task.args.is_empty()).then(|| task.args.clone().into())),
        ("kwargs", (!task.kwargs.is_empty()).then(|| task.kwargs.clone().into())),
        ("options", (!task.options.is_empty()).then(|| task.options.clone().into())),
        ("relative", relative.then_some(Value::from(true))),
    ];
    fields.into_iter().filter_map(|(name, value)| Some(named((name, value?)))).collect()
}

fn of_kind(kind: &str, value: Value) -> Value {
    Value::Table(Table::from_iter([(kind.to_owned(), value)]))
}

fn named((name, value): (&str, Value)) -> (String, Value) {
    (name.to_owned(), value)
}

/// A pair of name and route.
impl Show for RouteDefinition {
    fn show(&self) -> Option<Value> {
        Some(Value::Array(vec![Value::from(self.pattern.as_str()), self.options.show()?]))
    }
}

impl Show for QueueDefinition {
    fn show(&self) -> Option<Value> {
        let tables = [
            ("queue_arguments", &self.queue_arguments),
            ("binding_arguments", &self.binding_arguments),
            ("consumer_arguments", &self.consumer_arguments),
        ];
        let tables =
            tables.into_iter().filter(|(_, table)| !table.is_empty()).map(|(name, table)| (name, table.show()));
        let fields = [
            ("name", self.name.show()),
            ("exchange", self.exchange.show()),
            ("exchange_type", self.exchange_type.show()),
            ("routing_key", self.routing_key.show()),
            ("durable", self.durable.show()),
            ("exclusive", self.exclusive.show()),
            ("auto_delete", self.auto_delete.show()),
            ("no_ack", self.no_ack.show()),
            ("delivery_mode", self.delivery_mode.show()),
        ];
        let set = fields.into_iter().chain(tables).filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Some(Value::Table(set.collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is shown can be read again, and is the same then.
    #[test]
    fn settings_are_shown_as_they_are_written() {
        let written = "accept_content = [\"json\", \"yaml\"]\n\
             beat_schedule = { a = { task = \"t\", schedule = 2.5, args = [1], relative = true }, \
             b = { task = \"t\", schedule = { crontab = { hour = [4, 5] } }, options = { queue = \"q\" } }, \
             c = { task = \"t\", schedule = { solar = { event = \"dusk_civil\", lat = 1, lon = 2.5 } } } }\n\
             broker_url = \"redis://h/1\"\n\
             result_backend_base_sleep_between_retries_ms = 25\n\
             result_expires = 1.5\n\
             task_annotations = [{ t = { rate_limit = \"10/s\", time_limit = 5 } }]\n\
             task_routes = [[[\"feeds.*\", { queue = \"feeds\" }]]]\n\
             task_time_limit = 30\n\
             task_queues = [{ name = \"a\", routing_key = \"k\", durable = false, queue_arguments = { x-max-priority = 5 } }]\n\
             unknown_tasks = \"hand-back\"\n\
             [broker_transport_options]\n\
             visibility_timeout = 60\n\
             sentinel = 1\n\
             [task_publish_retry_policy]\n\
             max_retries = 5\n";
        let mut config = Config::default();
        config.merge_toml(written, "test.toml").unwrap();
        let table: Table =
            config.table(false).into_iter().map(|(name, value)| (name.to_owned(), value.unwrap())).collect();
        let mut again = Config::default();
        again.merge_toml(&table.to_string(), "again.toml").unwrap();
        assert_eq!(again, config, "{table}");
        assert_eq!(table["result_backend_base_sleep_between_retries_ms"], Value::Integer(25));
        assert_eq!(table["result_expires"], Value::Float(1.5));
        assert_eq!(table["broker_transport_options"].as_table().unwrap()["sentinel"], Value::Integer(1));
        assert_eq!(table.len(), 12);
        let all = config.table(true);
        assert_eq!(all.len(), Config::NAMES.len());
        assert!(
            all.contains(&("task_queue_max_priority", None)) && all.contains(&("task_acks_late", Some(false.into())))
        );
    }
}
