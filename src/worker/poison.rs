//! Messages whose handling kills the worker, where the setting `worker_lost_limit` bounds how often one may.
//!
//! Only a message that was delivered before can have killed anybody, and only one that is acknowledged late comes back
//! when it has; so these alone are counted, and all others cost nothing. Before such a message runs, a [`Record`] is
//! written beside it at the broker (in batches), and it is removed when the run has ended, however it did. A record that
//! is found when a message comes is that of a run that took its worker along.
//!
//! That a worker died while a message ran does not mean that it died of it: hundreds run at a time. So who is close to the
//! limit is a *suspect*, and runs while nothing else begins ([`Quarantine`]); only one whose last run was of this kind is
//! given up. Of `n` deaths the first needs no record, the last must be alone, and those between may be in company: for
//! the limit of 3, a message kills exactly three workers, and its neighbours survive them all.
//!
//! A worker that is killed from outside (SIGKILL, the kernel out of memory) counts as one that died of what it ran. A
//! worker that is told to stop, also coldly, does not: it removes its records.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::conclude::{self, Conclusion};
use super::event::Event;
use super::finish::Finisher;
use super::publisher::Current;
use super::report::Report;
use super::request::Work;
use super::running::Slot;
use super::settle::Ending;
use crate::protocol::{Exception, MetaResult};
use crate::trace::Scope;
use crate::transport::{Connection, Note};

/// How many records one write carries at most.
const BATCH: usize = 500;
/// How long a record is kept that nobody removes: longer than any message is likely to wait for its next delivery.
const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long the first run alone is alone; each further one four times as long, for what kills late.
const ALONE: Duration = Duration::from_secs(1);
/// The longest that a run is alone.
const LONGEST_ALONE: Duration = Duration::from_secs(600);

/// What is known of a message's runs that did not end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Record {
    /// How many there were since this is counted: without the run that may have been the first of all.
    runs: u32,
    /// In the last of them nothing else began.
    alone: bool,
}

/// What a record comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// To be run as any other, with a record.
    Innocent,
    /// To be run alone.
    Suspect,
    /// Not to be run again.
    Guilty,
}

impl Record {
    /// The record that is written while the message runs once more.
    fn next(self, alone: bool) -> Self {
        Record { runs: self.runs.saturating_add(1), alone }
    }

    /// How many workers the message has killed, if it is what killed them.
    pub(crate) fn deaths(self) -> u32 {
        self.runs.saturating_add(1)
    }

    /// What to do with a message of this record when a message may kill `limit` workers.
    pub(crate) fn judge(self, limit: u32) -> Judgement {
        if self.alone && self.deaths() >= limit {
            Judgement::Guilty
        } else if self.deaths().saturating_add(1) >= limit {
            Judgement::Suspect
        } else {
            Judgement::Innocent
        }
    }

    /// How long a suspect is alone.
    fn time_alone(self, limit: u32) -> Duration {
        let surplus = self.deaths().saturating_add(1).saturating_sub(limit.max(2)).min(10);
        ALONE.saturating_mul(4_u32.pow(surplus)).min(LONGEST_ALONE)
    }

    fn read(text: &str) -> Self {
        let (runs, alone) = text.split_once(' ').map_or((text, false), |(runs, how)| (runs, how == "alone"));
        Record { runs: runs.parse().unwrap_or(0), alone }
    }

    fn write(self) -> String {
        format!("{}{}", self.runs, if self.alone { " alone" } else { "" })
    }
}

/// Keeps the records of one worker; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Poison {
    limit: u32,
    orders: mpsc::UnboundedSender<Order>,
    current: Current,
}

#[derive(Debug)]
struct Order {
    note: Note,
    /// Dropped, unanswered, if the record could not be written.
    done: Option<oneshot::Sender<()>>,
}

impl Poison {
    /// The keeper and its background part, which ends when every clone of the keeper is gone.
    pub(crate) fn start(limit: u32, current: Current) -> (Self, JoinHandle<()>) {
        let (orders, receiver) = mpsc::unbounded_channel();
        let serving = tokio::spawn(serve(receiver, current.clone()));
        (Poison { limit, orders, current }, serving)
    }

    /// Whether this message can have killed a worker.
    pub(crate) fn concerns(work: &Work) -> bool {
        work.task.policy.acks_late && work.message.properties.redelivered
    }

    /// Puts with each message what is known of it, and what that comes to. While no connection is up it waits; nothing
    /// when there will be none again.
    pub(crate) async fn look_up(&self, works: VecDeque<Box<Work>>) -> Vec<(Box<Work>, Judgement)> {
        let names: Vec<_> = works.iter().map(|work| name(&work.request.id)).collect();
        let mut current = self.current.clone();
        let Some(notes) = notes(&names, &mut current).await else { return Vec::new() };
        let judged = works.into_iter().zip(notes).map(|(mut work, note)| {
            let record = note.as_deref().map(Record::read).unwrap_or_default();
            work.record = Some(record);
            (work, record.judge(self.limit))
        });
        judged.collect()
    }

