//! `dead-letters`: looks at the messages that workers gave up, and puts them back or throws them away.
//!
//! It works on the broker alone: the tasks need not be known here, and no worker need run. What is only looked at stays
//! as it is. What is put back leaves the queue of dead letters in the same instant, where the broker can do that.

mod letter;
mod options;
mod table;

use std::collections::HashSet;
use std::io::{self, BufRead, Write};
use std::process::ExitCode;

use tokio::runtime::Builder;

use super::failure::{Failure, say, write};
use super::options::GlobalOptions;
use super::settings;
use super::worker::change_to;
use crate::app::App;
use crate::time::Clock;
use crate::transport::{Browsed, Browser, Connection, Queue, QueueName, Replacement};
use crate::{Error, ErrorKind, worker};
use letter::{Letter, line};
pub(super) use options::DeadLettersArguments;
use options::{DeadLettersCommand, Filter};
use table::Table;

/// Runs the command.
pub(super) fn run(mut app: App, global: &GlobalOptions, arguments: &DeadLettersArguments) -> Result<ExitCode, Failure> {
    if let Some(folder) = &global.workdir {
        change_to(folder)?;
    }
    if arguments.command.names_nothing() {
        return Err(Failure::usage("which dead letters are to be put back? Give their ids, or --all"));
    }
    settings::gather_global(app.config_mut(), global)?;
    let queue = arguments.queue.clone().or_else(|| app.config().dead_letter_queue.clone());
    let queue = queue.ok_or_else(|| Failure::usage("no dead letters are kept: dead_letter_queue is empty"))?;
    let transport = worker::transport(app.config(), None, Clock::system(), fastrand::u64(..))?;
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::new(ErrorKind::Io, "start the runtime").with_source(error))?;
    runtime.block_on(async {
        let connection = transport.connect().await?;
        let done = Office { connection: &*connection, queue: queue.as_str().into() }.run(&arguments.command).await;
        connection.close().await?;
        done
    })
}

/// The queue of dead letters.
struct Office<'a> {
    connection: &'a dyn Connection,
    queue: QueueName,
}

impl Office<'_> {
    async fn run(&self, command: &DeadLettersCommand) -> Result<ExitCode, Failure> {
        match command {
            DeadLettersCommand::List { filter, json } => self.list(filter, *json).await,
            DeadLettersCommand::Show { id, json, raw } => self.show(id, *json, *raw).await,
            DeadLettersCommand::Requeue { ids, filter, .. } => self.requeue(&Wanted { ids, filter }).await,
            DeadLettersCommand::Purge { ids, filter, force } => self.purge(&Wanted { ids, filter }, *force).await,
        }
    }

    async fn list(&self, filter: &Filter, json: bool) -> Result<ExitCode, Failure> {
        let (mut browser, mut table) =
            (self.browse().await?, Table::new(["ID", "TASK", "QUEUE", "REASON", "TIME (UTC)"]));
        let mut selection = Selection::new(Wanted { ids: &[], filter });
        while let Some(page) = selection.next(&mut *browser).await? {
            for browsed in &page {
                let letter = Letter::new(browsed);
                match json {
                    true => say(&line(letter.summary())),
                    false => table.push(letter.row()),
                }
            }
        }
        if !json {
            match table.is_empty() {
                true => say(&format!("No dead letters in {}.", self.queue)),
                false => say(table.to_string().trim_end()),
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn show(&self, id: &str, json: bool, raw: bool) -> Result<ExitCode, Failure> {
        let (mut browser, ids, filter) = (self.browse().await?, [id.to_owned()], Filter::default());
        let mut selection = Selection::new(Wanted { ids: &ids, filter: &filter });
        while let Some(page) = selection.next(&mut *browser).await? {
            for (browsed, nth) in page.iter().zip(selection.count - page.len()..) {
                let letter = Letter::new(browsed);
                match (json, raw) {
                    (true, _) => say(&line(letter.details())),
                    (_, true) => write(letter.body()),
                    _ if nth > 0 => say(&format!("\n{}", letter.report())),
                    _ => say(&letter.report()),
                }
            }
        }
        self.all_found(&selection)
    }

    async fn requeue(&self, wanted: &Wanted<'_>) -> Result<ExitCode, Failure> {
        let mut selection = Selection::new(*wanted);
        let (requeued, refused) = self.take(&mut selection, |letter| revived(letter).map(Some)).await?;
        say_done("Requeued", requeued, &selection);
        if refused > 0 {
            return Err(failed(format!("{} of {} stay: not dead letters", letters(refused), self.queue)));
        }
        self.all_found(&selection)
    }

    async fn purge(&self, wanted: &Wanted<'_>, force: bool) -> Result<ExitCode, Failure> {
        if !force && !self.is_sure(wanted)? {
            return Err(failed("aborted".to_owned()));
        }
        if wanted.is_all() {
            let purged = self.connection.purge(&[Queue::direct(self.queue.as_str())]).await?;
            say(&format!("Purged {}.", letters(usize::try_from(purged).unwrap_or(usize::MAX))));
            return Ok(ExitCode::SUCCESS);
        }
        let mut selection = Selection::new(*wanted);
        let (purged, _) = self.take(&mut selection, |_| Some(None)).await?;
        say_done("Purged", purged, &selection);
        self.all_found(&selection)
    }

    /// Takes out what is wanted, and puts in its place what `replace` says, which for some may be that they stay; answers
    /// how many were taken and how many stay. Where somebody else takes letters meanwhile, the others move up past who
    /// reads them: then it looks again, but tries none twice, for it may be there and have nowhere to go.
    async fn take(
        &self,
        selection: &mut Selection<'_>,
        replace: impl Fn(&Browsed) -> Option<Option<Replacement>>,
    ) -> crate::Result<(usize, usize)> {
        let (mut taken, mut tried) = (0, HashSet::new());
        loop {
            let (mut browser, mut stay, before) = (self.browse().await?, 0, tried.len());
            while let Some(page) = selection.next(&mut *browser).await? {
                let page: Vec<_> = page.into_iter().filter(|letter| !tried.contains(&letter.raw)).collect();
                let wanted = page.len();
                let chosen: Vec<_> =
                    page.into_iter().filter_map(|letter| replace(&letter).map(|by| (letter, by))).collect();
                stay += wanted - chosen.len();
                let raws: Vec<_> = chosen.iter().map(|(letter, _)| letter.raw.clone()).collect();
                let answers = browser.take(chosen).await?;
                let missed = raws.into_iter().zip(&answers).filter(|(_, taken)| !**taken).map(|(raw, _)| raw);
                tried.extend(missed);
                let now = answers.iter().filter(|taken| **taken).count();
                taken += now;
                selection.count -= selection.last - now;
            }
            if tried.len() == before {
                return Ok((taken, stay));
            }
        }
    }

    /// Asks as celery/bin/purge.py does.
    fn is_sure(&self, wanted: &Wanted<'_>) -> Result<bool, Failure> {
        let which = if wanted.is_all() { "all" } else { "the chosen" };
        say(&format!(
            "WARNING: This will remove {which} dead letters from the queue: {}.\n         \
             There is no undo for this operation!\n\n(to skip this prompt use the -f option)",
            self.queue
        ));
        write(format!("Are you sure you want to delete {which} dead letters? [y/N]: ").as_bytes());
        let _ = io::stdout().flush();
        let mut answer = String::new();
        let read = io::stdin().lock().read_line(&mut answer);
        read.map_err(|error| Error::new(ErrorKind::Io, "read the answer").with_source(error))?;
        Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
    }

    async fn browse(&self) -> crate::Result<Box<dyn Browser>> {
        self.connection.browse(&self.queue).await
    }

    fn all_found(&self, selection: &Selection<'_>) -> Result<ExitCode, Failure> {
        match selection.not_found().as_slice() {
            [] => Ok(ExitCode::SUCCESS),
            missing => Err(failed(format!("no dead letter in {} is called {}", self.queue, missing.join(", ")))),
        }
    }
}

/// Which letters somebody asked for.
#[derive(Debug, Clone, Copy)]
struct Wanted<'a> {
    /// None: every id.
    ids: &'a [String],
    filter: &'a Filter,
}

impl Wanted<'_> {
    fn is_all(&self) -> bool {
        self.ids.is_empty() && matches!(self.filter, Filter { task: None, reason: None, limit: None })
    }
}

