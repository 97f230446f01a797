//! `events --dump`: prints events as they come (celery/events/dumper.py `evdump`).

use std::convert::Infallible;
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::sleep;

use super::Client;
use super::options::EventsArguments;
use crate::app::{App, Events, Monitor};
use crate::cli::failure::{Failure, say};
use crate::cli::options::GlobalOptions;
use crate::events::Dumper;
use crate::{Error, ErrorKind, Result};

/// The pauses between two tries to connect grow by this, up to [`LONGEST`] (kombu/connection.py
/// `Connection.ensure_connection`).
const STEP: u64 = 2;
const LONGEST: u64 = 30;

/// Runs the command until Ctrl+C.
pub(in crate::cli) fn run(app: App, global: &GlobalOptions, arguments: &EventsArguments) -> Result<ExitCode, Failure> {
    if !arguments.dump {
        return Err(Failure::usage(
            "events prints what it hears with --dump; the live view is the command top, and there is no camera",
        ));
    }
    let client = Client::new(app, global)?;
    let monitor = Monitor::new(&client.app)?;
    say("-> evdump: starting capture...");
    client.run(async {
        let interrupted = tokio::signal::ctrl_c();
        tokio::select! {
            ended = interrupted => {
                ended.map_err(|error| Error::new(ErrorKind::Io, "heed Ctrl+C").with_source(error))?;
                Ok(ExitCode::SUCCESS)
            }
            ended = dump(&monitor) => match ended {
                Err(error) => Err(Failure::unavailable(error)),
            },
        }
    })
}

/// Prints events, and connects again for as long as it takes.
async fn dump(monitor: &Monitor) -> Result<Infallible> {
    let mut dumper = Dumper::default();
    loop {
        let mut events = open(monitor).await?;
        while let Ok(heard) = events.next().await {
            heard.into_iter().filter_map(|event| dumper.line(event)).for_each(|line| say(&line));
        }
        say("-> Connection lost, attempting reconnect");
    }
}

async fn open(monitor: &Monitor) -> Result<Events> {
    let mut pause = STEP;
    loop {
        match monitor.open().await {
            Err(error) if error.can_pass() => {
                say(&format!("-> Cannot connect to {}: {error}.\nTrying again in {pause}.00 seconds\n", monitor.uri()));
                sleep(Duration::from_secs(pause)).await;
                pause = (pause + STEP).min(LONGEST);
            }
            opened => return opened,
        }
    }
}
