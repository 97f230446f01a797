//! [`Cluster`]: what is known of workers and tasks from their events (celery/events/state.py `State`).

use std::collections::VecDeque;

use indexmap::IndexMap;

use crate::protocol::{Map, Value};

/// How many workers and tasks are remembered at most: those of which least was heard lately are forgotten first.
pub(super) const WORKERS: usize = 5_000;
const TASKS: usize = 10_000;
/// How many times of tasks the medians are made from.
const SAMPLES: usize = 500;
/// Rates are means of so many seconds.
pub const WINDOW: f64 = 10.0;
/// A worker is gone when it was silent for so many of its heartbeats (celery/events/state.py
/// `HEARTBEAT_EXPIRE_WINDOW`).
const MISSED: f64 = 2.0;

/// All that was heard.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    workers: IndexMap<String, SeenWorker>,
    tasks: IndexMap<String, SeenTask>,
    /// When tasks ended, the oldest first, and whether they succeeded.
    endings: VecDeque<(f64, bool)>,
    runtimes: VecDeque<f64>,
    waits: VecDeque<f64>,
    events: u64,
}

/// A worker.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SeenWorker {
    /// Its node name.
    pub hostname: String,
    /// When it was heard last, by our clock; none: it has said that it ends.
    pub heard: Option<f64>,
    /// Seconds between its heartbeats.
    pub freq: f64,
    /// Tasks that run now.
    pub active: u64,
    /// Tasks that it accepted since it began.
    pub processed: u64,
    /// The load of its machine, over a minute.
    pub load: Option<f64>,
    /// What it is, and its version.
    pub software: String,
    /// Of its tasks that ended since we listen: how many succeeded and how many failed.
    pub succeeded: u64,
    /// The failures.
    pub failed: u64,
}

/// A task.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SeenTask {
    /// Its id.
    pub uuid: String,
    /// Its name; empty until an event says it.
    pub name: String,
    /// Its state.
    pub state: String,
    /// The node that told of it last, if that is a worker.
    pub worker: String,
    /// When it came into its state.
    pub timestamp: f64,
    /// How long it ran.
    pub runtime: Option<f64>,
    /// When a worker received it.
    received: Option<f64>,
}

impl SeenWorker {
    /// One of whom nothing is known yet (celery/events/state.py `Worker.__init__`).
    pub(super) fn new(hostname: &str) -> Self {
        SeenWorker { hostname: hostname.to_owned(), freq: 60.0, ..SeenWorker::default() }
    }

    /// Whether it is there (celery/events/state.py `Worker.alive`).
    pub fn is_alive(&self, now: f64) -> bool {
        self.heard.is_some_and(|heard| now < heard + self.freq * MISSED)
    }
}

impl Cluster {
    /// The workers, by name.
    pub fn workers(&self) -> Vec<&SeenWorker> {
        let mut workers: Vec<_> = self.workers.values().collect();
        workers.sort_by(|one, other| one.hostname.cmp(&other.hostname));
        workers
    }

    /// The tasks, the one that was heard of last in front.
    pub fn tasks(&self) -> impl ExactSizeIterator<Item = &SeenTask> {
        self.tasks.values().rev()
    }

    /// How many events were heard.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// How many tasks succeed and how many fail in a second.
    pub fn rates(&self, now: f64) -> (f64, f64) {
        let of = |fate: bool| {
            let recent = self.endings.iter().filter(|(ended, succeeded)| now - ended < WINDOW && *succeeded == fate);
            recent.count() as f64 / WINDOW
        };
        (of(true), of(false))
    }

    /// The median and the 95th percentile of how long tasks ran.
    pub fn runtimes(&self) -> Option<(f64, f64)> {
        percentiles(&self.runtimes)
    }

    /// The same of how long they waited in their worker before they began.
    pub fn waits(&self) -> Option<(f64, f64)> {
        percentiles(&self.waits)
    }

    /// Takes in one event. One that lacks what it needs is counted, and nothing else.
    pub fn apply(&mut self, event: &Map) {
        self.events += 1;
        let (Some(kind), Some(hostname)) = (text(event, "type"), text(event, "hostname")) else { return };
        let now = number(event, "local_received").unwrap_or_default();
        match kind.split_once('-') {
            Some(("worker", what @ ("online" | "heartbeat" | "offline"))) => {
                self.worker_event(what, hostname, event, now)
            }
            Some(("task", what)) => self.task_event(what, hostname, event, now),
            _ => {}
        }
    }

