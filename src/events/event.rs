//! [`Event`]: one thing that happened, with Celery's fields.

use jiff::Timestamp;

use super::Origin;
use super::fields::Fields;
use crate::protocol::{Map, Value};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// What.
    pub kind: Kind,
    /// When.
    pub stamp: Stamp,
}

/// When something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// By the logical clock of its node.
    pub clock: u64,
    /// By the clock on the wall.
    pub time: Timestamp,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// `worker-online`.
    WorkerOnline(Heartbeat),
    /// `worker-heartbeat`.
    WorkerHeartbeat(Heartbeat),
    /// `worker-offline`.
    WorkerOffline(Heartbeat),
    /// `worker-elect`: a node wants to be elected.
    WorkerElect {
        /// The election.
        id: Value,
        /// What kind of action it is.
        topic: Value,
        /// What the elected node is to do.
        action: Value,
    },
    /// `worker-elect-ack`: a node has heard who wants to be elected in this election.
    WorkerElectAck(Value),
    /// `task-sent`, by a producer.
    TaskSent(Box<Sent>),
    /// `task-received`.
    TaskReceived(Box<Task>),
    /// `task-started`: the task's id.
    TaskStarted(String),
    /// `task-succeeded`.
    TaskSucceeded {
        /// The task.
        uuid: String,
        /// The repr of what it returned.
        result: String,
        /// Seconds that it took; null where nobody knows.
        runtime: Value,
    },
    /// `task-failed`.
    TaskFailed {
        /// The task.
        uuid: String,
        /// The repr of the exception.
        exception: String,
        /// Its traceback; `None`: the event has no such field, as for a task that nobody knows.
        traceback: Option<Value>,
    },
    /// `task-retried`.
    TaskRetried {
        /// The task.
        uuid: String,
        /// The repr of what it is retried for: `None` if that is nothing.
        exception: String,
        /// The traceback.
        traceback: String,
    },
    /// `task-revoked`.
    TaskRevoked {
        /// The task.
        uuid: String,
        /// How.
        how: Revocation,
    },
    /// `task-rejected`.
    TaskRejected {
        /// The task.
        uuid: String,
        /// Its message goes back to the queue.
        requeue: bool,
    },
    /// `task-cancelled`: the task's id.
    TaskCancelled(String),
}

/// What a worker says of itself (celery/worker/heartbeat.py `Heart._send`).
#[derive(Debug, Clone, PartialEq)]
pub struct Heartbeat {
    /// Seconds from one to the next.
    pub freq: Value,
    /// What it does; absent where somebody asked for a heartbeat (celery/worker/control.py `heartbeat`).
    pub load: Option<Load>,
}

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// How many tasks run.
    pub active: usize,
    /// How many were begun since the worker was.
    pub processed: u64,
    /// The machine's load over one, five and fifteen minutes.
    pub loadavg: [f64; 3],
}

/// A task as its message describes it. Texts are as the message has them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Task {
    /// Its id.
    pub uuid: String,
    /// The name to show.
    pub name: String,
    /// The repr of its arguments.
    pub args: Value,
    /// The repr of its keyword arguments.
    pub kwargs: Value,
    /// The first of its work-flow.
    pub root_id: Value,
    /// Who sent it.
    pub parent_id: Value,
    /// How often it was retried.
    pub retries: Value,
    /// When it is to run, as ISO 8601.
    pub eta: Value,
    /// When no longer, as ISO 8601.
    pub expires: Value,
}

/// A task and where it was sent (celery/app/amqp.py `as_task_v2`, `send_task_message`).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sent {
    /// The task.
    pub task: Task,
    /// The queue.
    pub queue: Value,
    /// The exchange.
    pub exchange: String,
    /// The routing key.
    pub routing_key: String,
}

/// How a task was revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Revocation {
    /// The number of the signal that ended it while it ran.
    pub signum: Option<i64>,
    /// Its time had passed.
    pub expired: bool,
}

impl Event {
    /// The event's name: `task-received`.
    pub fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// Whether it may wait for others, and leave in one message with them: the events of a worker's tasks.
    pub(super) fn is_buffered(&self) -> bool {
        !matches!(
            self.kind,
            Kind::WorkerOnline(_)
                | Kind::WorkerHeartbeat(_)
                | Kind::WorkerOffline(_)
                | Kind::WorkerElect { .. }
                | Kind::WorkerElectAck(_)
                | Kind::TaskSent(_)
        )
    }

    /// The event as it is sent: the common fields, its own, when it was and what it is
    /// (celery/events/dispatcher.py `EventDispatcher.send`). `JsonEvents` writes the same.
    pub(super) fn into_map(self, origin: &Origin) -> Map {
        let Stamp { clock, time } = self.stamp;
        let name = self.name();
        let mut fields = Map::from([
            ("hostname", Value::from(origin.hostname.as_str())),
            ("utcoffset", origin.utcoffset(time).into()),
            ("pid", origin.pid.into()),
            ("clock", clock.into()),
        ]);
        self.kind.put_into(&mut fields, origin);
        fields.put("timestamp", time.as_microsecond() as f64 / 1e6);
        fields.put("type", name);
        fields
    }
}

