//! [`Call`]: one message of a plan, before it is known where it goes.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::protocol::{Body, Compression, DateTime, Embed, Map, OutgoingTask, Serializer, Value, repr};
use crate::{Error, ErrorKind, Result};

/// One task to be sent: what Celery's `send_task` is called with (celery/app/base.py `Celery.send_task`).
///
/// `options` still holds those that decide where it goes (`queue`, `exchange`, `routing_key`) and how (`priority`,
/// `delivery_mode`, `retry`, `retry_policy` …); [`Call::into_outgoing`] makes the message when the route is known.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Call {
    /// The task's registered name.
    pub task: String,
    /// The task's id.
    pub id: String,
    /// Arguments by position.
    pub args: Vec<Value>,
    /// Arguments by name.
    pub kwargs: Map,
    /// The workflow's first task; `None` if this is it.
    pub root_id: Option<String>,
    /// The task that sends this one.
    pub parent_id: Option<String>,
    /// The body of the chord that it is a member of; members share it.
    pub chord: Option<Arc<Value>>,
    /// What follows it in a chain, the next step last; members of a group share it.
    pub chain: Option<Arc<Vec<Value>>>,
    /// The name that routes are looked up under, if it is not the task's: that of the task that `celery.map` calls.
    pub route_name: Option<String>,
    /// The priority of the task that sends it (`task_inherit_parent_priority`): for a message that gets none from its
    /// options, its task or its route.
    pub inherited_priority: Option<i64>,
    /// Every other option of `apply_async`, under Celery's names.
    pub options: Map,
}

/// What a message gets where its call does not say.
#[derive(Debug, Clone)]
pub struct Defaults {
    /// `task_serializer`.
    pub serializer: Serializer,
    /// `task_compression`.
    pub compression: Option<Compression>,
    /// `task_default_delivery_mode` 1.
    pub transient: bool,
    /// `gen<pid>@<host>`.
    pub origin: String,
    /// The `reply_to` of this process.
    pub reply_to: String,
    /// The app's timezone, which `eta` and `expires` are written in.
    pub timezone: TimeZone,
    /// `task_repr_maxlevels` and `argsrepr_maxsize`.
    pub repr_limits: repr::Limits,
}

impl Default for Defaults {
    fn default() -> Self {
        Defaults {
            serializer: Serializer::default(),
            compression: None,
            transient: false,
            origin: String::new(),
            reply_to: String::new(),
            timezone: TimeZone::UTC,
            repr_limits: repr::Limits::default(),
        }
    }
}

/// Options that are arguments of Celery's senders and no properties of a message (celery/app/base.py
/// `Celery.send_task`, celery/app/amqp.py `send_task_message`, kombu/messaging.py `Producer.publish`).
const CONSUMED: [&str; 27] = [
    "add_to_parent",
    "connection",
    "confirm_timeout",
    "content_encoding",
    "content_type",
    "create_sent_event",
    "declare",
    "event_dispatcher",
    "exchange",
    "exchange_type",
    "expiration",
    "immediate",
    "mandatory",
    "now",
    "producer",
    "publisher",
    "queue",
    "result_cls",
    "retry",
    "retry_policy",
    "route_name",
    "router",
    "routing_key",
    "task_id",
    "task_type",
    "timeout",
    "timezone",
];

impl Call {
    /// The name that routes are looked up under.
    pub fn route_name(&self) -> &str {
        self.route_name.as_deref().unwrap_or(&self.task)
    }

    /// Changes the headers that the message gets beside Celery's.
    pub(crate) fn change_headers(&mut self, change: impl FnOnce(&mut Map)) {
        let mut headers = take(&mut self.options, "headers").and_then(Value::into_map).unwrap_or_default();
        change(&mut headers);
        self.options.insert("headers", headers);
    }

    /// Sets the options that the call does not have: those that its task was declared with
    /// (celery/app/task.py `Task._get_exec_options`), or those of a route. Nulls among them say nothing.
    pub fn fill(&mut self, options: Map) {
        for (name, value) in options {
            if !value.is_null() && !self.options.contains_key(&name) {
                self.options.insert(name, value);
            }
        }
    }

