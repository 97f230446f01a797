//! The arguments and options of a signature, set one by one.

use jiff::Timestamp;

use crate::protocol::{DateTime, Map, Signature, Value};

/// Arguments and execution options (celery/canvas.py `Signature.set`). Of a chain, they are those of its first task; of a
/// group, those of every task.
impl Signature {
    /// One more argument by position.
    #[must_use]
    pub fn arg(mut self, value: impl Into<Value>) -> Self {
        self.args.push(value.into());
        self
    }

    /// An argument by name.
    #[must_use]
    pub fn kwarg(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.kwargs.insert(name, value);
        self
    }

    /// Any option of Celery's `apply_async`, under its name.
    #[must_use]
    pub fn set(mut self, option: impl Into<String>, value: impl Into<Value>) -> Self {
        self.options.insert(option, value);
        self
    }

    /// The task's id: any text that no other task has.
    #[must_use]
    pub fn task_id(self, id: impl Into<String>) -> Self {
        self.set("task_id", id.into())
    }

    /// The queue, whatever the routes say.
    #[must_use]
    pub fn queue(self, queue: impl Into<String>) -> Self {
        self.set("queue", queue.into())
    }

    /// The exchange and the routing key, whatever the routes say.
    #[must_use]
    pub fn exchange(self, exchange: impl Into<String>, routing_key: impl Into<String>) -> Self {
        self.set("exchange", exchange.into()).set("routing_key", routing_key.into())
    }

    /// The message's priority.
    #[must_use]
    pub fn priority(self, priority: u8) -> Self {
        self.set("priority", priority)
    }

    /// To run this many seconds after it is sent, at the earliest.
    #[must_use]
    pub fn countdown(self, seconds: f64) -> Self {
        self.set("countdown", seconds)
    }

    /// Not to run before this.
    #[must_use]
    pub fn eta(self, eta: Timestamp) -> Self {
        self.set("eta", DateTime::from(eta))
    }

    /// Not to run after this.
    #[must_use]
    pub fn expires(self, expires: Timestamp) -> Self {
        self.set("expires", DateTime::from(expires))
    }

    /// Not to run later than this many seconds after it is sent.
    #[must_use]
    pub fn expires_in(self, seconds: f64) -> Self {
        self.set("expires", seconds)
    }

    /// The hard and the soft limit in seconds.
    #[must_use]
    pub fn time_limits(self, hard: Option<f64>, soft: Option<f64>) -> Self {
        self.set("time_limit", hard).set("soft_time_limit", soft)
    }

    /// Whether no result is to be stored.
    #[must_use]
    pub fn ignore_result(self, ignore: bool) -> Self {
        self.set("ignore_result", ignore)
    }

    /// A header of the message.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        let headers = self.options.get_or_insert_with("headers", || Value::Map(Map::new()));
        if let Value::Map(headers) = headers {
            headers.insert(name, value);
        }
        self
    }
}
