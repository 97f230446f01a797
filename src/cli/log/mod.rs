//! Log lines in Celery's format: a [`tracing`] layer that formats them and a writer that never makes a task wait.
//!
//! [`install`] makes it the process's subscriber. A program that has installed its own keeps it, as with Celery's
//! `setup_logging` signal. Fields of an event that mean something here: `critical = true` raises an error to CRITICAL,
//! `traceback` is written on the lines after the message; all others follow the message as `name=value`.

mod format;
mod layer;
mod level;
mod panics;
mod sink;

use std::io::IsTerminal;
use std::path::PathBuf;

use tracing_subscriber::layer::SubscriberExt;

pub use format::LineFormat;
pub use layer::LogLayer;
pub use level::Level;
pub use sink::{LogFile, LogSink};

use crate::Result;
use crate::config::Config;
use crate::time::Clock;

/// What the log looks like and where it goes.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// What is written at all.
    pub level: Level,
    /// The file; `None`: standard error.
    pub file: Option<PathBuf>,
    /// No colours, whatever the terminal can do.
    pub no_color: bool,
}

/// Logs of this process go where `options` and the `worker_log_…` settings say, until the handle is dropped.
///
/// # Errors
/// `Configuration` for a format that cannot be read, `Io` for a file that cannot be opened.
pub fn install(options: &LogOptions, config: &Config) -> Result<LogHandle> {
    let mut format = LineFormat::parse(&config.worker_log_format)?;
    format.date_format = config.worker_log_datefmt.clone();
    let file = match &options.file {
        Some(path) => LogFile::open(path)?,
        None => LogFile::stderr(),
    };
    // Colours are for people (celery/app/log.py `Logging.supports_color`).
    let wanted = config.worker_log_color != Some(false) && !options.no_color;
    let colored = wanted && options.file.is_none() && std::io::stderr().is_terminal();
    let sink = LogSink::start(file)?;
    let layer = LogLayer::new(format, options.level, Clock::system(), sink.clone()).with_colors(colored);
    let subscriber = tracing_subscriber::registry().with(layer);
    if tracing::subscriber::set_global_default(subscriber).is_ok() {
        panics::log_panics();
    }
    Ok(LogHandle { sink, is_file: options.file.is_some() })
}

/// Keeps the log going; writes what is left when it is dropped.
#[derive(Debug)]
pub struct LogHandle {
    sink: LogSink,
    is_file: bool,
}

impl LogHandle {
    /// Whether the log goes to a file, where nobody may be looking.
    pub fn is_file(&self) -> bool {
        self.is_file
    }

    /// Returns when everything logged so far is written.
    pub fn flush(&self) {
        self.sink.flush();
    }
}

impl Drop for LogHandle {
    fn drop(&mut self) {
        self.sink.flush();
    }
}
