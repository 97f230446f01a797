//! The settings of a run: the program's, with the file, the command line and the environment over them.

use std::path::{Path, PathBuf};
use std::{env, fs};

use super::failure::Failure;
use super::options::{GlobalOptions, WorkerArguments};
use crate::config::{Config, Warning};
use crate::{Error, ErrorKind, Result};

/// The file that is read when no other is named.
const DEFAULT_FILE: &str = "celeriac.toml";

/// Puts everything that the user said over `config`; answers what of it has no effect.
pub(super) fn gather(
    config: &mut Config,
    global: &GlobalOptions,
    arguments: &WorkerArguments,
) -> Result<Vec<Warning>, Failure> {
    let mut warnings = merge_file(config, global)?;
    let extra = config.merge_assignments(&arguments.settings).map_err(|error| Failure::usage(error.to_string()))?;
    warnings.extend(extra);
    apply_options(config, arguments);
    apply_global(config, global)?;
    warnings.extend(config.without_effect());
    Ok(warnings)
}

/// The settings of a beat, with what stands at the end of its command line.
pub(super) fn gather_beat(
    config: &mut Config,
    global: &GlobalOptions,
    assignments: &[String],
) -> Result<Vec<Warning>, Failure> {
    let mut warnings = merge_file(config, global)?;
    let extra = config.merge_assignments(assignments).map_err(|error| Failure::usage(error.to_string()))?;
    warnings.extend(extra);
    apply_global(config, global)?;
    Ok(warnings)
}

/// Puts the options over settings that a host has changed since: as in Celery, what the command line says wins.
pub(super) fn insist(config: &mut Config, global: &GlobalOptions, arguments: &WorkerArguments) -> Result<()> {
    apply_options(config, arguments);
    apply_global(config, global)
}

/// The settings of a command that is no worker.
pub(super) fn gather_global(config: &mut Config, global: &GlobalOptions) -> Result<Vec<Warning>, Failure> {
    let warnings = merge_file(config, global)?;
    apply_global(config, global)?;
    Ok(warnings)
}

fn merge_file(config: &mut Config, global: &GlobalOptions) -> Result<Vec<Warning>> {
    match read_file(global.config.as_deref())? {
        Some((file, text)) => config.merge_toml(&text, &file.display().to_string()),
        None => Ok(Vec::new()),
    }
}

fn apply_global(config: &mut Config, global: &GlobalOptions) -> Result<()> {
    config.merge_environment(|name| env::var(name).ok())?;
    // As in Celery, these two options stand for their environment variables, and so win; empty they are absent.
    let given = |url: &Option<String>| url.clone().filter(|url| !url.is_empty());
    if let Some(url) = given(&global.broker) {
        config.broker_url = Some(url);
    }
    if let Some(url) = given(&global.result_backend) {
        config.result_backend = Some(url);
    }
    Ok(())
}

fn read_file(named: Option<&Path>) -> Result<Option<(PathBuf, String)>> {
    let file = named.unwrap_or(Path::new(DEFAULT_FILE));
    if named.is_none() && !file.exists() {
        return Ok(None);
    }
    let text = fs::read_to_string(file).map_err(|error| {
        Error::new(ErrorKind::Configuration, format!("read the settings file {}", file.display())).with_source(error)
    })?;
    Ok(Some((file.to_owned(), text)))
}

/// Options whose value is 0 leave the setting alone, as in Celery.
fn apply_options(config: &mut Config, arguments: &WorkerArguments) {
    let above_zero = |number: Option<u32>| number.filter(|number| *number > 0);
    if let Some(multiplier) = above_zero(arguments.worker.prefetch_multiplier) {
        config.worker_prefetch_multiplier = multiplier;
    }
    if let Some(concurrency) = above_zero(arguments.pool.concurrency) {
        config.worker_concurrency = Some(concurrency);
    }
    if let Some(lines) = arguments.worker.log_format {
        config.worker_log_lines = lines;
    }
    if let Some(address) = arguments.features.http.as_ref().filter(|address| !address.is_empty()) {
        config.worker_http = Some(address.clone());
    }
    if arguments.worker.disable_prefetch {
        config.worker_disable_prefetch = true;
    }
    if arguments.pool.task_events {
        config.worker_send_task_events = true;
    }
    if let Some(limit) = arguments.pool.time_limit.filter(|limit| !limit.is_zero()) {
        config.task_time_limit = Some(limit);
    }
    if let Some(limit) = arguments.pool.soft_time_limit.filter(|limit| !limit.is_zero()) {
        config.task_soft_time_limit = Some(limit);
    }
}
