//! The options of the command line, each defined once: parsing, help and environment variable come from here.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{BoolishValueParser, FalseyValueParser};
use clap::{Args, Parser, Subcommand};

use super::autoscale::{self, Bounds};
use super::beat::{BeatArguments, EmbeddedOptions};
use super::client::{
    CallArguments, EventsArguments, ListArguments, PurgeArguments, RemoteArguments, ResultArguments, StatusArguments,
    TopArguments,
};
use super::dead_letters::DeadLettersArguments;
use super::log::Level;
use super::probe::ProbeArguments;
use crate::config::LogLines;
use crate::http::has_port;

/// Runs Celery tasks that are written in Rust.
#[derive(Debug, Parser)]
#[command(
    name = "celeriac",
    disable_version_flag = true,
    args_override_self = true,
    after_help = "Settings come, each over the one before, from the program, the TOML file, arguments of the form\n\
                  ns.key=value, options, and from CELERY_BROKER_URL, CELERY_BROKER_READ_URL,\n\
                  CELERY_BROKER_WRITE_URL and CELERY_RESULT_BACKEND in the environment."
)]
pub(super) struct CommandLine {
    #[command(flatten)]
    pub(super) global: GlobalOptions,
    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Start a worker.
    Worker(Box<WorkerArguments>),
    /// Send periodic tasks when they are due.
    Beat(Box<BeatArguments>),
    /// Ask workers what they know.
    Inspect(Box<RemoteArguments>),
    /// Tell workers what to do.
    Control(Box<RemoteArguments>),
    /// Show the workers that are online.
    Status(StatusArguments),
    /// Throw away all waiting messages of the project's queues.
    Purge(PurgeArguments),
    /// Send a task by its name, and print its id.
    Call(Box<CallArguments>),
    /// Wait for a task and print what it returned.
    Result(ResultArguments),
    /// Print events as they come, with --dump.
    Events(EventsArguments),
    /// Watch workers and tasks.
    Top(TopArguments),
    /// Show what the broker knows.
    List(ListArguments),
    /// Ask a worker on this machine how it is, over HTTP.
    Probe(ProbeArguments),
    /// Show what a bug report should say.
    Report,
    /// Look at messages that workers gave up; put them back, or throw them away.
    DeadLetters(Box<DeadLettersArguments>),
}

/// What stands before the command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global Options")]
pub(super) struct GlobalOptions {
    /// URL of the broker; wins over every setting.
    #[arg(short, long, value_name = "URL", env = "BROKER_URL", hide_env = true)]
    pub(super) broker: Option<String>,
    /// URL of the result backend; wins over every setting.
    #[arg(long, value_name = "URL", env = "RESULT_BACKEND", hide_env = true)]
    pub(super) result_backend: Option<String>,
    /// TOML file of settings [default: celeriac.toml, where there is one].
    #[arg(long, value_name = "FILE", env = "CELERIAC_CONFIG", hide_env = true)]
    pub(super) config: Option<PathBuf>,
    /// Change to this directory first.
    #[arg(long, value_name = "DIRECTORY")]
    pub(super) workdir: Option<PathBuf>,
    /// No colours.
    #[arg(short = 'C', long, env = "NO_COLOR", hide_env = true, value_parser = FalseyValueParser::new())]
    pub(super) no_color: bool,
    /// No banner.
    #[arg(short, long, env = "CELERY_QUIET", hide_env = true, value_parser = BoolishValueParser::new())]
    pub(super) quiet: bool,
    /// Print the version.
    #[arg(long)]
    pub(super) version: bool,
    /// Accepted: there are no Django checks here.
    #[arg(long)]
    pub(super) skip_checks: bool,
}

