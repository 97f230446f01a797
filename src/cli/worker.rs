//! `worker`: starts a worker, and stops it as signals say.

use std::env;
use std::io::{self, IsTerminal};
use std::num::NonZero;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;

use tokio::runtime::{Builder, Runtime};

use super::advice;
use super::autoscale::Bounds;
use super::banner::Banner;
use super::beat::Embedded;
use super::failure::{Code, Failure, say};
use super::host::{Host, Start};
use super::log::{self, Level, LogOptions};
use super::memory;
use super::node::NodeName;
use super::options::{GlobalOptions, WorkerArguments, names};
use super::pidfile::Pidfile;
use super::settings;
use super::signals::Signals;
use super::supervisor::{Ending, Supervisor};
use crate::app::App;
use crate::config::Config;
use crate::time::{Clock, zone};
use crate::worker::{Worker, WorkerOptions};
use crate::{Error, ErrorKind, Result};

/// Where the tasks of a program in Rust run.
const TOKIO: &str = "tokio";

/// Runs the command until the worker has stopped.
pub(super) fn run(
    mut app: App,
    mut host: Option<Host<'_>>,
    global: &GlobalOptions,
    arguments: &WorkerArguments,
) -> Result<ExitCode, Failure> {
    let started_in = env::current_dir();
    if let Some(folder) = &global.workdir {
        change_to(folder)?;
    }
    let warnings = settings::gather(app.config_mut(), global, arguments)?;
    let node = NodeName::new(arguments.worker.hostname.as_deref(), &hostname())?;
    let log_options = log_options(&app, global, arguments, &node)?;
    let pool = host.as_ref().map_or(TOKIO, |host| host.pool).to_owned();
    let line = host.as_mut().and_then(|host| host.line.take());
    if let Some(host) = host {
        let Some(prepared) = prepare(app, host, &node, &log_options)? else {
            memory::give_back_pages();
            return Ok(ExitCode::SUCCESS);
        };
        app = prepared;
        settings::insist(app.config_mut(), global, arguments)?;
        if app.keeper().is_some() {
            // The host keeps the results where the environment says, which is nowhere that we know.
            app.config_mut().result_backend = None;
        }
        if pool == "solo" {
            // As in Celery, whatever was asked for.
            app.config_mut().worker_concurrency = Some(1);
        }
    }
    // The first thread is that of the log.
    let log = log::install(&log_options, app.config())?;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let pidfile = pidfile(app.config(), arguments, &node)?;
    let state_db = arguments.worker.statedb.as_ref().or(app.config().worker_state_db.as_ref());
    let state_db = state_db.filter(|file| !file.is_empty());
    app.config_mut().worker_state_db = state_db.map(|file| node.expand(file)).transpose()?;
    let runtime = runtime(&app)?;
    let ending = runtime.block_on(serve(app, &pool, line, global, arguments, &node))?;
    let is_told = !log.is_file();
    // Handlers that block cannot be stopped; the process does not wait for those that a cold shutdown left behind.
    runtime.shutdown_background();
    drop((pidfile, log));
    match ending {
        Ending::Stopped(code) => Ok(ExitCode::from(code)),
        Ending::Failed(_) if is_told => Ok(ExitCode::from(Code::Failure as u8)),
        Ending::Failed(failure) => Err(failure),
        Ending::Restart => Err(restart(started_in.as_deref().unwrap_or(Path::new("/")))),
    }
}

/// Lets a host put its tasks in.
fn prepare(mut app: App, host: Host<'_>, node: &NodeName, log: &LogOptions) -> Result<Option<App>> {
    app.config_mut().worker_concurrency.get_or_insert(host.concurrency);
    let hostname = node.to_string();
    let start = Start { hostname: &hostname, loglevel: log.level, logfile: log.file.clone(), no_color: log.no_color };
    (host.prepare)(app, &start)
}

async fn serve(
    app: App,
    pool: &str,
    line: Option<UnixStream>,
    global: &GlobalOptions,
    arguments: &WorkerArguments,
    node: &NodeName,
) -> Result<Ending, Failure> {
    let signals = line.map_or_else(Signals::heed, Signals::by_line)?;
    let soft = app.config().worker_soft_shutdown_timeout;
    let mut supervisor = Supervisor::new(signals, is_remapped(), soft, app.observer());
    let selected = names(arguments.queues.queues.as_deref());
    let queues = app.config().consume_from(&selected, &names(arguments.queues.exclude_queues.as_deref()))?;
    let queues = app.consumes(queues);
    let options = WorkerOptions { hostname: node.to_string(), queues, seed: fastrand::u64(..) };
    let worker = Worker::new(app.clone(), options.clone())?;
    let worker = match &arguments.features {
        features if features.without_heartbeat => worker.with_heartbeat(None),
        // As in Celery, 0 stands for the default.
        features => match features.heartbeat_interval.filter(|interval| !interval.is_zero()) {
            Some(interval) => worker.with_heartbeat(Some(interval)),
            None => worker,
        },
    };
    let autoscale = arguments.features.autoscale.map(Bounds::autoscale).transpose()?;
    let worker = worker.with_autoscale(autoscale);
    let worker = worker.with_mingle(!arguments.features.without_mingle).with_gossip(!arguments.features.without_gossip);
    if arguments.queues.purge
        && let Some(ending) = supervisor.purge(&worker).await?
    {
        return Ok(ending);
    }
    if !global.quiet {
        say(&banner(&app, pool, &worker, &options, global, arguments).to_string());
    }
    advice::give(app.config(), &options.queues, &worker.backend_uri());
    // A host has a beat of its own.
    let beat = if pool == TOKIO { Embedded::start(&app, &arguments.beat)? } else { None };
    let ending = supervisor.run(worker).await;
    if let Some(beat) = beat {
        beat.end().await;
    }
    Ok(ending)
}

