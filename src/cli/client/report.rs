//! `report`: what a bug report should say (celery/app/utils.py `bugreport`).

use std::process::ExitCode;

use super::Client;
use crate::app::{App, bug_report, parts};
use crate::cli::failure::{Failure, say};
use crate::cli::options::GlobalOptions;
use crate::time::Clock;

/// Runs the command. Nothing is connected to.
pub(in crate::cli) fn run(app: App, global: &GlobalOptions) -> Result<ExitCode, Failure> {
    let app = Client::new(app, global)?.app;
    let transport = parts::write_transport(app.config(), Clock::system(), fastrand::u64(..))?;
    let backend = parts::backend(app.config())?;
    say(&bug_report(&app, &transport.uri(), &backend.uri()));
    Ok(ExitCode::SUCCESS)
}