    /// Runs one message to its end, with a record beside it meanwhile; `alone` is given up after a while.
    pub(crate) async fn run(self, finisher: Arc<Finisher>, work: Box<Work>, slot: Slot, alone: Option<Alone>) {
        let (id, record) = (work.request.id.clone(), work.record.unwrap_or_default());
        let _ends = Ends { poison: &self, id: &id };
        if !self.begin(&id, record, alone.is_some()).await {
            // Dropped, the message goes back.
            return;
        }
        let others_begin = async {
            if alone.is_some() {
                tokio::time::sleep(record.time_alone(self.limit)).await;
                self.begin(&id, record, false).await;
                drop(alone);
            }
            std::future::pending().await
        };
        tokio::select! {
            biased;
            () = finisher.run(work, slot) => {}
            () = others_begin => {}
        }
    }

    /// Gives a message up.
    pub(crate) async fn condemn(self, finisher: Arc<Finisher>, mut work: Box<Work>) {
        let conclusion = conclusion(work.record.unwrap_or_default());
        Scope::of_headers(&work.request.headers).run(finisher.end(&mut work, conclusion)).await;
        // If somebody sends the dead letter again, it begins anew.
        self.end(&work.request.id);
    }

    /// Writes that the message begins to run; `false` if that cannot be, and then it must not.
    async fn begin(&self, id: &str, record: Record, alone: bool) -> bool {
        let (done, written) = oneshot::channel();
        self.order(id, Some(record.next(alone)), Some(done));
        written.await.is_ok()
    }

    /// Removes the record: the run has ended. Not waited for.
    fn end(&self, id: &str) {
        self.order(id, None, None);
    }

    fn order(&self, id: &str, record: Option<Record>, done: Option<oneshot::Sender<()>>) {
        let note = Note { name: name(id), text: record.map(Record::write) };
        // The background part is gone only when there will be no connection again.
        let _ = self.orders.send(Order { note, done });
    }
}

/// Removes the record when the run ends, also when it is cut off while the record is still being written.
struct Ends<'a> {
    poison: &'a Poison,
    id: &'a str,
}

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.poison.end(self.id);
    }
}

fn name(id: &str) -> String {
    format!("lost.{id}")
}

/// Reads notes, over the next connection if this one breaks.
async fn notes(names: &[String], current: &mut Current) -> Option<Vec<Option<String>>> {
    loop {
        let connection = next(current).await?;
        match connection.notes(names).await {
            Ok(notes) => return Some(notes),
            Err(error) => wait_for_another(current, &connection, &error).await?,
        }
    }
}

async fn serve(mut orders: mpsc::UnboundedReceiver<Order>, mut current: Current) {
    let mut batch = Vec::with_capacity(BATCH);
    while orders.recv_many(&mut batch, BATCH).await > 0 {
        let notes: Vec<_> = batch.iter().map(|order| order.note.clone()).collect();
        if write(notes, &mut current).await.is_none() {
            return;
        }
        for order in batch.drain(..) {
            // Who asked may have been cancelled: nobody is left to tell.
            let _ = order.done.map(|done| done.send(()));
        }
    }
}

async fn write(notes: Vec<Note>, current: &mut Current) -> Option<()> {
    loop {
        let connection = next(current).await?;
        match connection.write_notes(notes.clone(), KEPT_FOR).await {
            Ok(()) => return Some(()),
            Err(error) => wait_for_another(current, &connection, &error).await?,
        }
    }
}

async fn next(current: &mut Current) -> Option<Arc<dyn Connection>> {
    current.wait_for(Option::is_some).await.ok()?.clone()
}

async fn wait_for_another(current: &mut Current, failed: &Arc<dyn Connection>, error: &crate::Error) -> Option<()> {
    tracing::warn!("cannot keep records of lost workers, waiting: {error}");
    if !error.is_connection() {
        // The server is full or busy: it is asked again soon.
        tokio::time::sleep(ALONE).await;
        return Some(());
    }
    match timeout(ALONE, super::publisher::changed_from(current, failed)).await {
        Ok(false) => None,
        Ok(true) | Err(_) => Some(()),
    }
}

/// A suspect's being alone; dropping it lets others begin.
#[derive(Debug)]
pub(crate) struct Alone(mpsc::UnboundedSender<Event>);

impl Drop for Alone {
    fn drop(&mut self) {
        // The loop is gone only when the worker is.
        let _ = self.0.send(Event::Left);
    }
}

/// Who runs alone, and who waits for it.
#[derive(Debug)]
pub(crate) struct Quarantine {
    pub(crate) poison: Poison,
    /// What is to be looked up.
    asked: VecDeque<Box<Work>>,
    suspects: VecDeque<Box<Work>>,
    events: mpsc::UnboundedSender<Event>,
    /// A suspect runs, and nothing else may begin.
    occupied: bool,
    /// Since when nothing else has begun, so that a suspect can.
    waiting: Option<Instant>,
}

