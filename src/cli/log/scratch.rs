//! [`Scratch`]: the parts of one event.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};

use super::json;

/// The parts of one event; kept for the next, so that lines cost no allocation.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) message: String,
    /// All that have no meaning of their own: ` name=value` each, or members of a JSON object.
    pub(super) fields: String,
    pub(super) traceback: String,
    pub(super) line: String,
    pub(super) critical: bool,
    pub(super) task_id: String,
    pub(super) task_name: String,
    is_json: bool,
}

/// What a thread keeps of a line that was very long.
const KEPT: usize = 16 * 1024;

impl Scratch {
    pub(super) fn clear(&mut self, is_json: bool) {
        (self.critical, self.is_json) = (false, is_json);
        let Scratch { message, fields, traceback, line, task_id, task_name, .. } = self;
        for text in [message, fields, traceback, line, task_id, task_name] {
            text.clear();
            text.shrink_to(KEPT);
        }
    }

    fn write(&mut self, field: &Field, value: fmt::Arguments<'_>, quoted: bool) {
        // Writing to a String fails only when a value's own formatting does; what it wrote until then is kept.
        let _ = match field.name() {
            "message" => self.message.write_fmt(value),
            "traceback" => self.traceback.write_fmt(value),
            "task_id" => self.task_id.write_fmt(value),
            "task_name" => self.task_name.write_fmt(value),
            name if self.is_json => {
                json::push_field(&mut self.fields, name, value, quoted);
                Ok(())
            }
            name => write!(self.fields, " {name}={value}"),
        };
    }
}

impl Visit for Scratch {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.write(field, format_args!("{value:?}"), true);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.write(field, format_args!("{value}"), true);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.write(field, format_args!("{value}"), false);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.write(field, format_args!("{value}"), false);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no infinity.
        self.write(field, format_args!("{value:?}"), !value.is_finite());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        match field.name() {
            "critical" => self.critical = value,
            _ => self.write(field, format_args!("{value}"), false),
        }
    }
}
