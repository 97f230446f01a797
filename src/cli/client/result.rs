//! `result`: waits for a task and prints what it returned (celery/bin/result.py).

use std::process::ExitCode;

use super::Client;
use super::options::ResultArguments;
use super::pretty::{echo, text};
use crate::app::App;
use crate::cli::failure::{Code, Failure, say};
use crate::cli::options::GlobalOptions;
use crate::protocol::{MetaResult, TaskMeta};

/// Runs the command.
pub(in crate::cli) fn run(app: App, global: &GlobalOptions, arguments: &ResultArguments) -> Result<ExitCode, Failure> {
    let client = Client::new(app, global)?;
    let result = client.app.result(arguments.task_id.as_str())?;
    if arguments.traceback {
        let meta = client.run(result.meta())?;
        say(meta.traceback.as_deref().unwrap_or_default());
        return Ok(ExitCode::SUCCESS);
    }
    let meta = client.run(result.wait(None));
    say(&value(meta.map_err(|error| failed(error.to_string()))?)?);
    Ok(ExitCode::SUCCESS)
}

/// What it returned; a failure, if that is how it ended.
fn value(meta: TaskMeta) -> Result<String, Failure> {
    match meta.result {
        MetaResult::Value(value) if !meta.status.is_propagated() => Ok(echo(&value)),
        MetaResult::Value(value) => Err(failed(format!("the task is {}: {}", meta.status, text(&value)))),
        MetaResult::Exception(exception) => Err(failed(exception.to_string())),
    }
}

fn failed(message: String) -> Failure {
    Failure { message, code: Code::Failure }
}
