//! [`Failure`]: why the program ends before it worked, in one line, and with which exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::{Whose, refused};
use crate::Error;

/// What a shell sees (celery/platforms.py `EX_…`, and click's own 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Code {
    /// Something went wrong, or Ctrl+C ended it.
    Failure = 1,
    /// The command line is wrong.
    Usage = 2,
    /// Nobody answers: the broker, or the workers.
    Unavailable = 69,
    /// The pidfile names a live process.
    CannotCreate = 73,
}

/// Why the program ends.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) message: String,
    pub(super) code: Code,
}

impl Failure {
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Failure { message: message.into(), code: Code::Usage }
    }

    /// For a command that asks workers: nothing came of it (celery/bin/base.py `handle_remote_command_error`).
    pub(super) fn unavailable(error: Error) -> Self {
        Failure { message: error.to_string(), code: Code::Unavailable }
    }

    /// Says so on standard error.
    pub(super) fn report(&self) -> ExitCode {
        say_error(&self.message);
        ExitCode::from(self.code as u8)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure { message: error.to_string(), code: Code::Failure }
    }
}

/// What clap has to say, in one line, without the usage that `--help` shows.
pub(super) fn from_clap(error: &clap::Error, whose: Whose) -> Failure {
    if let (ErrorKind::UnknownArgument, Some(ContextValue::String(argument))) =
        (error.kind(), error.get(ContextKind::InvalidArg))
        && let Some(message) = refused::misplaced(argument, whose)
    {
        return Failure::usage(message);
    }
    let text = error.to_string();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let told = lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"));
    let useful = told.filter(|line| !line.starts_with("tip: to pass"));
    let line = useful.map(|line| line.trim_start_matches("error: ").trim_start_matches("tip: ")).collect::<Vec<_>>();
    Failure::usage(line.join("; "))
}

fn say_error(message: &str) {
    // If nobody listens on standard error, nobody can be told.
    let _ = writeln!(io::stderr().lock(), "celeriac: error: {message}");
}

/// Says something on standard error that ends nothing.
pub(super) fn warn(message: &str) {
    // If nobody listens on standard error, nobody can be told.
    let _ = writeln!(io::stderr().lock(), "celeriac: warning: {message}");
}

/// Writes bytes to standard output as they are.
pub(super) fn write(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(bytes).and_then(|()| out.flush());
}

/// Writes to standard output; that nobody listens is no reason to stop.
pub(super) fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}
