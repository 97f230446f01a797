//! What stands after `beat`.

use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;

use super::super::log::Level;

/// What stands after `beat`.
#[derive(Debug, Args)]
#[command(
    args_override_self = true,
    after_help = "Each option can also be given in the environment: CELERY_BEAT_MAX_INTERVAL for --max-interval.\n\n\
                  Signals:\n  TERM, INT  Keep what ran last, and stop"
)]
pub(in crate::cli) struct BeatArguments {
    /// Settings for this run: beat.max_loop_interval=10.
    #[arg(value_name = "NS.KEY=VALUE")]
    pub(in crate::cli) settings: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) beat: BeatOptions,
    #[command(flatten)]
    pub(in crate::cli) daemon: DaemonOptions,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Beat Options")]
pub(in crate::cli) struct BeatOptions {
    /// Run in the background, without a terminal.
    #[arg(long, env = "CELERY_BEAT_DETACH", hide_env = true, value_parser = BoolishValueParser::new())]
    pub(in crate::cli) detach: bool,
    /// Keep what ran last beside this file [default: celerybeat-schedule].
    #[arg(short, long, value_name = "FILE", env = "CELERY_BEAT_SCHEDULE", hide_env = true)]
    pub(in crate::cli) schedule: Option<String>,
    /// Where that is kept, by the name of Celery's class [default: celery.beat:PersistentScheduler].
    #[arg(short = 'S', long, value_name = "CLASS", env = "CELERY_BEAT_SCHEDULER", hide_env = true)]
    pub(in crate::cli) scheduler: Option<String>,
    /// Sleep so long at most, in seconds.
    #[arg(long, value_name = "SECONDS", value_parser = super::super::options::seconds, allow_negative_numbers = true, env = "CELERY_BEAT_MAX_INTERVAL", hide_env = true)]
    pub(in crate::cli) max_interval: Option<Duration>,
    /// DEBUG, INFO, WARNING, ERROR, CRITICAL or FATAL.
    #[arg(short, long, value_name = "LEVEL", default_value = "WARNING", env = "CELERY_BEAT_LOGLEVEL", hide_env = true)]
    pub(in crate::cli) loglevel: Level,
    /// Send nothing: print what would be sent until --until, and when.
    #[arg(long, requires = "until")]
    pub(in crate::cli) dry_run: bool,
    /// A time, such as 2026-12-24T18:00 in the app's time zone, or from now on: 36h, 2d.
    #[arg(long, value_name = "TIME", requires = "dry_run")]
    pub(in crate::cli) until: Option<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Daemonization Options")]
pub(in crate::cli) struct DaemonOptions {
    /// Log to this file [default: standard error].
    #[arg(short = 'f', long, value_name = "FILE", env = "CELERY_BEAT_LOGFILE", hide_env = true)]
    pub(in crate::cli) logfile: Option<String>,
    /// Hold this file with the process id while running.
    #[arg(long, value_name = "FILE", env = "CELERY_BEAT_PIDFILE", hide_env = true)]
    pub(in crate::cli) pidfile: Option<String>,
}

/// What a worker is told of the beat in it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Embedded Beat Options")]
pub(in crate::cli) struct EmbeddedOptions {
    /// Send periodic tasks too.
    #[arg(short = 'B', long, env = "CELERY_WORKER_BEAT", hide_env = true, value_parser = BoolishValueParser::new())]
    pub(in crate::cli) beat: bool,
    /// Keep what ran last beside this file [default: celerybeat-schedule].
    #[arg(
        short,
        long,
        alias = "schedule",
        value_name = "FILE",
        env = "CELERY_WORKER_SCHEDULE_FILENAME",
        hide_env = true
    )]
    pub(in crate::cli) schedule_filename: Option<String>,
    /// Where that is kept, by the name of Celery's class [default: celery.beat:PersistentScheduler].
    #[arg(long, value_name = "CLASS", env = "CELERY_WORKER_SCHEDULER", hide_env = true)]
    pub(in crate::cli) scheduler: Option<String>,
}
