//! [`Host`]: a program that has tasks of another language, and runs this command line for them.

use std::ffi::OsString;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

use super::log::Level;
use super::run_for;
use crate::Result;
use crate::app::App;

/// What a program of another language puts in.
pub struct Host<'a> {
    /// What the banner calls the place where its tasks run: `prefork`.
    pub pool: &'a str,
    /// How many tasks run at a time where nothing says so.
    pub concurrency: u32,
    /// Called once for a worker, when its settings are known and before it has any thread: what is to be forked is forked
    /// here. The app comes back with its tasks; or nothing, if another program is found to be the one that runs this worker.
    pub prepare: &'a mut dyn FnMut(App, &Start<'_>) -> Result<Option<App>>,
    /// Where the worker is one of many things in its process: it heeds no signals, and ends warmly when the other end of
    /// this is closed. `None`: the process is the worker's own.
    pub line: Option<UnixStream>,
}

/// What is known of a worker that is about to start.
#[derive(Debug)]
pub struct Start<'a> {
    /// The node name.
    pub hostname: &'a str,
    /// How much is logged.
    pub loglevel: Level,
    /// The file that is logged to; `None`: standard error.
    pub logfile: Option<PathBuf>,
    /// No colours are wanted.
    pub no_color: bool,
}

/// Runs the command line of such a program: see [`run`](super::run).
pub fn run_hosted(app: App, host: Host<'_>, arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    run_for(Some(app), Some(host), arguments).unwrap_or_else(|failure| failure.report())
}