    /// For how many whole seconds from `now` on the task is to wait; none for what is no time.
    pub fn delay(&self, now: Timestamp) -> u64 {
        let option = |name: &str| self.options.get(name).filter(|value| value.is_truthy());
        let seconds = match (option("countdown"), option("eta")) {
            (Some(countdown), _) => countdown.as_f64().unwrap_or_default(),
            (None, Some(eta)) => timestamp(eta, "eta").map_or(0.0, |eta| eta.duration_since(now).as_secs_f64()),
            (None, None) => 0.0,
        };
        Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX).as_secs()
    }

    /// The message to `exchange` (`""` for the default one) with `routing_key`, as Celery would write it at `now`.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] for a serializer or a compression that nobody knows, and for times that are none.
    pub fn into_outgoing(
        mut self,
        exchange: impl Into<String>,
        routing_key: impl Into<String>,
        defaults: &Defaults,
        now: Timestamp,
    ) -> Result<OutgoingTask> {
        let options = &mut self.options;
        let times = Times::take(options, defaults, now)?;
        let callbacks = take_list(options, "link");
        let errbacks = take_list(options, "link_error");
        let (stamped_headers, stamps) = take_stamps(options);
        let mut task = OutgoingTask {
            shadow: take_text(options, "shadow"),
            eta: times.eta,
            expires: times.expires,
            expiration: times.expiration,
            group: take_text(options, "group_id"),
            group_index: take(options, "group_index").and_then(|index| index.as_i64()),
            retries: take(options, "retries").and_then(|count| u32::try_from(count.as_i64()?).ok()).unwrap_or(0),
            time_limit: take(options, "time_limit").unwrap_or_default(),
            soft_time_limit: take(options, "soft_time_limit").unwrap_or_default(),
            origin: text(options, "origin").unwrap_or_else(|| defaults.origin.clone()),
            ignore_result: take(options, "ignore_result").map(|ignore| ignore.is_truthy()),
            replaced_task_nesting: take(options, "replaced_task_nesting").and_then(|n| n.as_i64()).unwrap_or(0),
            stamped_headers,
            stamps,
            headers: take(options, "headers").and_then(Value::into_map).unwrap_or_default(),
            reply_to: take_text(options, "reply_to").unwrap_or_else(|| defaults.reply_to.clone()),
            priority: take(options, "priority").and_then(|priority| priority.as_i64()).or(self.inherited_priority),
            transient: take(options, "delivery_mode").map_or(defaults.transient, |mode| is_transient(&mode)),
            exchange: exchange.into(),
            routing_key: routing_key.into(),
            serializer: named(options, "serializer", Serializer::from_name)?.unwrap_or(defaults.serializer),
            compression: named(options, "compression", Compression::of_name)?.or(defaults.compression),
            argsrepr: text(options, "argsrepr"),
            kwargsrepr: text(options, "kwargsrepr"),
            ..OutgoingTask::new(self.task, self.id, self.args)
        };
        task.root_id = self.root_id;
        task.parent_id = self.parent_id;
        task.body = Body { kwargs: self.kwargs, ..task.body };
        task.body.embed = Embed {
            callbacks,
            errbacks,
            chain: self.chain.map(|chain| Value::List(Arc::unwrap_or_clone(chain))),
            chord: self.chord.map(Arc::unwrap_or_clone),
            other: Map::new(),
        };
        set_reprs(&mut task, defaults.repr_limits);
        task.properties = properties(self.options, &task.stamps);
        Ok(task)
    }
}

/// When a message is to run.
struct Times {
    eta: Value,
    expires: Value,
    expiration: Option<Duration>,
}

