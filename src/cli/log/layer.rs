//! [`LogLayer`]: from a [`tracing`] event to a line.

use std::cell::RefCell;
use std::fmt;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::format::{LineFormat, Record};
use super::json::{self, Details};
use super::scratch::Scratch;
use super::{Level, LogSink};
use crate::time::Clock;
use crate::trace;

/// Writes events as Celery's log lines, or as JSON.
///
/// Whether a call site is wanted is decided once, when it is first met, so that lines below the level cost next to
/// nothing.
#[derive(Debug)]
pub struct LogLayer {
    lines: Lines,
    level: Level,
    clock: Clock,
    sink: LogSink,
    colored: bool,
}

/// What a line looks like.
#[derive(Debug, Clone)]
pub enum Lines {
    /// As the format says.
    Text(LineFormat),
    /// One JSON object, which also names the task in whose run it was logged.
    Json,
}

/// Which spans and events a [`LogLayer`] looks at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    level: Level,
    /// The spans around tasks, too.
    spans: bool,
}

impl Wanted {
    pub(super) fn admits(self, metadata: &Metadata<'_>) -> bool {
        // What `enabled!` asks with is neither a span nor an event.
        match metadata.is_span() {
            true => self.spans && metadata.target() == trace::TARGET,
            false => self.level.admits(*metadata.level(), metadata.target()),
        }
    }
}

impl LogLayer {
    /// A layer that writes events of at least `level` to `sink`, without colours.
    pub fn new(lines: Lines, level: Level, clock: Clock, sink: LogSink) -> Self {
        LogLayer { lines, level, clock, sink, colored: false }
    }

    /// With or without colours. JSON has none.
    #[must_use]
    pub fn with_colors(mut self, colored: bool) -> Self {
        self.colored = colored && matches!(self.lines, Lines::Text(_));
        self
    }

    pub(super) fn wanted(&self) -> Wanted {
        Wanted { level: self.level, spans: matches!(self.lines, Lines::Json) }
    }

    fn log(&self, event: &Event<'_>, task: Option<&Named>, scratch: &mut Scratch) {
        scratch.clear(matches!(self.lines, Lines::Json));
        event.record(scratch);
        let metadata = event.metadata();
        let level = Level::of(*metadata.level(), scratch.critical);
        if level < self.level {
            return;
        }
        let Scratch { message, fields, traceback, line, task_id, task_name, .. } = scratch;
        if let Lines::Text(_) = self.lines {
            message.push_str(fields);
        }
        let record = Record {
            level,
            message,
            now: self.clock.now(),
            target: metadata.target(),
            path: metadata.file().unwrap_or_default(),
            line: metadata.line().unwrap_or_default(),
        };
        match &self.lines {
            Lines::Text(format) => {
                let color = level.color().filter(|_| self.colored);
                line.push_str(color.unwrap_or_default());
                format.write(line, &record);
                if !traceback.is_empty() {
                    line.push('\n');
                    line.push_str(traceback.trim_end_matches('\n'));
                }
                line.push_str(color.map_or("\n", |_| "\x1b[0m\n"));
            }
            Lines::Json => {
                let said = (!task_id.is_empty()).then_some((&**task_id, &**task_name));
                let task = said.or_else(|| task.map(|task| (&*task.id, &*task.name)));
                json::write(line, &record, Details { task, fields, traceback });
                line.push('\n');
            }
        }
        self.sink.write(line, level >= Level::Error);
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LogLayer {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.wanted().admits(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.wanted().admits(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level.filter())
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id).filter(|span| span.metadata().target() == trace::TARGET)
            && self.wanted().spans
        {
            span.extensions_mut().replace(Named::of(attributes));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let scope = context.event_scope(event).filter(|_| self.wanted().spans);
        let span = scope.into_iter().flatten().find(|span| span.extensions().get::<Named>().is_some());
        let extensions = span.as_ref().map(|span| span.extensions());
        let task = extensions.as_ref().and_then(|extensions| extensions.get::<Named>());
        SCRATCH.with(|scratch| match scratch.try_borrow_mut() {
            Ok(mut scratch) => self.log(event, task, &mut scratch),
            // A value that logs while it is being written.
            Err(_) => self.log(event, task, &mut Scratch::default()),
        });
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The task that a span is around.
struct Named {
    id: String,
    name: String,
}

impl Named {
    fn of(attributes: &Attributes<'_>) -> Self {
        let mut named = Named { id: String::new(), name: String::new() };
        attributes.record(&mut named);
        named
    }
}

impl Visit for Named {
    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            trace::ID => value.clone_into(&mut self.id),
            trace::NAME => value.clone_into(&mut self.name),
            _ => {}
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
        let format = LineFormat::parse("%(levelname)s %(message)s").unwrap();
        written(Lines::Text(format), level, colored, events)
    }

    fn written(lines: Lines, level: Level, colored: bool, events: impl FnOnce()) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let sink = LogSink::start(LogFile::open(&path).unwrap()).unwrap();
        let layer = LogLayer::new(lines, level, Clock::system(), sink.clone()).with_colors(colored);
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

    #[test]
    fn json_names_the_task_in_whose_run_it_was_logged() {
        let run = trace::Run { name: "shop.add", id: "1-2", ..trace::Run::default() };
        let lines = written(Lines::Json, Level::Warning, true, || {
            tracing::warn!(count = 3, share = 0.5, odd = f64::NAN, name = "x\n", done = true, "outside");
            run.span().in_scope(|| {
                tracing::info!("unheard");
                tracing::info_span!("own").in_scope(|| tracing::error!(traceback = "Trace\nback", "within"));
            });
            tracing::warn!(task_id = "3", task_name = "said", "said");
        });
        let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 3, "{lines:?}");
        let fields = serde_json::json!({"count": 3, "share": 0.5, "odd": "NaN", "name": "x\n", "done": true});
        assert_eq!((&lines[0]["fields"], lines[0].get("task_id")), (&fields, None));
        let said = |line: usize| ["level", "message", "task_id", "task_name"].map(|key| lines[line][key].clone());
        assert_eq!(said(1), ["ERROR", "within", "1-2", "shop.add"]);
        assert_eq!(lines[1]["traceback"], "Trace\nback");
        assert_eq!(said(2), ["WARNING", "said", "3", "said"]);
    }
}
