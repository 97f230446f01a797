//! [`App`]: a program's tasks and settings; what a worker is made from, and what a [`Producer`] sends for.
//!
//! [`Messages`] makes messages of calls, for producers and workers alike; a [`Producer`] sends them and hands out
//! [`AsyncResult`]s and [`GroupResult`]s, whose `get` fails with a [`ResultError`]. A [`Control`] asks and steers workers, and a
//! [`Monitor`] hears their events.
//!
//! # From Rust
//!
//! A program that only sends needs an [`App`] with a broker and, to see results, a result backend; nothing is connected to
//! before the first task is sent. What it sends, workers in Python and in Rust run alike: the messages are Celery 5.7's.
//!
//! ```no_run
//! use std::time::Duration;
//! use celeriac::{App, GroupResult, args, chain, chord, group, signature};
//!
//! #[celeriac::task(name = "shop.tasks.add")]
//! async fn add(x: i64, y: i64) -> i64 {
//!     x + y
//! }
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let mut app = App::new("shop").task(add);
//! app.config_mut().merge_environment(|name| std::env::var(name).ok())?; // CELERY_BROKER_URL, CELERY_RESULT_BACKEND
//! app.config_mut().merge_toml(
//!     "task_routes = { 'shop.mail.*' = 'mail', 'shop.*' = { queue = 'shop', priority = 3 } }",
//!     "built in",
//! )?;
//! let timeout = Duration::from_secs(10);
//!
//! // A task of this crate: its arguments have types. A task in Python: by its name.
//! let sum: i64 = app.send(add::s(2, 3)).await?.get(timeout).await?;
//! app.send(signature("shop.mail.welcome", args!["ann@example.org"]).kwarg("lang", "en").countdown(60.0)).await?;
//!
//! // Canvases, with tasks of both kinds.
//! let ten = chain([add::s(1, 2), add::partial(3), signature("shop.tasks.add", args![4])]);
//! let ten: i64 = app.send(ten).await?.get(timeout).await?;
//! let total = chord((0..10).map(|i| add::s(i, i)), signature("shop.tasks.total", args![]));
//! let total: i64 = app.send(total).await?.get(timeout).await?;
//! let sums: GroupResult = app.send(group((0..10).map(|i| add::s(i, 1)))).await?.try_into()?;
//! let sums: Vec<i64> = sums.join(timeout).await?;
//!
//! // What the task raised, by the name of its Python class.
//! let failed = app.send(signature("shop.tasks.fail", args![])).await?.get::<i64>(timeout).await;
//! match failed {
//!     Err(error) if error.is_timeout() => println!("not ready"),
//!     Err(error) => match error.task_error() {
//!         Some(raised) => println!("{}: {}", raised.exc_type(), raised.message()),
//!         None => return Err(error.into()),
//!     },
//!     Ok(value) => println!("{value}"),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A task in Rust sends from within with [`TaskContext::send`](crate::TaskContext::send), puts another in its place with
//! [`TaskContext::replace`](crate::TaskContext::replace), and makes its chord larger with
//! [`TaskContext::add_to_chord`](crate::TaskContext::add_to_chord).
//!
//! Nothing here decides what a canvas comes to (that is `canvas`) or where a message goes (that is `routing`).

mod broker_info;
mod bug_report;
pub(crate) mod conf;
pub(crate) mod control;
mod entry;
mod group_result;
mod keeper;
mod messages;
mod monitor;
mod observer;
mod open;
mod orders;
mod outbox;
mod panel;
pub(crate) mod parts;
mod periodic;
mod producer;
mod result;
mod result_error;
pub(crate) mod revoke;
mod sent_events;

use std::sync::{Arc, OnceLock};

pub(crate) use broker_info::broker_info;
pub(crate) use bug_report::bug_report;
pub use control::{Call, Control, by_node};
pub use entry::Entry;
pub use group_result::GroupResult;
pub use keeper::Keeper;
pub(crate) use messages::Prepared;
pub use messages::{Messages, Outgoing};
pub use monitor::{Events, Monitor};
pub use observer::{Observer, Revocation};
pub(crate) use open::Open;
pub(crate) use orders::Orders;
pub use panel::{Panel, Payload, Reins};
pub use producer::Producer;
pub(crate) use producer::{chords, new_id, origin, reply_to};
pub use result::AsyncResult;
pub use result_error::{ResultError, TaskError};
pub(crate) use sent_events::SentEvents;

