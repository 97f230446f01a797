//! `probe`: asks a worker on this machine how it is, for supervisors that run a command (Kubernetes' `exec` probes, Docker's
//! `HEALTHCHECK`). It needs neither Python nor the broker.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::failure::{Code, Failure, say};
use super::options::{GlobalOptions, http_address};
use super::settings;
use super::worker::change_to;
use crate::app::App;
use crate::http::{self, Answer};

/// What stands after `probe`.
#[derive(Debug, Args)]
#[command(args_override_self = true)]
pub(super) struct ProbeArguments {
    /// livez: its loop moves; readyz: it takes messages and runs them; startupz: it has done so.
    #[arg(value_name = "PROBE", default_value = "livez", hide_possible_values = true)]
    probe: Probe,
    /// Where the worker shows it [default: the setting worker_http, or else 127.0.0.1:9808].
    #[arg(long, value_name = "HOST:PORT", value_parser = http_address, env = "CELERY_WORKER_HTTP", hide_env = true)]
    http: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Probe {
    Livez,
    Readyz,
    Startupz,
}

/// Prints what the worker says. Exit code 0: it is well; 1: it is not, or does not answer.
pub(super) fn run(mut app: App, global: &GlobalOptions, arguments: &ProbeArguments) -> Result<ExitCode, Failure> {
    if let Some(folder) = &global.workdir {
        change_to(folder)?;
    }
    settings::gather_global(app.config_mut(), global)?;
    let address = arguments.http.as_deref().filter(|address| !address.is_empty());
    let address = address.or(app.config().worker_http.as_deref()).unwrap_or(http::DEFAULT_ADDRESS);
    let path = match arguments.probe {
        Probe::Livez => "/livez",
        Probe::Readyz => "/readyz",
        Probe::Startupz => "/startupz",
    };
    let Answer { is_good, text } = http::ask(address, path)?;
    say(text.lines().next().unwrap_or_default());
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::from(Code::Failure as u8) })
}
