//! The message of a retry: the same task again, later (celery/app/task.py `Task.retry`, `signature_from_request`).

use jiff::Timestamp;

use super::request::Work;
use crate::Result;
use crate::protocol::{DateTime, Message, Value, repr};
use crate::routing::DelayLevels;
use crate::task::{Retry, RetryTime};
use crate::transport::Publication;

/// What a broker adds when it dead-letters a message; Celery leaves these out of a retry.
pub(super) const DEATH_HEADERS: [&str; 4] =
    ["x-death", "x-first-death-exchange", "x-first-death-queue", "x-first-death-reason"];

/// A retry that is decided.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Again {
    /// The new message's `retries`.
    pub(crate) retries: u32,
    /// When it is to run.
    pub(crate) eta: Timestamp,
    /// Now.
    pub(crate) now: Timestamp,
    /// The task asks for it: what it sends has it for its parent.
    pub(crate) is_inside: bool,
}

/// When a retry decided at `now` is to run; what overflows is as late as times go.
pub(crate) fn eta(time: RetryTime, now: Timestamp) -> Timestamp {
    match time {
        RetryTime::At(eta) => eta,
        RetryTime::In(delay) => now.checked_add(delay).unwrap_or(Timestamp::MAX),
    }
}

/// The message that runs `work` again: the same id and the same headers but for those that a retry changes; the same
/// body, byte for byte, unless the handler gave other arguments.
pub(crate) fn publication(work: &Work, retry: &Retry, again: Again) -> Result<Publication> {
    let mut message = work.whole_message();
    set_headers(&mut message, work, again);
    set_expiration(&mut message, work, again.now);
    if retry.args.is_some() || retry.kwargs.is_some() {
        replace_arguments(&mut message, work, retry)?;
    }
    #[cfg(feature = "otlp")]
    if let Some(trace) = crate::trace::current() {
        trace.renew(&mut message.headers);
    }
    message.properties.redelivered = false;
    Ok(route(message, work, again))
}

fn set_headers(message: &mut Message, work: &Work, again: Again) {
    let headers = &mut message.headers;
    for name in DEATH_HEADERS {
        headers.remove(name);
    }
    headers.insert("retries", i64::from(again.retries));
    headers.insert("eta", DateTime::from(again.eta).to_string());
    headers.insert("ignore_result", work.ignore_result);
    if !again.is_inside {
        return;
    }
    // Published inside the task, so a task without a parent becomes its own, and so does one without a root
    // (celery/app/base.py `Celery.send_task`).
    let root = work.request.root_id.as_deref().unwrap_or(&work.request.id);
    for (name, id) in [("parent_id", work.request.id.as_str()), ("root_id", root)] {
        if matches!(headers.get(name), None | Some(Value::Null)) {
            headers.insert(name, id);
        }
    }
}

/// `expires` stands as it was; the property is what is left of it in milliseconds, never negative.
fn set_expiration(message: &mut Message, work: &Work, now: Timestamp) {
    if let Some(expires) = work.request.expires {
        let left = expires.duration_since(now).as_millis().max(0);
        message.properties.expiration = Some(left.to_string());
    }
}

fn replace_arguments(message: &mut Message, work: &Work, retry: &Retry) -> Result<()> {
    let mut body = work.decode()?;
    let original = crate::task::Arguments { args: body.args, kwargs: body.kwargs };
    let changed = retry.arguments(&original, work.task.task.signature());
    (body.args, body.kwargs) = (changed.args, changed.kwargs);
    message.headers.insert("argsrepr", repr::argsrepr(&body.args, repr::Limits::default()));
    message.headers.insert("kwargsrepr", repr::kwargsrepr(&body.kwargs, repr::Limits::default()));
    message.set_body(&body)
}

/// To where it came from: the default exchange routes by queue (celery/app/task.py `Context.as_execution_options`). What is
/// for later waits at the broker if what is sent to its queue does; otherwise a key that says how long it waited before
/// brings it back at once, from the delay's last exchange.
fn route(message: Message, work: &Work, again: Again) -> Publication {
    let exchange = message.properties.exchange.clone().unwrap_or_default();
    let routing_key = message.properties.routing_key.clone().unwrap_or_else(|| work.queue.to_string());
    let seconds = u64::try_from(again.eta.duration_since(again.now).as_secs()).unwrap_or(0);
    match &work.delayed_as {
        Some(queues_key) if seconds > 0 => {
            let key = if exchange.is_empty() { queues_key } else { routing_key.as_str() };
            let routing_key = DelayLevels::routing_key(seconds, key);
            Publication { exchange: DelayLevels::CELERY.entrance(), routing_key, message }
        }
        _ => Publication { exchange, routing_key, message },
    }
}
