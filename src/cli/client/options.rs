//! The options of the commands that ask a broker, a backend or workers.

use std::time::Duration;

use clap::{Args, Subcommand};

/// What `inspect`, `control` and `status` have in common.
#[derive(Debug, Args)]
#[command(next_help_heading = "Remote Control Options")]
pub(in crate::cli) struct RemoteOptions {
    /// Seconds to wait for the next reply.
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds, default_value = "1")]
    pub(super) timeout: Duration,
    /// Only these nodes, separated by commas.
    #[arg(short, long, value_name = "NODES")]
    pub(super) destination: Option<String>,
    /// Print JSON.
    #[arg(short, long)]
    pub(super) json: bool,
}

/// What stands after `status`.
#[derive(Debug, Args)]
pub(in crate::cli) struct StatusArguments {
    #[command(flatten)]
    pub(super) remote: RemoteOptions,
}

/// What stands after `inspect` and `control`.
#[derive(Debug, Args)]
pub(in crate::cli) struct RemoteArguments {
    /// The command: --list shows them.
    #[arg(value_name = "COMMAND", required_unless_present = "list")]
    pub(super) command: Option<String>,
    /// Its arguments.
    #[arg(value_name = "ARGUMENT", allow_negative_numbers = true)]
    pub(super) arguments: Vec<String>,
    #[command(flatten)]
    pub(super) remote: RemoteOptions,
    /// List the commands.
    #[arg(long)]
    pub(super) list: bool,
}

/// What stands after `purge`.
#[derive(Debug, Args)]
pub(in crate::cli) struct PurgeArguments {
    /// Do not ask.
    #[arg(short, long)]
    pub(super) force: bool,
    /// These queues, separated by commas [default: those of task_queues].
    #[arg(short = 'Q', long, value_name = "QUEUES")]
    pub(super) queues: Option<String>,
    /// Not these queues, separated by commas.
    #[arg(short = 'X', long, value_name = "QUEUES")]
    pub(super) exclude_queues: Option<String>,
}

/// What stands after `call`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CallArguments {
    /// The task's name.
    #[arg(value_name = "NAME")]
    pub(super) name: String,
    /// Positional arguments, as a JSON array.
    #[arg(short, long, value_name = "JSON", default_value = "[]", help_heading = "Calling Options")]
    pub(super) args: String,
    /// Keyword arguments, as a JSON object.
    #[arg(short, long, value_name = "JSON", default_value = "{}", help_heading = "Calling Options")]
    pub(super) kwargs: String,
    /// Not before this time, in ISO 8601.
    #[arg(long, value_name = "TIME", help_heading = "Calling Options")]
    pub(super) eta: Option<String>,
    /// Not before so many seconds from now.
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, help_heading = "Calling Options")]
    pub(super) countdown: Option<f64>,
    /// Not after so many seconds from now, or this time in ISO 8601.
    #[arg(long, value_name = "SECONDS|TIME", allow_negative_numbers = true, help_heading = "Calling Options")]
    pub(super) expires: Option<String>,
    /// json, msgpack or yaml.
    #[arg(long, value_name = "NAME", default_value = "json", help_heading = "Calling Options")]
    pub(super) serializer: String,
    /// The queue.
    #[arg(long, value_name = "NAME", help_heading = "Routing Options")]
    pub(super) queue: Option<String>,
    /// The exchange.
    #[arg(long, value_name = "NAME", help_heading = "Routing Options")]
    pub(super) exchange: Option<String>,
    /// The routing key.
    #[arg(long, value_name = "KEY", help_heading = "Routing Options")]
    pub(super) routing_key: Option<String>,
}

/// What stands after `result`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ResultArguments {
    /// The task's id.
    #[arg(value_name = "TASK_ID")]
    pub(super) task_id: String,
    /// Accepted: all tasks have one backend here.
    #[arg(short, long, value_name = "NAME")]
    pub(super) task: Option<String>,
    /// Print the traceback.
    #[arg(long)]
    pub(super) traceback: bool,
}

/// What stands after `list`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ListArguments {
    #[command(subcommand)]
    pub(super) command: ListCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum ListCommand {
    /// The queues that are bound to the exchanges of this project's queues.
    Bindings,
}

/// What stands after `events`.
#[derive(Debug, Args)]
pub(in crate::cli) struct EventsArguments {
    /// Print each event as it comes.
    #[arg(short, long)]
    pub(super) dump: bool,
}

/// What stands after `top`.
#[derive(Debug, Args)]
pub(in crate::cli) struct TopArguments {
    /// Print one frame and end.
    #[arg(long)]
    pub(super) once: bool,
    /// Seconds to listen before the frame of --once.
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds, default_value = "2.5")]
    pub(super) timeout: Duration,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "must be a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(number).map_err(|_| "must be a number of seconds, 0 or more".to_owned())
}