impl Kind {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Kind::WorkerOnline(_) => "worker-online",
            Kind::WorkerHeartbeat(_) => "worker-heartbeat",
            Kind::WorkerOffline(_) => "worker-offline",
            Kind::WorkerElect { .. } => "worker-elect",
            Kind::WorkerElectAck(_) => "worker-elect-ack",
            Kind::TaskSent(_) => "task-sent",
            Kind::TaskReceived(_) => "task-received",
            Kind::TaskStarted(_) => "task-started",
            Kind::TaskSucceeded { .. } => "task-succeeded",
            Kind::TaskFailed { .. } => "task-failed",
            Kind::TaskRetried { .. } => "task-retried",
            Kind::TaskRevoked { .. } => "task-revoked",
            Kind::TaskRejected { .. } => "task-rejected",
            Kind::TaskCancelled(_) => "task-cancelled",
        }
    }

    /// What only events of this kind tell.
    pub(super) fn put_into(self, fields: &mut impl Fields, origin: &Origin) {
        match self {
            Kind::WorkerOnline(heartbeat) | Kind::WorkerHeartbeat(heartbeat) | Kind::WorkerOffline(heartbeat) => {
                heartbeat.put_into(fields, origin);
            }
            Kind::WorkerElect { id, topic, action } => {
                fields.put("id", id);
                fields.put("topic", topic);
                fields.put("action", action);
                fields.put("cver", 1);
            }
            Kind::WorkerElectAck(id) => fields.put("id", id),
            Kind::TaskSent(sent) => sent.put_into(fields),
            Kind::TaskReceived(task) => task.put_into(fields),
            Kind::TaskStarted(uuid) | Kind::TaskCancelled(uuid) => fields.put("uuid", uuid),
            Kind::TaskSucceeded { uuid, result, runtime } => {
                fields.put("uuid", uuid);
                fields.put("result", result);
                fields.put("runtime", runtime);
            }
            Kind::TaskFailed { uuid, exception, traceback } => {
                fields.put("uuid", uuid);
                fields.put("exception", exception);
                traceback.into_iter().for_each(|traceback| fields.put("traceback", traceback));
            }
            Kind::TaskRetried { uuid, exception, traceback } => {
                fields.put("uuid", uuid);
                fields.put("exception", exception);
                fields.put("traceback", traceback);
            }
            Kind::TaskRevoked { uuid, how } => {
                fields.put("uuid", uuid);
                fields.put("terminated", how.signum.is_some());
                fields.put("signum", how.signum);
                fields.put("expired", how.expired);
            }
            Kind::TaskRejected { uuid, requeue } => {
                fields.put("uuid", uuid);
                fields.put("requeue", requeue);
            }
        }
    }
}

impl Heartbeat {
    fn put_into(self, fields: &mut impl Fields, origin: &Origin) {
        fields.put("freq", self.freq);
        if let Some(Load { active, processed, loadavg }) = self.load {
            let loadavg: Vec<Value> = loadavg.iter().map(|load| Value::from((load * 100.0).round() / 100.0)).collect();
            fields.put("active", u64::try_from(active).unwrap_or(u64::MAX));
            fields.put("processed", processed);
            fields.put("loadavg", Value::List(loadavg));
        }
        fields.put("sw_ident", origin.sw_ident);
        fields.put("sw_ver", origin.sw_ver);
        fields.put("sw_sys", origin.sw_sys);
    }
}

impl Task {
    /// The fields of `task-received`.
    fn put_into(self, fields: &mut impl Fields) {
        fields.put("uuid", self.uuid);
        fields.put("name", self.name);
        fields.put("args", self.args);
        fields.put("kwargs", self.kwargs);
        fields.put("root_id", self.root_id);
        fields.put("parent_id", self.parent_id);
        fields.put("retries", self.retries);
        fields.put("eta", self.eta);
        fields.put("expires", self.expires);
    }
}

