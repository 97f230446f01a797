//! The page `/metrics`: the numbers of [`Counts`] and of the loop under the names and labels that celery-exporter
//! (github.com/danihodovic/celery-exporter) and Flower give them, so that dashboards made for those show this worker, and
//! what neither has under `celeriac_`.
//!
//! Where these two count what they hear of a whole fleet, a worker tells of itself; Prometheus adds up. So what is a
//! number of the broker's and not of any worker's (`celery_queue_length`) is not here: it would be counted once for each
//! worker.

use std::collections::{BTreeMap, HashSet};

use super::counts::{Counts, ENDINGS, TaskCounts, UNKNOWN};
use super::pulse::Load;
use crate::metrics::{Counter, Histogram, Kind, Text};

/// What the page shows beside the counts.
#[derive(Debug)]
pub(crate) struct State<'a> {
    /// The worker's node name.
    pub(crate) node: &'a str,
    /// The queues that it consumes.
    pub(crate) queues: &'a [String],
    pub(crate) load: Load,
    /// How many handlers run.
    pub(crate) active: usize,
    pub(crate) is_connected: bool,
    pub(crate) is_ready: bool,
    /// For how many seconds the loop has not moved.
    pub(crate) still: f64,
    /// How many messages are out, and how many may be; 0: no limit.
    pub(crate) prefetched: (usize, usize),
    pub(crate) events_dropped: u64,
}

/// The labels that a sample has.
type Labels<'a> = [(&'a str, &'a str)];
/// The counts of the tasks of a name from a queue.
type Task<'a> = ([&'a str; 2], &'a TaskCounts);

/// Writes the page.
pub(crate) fn page(counts: &Counts, state: &State<'_>) -> String {
    let (mut text, tasks) = (Text::default(), counts.tasks.all());
    celery_exporters(&mut text, &tasks, counts, state);
    flowers(&mut text, &tasks, counts, state);
    ours_of_tasks(&mut text, &tasks, counts);
    ours_of_the_worker(&mut text, counts, state);
    text.into_string()
}

/// The host of a node name (celery/utils/nodenames.py `nodesplit`).
fn host(node: &str) -> &str {
    node.split_once('@').map_or(node, |(_, host)| host)
}

/// Each number of a task that celery-exporter counts: its name, what it is, and where it is.
type Number = (&'static str, &'static str, fn(&TaskCounts) -> &Counter);
const NUMBERS: [Number; 6] = [
    ("celery_task_received_total", "Tasks that the worker has accepted", |task| &task.received),
    ("celery_task_started_total", "Tasks whose handler has begun", |task| &task.started),
    ("celery_task_succeeded_total", "Tasks that have succeeded", |task| &task.succeeded),
    ("celery_task_rejected_total", "Tasks that have refused their message", |task| &task.rejected),
    ("celery_task_revoked_total", "Tasks that were revoked or have expired", |task| &task.revoked),
    ("celery_task_retried_total", "Tasks that are to run again", |task| &task.retried),
];

