//! [`Messages`]: from a call to the message and where it goes.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

use super::{App, parts};
use crate::Result;
use crate::canvas::{Call, Defaults, Step};
use crate::config::Config;
use crate::protocol::{Compression, Map, ResultTuple, Serializer, Value, repr};
use crate::routing::{DelayLevels, Route, Router, delays_natively, is_quorum};
use crate::task::TaskOptions;
use crate::trace;
use crate::transport::{Publication, Queue};

/// Makes messages of calls as Celery's `send_task` does (celery/app/base.py `Celery.send_task`): the options that tasks
/// were declared with are filled in, the route is found, and the headers are Celery 5.7's.
///
/// Producers and workers share it; it sends nothing.
#[derive(Debug, Clone)]
pub struct Messages {
    router: Router,
    defaults: Defaults,
    /// What the app's own tasks are sent with.
    options: HashMap<String, Map, ahash::RandomState>,
    /// What all others are sent with.
    other: Map,
    /// The broker can keep messages until their time.
    broker_delays: bool,
    /// One of the project's queues is a quorum queue.
    has_quorum: bool,
}

/// A message that is ready to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    /// The message and where it goes.
    pub publication: Publication,
    /// The queue to declare before it is published; `None` when a route names an exchange alone.
    pub queue: Option<Queue>,
}

impl Outgoing {
    /// The queue that it goes to, where that is known: the default exchange routes by the queue's name.
    pub(crate) fn queue_name(&self) -> Option<&str> {
        match &self.queue {
            Some(queue) => Some(queue.name.as_str()),
            None if self.publication.exchange.is_empty() => Some(self.publication.routing_key.as_str()),
            None => None,
        }
    }
}

/// One step of a plan, with everything encoded.
pub(crate) enum Prepared {
    /// Messages that leave together.
    Send(Vec<Outgoing>),
    /// Save the structure of a chord's header.
    SaveHeader(ResultTuple),
    /// Announce a chord: its header's id and how many members report.
    StartChord(String, u64),
}

impl Messages {
    /// Encodes all that a plan sends, before anything of it leaves: what cannot be sent is not sent in part. Each message
    /// carries on the trace that it is sent in.
    ///
    /// # Errors
    /// As [`Messages::message`].
    pub(crate) fn prepare(&self, steps: Vec<Step>, now: Timestamp) -> Result<Vec<Prepared>> {
        let (mut prepared, trace) = (Vec::new(), trace::current());
        for step in steps {
            match step {
                Step::Send(mut call) => {
                    if let Some(trace) = &trace {
                        call.change_headers(|headers| trace.write(headers));
                    }
                    let message = self.message(*call, now)?;
                    match prepared.last_mut() {
                        Some(Prepared::Send(batch)) => batch.push(message),
                        _ => prepared.push(Prepared::Send(vec![message])),
                    }
                }
                Step::SaveGroup { result, .. } => prepared.push(Prepared::SaveHeader(result)),
                Step::StartChord { group_id, size } => prepared.push(Prepared::StartChord(group_id, size)),
            }
        }
        Ok(prepared)
    }

    /// The messages of an app. `origin` names the sender (`gen<pid>@<host>`), `reply_to` is where results for it arrive
    /// with `rpc://`.
    ///
    /// # Errors
    /// `Configuration`: a serializer, a compression, a time zone or a route that is none.
    pub fn new(app: &App, origin: impl Into<String>, reply_to: impl Into<String>) -> Result<Self> {
        let config = app.config();
        let options = |name: &str| {
            let options = app.tasks().task(name)?.options().annotated(name, &config.task_annotations);
            Some((name.to_owned(), execution_options(&options, config)))
        };
        Ok(Messages {
            router: Router::new(config)?,
            defaults: Defaults {
                serializer: Serializer::from_name(&config.task_serializer)?,
                compression: config.task_compression.as_deref().map(Compression::of_name).transpose()?,
                transient: config.task_default_delivery_mode == 1,
                origin: origin.into(),
                reply_to: reply_to.into(),
                timezone: parts::timezone(config)?,
                repr_limits: repr::Limits { levels: config.task_repr_maxlevels as usize, ..repr::Limits::default() },
            },
            options: celerys_own(config).chain(app.tasks().names().into_iter().filter_map(options)).collect(),
            other: priority_option(config.task_default_priority),
            broker_delays: false,
            has_quorum: delays_natively(config),
        })
    }