    fn worker_event(&mut self, what: &str, hostname: &str, event: &Map, now: f64) {
        let worker = self.worker(hostname);
        let count = |name| event.get(name).and_then(Value::as_u64);
        worker.heard = (what != "offline").then_some(now);
        worker.freq = number(event, "freq").filter(|freq| *freq > 0.0).unwrap_or(worker.freq);
        worker.active = count("active").unwrap_or(worker.active);
        worker.processed = count("processed").unwrap_or(worker.processed);
        let load = event.get("loadavg").and_then(Value::as_list).and_then(|loads| loads.first()?.as_f64());
        worker.load = load.or(worker.load);
        if let (Some(ident), Some(version)) = (text(event, "sw_ident"), text(event, "sw_ver")) {
            worker.software = format!("{ident} {version}");
        }
    }

    fn task_event(&mut self, what: &str, hostname: &str, event: &Map, now: f64) {
        let Some(uuid) = text(event, "uuid") else { return };
        let timestamp = number(event, "timestamp").unwrap_or(now);
        let state = state_of(what);
        // What was heard of last stands last.
        let mut task =
            self.tasks.shift_remove(uuid).unwrap_or_else(|| SeenTask { uuid: uuid.to_owned(), ..SeenTask::default() });
        if let Some(name) = text(event, "name") {
            task.name = name.to_owned();
        }
        if what != "sent" {
            task.worker = hostname.to_owned();
        }
        match what {
            "received" => task.received = Some(timestamp),
            "started" => keep(&mut self.waits, task.received.map(|received| (timestamp - received).max(0.0))),
            "succeeded" => task.runtime = number(event, "runtime"),
            _ => {}
        }
        let ended = match what {
            "succeeded" => Some(true),
            "failed" => Some(false),
            _ => None,
        };
        if let Some(succeeded) = ended {
            keep(&mut self.runtimes, task.runtime);
            self.ended(hostname, succeeded, now);
        }
        if overrides(&state, &task.state) {
            (task.state, task.timestamp) = (state, timestamp);
        }
        self.tasks.insert(uuid.to_owned(), task);
        if self.tasks.len() > TASKS {
            self.tasks.shift_remove_index(0);
        }
    }

    fn ended(&mut self, hostname: &str, succeeded: bool, now: f64) {
        self.endings.push_back((now, succeeded));
        while self.endings.front().is_some_and(|(ended, _)| now - ended >= WINDOW) {
            self.endings.pop_front();
        }
        let worker = self.worker(hostname);
        match succeeded {
            true => worker.succeeded += 1,
            false => worker.failed += 1,
        }
    }

    /// The worker, who is made where it is not known: until its heartbeat comes it is nobody who is there.
    fn worker(&mut self, hostname: &str) -> &mut SeenWorker {
        if !self.workers.contains_key(hostname) && self.workers.len() >= WORKERS {
            self.workers.shift_remove_index(0);
        }
        self.workers.entry(hostname.to_owned()).or_insert_with(|| SeenWorker::new(hostname))
    }
}

/// celery/events/state.py `TASK_EVENT_TO_STATE`; other events are states of a project's own.
fn state_of(what: &str) -> String {
    match what {
        "sent" => "PENDING".to_owned(),
        "failed" => "FAILURE".to_owned(),
        "retried" => "RETRY".to_owned(),
        "succeeded" => "SUCCESS".to_owned(),
        other => other.to_uppercase(),
    }
}

/// Whether a state that is heard of comes after the one that is known: events may overtake each other
/// (celery/states.py `PRECEDENCE`).
fn overrides(new: &str, known: &str) -> bool {
    const ORDER: [&str; 9] =
        ["SUCCESS", "FAILURE", "", "REVOKED", "STARTED", "RECEIVED", "REJECTED", "RETRY", "PENDING"];
    let rank = |state: &str| ORDER.iter().position(|other| *other == state).unwrap_or(2);
    known.is_empty() || new == "RETRY" || known == "RETRY" || rank(new) <= rank(known)
}

fn keep(samples: &mut VecDeque<f64>, sample: Option<f64>) {
    samples.extend(sample);
    if samples.len() > SAMPLES {
        samples.pop_front();
    }
}