/// What stands after `worker`.
#[derive(Debug, Args)]
#[command(
    args_override_self = true,
    after_help = "Each option can also be given in the environment: CELERY_WORKER_CONCURRENCY for --concurrency.\n\n\
                  Signals:\n  \
                  TERM  Stop warmly: finish what runs, give back what waits; QUIT with REMAP_SIGTERM=SIGQUIT\n  \
                  INT   Stop warmly, and coldly when it comes again\n  \
                  QUIT  Stop coldly: end what runs, give back what is acknowledged late\n  \
                  HUP   Stop warmly and start again, where there is no terminal\n  \
                  USR1  Log what is running"
)]
pub(super) struct WorkerArguments {
    /// Settings for this run: worker.prefetch_multiplier=10, task.acks_late=(bool)yes.
    #[arg(value_name = "NS.KEY=VALUE")]
    pub(super) settings: Vec<String>,
    #[command(flatten)]
    pub(super) worker: WorkerOptions,
    #[command(flatten)]
    pub(super) pool: PoolOptions,
    #[command(flatten)]
    pub(super) queues: QueueOptions,
    #[command(flatten)]
    pub(super) features: FeatureOptions,
    #[command(flatten)]
    pub(super) beat: EmbeddedOptions,
    #[command(flatten)]
    pub(super) daemon: DaemonOptions,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Worker Options")]
pub(super) struct WorkerOptions {
    /// Node name; %h is the host, %n its first label, %d its domain [default: celery@%h].
    #[arg(short = 'n', long, value_name = "NAME", env = "CELERY_WORKER_HOSTNAME", hide_env = true)]
    pub(super) hostname: Option<String>,
    /// DEBUG, INFO, WARNING, ERROR, CRITICAL or FATAL.
    #[arg(
        short,
        long,
        value_name = "LEVEL",
        default_value = "WARNING",
        env = "CELERY_WORKER_LOGLEVEL",
        hide_env = true
    )]
    pub(super) loglevel: Level,
    /// Log lines as text or as json; else as worker_log_lines says.
    #[arg(long, value_name = "FORMAT", value_parser = log_lines, env = "CELERY_WORKER_LOG_FORMAT", hide_env = true)]
    pub(super) log_format: Option<LogLines>,
    /// default or fair: tasks go to who is free, either way.
    #[arg(
        short = 'O',
        long,
        value_name = "PROFILE",
        value_parser = ["default", "fair"],
        default_value = "default",
        hide_possible_values = true,
        env = "CELERY_WORKER_OPTIMIZATION",
        hide_env = true
    )]
    pub(super) optimization: String,
    /// Messages reserved for each task that runs; 0: what the setting says.
    #[arg(
        long,
        value_name = "N",
        value_parser = count,
        allow_negative_numbers = true,
        env = "CELERY_WORKER_PREFETCH_MULTIPLIER",
        hide_env = true
    )]
    pub(super) prefetch_multiplier: Option<u32>,
    /// Take no message before there is room to run it.
    #[arg(
        long,
        env = "CELERY_WORKER_DISABLE_PREFETCH",
        hide_env = true,
        value_parser = BoolishValueParser::new()
    )]
    pub(super) disable_prefetch: bool,
    /// Remember revoked tasks in this file; %n %h %d expand.
    #[arg(short = 'S', long, value_name = "FILE", env = "CELERY_WORKER_STATEDB", hide_env = true)]
    pub(super) statedb: Option<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Pool Options")]
pub(super) struct PoolOptions {
    /// How many tasks run at a time; 0 or auto: what the setting or the pool says.
    #[arg(short, long, value_name = "N", value_parser = concurrency, allow_negative_numbers = true, env = "CELERY_WORKER_CONCURRENCY", hide_env = true)]
    pub(super) concurrency: Option<u32>,
    /// The pool: tokio.
    #[arg(
        short = 'P',
        long,
        value_name = "POOL",
        value_parser = pool,
        default_value = "tokio",
        hide_default_value = true,
        env = "CELERY_WORKER_POOL",
        hide_env = true
    )]
    pub(super) pool: String,
    /// Send events about tasks, for monitors.
    #[arg(
        short = 'E',
        long,
        alias = "events",
        env = "CELERY_WORKER_TASK_EVENTS",
        hide_env = true,
        value_parser = BoolishValueParser::new()
    )]
    pub(super) task_events: bool,
    /// Hard time limit of tasks, in seconds.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, allow_negative_numbers = true, env = "CELERY_WORKER_TIME_LIMIT", hide_env = true)]
    pub(super) time_limit: Option<Duration>,
    /// Soft time limit of tasks, in seconds.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, allow_negative_numbers = true, env = "CELERY_WORKER_SOFT_TIME_LIMIT", hide_env = true)]
    pub(super) soft_time_limit: Option<Duration>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Queue Options")]
