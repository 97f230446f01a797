//! The options of `dead-letters`.

use clap::{Args, Subcommand};

/// What stands after `dead-letters`.
#[derive(Debug, Args)]
pub(in crate::cli) struct DeadLettersArguments {
    /// The queue that keeps them [default: the setting dead_letter_queue].
    #[arg(short = 'Q', long, value_name = "QUEUE", global = true)]
    pub(super) queue: Option<String>,
    #[command(subcommand)]
    pub(super) command: DeadLettersCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum DeadLettersCommand {
    /// List dead letters, the oldest first.
    List {
        #[command(flatten)]
        filter: Filter,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Show everything about a dead letter.
    Show {
        /// The task's id, or the letter's.
        #[arg(value_name = "ID")]
        id: String,
        /// One JSON object a line.
        #[arg(long, conflicts_with = "raw")]
        json: bool,
        /// The bytes of the body, and nothing else.
        #[arg(long)]
        raw: bool,
    },
    /// Put dead letters back into the queues that they came from.
    Requeue {
        /// The tasks' ids, or the letters'.
        #[arg(value_name = "ID", conflicts_with = "all")]
        ids: Vec<String>,
        /// All that the filter leaves.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        filter: Filter,
    },
    /// Throw dead letters away: all of them, or those that are named.
    Purge {
        /// The tasks' ids, or the letters'.
        #[arg(value_name = "ID")]
        ids: Vec<String>,
        #[command(flatten)]
        filter: Filter,
        /// Do not ask.
        #[arg(short, long)]
        force: bool,
    },
}

impl DeadLettersCommand {
    /// Whether it is to put letters back, and neither some nor all of them.
    pub(super) fn names_nothing(&self) -> bool {
        matches!(self, DeadLettersCommand::Requeue { ids, all: false, .. } if ids.is_empty())
    }
}

/// Which dead letters are meant.
#[derive(Debug, Args, Default)]
pub(super) struct Filter {
    /// Those of this task; * stands for anything.
    #[arg(long, value_name = "NAME")]
    pub(super) task: Option<String>,
    /// Those whose reason contains this.
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
    /// At most so many.
    #[arg(long, value_name = "N")]
    pub(super) limit: Option<usize>,
}
