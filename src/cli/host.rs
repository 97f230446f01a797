//! [`Host`]: a program that has tasks of another language, and runs this command line for them.

use std::ffi::OsString;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, Command};

use super::log::Level;
use super::run_for;
use crate::Result;
use crate::app::{App, Entry};
use crate::beat::{Kept, Sender, Store};

/// What a program of another language puts in.
pub struct Host<'a> {
    /// What the banner calls the place where its tasks run: `prefork`.
    pub pool: &'a str,
    /// How many tasks run at a time where nothing says so.
    pub concurrency: u32,
    /// Called once for a worker, when its settings are known and before it has any thread: what is to be forked is forked
    /// here. The app comes back with its tasks; or nothing, if another program is found to be the one that runs this worker.
    pub prepare: &'a mut dyn FnMut(App, &Start<'_>) -> Result<Option<App>>,
    /// Called once for `beat`, when its settings are known and before it has any thread: what is to be sent is found out
    /// here.
    pub beat: &'a mut dyn FnMut(&BeatStart) -> Result<Hosted>,
    /// Where the worker is one of many things in its process: it heeds no signals, and ends warmly when the other end of
    /// this is closed. `None`: the process is the worker's own.
    pub line: Option<UnixStream>,
    /// What it has read of the command line.
    pub reads: Reads,
}

/// What a host reads of the command line, and of the environment, before it hands over the rest: for `--help`, and for
/// who puts an option where it does not belong.
#[derive(Debug, Clone, Copy)]
pub struct Reads {
    /// What the program does.
    pub about: &'static str,
    /// Its options: of which command (empty: what goes before it), the long name, and the help.
    pub options: &'static [(&'static str, &'static str, &'static str)],
    /// Its commands, and what they do.
    pub commands: &'static [(&'static str, &'static str)],
}

impl Reads {
    /// Whether it reads that option, or leaves it to this command line.
    pub(super) fn has(&self, command: &str, option: &str) -> bool {
        self.options.iter().any(|(of, long, _)| *of == command && *long == option)
    }

    /// The command line with what the host says of its part.
    pub(super) fn put_in(&self, command: Command) -> Command {
        let own = |of: &'static str| move |argument: Arg| self.argument(of, argument);
        let command = command.about(self.about).mut_args(own(""));
        let command = command.mut_subcommand("worker", |worker| worker.mut_args(own("worker")));
        let command = command.mut_subcommand("beat", |beat| beat.mut_args(own("beat")));
        command.subcommands(self.commands.iter().map(|(name, about)| Command::new(*name).about(*about)))
    }

    fn argument(&self, of: &str, argument: Arg) -> Arg {
        let own = self.options.iter().find(|(command, long, _)| *command == of && argument.get_long() == Some(*long));
        match own {
            // Its variable, where it is a command's, is read as well.
            Some((_, _, help)) if !of.is_empty() => argument.help(*help).env(None::<&str>),
            Some((_, _, help)) => argument.help(*help),
            None => argument,
        }
    }
}

/// What a host has for beat.
pub enum Hosted {
    /// This is to be sent.
    Beats(Beating),
    /// Nothing: it ran a beat of its own, which ended with this exit code.
    Ended(u8),
}

/// What beat sends, and how.
pub struct Beating {
    /// The entries of the settings.
    pub entries: Vec<Entry>,
    /// What sends them.
    pub sender: Box<dyn Sender>,
    /// Where the last runs are kept; `None`: where the settings say.
    pub store: Option<Box<dyn Store>>,
    /// What the place is called, if the settings have a short name for it.
    pub scheduler: Option<String>,
    /// For a dry run: the last runs that a start would put there first. `None`: those that are there.
    pub kept: Option<Kept>,
}

/// What is known of a beat that is about to start.
#[derive(Debug)]
pub struct BeatStart {
    /// The name of the place where the last runs are kept.
    pub scheduler: String,
    /// The file, where it is one.
    pub schedule_filename: String,
    /// How long to sleep at most, if the command line says so.
    pub max_interval: Option<Duration>,
    /// How much is logged.
    pub loglevel: Level,
    /// The file that is logged to; `None`: standard error.
    pub logfile: Option<PathBuf>,
    /// The file with the process id.
    pub pidfile: Option<String>,
    /// No colours are wanted.
    pub no_color: bool,
    /// No banner is wanted.
    pub quiet: bool,
    /// Nothing is to be sent.
    pub dry_run: bool,
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
