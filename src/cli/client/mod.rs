//! What Celery's command line does beside running workers: asks and steers them, purges queues, sends a task, shows a
//! result. None of it needs the tasks to be known here.

mod call;
mod commands;
mod events;
mod options;
mod pretty;
mod purge;
mod remote;
mod report;
mod result;
mod top;

use tokio::runtime::{Builder, Runtime};

pub(super) use call::run as call;
pub(super) use events::run as events;
pub(super) use options::{
    CallArguments, EventsArguments, ListArguments, PurgeArguments, RemoteArguments, ResultArguments, StatusArguments,
    TopArguments,
};
pub(super) use purge::{list, run as purge};
pub(super) use remote::{control, inspect, status};
pub(super) use report::run as report;
pub(super) use result::run as result;
pub(super) use top::run as top;

use super::failure::Failure;
use super::options::GlobalOptions;
use super::settings;
use super::worker::change_to;
use crate::app::App;
use crate::{Error, ErrorKind, Result};

/// An app whose settings are gathered, and what runs its calls.
struct Client {
    app: App,
    runtime: Runtime,
}

impl Client {
    fn new(mut app: App, global: &GlobalOptions) -> Result<Self, Failure> {
        if let Some(folder) = &global.workdir {
            change_to(folder)?;
        }
        settings::gather_global(app.config_mut(), global)?;
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Error::new(ErrorKind::Io, "start the runtime").with_source(error))?;
        Ok(Client { app, runtime })
    }

    fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }
}
