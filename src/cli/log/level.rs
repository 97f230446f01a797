//! [`Level`]: Celery's log levels, and which [`tracing`] events each lets through.

use std::fmt;
use std::str::FromStr;

use tracing::level_filters::LevelFilter;

/// How much is logged (Python's `logging` levels).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Level {
    /// Everything, other libraries' included.
    Debug,
    /// What happens to each task.
    Info,
    /// What should not have happened.
    #[default]
    Warning,
    /// What went wrong.
    Error,
    /// What ends the worker.
    Critical,
}

/// Libraries below us: what they say at INFO is no news to who runs tasks.
const QUIET: &[&str] = &["redis", "tokio", "tokio_util", "rustls", "mio", "hyper", "h2", "want"];

/// Libraries below us whose errors we tell in our own words: a lost connection is a state and no error.
const SILENT: &[&str] = &["lapin"];

impl Level {
    /// The names that `-l` takes.
    pub const NAMES: [&str; 6] = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "FATAL"];

    /// The level's name in a log line.
    pub fn name(self) -> &'static str {
        match self {
            Level::Debug => "DEBUG",
            Level::Info => "INFO",
            Level::Warning => "WARNING",
            Level::Error => "ERROR",
            Level::Critical => "CRITICAL",
        }
    }

    /// Python's number.
    pub(super) fn number(self) -> i64 {
        10 * (self as i64 + 1)
    }

    /// What [`tracing`] need not even look at. CRITICAL is an ERROR with a field, so ERRORs are looked at.
    pub(super) fn filter(self) -> LevelFilter {
        match self {
            Level::Debug => LevelFilter::DEBUG,
            Level::Info => LevelFilter::INFO,
            Level::Warning => LevelFilter::WARN,
            Level::Error | Level::Critical => LevelFilter::ERROR,
        }
    }

    /// Whether events of `level` from `target` can be wanted.
    pub(super) fn admits(self, level: tracing::Level, target: &str) -> bool {
        let root = target.split("::").next().unwrap_or(target);
        if self != Level::Debug && SILENT.contains(&root) {
            return false;
        }
        let quiet = self != Level::Debug && QUIET.contains(&root);
        level <= self.filter() && (!quiet || level <= tracing::Level::WARN)
    }

    /// The level of an event.
    pub(super) fn of(level: tracing::Level, critical: bool) -> Self {
        match level {
            tracing::Level::ERROR if critical => Level::Critical,
            tracing::Level::ERROR => Level::Error,
            tracing::Level::WARN => Level::Warning,
            tracing::Level::INFO => Level::Info,
            _ => Level::Debug,
        }
    }

    /// The colour of its lines (celery/utils/log.py `ColorFormatter.colors`).
    pub(super) fn color(self) -> Option<&'static str> {
        match self {
            Level::Debug => Some("\x1b[1;34m"),
            Level::Info => None,
            Level::Warning => Some("\x1b[1;33m"),
            Level::Error => Some("\x1b[1;31m"),
            Level::Critical => Some("\x1b[1;35m"),
        }
    }
}

impl FromStr for Level {
    type Err = String;

    /// A name in any case.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_uppercase().as_str() {
            "DEBUG" => Ok(Level::Debug),
            "INFO" => Ok(Level::Info),
            "WARNING" => Ok(Level::Warning),
            "ERROR" => Ok(Level::Error),
            "CRITICAL" | "FATAL" => Ok(Level::Critical),
            _ => Err(format!("expected one of {}", Level::NAMES.join(", "))),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_each_level_admits() {
        let check = |level: Level, event: tracing::Level, target: &str, expected: bool| {
            assert_eq!(level.admits(event, target), expected, "{level} {event} {target}");
        };
        check(Level::Info, tracing::Level::INFO, "celeriac::worker", true);
        check(Level::Info, tracing::Level::DEBUG, "celeriac::worker", false);
        check(Level::Info, tracing::Level::INFO, "shop::tasks", true);
        check(Level::Info, tracing::Level::INFO, "redis::aio", false);
        check(Level::Info, tracing::Level::WARN, "redis::aio", true);
        check(Level::Info, tracing::Level::ERROR, "lapin::channel", false);
        check(Level::Debug, tracing::Level::ERROR, "lapin::channel", true);
        check(Level::Info, tracing::Level::INFO, "rediscovery", true);
        check(Level::Debug, tracing::Level::DEBUG, "tokio::task", true);
        check(Level::Debug, tracing::Level::TRACE, "celeriac", false);
        check(Level::Critical, tracing::Level::ERROR, "celeriac", true);
        check(Level::Critical, tracing::Level::WARN, "celeriac", false);
    }
}
