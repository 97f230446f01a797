//! [`App`]: a program's tasks and settings; what a worker is made from.

use crate::Result;
use crate::config::Config;
use crate::task::{Registry, Task};

/// A Celery application in Rust: its name, its settings and its tasks (celery/app/base.py `Celery`).
#[derive(Debug, Clone)]
pub struct App {
    name: String,
    config: Config,
    tasks: Registry,
    /// The first registration that failed; reported when the app is used, so that declarations can be chained.
    failed: Option<String>,
}

impl App {
    /// An app without tasks and with Celery's defaults. The name is what the banner shows.
    pub fn new(name: impl Into<String>) -> Self {
        App { name: name.into(), config: Config::default(), tasks: Registry::default(), failed: None }
    }

    /// Adds a task. A name that is taken is an error of [`App::check`], and so of every worker made from the app.
    #[must_use]
    pub fn task(mut self, task: impl Task) -> Self {
        if let Err(error) = self.tasks.register(task) {
            self.failed.get_or_insert_with(|| error.to_string());
        }
        self
    }

    /// Replaces the settings.
    #[must_use]
    pub fn with_config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// The app's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The settings, to be changed before a worker is made.
    pub fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    /// The tasks.
    pub fn tasks(&self) -> &Registry {
        &self.tasks
    }

    /// Whether every task could be registered.
    ///
    /// # Errors
    /// `Configuration`: two tasks have one name, or a task has none.
    pub fn check(&self) -> Result<()> {
        match &self.failed {
            Some(reason) => Err(crate::Error::new(crate::ErrorKind::Configuration, reason.clone())),
            None => Ok(()),
        }
    }
}
