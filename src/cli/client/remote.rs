//! `inspect`, `control` and `status` (celery/bin/control.py).

use std::fmt::Write as _;
use std::process::ExitCode;

use super::Client;
use super::commands::{CONTROL, INSPECT, RemoteCommand, find};
use super::options::{RemoteArguments, RemoteOptions, StatusArguments};
use super::pretty::{Style, json_line};
use crate::app::{App, Call, by_node};
use crate::cli::failure::{Code, Failure, say, warn};
use crate::cli::options::{GlobalOptions, names};
use crate::protocol::{Map, Value};

/// Runs `status`.
pub(in crate::cli) fn status(
    app: App,
    global: &GlobalOptions,
    arguments: &StatusArguments,
) -> Result<ExitCode, Failure> {
    let client = Client::new(app, global)?;
    let replies = ask(&client, global, "ping", Map::new(), &arguments.remote, false)?;
    let (nodes, twice) = by_node(replies);
    warn_of(&twice);
    let count = nodes.len();
    if arguments.remote.json {
        say(&json_line(&nodes.into()));
    }
    say_online(count);
    Ok(ExitCode::SUCCESS)
}

/// Runs `inspect`.
pub(in crate::cli) fn inspect(
    app: App,
    global: &GlobalOptions,
    arguments: &RemoteArguments,
) -> Result<ExitCode, Failure> {
    let Some((method, given)) = compile(INSPECT, "inspect", arguments)? else { return Ok(ExitCode::SUCCESS) };
    let client = Client::new(app, global)?;
    let (nodes, twice) = by_node(ask(&client, global, method, given, &arguments.remote, true)?);
    warn_of(&twice);
    match arguments.remote.json {
        true => say(&json_line(&nodes.into())),
        false if global.quiet => {}
        false => say_online(nodes.len()),
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs `control`.
pub(in crate::cli) fn control(
    app: App,
    global: &GlobalOptions,
    arguments: &RemoteArguments,
) -> Result<ExitCode, Failure> {
    let Some((method, given)) = compile(CONTROL, "control", arguments)? else { return Ok(ExitCode::SUCCESS) };
    let client = Client::new(app, global)?;
    let replies = ask(&client, global, method, given, &arguments.remote, true)?;
    if arguments.remote.json {
        let replies: Vec<Value> = replies.into_iter().map(|(node, value)| Map::from([(node, value)]).into()).collect();
        say(&json_line(&replies.into()));
    }
    Ok(ExitCode::SUCCESS)
}

/// The command and its arguments; `None` when the commands were to be listed, and are.
fn compile(
    commands: &'static [RemoteCommand],
    kind: &str,
    given: &RemoteArguments,
) -> Result<Option<(&'static str, Map)>, Failure> {
    match &given.command {
        Some(name) if !given.list => {
            let command = find(commands, kind, name)?;
            Ok(Some((command.name, command.arguments(&given.arguments)?)))
        }
        _ => {
            say(listed(commands, kind).trim_end());
            Ok(None)
        }
    }
}

fn listed(commands: &[RemoteCommand], kind: &str) -> String {
    let mut text = if kind == "inspect" { "Inspect Commands:\n" } else { "Control Commands:\n" }.to_owned();
    for command in commands {
        let usage = format!("{} {}", command.name, command.signature);
        // Text always has room for more.
        let _ = match usage.len() > 32 {
            true => writeln!(text, "  {usage}\n{:34}{}", "", command.help),
            false => writeln!(text, "  {usage:<32}{}", command.help),
        };
    }
    text
}

/// The replies: at least one. Without `--json` each is shown as it comes.
fn ask(
    client: &Client,
    global: &GlobalOptions,
    method: &str,
    arguments: Map,
    options: &RemoteOptions,
    shows_body: bool,
) -> Result<Vec<(String, Value)>, Failure> {
    let control = client.app.control()?;
    let nodes = names(options.destination.as_deref());
    let mut call: Call = control.call(method).destination(nodes).timeout(options.timeout);
    for (name, value) in arguments {
        call = call.argument(name, value);
    }
    let style = Style::new(global.no_color);
    let show = |node: &str, value: &Value| {
        if !options.json {
            say(&style.answer(node, value, global.quiet, shows_body));
        }
    };
    let replies = client.run(control.ask_each(call, show)).map_err(Failure::unavailable)?;
    if replies.is_empty() {
        return Err(Failure { message: "No nodes replied within time constraint".to_owned(), code: Code::Unavailable });
    }
    Ok(replies)
}

fn say_online(count: usize) {
    say(&format!("\n{count} {} online.", if count == 1 { "node" } else { "nodes" }));
}

/// celery/app/control.py `W_DUPNODE`.
fn warn_of(twice: &[String]) {
    if !twice.is_empty() {
        let nodes = if twice.len() == 1 { "name" } else { "names" };
        let twice = twice.join(", ");
        warn(&format!(
            "Received multiple replies from node {nodes}: {twice}. Please make sure you give each node a unique nodename"
        ));
    }
}