    /// The same for a broker that can keep messages until their time: what has an ETA is sent to wait there, where
    /// Celery's producers send it.
    #[must_use]
    pub fn with_native_delays(self, broker_delays: bool) -> Self {
        Messages { broker_delays, ..self }
    }

    /// The message that makes `call` at `now`.
    ///
    /// # Errors
    /// `Configuration`: an option that is none, or a queue that may not be made (Celery's `QueueNotFound`); `Encode`: an
    /// argument that the serializer has no form for.
    pub fn message(&self, mut call: Call, now: Timestamp) -> Result<Outgoing> {
        call.fill(self.options.get(&call.task).unwrap_or(&self.other).clone());
        let options = std::mem::take(&mut call.options);
        let mut route = self.router.route(call.route_name(), options)?;
        call.options = std::mem::take(&mut route.options);
        self.delay(&mut route, call.delay(now));
        call.options.insert("delivery_mode", route.delivery_mode);
        call.fill(Map::from([("priority", Value::from(route.priority))]));
        let outgoing = call.into_outgoing(route.exchange.as_str(), route.routing_key.as_str(), &self.defaults, now)?;
        let message = outgoing.into_message()?;
        let publication = Publication { exchange: route.exchange, routing_key: route.routing_key, message };
        Ok(Outgoing { publication, queue: route.queue.as_ref().map(parts::queue) })
    }

    /// Sends what is for later to wait at the broker, if that is what the queues are for
    /// (celery/app/base.py `Celery.send_task`).
    fn delay(&self, route: &mut Route, seconds: u64) {
        let is_quorum = self.has_quorum || route.queue.as_ref().is_some_and(is_quorum);
        if seconds == 0 || !self.broker_delays || !is_quorum {
            return;
        }
        if route.is_direct {
            let exchange = route.queue.as_ref().and_then(|queue| queue.exchange.as_deref());
            tracing::warn!(
                "{} is a direct exchange, and the broker delays messages of topic and fanout exchanges only: a worker \
                 holds the task until its ETA",
                exchange.unwrap_or(&route.exchange)
            );
            return;
        }
        let queues_key = route.queue.as_ref().and_then(|queue| queue.routing_key.as_deref());
        route.routing_key = DelayLevels::routing_key(seconds, queues_key.unwrap_or(&route.routing_key));
        route.exchange = DelayLevels::CELERY.entrance();
    }

    /// Whether nobody waits for the result of `call`: what it says itself, or else its task
    /// (celery/app/task.py `Task.apply_async`).
    pub fn ignores_result(&self, call: &Call) -> bool {
        let own = call.options.get("ignore_result").filter(|ignore| !ignore.is_null());
        let declared = || self.options.get(&call.task)?.get("ignore_result");
        own.or_else(declared).is_some_and(Value::is_truthy)
    }
}

/// The tasks that every app of Celery has (celery/app/builtins.py), so that calls of them say what those of others do.
fn celerys_own(config: &Config) -> impl Iterator<Item = (String, Map)> {
    let names =
        ["accumulate", "backend_cleanup", "chain", "chord", "chord_unlock", "chunks", "group", "map", "starmap"];
    let options =
        |name: &str| TaskOptions { ignore_result: (name == "chord_unlock").then_some(true), ..<_>::default() };
    names.into_iter().map(move |name| (format!("celery.{name}"), execution_options(&options(name), config)))
}

/// What a task is sent with when the call does not say (celery/app/task.py `extract_exec_options`, and `ignore_result` as
/// `Task.apply_async` sets it).
fn execution_options(options: &TaskOptions, config: &Config) -> Map {
    let time = |limit: Option<Duration>| Value::from(limit.map(seconds));
    let mut map = priority_option(options.priority.or(config.task_default_priority));
    map.extend([
        ("queue", Value::from(options.queue.as_deref())),
        ("serializer", options.serializer.as_deref().into()),
        ("expires", time(options.expires)),
        ("time_limit", time(options.time_limit.or(config.task_time_limit))),
        ("soft_time_limit", time(options.soft_time_limit.or(config.task_soft_time_limit))),
        ("ignore_result", options.ignore_result.unwrap_or(config.task_ignore_result).into()),
    ]);
    map
}

/// In Celery the setting is one of tasks that the producer knows; here it is one of all that are sent.
fn priority_option(priority: Option<u8>) -> Map {
    Map::from([("priority", Value::from(priority))])
}

/// Whole seconds are an int, as the usual settings are.
fn seconds(time: Duration) -> Value {
    match time.subsec_nanos() {
        0 => Value::from(time.as_secs()),
        _ => Value::from(time.as_secs_f64()),
    }
}
