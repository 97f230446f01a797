//! `call`: sends a task by its name (celery/bin/call.py).

use std::process::ExitCode;

use super::Client;
use super::options::CallArguments;
use crate::app::App;
use crate::cli::failure::{Failure, say};
use crate::cli::options::GlobalOptions;
use crate::protocol::{DateTime, Signature, Value, json};
use crate::task::signature;

/// Runs the command: what it prints is the task's id.
pub(in crate::cli) fn run(app: App, global: &GlobalOptions, arguments: &CallArguments) -> Result<ExitCode, Failure> {
    let call = read(arguments)?;
    let client = Client::new(app, global)?;
    let sent = client.run(async {
        let producer = client.app.producer()?;
        let result = producer.send(call).await?;
        producer.close().await.map(|()| result)
    })?;
    say(sent.id());
    Ok(ExitCode::SUCCESS)
}

fn read(arguments: &CallArguments) -> Result<Signature, Failure> {
    let args = parsed("--args", &arguments.args)?.into_list();
    let args = args.ok_or_else(|| invalid("--args", format!("{} was not an array", arguments.args)))?;
    let kwargs = parsed("--kwargs", &arguments.kwargs)?.into_map();
    let kwargs = kwargs.ok_or_else(|| invalid("--kwargs", format!("{} was not an object", arguments.kwargs)))?;
    let mut call = signature(arguments.name.as_str(), args).set("serializer", arguments.serializer.as_str());
    call.kwargs = kwargs;
    if let Some(countdown) = arguments.countdown {
        call = call.countdown(countdown);
    }
    if let Some(eta) = &arguments.eta {
        call = call.set("eta", time("--eta", eta)?);
    }
    if let Some(expires) = &arguments.expires {
        call = match expires.parse::<f64>() {
            Ok(seconds) => call.expires_in(seconds),
            Err(_) => call.set("expires", time("--expires", expires)?),
        };
    }
    let routing =
        [("queue", &arguments.queue), ("exchange", &arguments.exchange), ("routing_key", &arguments.routing_key)];
    for (name, value) in routing {
        if let Some(value) = value {
            call = call.set(name, value.as_str());
        }
    }
    Ok(call)
}

fn parsed(option: &str, text: &str) -> Result<Value, Failure> {
    json::parse_plain(text.as_bytes()).map_err(|error| invalid(option, error.to_string()))
}

fn time(option: &str, text: &str) -> Result<DateTime, Failure> {
    text.parse().map_err(|_| invalid(option, format!("'{text}' is no time in ISO 8601")))
}

fn invalid(option: &str, problem: String) -> Failure {
    Failure::usage(format!("invalid value for '{option}': {problem}"))
}