use crate::Result;
use crate::config::{Config, QueueDefinition};
use crate::protocol::{Map, Signature};
use crate::task::{Registry, Task};
use crate::time::Clock;

/// A Celery application in Rust: its name, its settings and its tasks (celery/app/base.py `Celery`).
#[derive(Debug, Clone)]
pub struct App {
    name: String,
    config: Config,
    tasks: Registry,
    /// What beat sends.
    beat_schedule: Vec<Entry>,
    /// Who tells the settings where this app stands for one in another language.
    teller: Option<conf::Teller>,
    /// The first registration that failed; reported when the app is used, so that declarations can be chained.
    failed: Option<String>,
    /// Is told what happens to the workers that are made from it.
    observer: Option<Arc<dyn Observer>>,
    /// Has commands of remote control.
    panel: Option<Arc<dyn Panel>>,
    /// Stores results where `result_backend` cannot name the place.
    keeper: Option<Arc<dyn Keeper>>,
    /// What is consumed beside what the command line selects, and what is not.
    queues: (Vec<QueueDefinition>, Vec<String>),
    /// Made when it is first asked for; clones share it, until tasks or settings change.
    producer: Arc<OnceLock<Producer>>,
}

impl App {
    /// An app without tasks and with Celery's defaults. The name is what the banner shows.
    pub fn new(name: impl Into<String>) -> Self {
        App {
            name: name.into(),
            config: Config::default(),
            tasks: Registry::default(),
            beat_schedule: Vec::new(),
            teller: None,
            failed: None,
            observer: None,
            panel: None,
            keeper: None,
            queues: Default::default(),
            producer: Arc::default(),
        }
    }

    /// Adds a task. A name that is taken is an error of [`App::check`], and so of every worker made from the app.
    #[must_use]
    pub fn task(mut self, task: impl Task) -> Self {
        self.producer = Arc::default();
        if let Err(error) = self.tasks.register(task) {
            self.failed.get_or_insert_with(|| error.to_string());
        }
        self
    }

