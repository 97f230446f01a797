//! `purge` (celery/bin/purge.py) and `list bindings` (celery/bin/list.py).

use std::collections::BTreeSet;
use std::io::{self, BufRead, Write};
use std::process::ExitCode;

use super::Client;
use super::options::{ListArguments, ListCommand, PurgeArguments};
use crate::app::{App, parts};
use crate::cli::failure::{Failure, say, write};
use crate::cli::options::{GlobalOptions, names};
use crate::time::Clock;
use crate::transport::{Queue, Transport};
use crate::{Error, ErrorKind};

/// Runs `purge`.
pub(in crate::cli) fn run(app: App, global: &GlobalOptions, arguments: &PurgeArguments) -> Result<ExitCode, Failure> {
    let client = Client::new(app, global)?;
    let queues = chosen(&client.app, arguments);
    let count = queues.len();
    if count == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    if !arguments.force && !is_sure(&queues)? {
        return Err(Error::new(ErrorKind::Io, "Aborted!").into());
    }
    let transport = parts::write_transport(client.app.config(), Clock::system(), fastrand::u64(..))?;
    let queues: Vec<_> = queues.into_iter().map(Queue::direct).collect();
    let purged = client.run(purge(&*transport, &queues))?;
    let (messages, noun) = (if purged == 1 { "message" } else { "messages" }, plural(count));
    match purged {
        0 => say(&format!("No messages purged from {count} {noun}.")),
        _ => say(&format!("Purged {purged} {messages} from {count} known task {noun}.")),
    }
    Ok(ExitCode::SUCCESS)
}

async fn purge(transport: &dyn Transport, queues: &[Queue]) -> crate::Result<u64> {
    let connection = transport.connect().await?;
    let purged = connection.purge(queues).await;
    let closed = connection.close().await;
    purged.and_then(|purged| closed.map(|()| purged))
}

/// Those that are named, or the project's own; each once.
fn chosen(app: &App, arguments: &PurgeArguments) -> BTreeSet<String> {
    let mut queues: BTreeSet<_> = names(arguments.queues.as_deref()).into_iter().collect();
    if queues.is_empty() {
        queues.extend(app.config().defined_queues().into_iter().map(|queue| queue.name));
    }
    let excluded = names(arguments.exclude_queues.as_deref());
    queues.retain(|queue| !excluded.contains(queue));
    queues
}

fn is_sure(queues: &BTreeSet<String>) -> Result<bool, Failure> {
    let names: Vec<_> = queues.iter().map(String::as_str).collect();
    say(&format!(
        "WARNING:This will remove all tasks from {}: {}.\n         There is no undo for this operation!\n\n\
         (to skip this prompt use the -f option)",
        plural(queues.len()),
        names.join(", ")
    ));
    write(b"Are you sure you want to delete all tasks? [y/N]: ");
    let _ = io::stdout().flush();
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.map_err(|error| Error::new(ErrorKind::Io, "read the answer").with_source(error))?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

fn plural(queues: usize) -> &'static str {
    if queues == 1 { "queue" } else { "queues" }
}

/// Runs `list`.
pub(in crate::cli) fn list(app: App, global: &GlobalOptions, arguments: &ListArguments) -> Result<ExitCode, Failure> {
    let ListCommand::Bindings = arguments.command;
    let client = Client::new(app, global)?;
    let transport = parts::write_transport(client.app.config(), Clock::system(), fastrand::u64(..))?;
    let queues: Vec<_> = client.app.config().defined_queues().iter().map(parts::queue).collect();
    let bindings = client.run(async {
        let connection = transport.connect().await?;
        let listed = match connection.declare(&queues).await {
            Ok(()) => connection.bindings(&queues).await,
            Err(error) => Err(error),
        };
        let closed = connection.close().await;
        listed.and_then(|listed| closed.map(|()| listed))
    })?;
    let line = |queue: &str, exchange: &str, key: &str| say(format!("{queue:<28} {exchange:<28} {key}").trim_end());
    line("Queue", "Exchange", "Routing Key");
    line(&"-".repeat(16), &"-".repeat(16), &"-".repeat(16));
    bindings.iter().for_each(|bound| line(&bound.queue, &bound.exchange, &bound.routing_key));
    Ok(ExitCode::SUCCESS)
}
