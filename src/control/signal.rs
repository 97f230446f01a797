//! [`Signal`]: the signal that a running task is to be ended with.

use std::fmt;

use rustix::process::Signal as Unix;

use super::{Result, raise};
use crate::protocol::Value;

/// A signal by number. A handler on Tokio cannot be sent one: it stands for the wish, and is what log and events show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal(i64);

/// Those that Python's module `signal` names on every Unix.
const NAMES: &[(&str, Unix)] = &[
    ("ABRT", Unix::ABORT),
    ("ALRM", Unix::ALARM),
    ("BUS", Unix::BUS),
    ("CHLD", Unix::CHILD),
    ("CONT", Unix::CONT),
    ("FPE", Unix::FPE),
    ("HUP", Unix::HUP),
    ("ILL", Unix::ILL),
    ("INT", Unix::INT),
    ("IO", Unix::IO),
    ("KILL", Unix::KILL),
    ("PIPE", Unix::PIPE),
    ("PROF", Unix::PROF),
    ("QUIT", Unix::QUIT),
    ("SEGV", Unix::SEGV),
    ("STOP", Unix::STOP),
    ("SYS", Unix::SYS),
    ("TERM", Unix::TERM),
    ("TRAP", Unix::TRAP),
    ("TSTP", Unix::TSTP),
    ("TTIN", Unix::TTIN),
    ("TTOU", Unix::TTOU),
    ("URG", Unix::URG),
    ("USR1", Unix::USR1),
    ("USR2", Unix::USR2),
    ("VTALRM", Unix::VTALARM),
    ("WINCH", Unix::WINCH),
    ("XCPU", Unix::XCPU),
    ("XFSZ", Unix::XFSZ),
];

impl Signal {
    /// The signal's number.
    pub fn number(self) -> i64 {
        self.0
    }

    /// Reads a number, or a name with or without `SIG`; nothing stands for `SIGTERM` (celery/platforms.py
    /// `Signals.signum`).
    ///
    /// # Errors
    /// Python's `TypeError` or `AttributeError`.
    pub fn read(value: &Value) -> Result<Self> {
        match value {
            Value::Int(number) => Ok(Signal(*number)),
            value if !value.is_truthy() => Ok(Signal::default()),
            Value::String(name) if is_upper(name) => Signal::named(name),
            _ => raise("TypeError", "signal name must be uppercase string."),
        }
    }

    fn named(name: &str) -> Result<Self> {
        let short = name.strip_prefix("SIG").unwrap_or(name);
        match NAMES.iter().find(|(known, _)| *known == short) {
            Some((_, signal)) => Ok(Signal(signal.as_raw().into())),
            None => raise("AttributeError", format!("module 'signal' has no attribute 'SIG{short}'")),
        }
    }
}

impl Default for Signal {
    fn default() -> Self {
        Signal(Unix::TERM.as_raw().into())
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Python's `str.isupper`.
fn is_upper(text: &str) -> bool {
    text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_as_celery_reads_them() {
        let rows: [(Value, std::result::Result<i64, &str>); 8] = [
            (Value::Null, Ok(15)),
            ("".into(), Ok(15)),
            ("SIGTERM".into(), Ok(15)),
            ("KILL".into(), Ok(9)),
            (9.into(), Ok(9)),
            ("sigkill".into(), Err("TypeError('signal name must be uppercase string.')")),
            ([1].into(), Err("TypeError('signal name must be uppercase string.')")),
            ("NOPE".into(), Err("AttributeError(\"module 'signal' has no attribute 'SIGNOPE'\")")),
        ];
        for (value, expected) in rows {
            let read = Signal::read(&value).map(Signal::number).map_err(|exception| exception.to_string());
            assert_eq!(read, expected.map_err(str::to_owned), "{value:?}");
        }
    }
}