    /// Adds periodic tasks: what `beat`, or a worker with `-B`, sends when it is due. The setting `beat_schedule` may add others,
    /// and those of a name that is given here stand in its place.
    ///
    /// ```
    /// use celeriac::schedule::{Crontab, Interval};
    /// use celeriac::{App, Entry, args, signature};
    ///
    /// #[celeriac::task(name = "shop.tasks.sweep")]
    /// async fn sweep(days: u32) {}
    ///
    /// # fn main() -> celeriac::Result<()> {
    /// let app = App::new("shop").task(sweep).beat_schedule([
    ///     Entry::new("sweep every night", Crontab::parse("30 4 * * *")?, sweep::s(30)),
    ///     Entry::new("ask Python", Interval::from_seconds(30.0)?, signature("shop.tasks.ask", args!["who"])),
    /// ]);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn beat_schedule(mut self, entries: impl IntoIterator<Item = Entry>) -> Self {
        self.beat_schedule.extend(entries);
        self
    }

    /// The periodic tasks: those of the program, and over them those of the setting `beat_schedule`.
    pub(crate) fn periodic_tasks(&self) -> Result<Vec<Entry>> {
        let given = periodic::entries(&self.config)?;
        let replaced = |entry: &&Entry| given.iter().any(|other| other.name == entry.name);
        let mut entries: Vec<Entry> = self.beat_schedule.iter().filter(|entry| !replaced(entry)).cloned().collect();
        entries.extend(given);
        Ok(entries)
    }

    /// Replaces the settings.
    #[must_use]
    pub fn with_config(mut self, config: Config) -> Self {
        self.producer = Arc::default();
        self.config = config;
        self
    }

    /// Has somebody told what happens to the app's workers.
    #[must_use]
    pub fn observed_by(self, observer: Arc<dyn Observer>) -> Self {
        App { observer: Some(observer), ..self }
    }

    /// Has its workers heed commands of the program's own.
    #[must_use]
    pub fn with_panel(self, panel: Arc<dyn Panel>) -> Self {
        App { panel: Some(panel), ..self }
    }

    /// Has its workers store with this what they store themselves; without `result_backend`.
    #[must_use]
    pub fn with_keeper(self, keeper: Arc<dyn Keeper>) -> Self {
        App { keeper: Some(keeper), ..self }
    }

    pub(crate) fn keeper(&self) -> Option<Arc<dyn Keeper>> {
        self.keeper.clone()
    }

    pub(crate) fn panel(&self) -> Option<Arc<dyn Panel>> {
        self.panel.clone()
    }

    /// Has its workers consume these queues too, whatever the command line selects, every field of theirs filled in; and not
    /// those of the names.
    #[must_use]
    pub fn with_queues(self, added: Vec<QueueDefinition>, removed: Vec<String>) -> Self {
        App { queues: (added, removed), ..self }
    }

    /// What is consumed where the command line selects these queues.
    pub(crate) fn consumes(&self, mut selected: Vec<QueueDefinition>) -> Vec<QueueDefinition> {
        let (added, removed) = &self.queues;
        selected.retain(|queue| !removed.contains(&queue.name) && added.iter().all(|other| other.name != queue.name));
        selected.extend(added.iter().cloned());
        selected
    }

    /// Who is told.
    pub(crate) fn observer(&self) -> Option<Arc<dyn Observer>> {
        self.observer.clone()
    }

    /// Has remote control's `conf` answered by an app in another language, for which this one stands: with all settings
    /// if it is called with `true`, else with those that are not the default. It leaves out what is secret.
    #[must_use]
    pub fn with_settings_told(mut self, tell: impl Fn(bool) -> Result<Map> + Send + Sync + 'static) -> Self {
        self.teller = Some(conf::Teller(Arc::new(tell)));
        self
    }

    pub(crate) fn teller(&self) -> Option<&conf::Teller> {
        self.teller.as_ref()
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
        self.producer = Arc::default();
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

    /// Whether broker, result backend and time zone are such as there are: what would stop a worker at its start is said
    /// without one, and without connecting to anything.
    ///
    /// # Errors
    /// `Configuration`: the first that is not.
    pub fn check_parts(&self) -> Result<()> {
        parts::transport(&self.config, None, Clock::system(), 0)?;
        parts::write_transport(&self.config, Clock::system(), 0)?;
        parts::backend(&self.config)?;
        parts::timezone(&self.config).map(drop)
    }

    /// What sends for this app; made at the first call, without connecting to anything.
    ///
    /// # Errors
    /// `Configuration`, as [`Producer::new`].
    pub fn producer(&self) -> Result<Producer> {
        if let Some(producer) = self.producer.get() {
            return Ok(producer.clone());
        }
        let producer = Producer::new(self)?;
        Ok(self.producer.get_or_init(|| producer).clone())
    }

    /// What sends for this app, and for its clones, is what is made of it here.
    #[cfg(feature = "testing")]
    pub(crate) fn sending_with(self, make: impl FnOnce(&App) -> Result<Producer>) -> Result<Self> {
        let producer = Arc::new(OnceLock::from(make(&self)?));
        Ok(App { producer, ..self })
    }

    /// Sends a task or a canvas: [`Producer::send`].
    ///
    /// # Errors
    /// Those of [`App::producer`] and of [`Producer::send`].
    pub async fn send(&self, signature: impl Into<Signature>) -> Result<AsyncResult> {
        self.producer()?.send(signature).await
    }

    /// The remote control of the workers at the app's broker: [`Control`].
    ///
    /// # Errors
    /// Those of [`Control::new`].
    pub fn control(&self) -> Result<Control> {
        Control::new(self)
    }

    /// The result of a task that somebody sent: [`Producer::result`].
    ///
    /// # Errors
    /// Those of [`App::producer`].
    pub fn result(&self, task_id: impl Into<String>) -> Result<AsyncResult> {
        Ok(self.producer()?.result(task_id))
    }
}
