//! Python's `repr`, whole and in the shortened form that Celery puts in headers, logs and events.

mod literal;
mod saferepr;

pub use saferepr::{Limits, argsrepr, kwargsrepr, saferepr};

use super::{Map, Value};

/// What Python's `repr()` returns.
pub fn repr(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

/// What Python's `repr()` returns for a tuple of the values: `(1,)`.
pub fn tuple(values: &[Value]) -> String {
    let mut out = String::new();
    write_items(values, ['(', ')'], &mut out);
    if values.len() == 1 {
        out.insert(out.len() - 1, ',');
    }
    out
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::List(items) => write_items(items, ['[', ']'], out),
        Value::Map(map) => write_map(map, out),
        scalar => literal::write(scalar, out),
    }
}

fn write_items(items: &[Value], [open, close]: [char; 2], out: &mut String) {
    out.push(open);
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push_str(", ");
        }
        write(item, out);
    }
    out.push(close);
}

fn write_map(map: &Map, out: &mut String) {
    out.push('{');
    for (at, (key, value)) in map.iter().enumerate() {
        if at > 0 {
            out.push_str(", ");
        }
        literal::write_text(key, out);
        out.push_str(": ");
        write(value, out);
    }
    out.push('}');
}

#[cfg(test)]
mod tests;
