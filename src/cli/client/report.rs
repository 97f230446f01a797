//! `report`: what a bug report should say (celery/app/utils.py `bugreport`).

use std::env::consts;
use std::process::ExitCode;

use rustix::system::uname;

use super::Client;
use crate::app::{App, parts};
use crate::cli::failure::{Failure, say};
use crate::cli::options::GlobalOptions;
use crate::time::Clock;

/// Runs the command. Nothing is connected to.
pub(in crate::cli) fn run(app: App, global: &GlobalOptions) -> Result<ExitCode, Failure> {
    let client = Client::new(app, global)?;
    let (app, system) = (&client.app, uname());
    let transport = parts::write_transport(app.config(), Clock::system(), fastrand::u64(..))?;
    let backend = parts::backend(app.config())?;
    say(&format!(
        "\nsoftware -> celeriac:{}\nplatform -> system:{} arch:{}\n            kernel version:{}\n\
         app      -> {} ({} tasks)\nsettings -> transport:{} results:{}\n",
        env!("CARGO_PKG_VERSION"),
        system.sysname().to_string_lossy(),
        consts::ARCH,
        system.release().to_string_lossy(),
        app.name(),
        app.tasks().len(),
        transport.uri(),
        backend.uri(),
    ));
    Ok(ExitCode::SUCCESS)
}
