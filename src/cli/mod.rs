//! Celery's command line for a program of one's own: [`run`].
//!
//! ```no_run
//! use celeriac::App;
//!
//! fn main() -> std::process::ExitCode {
//!     celeriac::cli::run(App::new("shop"))
//! }
//! ```
//!
//! What an option, its help and its environment variable are is said once, in `options`; what Celery has and this has
//! not, in `refused`. Nothing below this room prints, reads the environment or heeds a signal.

mod advice;
mod autoscale;
mod banner;
mod beat;
mod client;
mod dead_letters;
mod failure;
mod host;
pub mod log;
mod memory;
mod node;
mod options;
mod pidfile;
mod probe;
mod refused;
mod settings;
mod signals;
mod supervisor;
mod worker;

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use crate::app::App;
use failure::{Failure, say};
pub use host::{BeatStart, Beating, Host, Hosted, Reads, Start, run_hosted};
use options::{Command, CommandLine, GlobalOptions};

/// Runs the program's command line, as `celery` runs its own, and returns what `main` is to return.
///
/// The exit codes are Celery's: 0 for success and for a shutdown on request, 1 for a failure and after Ctrl+C, 2 for a
/// command line that is wrong, 69 where nobody answers `inspect`, `control` or `status`, 73 for a pidfile that another process holds. Errors are one line on standard error.
pub fn run(app: App) -> ExitCode {
    run_for(Some(app), None, env::args_os()).unwrap_or_else(|failure| failure.report())
}

/// The same for the program `celeriac`, which has no tasks: what works on the broker alone works, and `worker` says what
/// is missing.
pub fn run_without_app() -> ExitCode {
    run_for(None, None, env::args_os()).unwrap_or_else(|failure| failure.report())
}

/// Why `celeriac worker` starts none.
const NO_TASKS: &str = "this program has no tasks: a worker of Rust tasks is a program of your own, whose main() calls \
                        celeriac::cli::run (README.md shows one)";

/// Whose tasks a command line is about.
#[derive(Debug, Clone, Copy)]
enum Whose {
    /// Those of the program.
    Program,
    /// Nobody's: the program has none.
    Nobody,
    /// Those of an app in another language.
    Host(Reads),
}

fn run_for(
    app: Option<App>,
    host: Option<Host<'_>>,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<ExitCode, Failure> {
    let whose = match (&app, &host) {
        (_, Some(host)) => Whose::Host(host.reads),
        (None, None) => Whose::Nobody,
        (Some(_), None) => Whose::Program,
    };
    let Some((global, command)) = read(whose, arguments)? else { return Ok(ExitCode::SUCCESS) };
    match command {
        Command::Worker(arguments) => {
            worker::run(app.ok_or_else(|| Failure::usage(NO_TASKS))?, host, &global, &arguments)
        }
        Command::Beat(arguments) => beat::run(app.ok_or_else(|| Failure::usage(NO_TASKS))?, host, &global, &arguments),
        command => run_client(app.unwrap_or_else(|| App::new("celeriac")), &global, command),
    }
}

/// What the command line asks for; nothing when that was help or the version, which are said here. What describes the
/// command line, which is large, is gone when this returns: a worker may run for long.
fn read(
    whose: Whose,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Option<(GlobalOptions, Command)>, Failure> {
    let mut command = refused::declare(CommandLine::command());
    if let Whose::Host(reads) = whose {
        command = reads.put_in(command);
    }
    let matches = match command.try_get_matches_from_mut(arguments) {
        Ok(matches) => matches,
        Err(error) if error.use_stderr() => return Err(failure::from_clap(&error, whose)),
        Err(help) => {
            say(help.to_string().trim_end());
            return Ok(None);
        }
    };
    if let Some(refusal) = refused::refusal(&matches, whose) {
        return Err(Failure::usage(refusal));
    }
    let line = CommandLine::from_arg_matches(&matches).map_err(|error| failure::from_clap(&error, whose))?;
    if line.global.version {
        say(&format!("{} (celeriac)", env!("CARGO_PKG_VERSION")));
        return Ok(None);
    }
    if line.command.is_none() {
        say(command.render_help().to_string().trim_end());
    }
    Ok(line.command.map(|command| (line.global, command)))
}

/// Runs a command that needs no tasks.
fn run_client(app: App, global: &GlobalOptions, command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Worker(_) | Command::Beat(_) => Err(Failure::usage(NO_TASKS)),
        Command::Inspect(arguments) => client::inspect(app, global, &arguments),
        Command::Control(arguments) => client::control(app, global, &arguments),
        Command::Status(arguments) => client::status(app, global, &arguments),
        Command::Purge(arguments) => client::purge(app, global, &arguments),
        Command::Call(arguments) => client::call(app, global, &arguments),
        Command::Result(arguments) => client::result(app, global, &arguments),
        Command::Events(arguments) => client::events(app, global, &arguments),
        Command::Top(arguments) => client::top(app, global, &arguments),
        Command::List(arguments) => client::list(app, global, &arguments),
        Command::Probe(arguments) => probe::run(app, global, &arguments),
        Command::Report => client::report(app, global),
        Command::DeadLetters(arguments) => dead_letters::run(app, global, &arguments),
    }
}
