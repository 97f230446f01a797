//! Panics of handlers: each is its own task's failure and nothing else.
//!
//! A panic's payload does not say where it happened, only the panic hook is told. So a guarded run marks its thread,
//! and the hook leaves the place for the guard to find, on the same thread.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Once;
use std::task::Poll;

use futures_util::FutureExt;
use futures_util::future::poll_fn;

use super::Outcome;
use super::failure::traceback;
use crate::protocol::Exception;

thread_local! {
    /// Whether a guarded run is on this thread's stack.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
    /// Where the last guarded run of this thread panicked; the guard takes it.
    static PLACE: RefCell<Option<Place>> = const { RefCell::new(None) };
}

struct Place {
    file: String,
    line: u32,
    column: u32,
    /// Where `RUST_BACKTRACE` asks for one.
    backtrace: Option<String>,
}

/// The failure that a panic is, from what [`catch_unwind`] or Tokio's `JoinError::into_panic` gives.
///
/// Clients raise `RuntimeError("panicked at src/tasks.rs:12:5: message")`: a panic has no class that Python could know.
/// The place is there for a run that was [guarded](super::Run::guarded), and on the thread that the panic was on.
pub fn outcome_of_panic(payload: Box<dyn Any + Send>) -> Outcome {
    let message = message(payload.as_ref());
    let Some(place) = PLACE.take() else {
        return Outcome::failure(runtime_error(format!("panicked: {message}")));
    };
    let Place { file, line, column, backtrace } = place;
    let exception = runtime_error(format!("panicked at {file}:{line}:{column}: {message}"));
    let traceback = traceback(&file, line, &exception) + &backtrace.unwrap_or_default();
    Outcome::Failure { exception, traceback: Some(traceback) }
}

fn runtime_error(text: String) -> Exception {
    Exception::new("RuntimeError", text)
}

/// What was handed to `panic!`, if it is text.
fn message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("with a value that is no text")
}

/// Calls `function`; a panic is a failure.
pub(super) fn guard_call(function: impl FnOnce() -> Outcome) -> Outcome {
    catch(function).unwrap_or_else(outcome_of_panic)
}

/// Awaits `future`; a panic is a failure.
pub(super) async fn guard_future(mut future: impl Future<Output = Outcome> + Unpin) -> Outcome {
    poll_fn(move |context| {
        catch(|| future.poll_unpin(context)).unwrap_or_else(|payload| Poll::Ready(outcome_of_panic(payload)))
    })
    .await
}

fn catch<T>(function: impl FnOnce() -> T) -> std::thread::Result<T> {
    note_places_of_panics();
    let outer = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(function));
    GUARDED.set(outer);
    if result.is_ok() {
        // A panic that the handler caught itself is nobody's failure.
        PLACE.set(None);
    }
    result
}

/// Puts a hook before the present one, once in the life of the process.
fn note_places_of_panics() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if GUARDED.get() {
                PLACE.set(place(info));
            }
            previous(info);
        }));
    });
}

fn place(info: &PanicHookInfo<'_>) -> Option<Place> {
    let location = info.location()?;
    let backtrace = Backtrace::capture();
    let captured = backtrace.status() == BacktraceStatus::Captured;
    Some(Place {
        file: location.file().to_owned(),
        line: location.line(),
        column: location.column(),
        backtrace: captured.then(|| backtrace.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Value;
    use crate::task::Run;

    fn text(outcome: Outcome) -> String {
        let Outcome::Failure { exception, .. } = outcome else { panic!("no failure: {outcome:?}") };
        assert_eq!((exception.exc_type.as_str(), exception.exc_module.as_deref()), ("RuntimeError", Some("builtins")));
        let [Value::String(text)] = exception.exc_message.as_slice() else { panic!("{exception:?}") };
        text.clone()
    }

    fn check_place(outcome: Outcome, message: &str) {
        let text = text(outcome);
        assert!(text.starts_with(&format!("panicked at {}:", file!())), "{text}");
        assert!(text.ends_with(message), "{text}");
    }

    #[tokio::test]
    async fn a_guarded_run_fails_with_the_place_and_the_message() {
        let run = Run::from_function(|| panic!("blocking {}", 1));
        let Run::Blocking(call) = run.guarded() else { unreachable!() };
        check_place(call(), ": blocking 1");

        let run = Run::from_future(async {
            tokio::task::yield_now().await;
            panic!("asynchronous")
        });
        let Run::Async(future) = run.guarded() else { unreachable!() };
        check_place(future.await, ": asynchronous");
    }

    #[test]
    fn a_panic_that_the_handler_caught_leaves_no_place_behind() {
        let run = Run::from_function(|| {
            let _ = catch_unwind(|| panic!("caught"));
            Outcome::Ignore
        });
        let Run::Blocking(call) = run.guarded() else { unreachable!() };
        assert_eq!(call(), Outcome::Ignore);
        assert_eq!(text(outcome_of_panic(Box::new("later"))), "panicked: later");
    }

    #[test]
    fn a_payload_without_place_or_text_is_a_failure_too() {
        assert_eq!(text(outcome_of_panic(Box::new("why"))), "panicked: why");
        assert_eq!(text(outcome_of_panic(Box::new(String::from("why")))), "panicked: why");
        assert_eq!(text(outcome_of_panic(Box::new(7))), "panicked: with a value that is no text");
    }
}