fn percentiles(samples: &VecDeque<f64>) -> Option<(f64, f64)> {
    let mut sorted: Vec<_> = samples.iter().copied().collect();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    let at = |share: usize| sorted[(last * share).div_ceil(100)];
    Some((at(50), at(95)))
}

pub(super) fn text<'a>(event: &'a Map, name: &str) -> Option<&'a str> {
    event.get(name).and_then(Value::as_str)
}

pub(super) fn number(event: &Map, name: &str) -> Option<f64> {
    event.get(name).and_then(Value::as_f64).filter(|number| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::json;

    fn cluster(events: &str) -> Cluster {
        let mut cluster = Cluster::default();
        for event in json::parse(events.as_bytes()).unwrap().into_list().unwrap() {
            cluster.apply(&event.into_map().unwrap());
        }
        cluster
    }

    #[test]
    fn a_worker_is_there_while_its_heart_beats() {
        let cluster = cluster(
            r#"[{"type": "worker-online", "hostname": "b@h", "local_received": 100.0, "freq": 2.0},
                {"type": "worker-heartbeat", "hostname": "b@h", "local_received": 102.0, "freq": 2.0, "active": 3,
                 "processed": 9, "loadavg": [0.5, 1, 2], "sw_ident": "py-celery", "sw_ver": "5.7.0"},
                {"type": "worker-heartbeat", "hostname": "a@h", "local_received": 102.0, "freq": 2.0},
                {"type": "worker-offline", "hostname": "a@h", "local_received": 102.5, "freq": 2.0},
                {"type": "worker-online"}, {"hostname": "c@h"}]"#,
        );
        let workers = cluster.workers();
        let [gone, there] = workers.as_slice() else { panic!("{workers:?}") };
        assert!(!gone.is_alive(102.6) && there.is_alive(105.9) && !there.is_alive(106.0));
        assert_eq!((there.active, there.processed, there.load), (3, 9, Some(0.5)));
        assert_eq!((there.software.as_str(), cluster.events()), ("py-celery 5.7.0", 6));
    }

    #[test]
    fn a_task_has_its_last_state_whatever_comes_late() {
        let cluster = cluster(
            r#"[{"type": "task-sent", "hostname": "gen1@h", "uuid": "u", "name": "t", "timestamp": 0.5, "local_received": 1},
                {"type": "task-received", "hostname": "a@h", "uuid": "u", "name": "t", "timestamp": 1.0, "local_received": 1},
                {"type": "task-succeeded", "hostname": "a@h", "uuid": "u", "runtime": 0.25, "timestamp": 2.0, "local_received": 2},
                {"type": "task-started", "hostname": "a@h", "uuid": "u", "timestamp": 1.5, "local_received": 2},
                {"type": "task-failed", "hostname": "a@h", "uuid": "v", "timestamp": 2.0, "local_received": 2},
                {"type": "task-retried", "hostname": "a@h", "uuid": "v", "timestamp": 2.0, "local_received": 2},
                {"type": "task-progress", "hostname": "a@h", "uuid": "w", "timestamp": 2.0, "local_received": 2},
                {"type": "task-started", "hostname": "a@h"}]"#,
        );
        let states: Vec<_> = cluster.tasks().map(|task| (task.uuid.as_str(), task.state.as_str())).collect();
        assert_eq!(states, [("w", "PROGRESS"), ("v", "RETRY"), ("u", "SUCCESS")]);
        let task = cluster.tasks().last().unwrap();
        assert_eq!((task.name.as_str(), task.worker.as_str(), task.runtime), ("t", "a@h", Some(0.25)));
        assert_eq!((cluster.waits(), cluster.runtimes()), (Some((0.5, 0.5)), Some((0.25, 0.25))));
        assert_eq!((cluster.rates(2.0), cluster.rates(13.0)), ((0.1, 0.1), (0.0, 0.0)));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut cluster = Cluster::default();
        for number in 0..TASKS + 10 {
            let uuid = number.to_string();
            cluster.apply(&Map::from([("type", "task-started"), ("hostname", "h"), ("uuid", &uuid)]));
        }
        assert_eq!(cluster.tasks().len(), TASKS);
        assert_eq!(cluster.tasks().last().unwrap().uuid, "10");
    }

    #[test]
    fn percentiles_of_few_and_of_many() {
        let of = |count: u32| percentiles(&(1..=count).map(f64::from).collect());
        assert_eq!((of(0), of(1), of(100)), (None, Some((1.0, 1.0)), Some((51.0, 96.0))));
    }
}
