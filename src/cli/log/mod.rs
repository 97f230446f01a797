//! Log lines in Celery's format, or as JSON: a [`tracing`] layer that formats them and a writer that never makes a task wait.
//!
//! [`install`] makes it the process's subscriber. A program that has installed its own keeps it, as with Celery's
//! `setup_logging` signal. Fields of an event that mean something here: `critical = true` raises an error to CRITICAL,
//! `traceback` is written on the lines after the message; `task_id` and `task_name` are what JSON lines of a task's run
//! have anyway; all others follow the message as `name=value`.

mod format;
mod json;
mod layer;
mod level;
#[cfg(feature = "otlp")]
mod otlp;
mod panics;
mod scratch;
mod sink;

use std::io::IsTerminal;
use std::path::PathBuf;

use tracing_subscriber::layer::SubscriberExt;

pub use format::LineFormat;
pub use layer::{Lines, LogLayer};
pub use level::Level;
pub use sink::{LogFile, LogSink};

use crate::Result;
use crate::config::{Config, LogLines};
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
    /// What is said of the process beside its spans, where they are exported.
    pub service: String,
}

/// Logs of this process go where `options` and the `worker_log_…` settings say, until the handle is dropped.
///
/// # Errors
/// `Configuration` for a format that cannot be read, `Io` for a file that cannot be opened.
pub fn install(options: &LogOptions, config: &Config) -> Result<LogHandle> {
    let lines = match config.worker_log_lines {
        LogLines::Json => Lines::Json,
        LogLines::Text => {
            let mut format = LineFormat::parse(&config.worker_log_format)?;
            format.date_format = config.worker_log_datefmt.clone();
            Lines::Text(format)
        }
    };
    let file = match &options.file {
        Some(path) => LogFile::open(path)?,
        None => LogFile::stderr(),
    };
    // Colours are for people (celery/app/log.py `Logging.supports_color`).
    let wanted = config.worker_log_color != Some(false) && !options.no_color;
    let colored = wanted && options.file.is_none() && std::io::stderr().is_terminal();
    let sink = LogSink::start(file)?;
    let layer = LogLayer::new(lines, options.level, Clock::system(), sink.clone()).with_colors(colored);
    let handle = LogHandle {
        #[cfg(feature = "otlp")]
        exporter: otlp::exporter(&options.service)?,
        sink,
        is_file: options.file.is_some(),
    };
    if handle.subscribe(layer) {
        panics::log_panics();
    }
    Ok(handle)
}

/// Keeps the log going; writes what is left when it is dropped.
#[derive(Debug)]
pub struct LogHandle {
    /// Goes first: what it says in the end is written, too.
    #[cfg(feature = "otlp")]
    exporter: Option<crate::trace::Exporter>,
    sink: LogSink,
    is_file: bool,
}

impl LogHandle {
    /// Makes it the process's; `false` where there is another.
    fn subscribe(&self, layer: LogLayer) -> bool {
        #[cfg(feature = "otlp")]
        if let Some(exporter) = &self.exporter {
            return otlp::subscribe(layer, exporter);
        }
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer)).is_ok()
    }

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
        #[cfg(feature = "otlp")]
        drop(self.exporter.take());
        self.sink.flush();
    }
}
