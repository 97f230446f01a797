//! What a Rust error is to Python: the conversions of errors to [`Exception`] and [`Interrupt`].

use std::any::type_name;
use std::error::Error as StdError;
use std::panic::Location;
use std::{env, io, net, num, str, string};

use super::{Interrupt, python_names};
use crate::protocol::{Exception, Value};

/// What every error can become, `anyhow::Error` and plain text included.
type BoxedError = Box<dyn StdError + Send + Sync>;

/// How many causes of an error are told.
const MOST_CAUSES: usize = 16;

/// Any error, and text. The class that clients see is, first match wins:
///
/// | error | class |
/// |---|---|
/// | [`io::Error`] | `OSError`'s subclass for its kind, with `errno` where the system gave one |
/// | numbers, booleans, characters, durations or addresses that do not parse | `ValueError` |
/// | a number out of range | `OverflowError` |
/// | text that is not UTF-8 | `UnicodeError` |
/// | a time-out of std or Tokio | `TimeoutError` |
/// | a type that is called as a Python builtin, such as your own `KeyError` | that builtin |
/// | text, boxed errors, `anyhow::Error` | `RuntimeError` |
/// | a type called `Error` | the crate's name: `serde_json`'s is `SerdeJsonError` |
/// | any other | the type's name |
///
/// Python makes a class under `celery.exceptions` for a name that it does not know.
impl<E: Into<BoxedError>> From<E> for Exception {
    fn from(error: E) -> Self {
        exception_of(&*error.into(), type_name::<E>())
    }
}

impl<E: Into<BoxedError>> From<E> for Interrupt {
    #[track_caller]
    fn from(error: E) -> Self {
        failure_here(Exception::from(error))
    }
}

impl From<Exception> for Interrupt {
    #[track_caller]
    fn from(exception: Exception) -> Self {
        failure_here(exception)
    }
}

/// A failure whose traceback is the caller's place: where a handler wrote `?` or `.into()`.
#[track_caller]
fn failure_here(exception: Exception) -> Interrupt {
    let place = Location::caller();
    let traceback = traceback(place.file(), place.line(), &exception);
    Interrupt::Failure { exception, traceback: Some(traceback) }
}

/// The text that stands in for a Python traceback: the one frame that is known, in Python's form.
pub(super) fn traceback(file: &str, line: u32, exception: &Exception) -> String {
    format!("Traceback (most recent call last):\n  File \"{file}\", line {line}\n{}\n", headline(exception))
}

/// A traceback's last line: `ValueError: bad`.
fn headline(exception: &Exception) -> String {
    let module = exception.exc_module.as_deref().filter(|module| *module != "builtins");
    let class = module.map(|module| format!("{module}.")).unwrap_or_default() + &exception.exc_type;
    match exception.message() {
        message if message.is_empty() => class,
        message => format!("{class}: {message}"),
    }
}

fn exception_of(error: &(dyn StdError + Send + Sync + 'static), type_name: &str) -> Exception {
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return os_error(error);
    }
    let message = message(error);
    match builtin_of(error) {
        Some(class) => Exception::new(class, message),
        None => {
            let (class, module) = python_names::class_of(type_name);
            Exception::with_args(class, module, [message])
        }
    }
}