fn celery_exporters(text: &mut Text, tasks: &[Task<'_>], counts: &Counts, state: &State<'_>) {
    let hostname = ("hostname", host(state.node));
    for (name, help, number) in NUMBERS {
        text.head(name, Kind::Counter, help);
        for ([task, queue], counts) in tasks {
            text.sample(name, &[("name", task), hostname, ("queue_name", queue)], number(counts).value() as f64);
        }
    }
    failures(text, tasks, hostname);
    sent(text, tasks, counts, hostname);
    let name = "celery_task_runtime";
    text.head(name, Kind::Histogram, "How many seconds tasks ran that have succeeded");
    for ([task, queue], counts) in tasks.iter().filter(|(_, counts)| counts.runtime.count() > 0) {
        text.histogram(name, &[("name", task), hostname, ("queue_name", queue)], &counts.runtime);
    }
    let is_up = number(state.is_connected);
    gauge(text, "celery_worker_up", "Whether the worker consumes", &[hostname], is_up);
    gauge(text, "celery_worker_tasks_active", "Tasks that run at this moment", &[hostname], state.active as f64);
    let each = [
        ("celery_active_consumer_count", "Consumers of the queue: this worker's one", is_up),
        ("celery_active_worker_count", "Workers that consume the queue: this one", is_up),
        (
            "celery_active_process_count",
            "How many of the queue's tasks may run at a time",
            state.load.concurrency as f64,
        ),
    ];
    for (name, help, value) in each {
        text.head(name, Kind::Gauge, help);
        state.queues.iter().for_each(|queue| text.sample(name, &[("queue_name", queue)], value));
    }
}

/// Before the first of an exception there is a zero without one, as in celery-exporter: what does not exist has no rate.
fn failures(text: &mut Text, tasks: &[Task<'_>], hostname: (&str, &str)) {
    let name = "celery_task_failed_total";
    text.head(name, Kind::Counter, "Tasks that have failed");
    for ([task, queue], counts) in tasks {
        let labels = |exception| [("name", *task), hostname, ("exception", exception), ("queue_name", *queue)];
        text.sample(name, &labels(""), 0.0);
        for ([exception], count) in counts.failed.all() {
            text.sample(name, &labels(exception), count.value() as f64);
        }
    }
}

fn sent(text: &mut Text, tasks: &[Task<'_>], counts: &Counts, hostname: (&str, &str)) {
    let (name, sent) = ("celery_task_sent_total", counts.sent.all());
    text.head(name, Kind::Counter, "Tasks that the worker's tasks have sent, or that follow them");
    let known: HashSet<_> = sent.iter().map(|(task, _)| *task).collect();
    let unsent = tasks.iter().filter(|(task, _)| !known.contains(task)).map(|(task, _)| (*task, 0));
    for ([task, queue], count) in sent.iter().map(|(task, count)| (*task, count.value())).chain(unsent) {
        text.sample(name, &[("name", task), hostname, ("queue_name", queue)], count as f64);
    }
}

/// The types of events, in the order of [`Named::events`].
const EVENTS: [&str; 8] = [
    "task-received",
    "task-started",
    "task-succeeded",
    "task-failed",
    "task-rejected",
    "task-revoked",
    "task-retried",
    "task-sent",
];
const SENT: usize = EVENTS.len() - 1;

/// A number of Flower's: its name, what it is, and how much.
type Gauge = (&'static str, &'static str, fn(&Named) -> f64);

/// What Flower tells apart by the task's name alone.
#[derive(Default)]
struct Named {
    events: [u64; EVENTS.len()],
    runtime: Histogram,
    last_wait: f64,
    waiting: i64,
}

impl Named {
    fn add(&mut self, counts: &TaskCounts) {
        let failed = counts.failed.all().iter().map(|(_, count)| count.value()).sum();
        let counted = [&counts.rejected, &counts.revoked, &counts.retried].map(Counter::value);
        let begun = [&counts.received, &counts.started, &counts.succeeded].map(Counter::value);
        let all = begun.into_iter().chain([failed]).chain(counted);
        self.events.iter_mut().zip(all).for_each(|(sum, count)| *sum += count);
        self.runtime.add(&counts.runtime);
        self.last_wait = self.last_wait.max(counts.last_wait().as_secs_f64());
        self.waiting += counts.waiting.value();
    }
}

fn flowers(text: &mut Text, tasks: &[Task<'_>], counts: &Counts, state: &State<'_>) {
    let (worker, named) = (("worker", state.node), by_name(tasks, counts));
    let name = "flower_events_total";
    text.head(name, Kind::Counter, "What has happened to tasks, as events tell it");
    for (task, named) in &named {
        for (kind, count) in EVENTS.iter().zip(&named.events).filter(|(_, count)| **count > 0) {
            text.sample(name, &[worker, ("type", kind), ("task", task)], *count as f64);
        }
    }
    let name = "flower_task_runtime_seconds";
    text.head(name, Kind::Histogram, "How long tasks ran that have succeeded");
    for (task, named) in named.iter().filter(|(_, named)| named.runtime.count() > 0) {
        text.histogram(name, &[worker, ("task", task)], &named.runtime);
    }
    let gauges: [Gauge; 2] = [
        ("flower_task_prefetch_time_seconds", "How long the last task that began had waited", |named| named.last_wait),
        ("flower_worker_prefetched_tasks", "Tasks that wait here, but for those with an ETA", |named| {
            named.waiting as f64
        }),
    ];
    for (name, help, value) in gauges {
        text.head(name, Kind::Gauge, help);
        // What nobody here knows never waits.
        for (task, named) in named.iter().filter(|(task, _)| !task.is_empty()) {
            text.sample(name, &[worker, ("task", task)], value(named));
        }
    }
    gauge(text, "flower_worker_online", "Whether the worker consumes", &[worker], number(state.is_connected));
    let name = "flower_worker_number_of_currently_executing_tasks";
    gauge(text, name, "Tasks that run at this moment", &[worker], state.active as f64);
}

/// The counts of all queues together. Flower has no name for a task that nobody knows.
fn by_name<'a>(tasks: &[Task<'a>], counts: &'a Counts) -> BTreeMap<&'a str, Named> {
    let mut named = BTreeMap::<&str, Named>::new();
    for ([task, _], counts) in tasks {
        named.entry(if *task == UNKNOWN { "" } else { task }).or_default().add(counts);
    }
    for ([task, _], count) in counts.sent.all() {
        named.entry(task).or_default().events[SENT] += count.value();
    }
    named
}

fn ours_of_tasks(text: &mut Text, tasks: &[Task<'_>], counts: &Counts) {
    let name = "celeriac_task_ended_total";
    text.head(name, Kind::Counter, "How tasks ended");
    for ([task, queue], counts) in tasks {
        for (ending, count) in ENDINGS.iter().zip(&counts.endings).filter(|(_, count)| count.value() > 0) {
            let labels = [("name", *task), ("queue_name", *queue), ("ending", *ending)];
            text.sample(name, &labels, count.value() as f64);
        }
    }
    let name = "celeriac_task_wait_seconds";
    text.head(name, Kind::Histogram, "How long tasks without an ETA waited in the worker before they began");
    for ([task, queue], counts) in tasks.iter().filter(|(_, counts)| counts.waits.count() > 0) {
        text.histogram(name, &[("name", task), ("queue_name", queue)], &counts.waits);
    }
    let name = "celeriac_messages_refused_total";
    text.head(name, Kind::Counter, "Messages that cannot be run");
    for ([queue, exception], count) in counts.refused.all() {
        text.sample(name, &[("queue_name", queue), ("exception", exception)], count.value() as f64);
    }
}

fn ours_of_the_worker(text: &mut Text, counts: &Counts, state: &State<'_>) {
    let labels = [("version", env!("CARGO_PKG_VERSION")), ("worker", state.node)];
    gauge(text, "celeriac_info", "What this is", &labels, 1.0);
    gauge(text, "celeriac_ready", "What /readyz says", &[], number(state.is_ready));
    let name = "celeriac_tasks";
    text.head(name, Kind::Gauge, "Tasks that the worker holds");
    let Load { running, reserved, scheduled, limited, concurrency } = state.load;
    for (place, count) in [("running", running), ("reserved", reserved), ("scheduled", scheduled), ("limited", limited)]
    {
        text.sample(name, &[("state", place)], count as f64);
    }
    gauge(text, "celeriac_concurrency", "How many tasks may run at a time", &[], concurrency as f64);
    let (out, limit) = state.prefetched;
    gauge(text, "celeriac_messages_unsettled", "Messages that were taken and not settled", &[], out as f64);
    gauge(text, "celeriac_prefetch_limit", "How many of those there may be; 0: any number", &[], limit as f64);
    gauge(text, "celeriac_loop_still_seconds", "For how long the worker's loop has not moved", &[], state.still);
    counter(text, "celeriac_connections_total", "Connections that were consumed from", counts.connections.value());
    counter(text, "celeriac_events_dropped_total", "Events that the broker took too slowly", state.events_dropped);
}

fn gauge(text: &mut Text, name: &str, help: &str, labels: &Labels<'_>, value: f64) {
    text.head(name, Kind::Gauge, help);
    text.sample(name, labels, value);
}

fn counter(text: &mut Text, name: &str, help: &str, value: u64) {
    text.head(name, Kind::Counter, help);
    text.sample(name, &[], value as f64);
}

fn number(is_so: bool) -> f64 {
    if is_so { 1.0 } else { 0.0 }
}