impl Times {
    /// A countdown wins over an `eta`, and nought is none (celery/app/amqp.py `AMQP.as_task_v2`).
    fn take(options: &mut Map, defaults: &Defaults, now: Timestamp) -> Result<Self> {
        let after = |seconds: f64| -> Result<Value> { Ok(aware(later(now, seconds)?, &defaults.timezone)) };
        let countdown = take(options, "countdown").filter(Value::is_truthy);
        let eta = take(options, "eta");
        let eta = match countdown.map(|countdown| number(&countdown, "countdown")).transpose()? {
            Some(seconds) => after(seconds)?,
            None => eta.map(|eta| moment(eta, "eta")).transpose()?.unwrap_or_default(),
        };
        let Some(expires) = take(options, "expires") else {
            return Ok(Times { eta, expires: Value::Null, expiration: None });
        };
        let (expires, left) = match expires.as_f64() {
            Some(seconds) => (after(seconds)?, seconds),
            None => {
                let expires = moment(expires, "expires")?;
                let left = timestamp(&expires, "expires")?.duration_since(now).as_secs_f64();
                (expires, left)
            }
        };
        let expiration = Duration::try_from_secs_f64(left.max(0.0)).unwrap_or(Duration::MAX);
        Ok(Times { eta, expires, expiration: Some(expiration) })
    }
}

fn refused(name: &str, value: &Value) -> Error {
    Error::new(ErrorKind::Configuration, format!("the option {name} cannot be {}", repr::repr(value)))
}

fn number(value: &Value, name: &str) -> Result<f64> {
    value.as_f64().filter(|seconds| seconds.is_finite()).ok_or_else(|| refused(name, value))
}

fn moment(value: Value, name: &str) -> Result<Value> {
    match value {
        Value::DateTime(_) | Value::String(_) => Ok(value),
        other => Err(refused(name, &other)),
    }
}

fn timestamp(value: &Value, name: &str) -> Result<Timestamp> {
    match value {
        Value::DateTime(moment) => moment.timestamp(),
        Value::String(text) => {
            text.parse::<DateTime>().map_err(|cause| refused(name, value).with_source(cause))?.timestamp()
        }
        other => Err(refused(name, other)),
    }
}

fn later(now: Timestamp, seconds: f64) -> Result<Timestamp> {
    let span = jiff::SignedDuration::try_from_secs_f64(seconds).ok();
    let refused = || Error::new(ErrorKind::Configuration, format!("{seconds} seconds from now is no date"));
    now.checked_add(span.ok_or_else(refused)?).map_err(|_| refused())
}

fn aware(moment: Timestamp, timezone: &TimeZone) -> Value {
    Value::DateTime(DateTime::at(moment, timezone.to_offset(moment)))
}

/// Takes an option that is not null.
fn take(options: &mut Map, name: &str) -> Option<Value> {
    options.remove(name).filter(|value| !value.is_null())
}

fn take_text(options: &mut Map, name: &str) -> Option<String> {
    take(options, name).and_then(super::rules::as_text)
}

/// An option that stays: Celery leaves it among the properties as well.
fn text(options: &Map, name: &str) -> Option<String> {
    options.get(name).and_then(Value::as_str).map(str::to_owned)
}

/// One signature or a list of them (kombu/utils/functional.py `maybe_list`).
fn take_list(options: &mut Map, name: &str) -> Option<Value> {
    take(options, name).map(|value| match value {
        Value::List(_) => value,
        one => Value::List(vec![one]),
    })
}

fn take_stamps(options: &mut Map) -> (Option<Vec<String>>, Map) {
    let Some(Value::List(names)) = take(options, "stamped_headers") else { return (None, Map::new()) };
    let names: Vec<String> = names.into_iter().filter_map(Value::into_string).collect();
    let stamps = names.iter().filter_map(|name| Some((name.as_str(), options.get(name)?.clone()))).collect();
    (Some(names), stamps)
}

fn named<T>(options: &mut Map, name: &str, read: impl FnOnce(&str) -> Result<T>) -> Result<Option<T>> {
    let unknown = |cause: Error| Error::new(ErrorKind::Configuration, format!("the option {name}")).with_source(cause);
    match take(options, name) {
        None => Ok(None),
        Some(Value::String(text)) => read(&text).map(Some).map_err(unknown),
        Some(other) => Err(refused(name, &other)),
    }
}

fn is_transient(mode: &Value) -> bool {
    matches!(mode, Value::Int(1)) || mode.as_str() == Some("transient")
}