/// The error's text, followed by those of its causes that it does not repeat.
fn message(error: &(dyn StdError + 'static)) -> String {
    let mut message = error.to_string();
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    for cause in causes.take(MOST_CAUSES) {
        let text = cause.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
    }
    message
}

/// Errors of the standard library and of Tokio for which Python has a class of its own.
fn builtin_of(error: &(dyn StdError + Send + Sync + 'static)) -> Option<&'static str> {
    let is_value_error = error.is::<num::ParseIntError>()
        || error.is::<num::ParseFloatError>()
        || error.is::<str::ParseBoolError>()
        || error.is::<std::char::ParseCharError>()
        || error.is::<std::time::TryFromFloatSecsError>()
        || error.is::<net::AddrParseError>();
    let is_unicode_error = error.is::<str::Utf8Error>()
        || error.is::<string::FromUtf8Error>()
        || error.is::<string::FromUtf16Error>()
        || error.is::<std::ffi::IntoStringError>();
    let is_timeout = error.is::<tokio::time::error::Elapsed>() || error.is::<std::sync::mpsc::RecvTimeoutError>();
    match () {
        () if is_value_error => Some("ValueError"),
        () if is_unicode_error => Some("UnicodeError"),
        () if is_timeout => Some("TimeoutError"),
        () if error.is::<num::TryFromIntError>() => Some("OverflowError"),
        () if error.is::<env::VarError>() => Some("KeyError"),
        () => None,
    }
}

/// Python's `OSError(errno, strerror)`, or with the text alone where there is no `errno`.
fn os_error(error: &io::Error) -> Exception {
    let class = os_error_class(error.kind());
    let text = message(error);
    let Some(errno) = error.raw_os_error() else {
        return Exception::new(class, text);
    };
    let reason = text.split(" (os error").next().unwrap_or_default();
    Exception::with_args(class, "builtins", [Value::from(errno), reason.into()])
}

fn os_error_class(kind: io::ErrorKind) -> &'static str {
    use io::ErrorKind;
    match kind {
        ErrorKind::NotFound => "FileNotFoundError",
        ErrorKind::PermissionDenied => "PermissionError",
        ErrorKind::AlreadyExists => "FileExistsError",
        ErrorKind::ConnectionRefused => "ConnectionRefusedError",
        ErrorKind::ConnectionReset => "ConnectionResetError",
        ErrorKind::ConnectionAborted => "ConnectionAbortedError",
        ErrorKind::BrokenPipe => "BrokenPipeError",
        ErrorKind::NotADirectory => "NotADirectoryError",
        ErrorKind::IsADirectory => "IsADirectoryError",
        ErrorKind::WouldBlock => "BlockingIOError",
        ErrorKind::Interrupted => "InterruptedError",
        ErrorKind::TimedOut => "TimeoutError",
        ErrorKind::UnexpectedEof => "EOFError",
        _ => "OSError",
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    fn check<E: Into<BoxedError>>(error: E, module: &str, class: &str, args: &[Value]) {
        let exception = Exception::from(error);
        assert_eq!(exception.exc_type, class);
        assert_eq!(exception.exc_module.as_deref(), Some(module), "{class}");
        assert_eq!(exception.exc_message, args, "{class}");
    }

    fn text(text: &str) -> Value {
        Value::String(text.to_owned())
    }

    #[derive(Debug)]
    struct PaymentError(Option<num::ParseIntError>);

    impl fmt::Display for PaymentError {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("card refused")
        }
    }

    impl StdError for PaymentError {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            self.0.as_ref().map(|cause| cause as _)
        }
    }

    #[test]
    fn names_the_class_that_python_users_expect() {
        let digits = "x".parse::<i32>().unwrap_err();
        let refused = io::Error::new(io::ErrorKind::ConnectionRefused, "nobody there");
        let invalid = vec![0xff];
        check(digits.clone(), "builtins", "ValueError", &[text("invalid digit found in string")]);
        check("x".parse::<f64>().unwrap_err(), "builtins", "ValueError", &[text("invalid float literal")]);
        check(
            u8::try_from(300).unwrap_err(),
            "builtins",
            "OverflowError",
            &[text("out of range integral type conversion attempted")],
        );
        check(
            String::from_utf8(invalid).unwrap_err(),
            "builtins",
            "UnicodeError",
            &[text("invalid utf-8 sequence of 1 bytes from index 0")],
        );
        check(refused, "builtins", "ConnectionRefusedError", &[text("nobody there")]);
        check(
            io::Error::from_raw_os_error(2),
            "builtins",
            "FileNotFoundError",
            &[Value::Int(2), text("No such file or directory")],
        );
        check("no class at all", "builtins", "RuntimeError", &[text("no class at all")]);
        check(Box::<dyn StdError + Send + Sync>::from("boxed"), "builtins", "RuntimeError", &[text("boxed")]);
        check(
            serde_json::from_str::<i32>("x").unwrap_err(),
            "celery.exceptions",
            "SerdeJsonError",
            &[text("expected value at line 1 column 1")],
        );
        check(PaymentError(None), "celery.exceptions", "PaymentError", &[text("card refused")]);
        check(
            PaymentError(Some(digits)),
            "celery.exceptions",
            "PaymentError",
            &[text("card refused: invalid digit found in string")],
        );
    }

    #[test]
    fn a_question_mark_tells_its_place() {
        fn parse(digits: &str) -> Result<i32, Interrupt> {
            Ok(digits.parse::<i32>()?)
        }
        let Err(Interrupt::Failure { traceback: Some(traceback), .. }) = parse("x") else { panic!("no failure") };
        assert!(traceback.contains(&format!("File \"{}\", line ", file!())), "{traceback}");
    }
}