/// What may begin now.
#[derive(Debug)]
pub(crate) enum Turn {
    /// Anything.
    Open,
    /// This, and nothing else until [`Quarantine::leave`].
    Alone(Box<Work>, Alone),
    /// Nothing.
    Closed,
}

impl Quarantine {
    pub(crate) fn new(poison: Poison, events: mpsc::UnboundedSender<Event>) -> Self {
        Quarantine { poison, events, asked: VecDeque::new(), suspects: VecDeque::new(), occupied: false, waiting: None }
    }

    /// Keeps what is to be looked up; gives back what is not.
    pub(crate) fn ask(&mut self, work: Box<Work>) -> Option<Box<Work>> {
        if work.record.is_some() || !Poison::concerns(&work) {
            return Some(work);
        }
        self.asked.push_back(work);
        None
    }

    /// What is to be looked up.
    pub(crate) fn asked(&mut self) -> VecDeque<Box<Work>> {
        std::mem::take(&mut self.asked)
    }

    /// Takes a suspect in.
    pub(crate) fn admit(&mut self, suspect: Box<Work>) {
        self.suspects.push_back(suspect);
    }

    /// What may begin when so many run. A suspect waits until nothing else runs, but no longer than it will be alone:
    /// what has run for so long without harm is not what kills now.
    pub(crate) fn turn(&mut self, running: usize, now: Instant) -> Turn {
        if self.occupied {
            return Turn::Closed;
        }
        let Some(suspect) = self.suspects.front() else { return Turn::Open };
        let patience = suspect.record.unwrap_or_default().time_alone(self.poison.limit);
        let until = *self.waiting.get_or_insert(now) + patience;
        if running > 0 && now < until {
            return Turn::Closed;
        }
        self.waiting = None;
        match self.suspects.pop_front() {
            Some(suspect) => {
                self.occupied = true;
                Turn::Alone(suspect, Alone(self.events.clone()))
            }
            None => Turn::Open,
        }
    }

    /// When a suspect may begin though others run.
    pub(crate) fn opens(&self) -> Option<Instant> {
        let suspect = self.suspects.front()?;
        Some(self.waiting? + suspect.record.unwrap_or_default().time_alone(self.poison.limit))
    }

    /// The suspect has ended, or is no longer alone.
    pub(crate) fn leave(&mut self) {
        self.occupied = false;
    }

    /// Gives up all that wait.
    pub(crate) fn clear(&mut self) {
        self.suspects.clear();
        self.asked.clear();
    }

    /// Whether nothing but suspects may begin.
    pub(crate) fn is_closed(&self) -> bool {
        self.occupied || !self.suspects.is_empty()
    }

    /// All that wait.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Box<Work>> {
        self.asked.iter().chain(&self.suspects)
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.suspects.len() + self.asked.len()
    }
}

/// What a message comes to that is not to be run again (celery/worker/request.py `Request.on_failure`: `WorkerLostError`).
fn conclusion(record: Record) -> Conclusion {
    let text = format!("Worker exited prematurely: {} workers were lost while they ran this task.", record.deaths());
    let exception = Exception::with_args("WorkerLostError", "billiard.exceptions", [text]);
    Conclusion {
        report: Report::Error(format!("raised unexpected: {exception}"), None),
        result: MetaResult::Exception(exception),
        ..conclude::plain(Ending::WorkerLost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_death_is_alone_and_the_limit_is_exact() {
        for limit in [2, 3, 5, 10] {
            let (mut record, mut deaths) = (Record::default(), 1);
            while record.judge(limit) != Judgement::Guilty {
                record = record.next(record.judge(limit) == Judgement::Suspect);
                deaths += 1;
            }
            assert_eq!((record.deaths(), deaths), (limit, limit));
        }
    }

    #[test]
    fn who_was_never_alone_is_never_guilty() {
        for runs in 0..100 {
            assert_ne!(Record { runs, alone: false }.judge(3), Judgement::Guilty);
        }
        assert_eq!(Record { runs: 0, alone: false }.judge(3), Judgement::Innocent);
        assert_eq!(Record { runs: 1, alone: false }.judge(3), Judgement::Suspect);
        assert_eq!(Record { runs: 0, alone: false }.judge(1), Judgement::Suspect);
    }

    #[test]
    fn what_kills_late_is_alone_for_longer_each_time() {
        let times = (1..10).map(|runs| Record { runs, alone: false }.time_alone(3).as_secs());
        assert_eq!(times.collect::<Vec<_>>(), [1, 4, 16, 64, 256, 600, 600, 600, 600]);
        assert_eq!(Record::default().time_alone(1).as_secs(), 1);
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        for record in [Record::default(), Record { runs: 7, alone: true }, Record { runs: u32::MAX, alone: false }] {
            assert_eq!(Record::read(&record.write()), record);
        }
        assert_eq!(Record::read("nonsense"), Record::default());
    }
}
