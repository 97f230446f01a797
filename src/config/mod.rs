//! Settings: [`Config`] has Celery's lower-case names as fields and Celery's defaults, typed.
//!
//! A program sets the fields in code; [`Config::merge_toml`], [`Config::merge_assignments`] and
//! [`Config::merge_environment`] put a file, the command line and the environment over them. Every name that Celery knows
//! is recognised: one whose effect is missing here is answered with a [`Warning`], one that nobody knows with an error
//! that suggests the nearest. What the settings mean to a queue is in [`QueueDefinition`].
//!
//! This room is pure: it opens no file and reads no environment; whoever calls hands over the text.

mod annotations;
mod fields;
mod merge;
mod names;
mod options;
mod parser;
mod periodic;
mod queues;
mod routes;
mod settings;
mod shown;

pub use annotations::{Annotation, TaskAttributes};
pub use merge::Warning;
pub use options::{BrokerTransportOptions, CacheBackendOptions, ResultTransportOptions, RetryPolicy};
pub use periodic::{PeriodicTask, ScheduleDefinition};
pub use queues::QueueDefinition;
pub(crate) use queues::QueueNotFound;
pub use routes::{RouteDefinition, RouteMap};
pub use settings::{Config, LogLines, UnknownTasks};

/// The broker of a configuration that names none (celery/app/base.py, kombu `Connection`).
const DEFAULT_BROKER_URL: &str = "amqp://guest:guest@localhost:5672//";

impl Config {
    /// The broker to consume from: `broker_read_url`, else `broker_url`, else Celery's default.
    pub fn read_url(&self) -> &str {
        self.broker_read_url.as_deref().or(self.broker_url.as_deref()).unwrap_or(DEFAULT_BROKER_URL)
    }

    /// The broker to publish to: `broker_write_url`, else `broker_url`, else Celery's default.
    pub fn write_url(&self) -> &str {
        self.broker_write_url.as_deref().or(self.broker_url.as_deref()).unwrap_or(DEFAULT_BROKER_URL)
    }

    /// Whether the first connection is tried again when it fails.
    pub fn retries_on_startup(&self) -> bool {
        self.broker_connection_retry_on_startup.unwrap_or(self.broker_connection_retry)
    }
}