pub(super) struct QueueOptions {
    /// Throw away all waiting messages of the queues before the start.
    #[arg(
        long,
        alias = "discard",
        env = "CELERY_WORKER_PURGE",
        hide_env = true,
        value_parser = BoolishValueParser::new()
    )]
    pub(super) purge: bool,
    /// Consume these queues, separated by commas, and no others.
    #[arg(short = 'Q', long, value_name = "QUEUES", env = "CELERY_WORKER_QUEUES", hide_env = true)]
    pub(super) queues: Option<String>,
    /// Do not consume these queues, separated by commas.
    #[arg(short = 'X', long, value_name = "QUEUES", env = "CELERY_WORKER_EXCLUDE_QUEUES", hide_env = true)]
    pub(super) exclude_queues: Option<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Features")]
pub(super) struct FeatureOptions {
    /// Do not listen to other workers, and take no part in elections.
    #[arg(long, env = "CELERY_WORKER_WITHOUT_GOSSIP", hide_env = true, value_parser = BoolishValueParser::new())]
    pub(super) without_gossip: bool,
    /// Do not ask other workers at the start which tasks were revoked.
    #[arg(long, env = "CELERY_WORKER_WITHOUT_MINGLE", hide_env = true, value_parser = BoolishValueParser::new())]
    pub(super) without_mingle: bool,
    /// Let the pool grow and shrink between these with what there is to do [default of MIN: 0].
    #[arg(long, value_name = "MAX,MIN", value_parser = autoscale::bounds, env = "CELERY_WORKER_AUTOSCALE", hide_env = true)]
    pub(super) autoscale: Option<Bounds>,
    /// Send no heartbeats.
    #[arg(long, env = "CELERY_WORKER_WITHOUT_HEARTBEAT", hide_env = true, value_parser = BoolishValueParser::new())]
    pub(super) without_heartbeat: bool,
    /// Send a heartbeat so often, in seconds [default: 2].
    #[arg(long, value_name = "SECONDS", value_parser = seconds, allow_negative_numbers = true, env = "CELERY_WORKER_HEARTBEAT_INTERVAL", hide_env = true)]
    pub(super) heartbeat_interval: Option<Duration>,
    /// Show metrics and probes over HTTP: at 127.0.0.1:9808, for example.
    #[arg(long, value_name = "HOST:PORT", value_parser = http_address, env = "CELERY_WORKER_HTTP", hide_env = true)]
    pub(super) http: Option<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Daemonization Options")]
pub(super) struct DaemonOptions {
    /// Log to this file [default: standard error]; %n %h %d %i %I expand.
    #[arg(short = 'f', long, value_name = "FILE", env = "CELERY_WORKER_LOGFILE", hide_env = true)]
    pub(super) logfile: Option<String>,
    /// Hold this file with the process id while running; expands as --logfile.
    #[arg(long, value_name = "FILE", env = "CELERY_WORKER_PIDFILE", hide_env = true)]
    pub(super) pidfile: Option<String>,
}

/// The names in a list that is separated by commas.
pub(super) fn names(list: Option<&str>) -> Vec<String> {
    list.iter()
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

fn concurrency(text: &str) -> Result<u32, String> {
    let number = if text == "auto" { Ok(0) } else { text.parse() };
    number.map_err(|_| "must be a non-negative integer or 'auto'".to_owned())
}

fn count(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "must be a non-negative integer".to_owned())
}

fn pool(text: &str) -> Result<String, String> {
    if text == "tokio" { Ok(text.to_owned()) } else { Err("only tokio is supported yet".to_owned()) }
}

fn log_lines(text: &str) -> Result<LogLines, String> {
    LogLines::named(text).ok_or_else(|| "expected text or json".to_owned())
}

/// An empty one, in the environment, is none.
pub(super) fn http_address(text: &str) -> Result<String, String> {
    match text.is_empty() || has_port(text) {
        true => Ok(text.to_owned()),
        false => Err("expected host:port".to_owned()),
    }
}

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "must be a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(number).map_err(|_| match number > 0.0 {
        true => "must be a number of seconds that comes to an end".to_owned(),
        false => "must be a number of seconds, 0 or more".to_owned(),
    })
}