fn banner<'a>(
    app: &'a App,
    pool: &str,
    worker: &Worker,
    options: &'a WorkerOptions,
    global: &GlobalOptions,
    arguments: &WorkerArguments,
) -> Banner<'a> {
    let now = Clock::system().now().to_zoned(zone::local());
    let shows_tasks = arguments.worker.loglevel <= Level::Info;
    Banner {
        node: &options.hostname,
        version: env!("CARGO_PKG_VERSION"),
        platform: format!("{}-{} {}", env::consts::OS, env::consts::ARCH, now.strftime("%Y-%m-%d %H:%M:%S")),
        app: app.name(),
        transport: worker.broker_uri(),
        results: worker.backend_uri(),
        concurrency: concurrency(worker, pool),
        task_events: app.config().worker_send_task_events,
        queues: &options.queues,
        tasks: shows_tasks.then(|| tasks(app, arguments.worker.loglevel)),
        colored: !global.no_color && arguments.daemon.logfile.is_none() && io::stdout().is_terminal(),
    }
}

/// Celery's own are for those who look into it (celery/apps/worker.py `Worker.tasklist`).
fn tasks(app: &App, level: Level) -> Vec<&str> {
    let mut names = app.tasks().names();
    names.retain(|name| level == Level::Debug || !name.starts_with("celery."));
    names
}

/// celery/apps/worker.py `Worker.startup_info`.
fn concurrency(worker: &Worker, pool: &str) -> String {
    match worker.autoscale() {
        None => format!("{} ({pool})", worker.concurrency()),
        Some(bounds) => format!("{{min={}, max={}}} ({pool})", bounds.min, bounds.max),
    }
}

fn log_options(app: &App, global: &GlobalOptions, arguments: &WorkerArguments, node: &NodeName) -> Result<LogOptions> {
    let file = arguments.daemon.logfile.as_ref().or(app.config().worker_logfile.as_ref());
    let file = file.map(|file| node.expand(file)).transpose()?.map(PathBuf::from);
    Ok(LogOptions { level: arguments.worker.loglevel, file, no_color: global.no_color, service: app.name().to_owned() })
}

fn pidfile(config: &Config, arguments: &WorkerArguments, node: &NodeName) -> Result<Option<Pidfile>, Failure> {
    let file = arguments.daemon.pidfile.as_ref().or(config.worker_pidfile.as_ref());
    let Some(file) = file.map(|file| node.expand(file)).transpose()? else { return Ok(None) };
    Pidfile::create(Path::new(&file), |note| tracing::warn!("{note}")).map(Some)
}

/// The threads of the processors run what is async; those for blocking handlers come and go with them. How many there are
/// is the pool's to say, which may grow.
fn runtime(app: &App) -> Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    if let Some(threads) = threads(app) {
        builder.worker_threads(threads);
    }
    let built = builder.enable_all().max_blocking_threads(MOST_THREADS).build();
    built.map_err(|error| Error::new(ErrorKind::Io, "start the runtime's threads").with_source(error))
}

/// Where other processes run all tasks, they need the processors: what the worker does for a task takes less time than the
/// task's own run, and each more of its threads is waked, and wakes the others, for a part of that. `None`: as Tokio has it,
/// and `TOKIO_WORKER_THREADS` says.
fn threads(app: &App) -> Option<usize> {
    let runs_itself = |name: &&str| app.tasks().task(name).is_some_and(|task| task.pool().is_none());
    if env::var_os("TOKIO_WORKER_THREADS").is_some()
        || app.tasks().is_empty()
        || app.tasks().names().iter().any(runs_itself)
    {
        return None;
    }
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    Some(processors.div_ceil(2))
}

/// More than any pool of blocking handlers has places.
const MOST_THREADS: usize = 65_536;

pub(super) fn change_to(folder: &Path) -> Result<()> {
    env::set_current_dir(folder).map_err(|error| {
        Error::new(ErrorKind::Io, format!("change to the directory {}", folder.display())).with_source(error)
    })
}

pub(super) fn hostname() -> String {
    hostname::get().map_or_else(|_| "localhost".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// billiard/common.py `REMAP_SIGTERM`.
fn is_remapped() -> bool {
    env::var("REMAP_SIGTERM").is_ok_and(|name| name == "SIGQUIT")
}

/// Begins anew, as the same process. It returns only when that fails.
fn restart(folder: &Path) -> Failure {
    let mut arguments = env::args_os();
    let program = arguments.next().unwrap_or_default();
    let error = Command::new(program).args(arguments).current_dir(folder).exec();
    Error::new(ErrorKind::Io, "start the program again").with_source(error).into()
}