fn set_reprs(task: &mut OutgoingTask, limits: repr::Limits) {
    let Body { args, kwargs, .. } = &task.body;
    task.argsrepr.get_or_insert_with(|| repr::argsrepr(args, limits));
    task.kwargsrepr.get_or_insert_with(|| repr::kwargsrepr(kwargs, limits));
}

/// Options that nobody consumed are properties.
fn properties(options: Map, stamps: &Map) -> Map {
    let consumed = |name: &str| CONSUMED.contains(&name) || stamps.contains_key(name);
    options.into_iter().filter(|(name, value)| !value.is_null() && !consumed(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-02T03:04:05.5Z";

    fn outgoing(options: &[(&str, Value)]) -> Result<OutgoingTask> {
        let options = options.iter().map(|(name, value)| (*name, value.clone())).collect();
        let call = Call { task: "t".into(), id: "i".into(), options, ..Call::default() };
        let timezone = TimeZone::fixed(jiff::tz::offset(2));
        call.into_outgoing("", "celery", &Defaults { timezone, ..Defaults::default() }, NOW.parse().unwrap())
    }

    #[test]
    fn times_are_written_as_celery_writes_them() {
        let check = |options: &[(&str, Value)], eta: &str, expires: &str, expiration: Option<u64>| {
            let task = outgoing(options).unwrap();
            assert_eq!(task.expiration, expiration.map(Duration::from_millis), "{options:?}");
            let headers = task.into_message().unwrap().headers;
            let header = |name: &str| headers.get(name).and_then(Value::as_str).unwrap_or("").to_owned();
            assert_eq!((header("eta").as_str(), header("expires").as_str()), (eta, expires), "{options:?}");
        };
        let date = Value::from("2030-01-01T00:00:00");
        check(&[("countdown", 0.into())], "", "", None);
        check(&[("countdown", 90.into())], "2026-01-02T05:05:35.500000+02:00", "", None);
        check(&[("countdown", (-0.5).into()), ("eta", date.clone())], "2026-01-02T05:04:05+02:00", "", None);
        check(&[("eta", date.clone()), ("expires", Value::Null)], "2030-01-01T00:00:00", "", None);
        check(&[("expires", 1.5.into())], "", "2026-01-02T05:04:07+02:00", Some(1500));
        check(&[("expires", (-5).into())], "", "2026-01-02T05:04:00.500000+02:00", Some(0));
        check(&[("expires", "2026-01-02T03:05:05.5".into())], "", "2026-01-02T03:05:05.5", Some(60_000));
    }

    #[test]
    fn what_is_no_time_and_no_serializer_is_refused() {
        for (name, value) in [
            ("countdown", Value::from("soon")),
            ("countdown", f64::NAN.into()),
            ("countdown", 1e300.into()),
            ("eta", 5.into()),
            ("expires", "soon".into()),
            ("expires", f64::INFINITY.into()),
            ("expires", Value::List(vec![])),
            ("serializer", "none".into()),
            ("compression", 1.into()),
        ] {
            let refused = outgoing(&[(name, value.clone())]).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Configuration, "{name} {value:?}");
        }
    }

    #[test]
    fn options_are_fields_and_the_rest_properties() {
        let stamps = [("stamped_headers", Value::from(["a", "missing"])), ("a", 1.into())];
        let others = [("user_id", "u".into()), ("retry", false.into()), ("queue", "q".into()), ("none", Value::Null)];
        let task = outgoing(&[&stamps[..], &others[..]].concat()).unwrap();
        assert_eq!(task.stamped_headers, Some(vec!["a".to_owned(), "missing".to_owned()]));
        assert_eq!(task.stamps, Map::from([("a", 1)]));
        assert_eq!(task.properties, Map::from([("user_id", "u")]));
    }

    #[test]
    fn what_a_task_was_declared_with_fills_what_the_call_leaves_open() {
        let mut call = Call { options: Map::from([("queue", "own")]), ..Call::default() };
        call.fill(Map::from([("queue", Value::from("declared")), ("priority", 3.into()), ("expires", Value::Null)]));
        assert_eq!(call.options, Map::from([("queue", Value::from("own")), ("priority", 3.into())]));
    }
}
