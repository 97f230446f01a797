//! [`LogLayer`]: from a [`tracing`] event to a line.

use std::cell::RefCell;
use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::format::{LineFormat, Record};
use super::{Level, LogSink};
use crate::time::Clock;

/// Writes events as Celery's log lines.
///
/// Whether a call site is wanted is decided once, when it is first met, so that lines below the level cost next to
/// nothing.
#[derive(Debug)]
pub struct LogLayer {
    format: LineFormat,
    level: Level,
    clock: Clock,
    sink: LogSink,
    colored: bool,
}

impl LogLayer {
    /// A layer that writes events of at least `level` to `sink`, without colours.
    pub fn new(format: LineFormat, level: Level, clock: Clock, sink: LogSink) -> Self {
        LogLayer { format, level, clock, sink, colored: false }
    }

    /// With or without colours.
    #[must_use]
    pub fn with_colors(mut self, colored: bool) -> Self {
        self.colored = colored;
        self
    }

    fn admits(&self, metadata: &Metadata<'_>) -> bool {
        // What `enabled!` asks with is neither a span nor an event.
        !metadata.is_span() && self.level.admits(*metadata.level(), metadata.target())
    }

    fn log(&self, event: &Event<'_>, scratch: &mut Scratch) {
        scratch.clear();
        event.record(scratch);
        let metadata = event.metadata();
        let level = Level::of(*metadata.level(), scratch.critical);
        if level < self.level {
            return;
        }
        scratch.message.push_str(&scratch.fields);
        let record = Record {
            level,
            message: &scratch.message,
            now: self.clock.now(),
            target: metadata.target(),
            path: metadata.file().unwrap_or_default(),
            line: metadata.line().unwrap_or_default(),
        };
        let color = level.color().filter(|_| self.colored);
        scratch.line.push_str(color.unwrap_or_default());
        self.format.write(&mut scratch.line, &record);
        if !scratch.traceback.is_empty() {
            scratch.line.push('\n');
            scratch.line.push_str(scratch.traceback.trim_end_matches('\n'));
        }
        scratch.line.push_str(color.map_or("\n", |_| "\x1b[0m\n"));
        self.sink.write(&scratch.line, level >= Level::Error);
    }
}

impl<S: Subscriber> Layer<S> for LogLayer {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.admits(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.admits(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level.filter())
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        SCRATCH.with(|scratch| match scratch.try_borrow_mut() {
            Ok(mut scratch) => self.log(event, &mut scratch),
            // A value that logs while it is being written.
            Err(_) => self.log(event, &mut Scratch::default()),
        });
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The parts of one event; kept for the next, so that lines cost no allocation.
#[derive(Default)]
struct Scratch {
    message: String,
    fields: String,
    traceback: String,
    line: String,
    critical: bool,
}

/// What a thread keeps of a line that was very long.
const KEPT: usize = 16 * 1024;

impl Scratch {
    fn clear(&mut self) {
        self.critical = false;
        for text in [&mut self.message, &mut self.fields, &mut self.traceback, &mut self.line] {
            text.clear();
            text.shrink_to(KEPT);
        }
    }

    fn write(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        // Writing to a String fails only when a value's own formatting does; what it wrote until then is kept.
        let _ = match field.name() {
            "message" => self.message.write_fmt(value),
            "traceback" => self.traceback.write_fmt(value),
            name => write!(self.fields, " {name}={value}"),
        };
    }
}

impl Visit for Scratch {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.write(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.write(field, format_args!("{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        match field.name() {
            "critical" => self.critical = value,
            _ => self.write(field, format_args!("{value}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tracing_subscriber::layer::SubscriberExt;

    use super::super::LogFile;
    use super::*;

    /// What `events` logs at `level`.
    fn logged(level: Level, colored: bool, events: impl FnOnce()) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let sink = LogSink::start(LogFile::open(&path).unwrap()).unwrap();
        let format = LineFormat::parse("%(levelname)s %(message)s").unwrap();
        let layer = LogLayer::new(format, level, Clock::system(), sink.clone()).with_colors(colored);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), events);
        sink.flush();
        fs::read_to_string(&path).unwrap()
    }

    #[test]
    fn events_become_lines() {
        let lines = logged(Level::Info, false, || {
            tracing::info!("Task {}[{}] received", "rust.add", "id");
            tracing::debug!("unheard");
            tracing::warn!(count = 3, name = "x", "odd");
            tracing::error!(traceback = "Traceback:\n  line\n", "failed");
            tracing::error!(critical = true, "over");
            tracing::info!(target: "redis::aio", "unheard");
            tracing::warn!(target: "redis::aio", "heard");
        });
        let expected = "INFO Task rust.add[id] received\nWARNING odd count=3 name=x\nERROR failed\nTraceback:\n  line\n\
                        CRITICAL over\nWARNING heard\n";
        assert_eq!(lines, expected);
    }

    #[test]
    fn whoever_asks_first_hears_the_same() {
        let mut answers = Vec::new();
        logged(Level::Info, false, || {
            answers.extend([tracing::enabled!(tracing::Level::INFO), tracing::enabled!(tracing::Level::DEBUG)]);
        });
        assert_eq!(answers, [true, false]);
    }

    #[test]
    fn critical_alone() {
        let lines = logged(Level::Critical, false, || {
            tracing::error!("unheard");
            tracing::error!(critical = true, "heard");
        });
        assert_eq!(lines, "CRITICAL heard\n");
    }

    #[test]
    fn colors_are_celerys() {
        let lines = logged(Level::Debug, true, || {
            tracing::info!("plain");
            tracing::warn!("yellow");
        });
        assert_eq!(lines, "INFO plain\n\x1b[1;33mWARNING yellow\x1b[0m\n");
    }
}
