//! Panics are logged where they happen, with their place: a task's failure tells its caller only the message.

use std::panic;

/// From now on panics of this process are log lines.
pub(super) fn log_panics() {
    panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
        match info.location() {
            Some(place) => tracing::error!(target: "celeriac::panic", "Panic at {place}: {text}"),
            None => tracing::error!(target: "celeriac::panic", "Panic: {text}"),
        }
    }));
}
