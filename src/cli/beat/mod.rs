//! `beat`: sends periodic tasks until a signal ends it (celery/apps/beat.py); and the beat in a worker, [`Embedded`].

mod banner;
mod dry_run;
mod embedded;
mod options;
mod service;

use std::env;
use std::io::{self, IsTerminal};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use self::banner::Banner;
pub(super) use self::embedded::Embedded;
pub(super) use self::options::{BeatArguments, EmbeddedOptions};
pub(super) use self::service::{Plan, Service};
use super::failure::{Code, Failure, say};
use super::host::{BeatStart, Beating, Host, Hosted};
use super::log::{self, LogOptions};
use super::node::NodeName;
use super::options::GlobalOptions;
use super::pidfile::Pidfile;
use super::settings;
use super::worker::{change_to, hostname};
use crate::app::App;
use crate::time::Clock;
use crate::{Error, ErrorKind, Result};

/// Says to a process that it was started to run in the background.
const DETACHED: &str = "CELERIAC_DETACHED";

/// Runs the command until beat has stopped.
pub(super) fn run(
    mut app: App,
    host: Option<Host<'_>>,
    global: &GlobalOptions,
    arguments: &BeatArguments,
) -> Result<ExitCode, Failure> {
    if arguments.beat.detach && env::var_os(DETACHED).is_none() {
        return detach();
    }
    if let Some(folder) = &global.workdir {
        change_to(folder)?;
    }
    let warnings = settings::gather_beat(app.config_mut(), global, &arguments.settings)?;
    let is_quiet = global.quiet || arguments.beat.dry_run;
    if !is_quiet {
        say(&format!("celeriac beat v{} is starting.", env!("CARGO_PKG_VERSION")));
    }
    let options = &arguments.beat;
    let plan = Plan {
        scheduler: options.scheduler.clone(),
        schedule_filename: options.schedule.clone(),
        max_interval: options.max_interval,
    };
    let log_options = log_options(&app, global, arguments)?;
    let has_own_entries = host.is_some();
    let beating = match host {
        None => Beating::of(&app)?,
        Some(host) => match hosted(host, &app, &plan, &log_options, global, arguments)? {
            Hosted::Beats(beating) => beating,
            Hosted::Ended(code) => return Ok(ExitCode::from(code)),
        },
    };
    let service = Service::new(beating, app.config(), &plan)?;
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::new(ErrorKind::Io, "start the runtime").with_source(error))?;
    if let Some(end) = options.until.as_ref().filter(|_| options.dry_run) {
        let (clock, zone) = (Clock::system(), service.rules.zone.clone());
        let (start, end) = (clock.now(), dry_run::until(end, clock.now(), &zone)?);
        dry_run::print(runtime.block_on(service.foreseen(&clock))?, start, end, &zone);
        return Ok(ExitCode::SUCCESS);
    }
    let log = log::install(&log_options, app.config())?;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    if has_own_entries && !app.config().beat_schedule.is_empty() {
        tracing::warn!("beat: The settings file's beat_schedule has no effect: the app has one of its own");
    }
    let pidfile = pidfile(&app, arguments)?;
    if !is_quiet {
        let colored = !global.no_color && log_options.file.is_none() && io::stdout().is_terminal();
        say(&Banner { app: &app, service: &service, log: &log_options, colored }.to_string());
    }
    let ended = runtime.block_on(until_signal(service));
    // What is being sent at the end is not waited for any longer.
    runtime.shutdown_background();
    let is_told = !log.is_file();
    drop((pidfile, log));
    match ended {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(_) if is_told => Ok(ExitCode::from(Code::Failure as u8)),
        Err(error) => Err(error.into()),
    }
}

/// Has a host say what is to be sent.
fn hosted(
    host: Host<'_>,
    app: &App,
    plan: &Plan,
    log: &LogOptions,
    global: &GlobalOptions,
    arguments: &BeatArguments,
) -> Result<Hosted> {
    let config = app.config();
    let start = BeatStart {
        scheduler: plan.scheduler(config),
        schedule_filename: plan.schedule_filename(config),
        max_interval: plan.max_interval,
        loglevel: log.level,
        logfile: log.file.clone(),
        pidfile: pidfile_name(app, arguments),
        no_color: log.no_color,
        quiet: global.quiet,
        dry_run: arguments.beat.dry_run,
    };
    (host.beat)(&start)
}

/// Runs a beat until SIGTERM or SIGINT.
async fn until_signal(service: Service) -> Result<()> {
    let failed = |error| Error::new(ErrorKind::Io, "listen to signals").with_source(error);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let stop = CancellationToken::new();
    let mut running = std::pin::pin!(service.run(stop.clone()));
    let ended = tokio::select! {
        ended = &mut running => ended,
        _ = terminate.recv() => stopped(&stop, running).await,
        _ = interrupt.recv() => stopped(&stop, running).await,
    };
    ended.inspect_err(|error| tracing::error!(critical = true, "beat raised exception: {error}"))
}

async fn stopped(stop: &CancellationToken, running: impl Future<Output = Result<()>>) -> Result<()> {
    tracing::info!("beat: Shutting down...");
    stop.cancel();
    running.await
}

/// Starts the same program once more, on its own, and ends.
fn detach() -> Result<ExitCode, Failure> {
    let mut arguments = env::args_os();
    let program = arguments.next().unwrap_or_default();
    let program = env::current_exe().unwrap_or_else(|_| PathBuf::from(program));
    let mut command = Command::new(program);
    command.args(arguments).env(DETACHED, "1").process_group(0);
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map_err(|error| Error::new(ErrorKind::Io, "start beat in the background").with_source(error))?;
    Ok(ExitCode::SUCCESS)
}

fn log_options(app: &App, global: &GlobalOptions, arguments: &BeatArguments) -> Result<LogOptions> {
    let node = NodeName::new(None, &hostname())?;
    let file = arguments.daemon.logfile.as_ref().or(app.config().beat_logfile.as_ref());
    // An empty one is none, whatever the settings say.
    let file = file.filter(|file| !file.is_empty());
    let file = file.map(|file| node.expand(file)).transpose()?.map(PathBuf::from);
    Ok(LogOptions { level: arguments.beat.loglevel, file, no_color: global.no_color, service: app.name().to_owned() })
}

fn pidfile_name(app: &App, arguments: &BeatArguments) -> Option<String> {
    let file = arguments.daemon.pidfile.as_ref().or(app.config().beat_pidfile.as_ref());
    file.filter(|file| !file.is_empty()).cloned()
}

fn pidfile(app: &App, arguments: &BeatArguments) -> Result<Option<Pidfile>, Failure> {
    let Some(file) = pidfile_name(app, arguments) else { return Ok(None) };
    Pidfile::create(Path::new(&file), |note| tracing::warn!("{note}")).map(Some)
}