impl Sent {
    /// The same in another order, and where it went.
    fn put_into(self, fields: &mut impl Fields) {
        let task = self.task;
        fields.put("uuid", task.uuid);
        fields.put("root_id", task.root_id);
        fields.put("parent_id", task.parent_id);
        fields.put("name", task.name);
        fields.put("args", task.args);
        fields.put("kwargs", task.kwargs);
        fields.put("retries", task.retries);
        fields.put("eta", task.eta);
        fields.put("expires", task.expires);
        fields.put("queue", self.queue);
        fields.put("exchange", self.exchange);
        fields.put("routing_key", self.routing_key);
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;
    use crate::events::json_events::JsonEvents;
    use crate::protocol::json;

    fn origin() -> Origin {
        Origin { pid: 7, timezone: TimeZone::UTC, ..Origin::new("w1@h") }
    }

    fn written(kind: Kind) -> String {
        let time = Timestamp::from_microsecond(1_764_297_600_250_000).unwrap();
        let event = Event { kind, stamp: Stamp { clock: 3, time } };
        let mut at_once = JsonEvents::new(origin());
        at_once.push(event.clone()).unwrap();
        let map = json::to_vec(&Value::Map(event.into_map(&origin()))).unwrap();
        let map = String::from_utf8(map).unwrap();
        assert_eq!(String::from_utf8(at_once.take()).unwrap(), format!("[{map}]"));
        map
    }

    /// Each as a stock worker of 5.7 sends it, field by field in its order, by either way of writing.
    #[test]
    fn events_are_written_as_celery_writes_them() {
        let uuid = || "i".to_owned();
        let load = Load { active: 1, processed: 5, loadavg: [0.123, 1.0, 2.499] };
        let version = env!("CARGO_PKG_VERSION");
        let software = format!("\"sw_ident\": \"celeriac\", \"sw_ver\": \"{version}\", \"sw_sys\": \"Linux\"");
        let online =
            format!("\"freq\": 2.0, \"active\": 1, \"processed\": 5, \"loadavg\": [0.12, 1.0, 2.5], {software}");
        let asked = format!("\"freq\": 5, {software}");
        let task = Task {
            uuid: uuid(),
            name: "t".into(),
            args: "(1,)".into(),
            kwargs: "{}".into(),
            root_id: "i".into(),
            retries: 0.into(),
            eta: "2026-11-28T00:00:00+00:00".into(),
            ..Task::default()
        };
        let exception = || "ValueError('x')".to_owned();
        let failed = |traceback| Kind::TaskFailed { uuid: uuid(), exception: exception(), traceback };
        let revoked = |signum, expired| Kind::TaskRevoked { uuid: uuid(), how: Revocation { signum, expired } };
        let rows: Vec<(Kind, &str, &str)> = vec![
            (Kind::WorkerOnline(Heartbeat { freq: 2.0.into(), load: Some(load) }), &online, "worker-online"),
            (Kind::WorkerOffline(Heartbeat { freq: 2.0.into(), load: Some(load) }), &online, "worker-offline"),
            (Kind::WorkerHeartbeat(Heartbeat { freq: 5.into(), load: None }), &asked, "worker-heartbeat"),
            (
                Kind::WorkerElect { id: "e".into(), topic: "task".into(), action: Value::Null },
                r#""id": "e", "topic": "task", "action": null, "cver": 1"#,
                "worker-elect",
            ),
            (Kind::WorkerElectAck("e".into()), r#""id": "e""#, "worker-elect-ack"),
            (
                Kind::TaskReceived(Box::new(task.clone())),
                r#""uuid": "i", "name": "t", "args": "(1,)", "kwargs": "{}", "root_id": "i", "parent_id": null, "retries": 0, "eta": "2026-11-28T00:00:00+00:00", "expires": null"#,
                "task-received",
            ),
            (
                Kind::TaskSent(Box::new(Sent {
                    task,
                    queue: "q".into(),
                    exchange: String::new(),
                    routing_key: "q".into(),
                })),
                r#""uuid": "i", "root_id": "i", "parent_id": null, "name": "t", "args": "(1,)", "kwargs": "{}", "retries": 0, "eta": "2026-11-28T00:00:00+00:00", "expires": null, "queue": "q", "exchange": "", "routing_key": "q""#,
                "task-sent",
            ),
            (Kind::TaskStarted(uuid()), r#""uuid": "i""#, "task-started"),
            (
                Kind::TaskSucceeded { uuid: uuid(), result: "3".into(), runtime: 0.5.into() },
                r#""uuid": "i", "result": "3", "runtime": 0.5"#,
                "task-succeeded",
            ),
            (
                failed(Some("Traceback".into())),
                r#""uuid": "i", "exception": "ValueError('x')", "traceback": "Traceback""#,
                "task-failed",
            ),
            (failed(None), r#""uuid": "i", "exception": "ValueError('x')""#, "task-failed"),
            (
                Kind::TaskRetried { uuid: uuid(), exception: exception(), traceback: "T".into() },
                r#""uuid": "i", "exception": "ValueError('x')", "traceback": "T""#,
                "task-retried",
            ),
            (
                revoked(Some(15), false),
                r#""uuid": "i", "terminated": true, "signum": 15, "expired": false"#,
                "task-revoked",
            ),
            (
                revoked(None, true),
                r#""uuid": "i", "terminated": false, "signum": null, "expired": true"#,
                "task-revoked",
            ),
            (Kind::TaskRejected { uuid: uuid(), requeue: true }, r#""uuid": "i", "requeue": true"#, "task-rejected"),
            (Kind::TaskCancelled(uuid()), r#""uuid": "i""#, "task-cancelled"),
        ];
        for (kind, own, name) in rows {
            let expected = format!(
                r#"{{"hostname": "w1@h", "utcoffset": 0.0, "pid": 7, "clock": 3, {own}, "timestamp": 1764297600.25, "type": "{name}"}}"#
            );
            assert_eq!(written(kind), expected);
        }
    }
}