/// Finds what is wanted, page by page.
struct Selection<'a> {
    wanted: Wanted<'a>,
    /// Which of the ids were found.
    found: Vec<bool>,
    /// How many letters were chosen, and how many of them with the last page.
    count: usize,
    last: usize,
}

impl<'a> Selection<'a> {
    fn new(wanted: Wanted<'a>) -> Self {
        Selection { wanted, found: vec![false; wanted.ids.len()], count: 0, last: 0 }
    }

    /// What is wanted of the next page; `None` when there are no more pages, or enough was found.
    async fn next(&mut self, browser: &mut dyn Browser) -> crate::Result<Option<Vec<Browsed>>> {
        let left = self.wanted.filter.limit.unwrap_or(usize::MAX) - self.count;
        let mut page = if left == 0 { Vec::new() } else { browser.next().await? };
        if page.is_empty() {
            return Ok(None);
        }
        page.retain(|browsed| self.wants(&Letter::new(browsed)));
        page.truncate(left);
        self.last = page.len();
        self.count += page.len();
        Ok(Some(page))
    }

    fn wants(&mut self, letter: &Letter<'_>) -> bool {
        if !letter.passes(self.wanted.filter) {
            return false;
        }
        let mut called = false;
        for (id, found) in self.wanted.ids.iter().zip(&mut self.found) {
            let this = letter.is_called(id);
            *found |= this;
            called |= this;
        }
        called || self.wanted.ids.is_empty()
    }

    fn not_found(&self) -> Vec<&'a str> {
        let ids = self.wanted.ids.iter().zip(&self.found);
        ids.filter(|(_, found)| !**found).map(|(id, _)| id.as_str()).collect()
    }
}

fn revived(browsed: &Browsed) -> Option<Replacement> {
    worker::revived(browsed.message.as_ref().ok()?)
}

/// Where nothing was found of what somebody named, the error alone says it.
fn say_done(what: &str, count: usize, selection: &Selection<'_>) {
    if count > 0 || selection.not_found().is_empty() {
        say(&format!("{what} {}.", letters(count)));
    }
}

fn letters(count: usize) -> String {
    match count {
        1 => "1 dead letter".to_owned(),
        count => format!("{count} dead letters"),
    }
}

fn failed(message: String) -> Failure {
    Failure { message, code: super::failure::Code::Failure }
}
