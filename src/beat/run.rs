//! [`Beat`]: the loop of `Service.start` and what a tick sets in motion.

use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use super::entry::{Entry, Kept};
use super::scheduler::{Scheduler, Sending, Step};
use super::shared::{SharedBeat, SharedStore};
use crate::Result;
use crate::app::Producer;
use crate::protocol::Signature;
use crate::schedule::humanize_seconds;
use crate::time::Clock;
use crate::transport::Claim;

/// For how long runs that were decided on together are sent as of that instant.
const ONE_INSTANT: SignedDuration = SignedDuration::from_secs(1);

/// The entries and their runs.
pub type Changed = (Vec<Entry>, Kept);

/// Where the last runs are kept from one beat to the next.
#[async_trait]
pub trait Store: Send {
    /// What was kept; nothing, if nothing was.
    ///
    /// # Errors
    ///
    /// `Io` and the like: it cannot be read.
    async fn load(&mut self) -> Result<Kept>;

    /// Keeps this from now on. When it returns, a crash of the process or of the machine does not lose it.
    ///
    /// # Errors
    ///
    /// `Io` and the like: it cannot be written. What was kept before still is.
    async fn save(&mut self, kept: &Kept) -> Result<()>;

    /// Keeps a run before it is sent, and says whether it may be: not, where another beat has it. `kept` is all that is to be
    /// kept, this run among it. What cannot be kept is sent nevertheless: tasks that no longer run would be worse than one
    /// that runs again after a crash.
    async fn claim(&mut self, sending: &Sending, kept: &Kept) -> bool {
        if let Err(error) = self.save(kept).await {
            tracing::error!("beat: Cannot keep that {} was sent: {error}", sending.name);
        }
        true
    }

    /// How many runs that are due at one instant may be kept together, which [`Store::claim_together`] does then. With 1, each
    /// is claimed for itself.
    fn most_together(&self) -> usize {
        1
    }

    /// Keeps runs before any of them is sent; `kept` is all that is to be kept, these runs among it. They are sent in this
    /// order, and each is [begun](Store::begin) first.
    ///
    /// # Errors
    ///
    /// As [`Store::save`]. They are sent nevertheless, as in [`Store::claim`].
    async fn claim_together(&mut self, batch: &[Sending], kept: &Kept) -> Result<()> {
        let _ = batch;
        self.save(kept).await
    }

    /// Notes that the next of the runs that were claimed together is about to be sent: `index` counts them.
    ///
    /// # Errors
    ///
    /// As [`Store::save`]. It is sent nevertheless.
    async fn begin(&mut self, index: usize) -> Result<()> {
        let _ = index;
        Ok(())
    }

    /// What was kept, for who only wants to know: nothing is taken over or changed.
    ///
    /// # Errors
    ///
    /// As [`Store::load`].
    async fn peek(&mut self) -> Result<Kept> {
        self.load().await
    }

    /// All entries and their runs, where the store has entries too, and they are others than it told last; it is asked
    /// before each tick. `given` are those of the settings. Most stores have none.
    ///
    /// # Errors
    ///
    /// `Io` and the like: it cannot be read. Beat goes on with what it has.
    async fn changed(&mut self, given: &[Entry]) -> Result<Option<Changed>> {
        let _ = given;
        Ok(None)
    }

    /// How long beat may sleep, where nothing is configured: the `max_interval` of Celery's class.
    fn max_interval(&self) -> Duration {
        Duration::from_secs(300)
    }

    /// What the banner says of it: a line, or none.
    fn info(&self) -> Option<String> {
        None
    }

    /// The store as one that several beats share, if it is one. It is then asked for nothing of the above but
    /// [`Store::changed`].
    fn shared(&mut self) -> Option<&mut dyn SharedStore> {
        None
    }
}

#[async_trait]
impl Store for Box<dyn Store> {
    async fn load(&mut self) -> Result<Kept> {
        (**self).load().await
    }

    async fn save(&mut self, kept: &Kept) -> Result<()> {
        (**self).save(kept).await
    }

    async fn claim(&mut self, sending: &Sending, kept: &Kept) -> bool {
        (**self).claim(sending, kept).await
    }

    fn most_together(&self) -> usize {
        (**self).most_together()
    }

    async fn claim_together(&mut self, batch: &[Sending], kept: &Kept) -> Result<()> {
        (**self).claim_together(batch, kept).await
    }

    async fn begin(&mut self, index: usize) -> Result<()> {
        (**self).begin(index).await
    }

    async fn peek(&mut self) -> Result<Kept> {
        (**self).peek().await
    }

    async fn changed(&mut self, given: &[Entry]) -> Result<Option<Changed>> {
        (**self).changed(given).await
    }

    fn max_interval(&self) -> Duration {
        (**self).max_interval()
    }

    fn info(&self) -> Option<String> {
        (**self).info()
    }

    fn shared(&mut self) -> Option<&mut dyn SharedStore> {
        (**self).shared()
    }
}

/// What sends the tasks that are due.
#[async_trait]
pub trait Sender: Send {
    /// Sends a task; returns its id when the broker has accepted it.
    ///
    /// # Errors
    ///
    /// It was not sent, after as many tries as the settings allow.
    async fn send(&mut self, signature: Signature) -> Result<String>;

    /// Whether it writes to the log what it sends, and what it cannot send.
    fn logs(&self) -> bool {
        false
    }

    /// Sends a task and takes its claim, which stands at `server`, away in the same instant; sends nothing if the claim is
    /// gone, as whoever took it has sent the task. Says whether it does so: if not, nothing was sent.
    ///
    /// # Errors
    ///
    /// As [`Sender::send`]; the claim is as it was.
    async fn send_claimed(&mut self, _signature: Signature, _server: &str, _claim: Claim) -> Result<bool> {
        Ok(false)
    }
}

#[async_trait]
impl Sender for Box<dyn Sender> {
    async fn send(&mut self, signature: Signature) -> Result<String> {
        (**self).send(signature).await
    }

    fn logs(&self) -> bool {
        (**self).logs()
    }

    async fn send_claimed(&mut self, signature: Signature, server: &str, claim: Claim) -> Result<bool> {
        (**self).send_claimed(signature, server, claim).await
    }
}

#[async_trait]
impl Sender for Producer {
    async fn send(&mut self, signature: Signature) -> Result<String> {
        Producer::send(self, signature).await.map(|result| result.id().to_owned())
    }

    async fn send_claimed(&mut self, signature: Signature, server: &str, claim: Claim) -> Result<bool> {
        Producer::send_claimed(self, signature, server, claim).await
    }
}

/// A beat: a scheduler, its store and its sender.
pub struct Beat<S, P> {
    scheduler: Scheduler,
    /// The entries of the settings.
    given: Vec<Entry>,
    store: S,
    sender: P,
    clock: Clock,
}

impl<S: Store, P: Sender> Beat<S, P> {
    /// A beat that has not begun. The scheduler is made from what `store` has [loaded](Store::load).
    pub fn new(scheduler: Scheduler, store: S, sender: P, clock: Clock) -> Self {
        let given = scheduler.entries().cloned().collect();
        Beat { scheduler, given, store, sender, clock }
    }

    /// Sends what is due until `stop` is cancelled, and keeps the last runs once more then. A task that is being sent is
    /// waited for.
    ///
    /// # Errors
    ///
    /// The store cannot be written at the end. While beat runs, a store or a sender that fails is told of and no more.
    pub async fn run(mut self, stop: CancellationToken) -> Result<()> {
        tracing::info!("beat: Starting...");
        if let Some(store) = self.store.shared() {
            return SharedBeat::new(self.given, self.scheduler, store, &mut self.sender, self.clock).run(stop).await;
        }
        while !stop.is_cancelled() {
            self.look().await;
            let now = self.clock.now();
            match self.scheduler.tick(now) {
                Step::Send(sending) => {
                    let batch = self.scheduler.together(*sending, now, self.store.most_together());
                    self.send_together(batch, now, &stop).await;
                }
                Step::Wait(wait) if wait.is_zero() => {}
                Step::Wait(wait) => {
                    tracing::debug!("beat: Waking up in {}.", humanize_seconds(wait.as_secs_f64()));
                    let _ = stop.run_until_cancelled(tokio::time::sleep(wait)).await;
                }
            }
        }
        tracing::debug!("beat: Synchronizing schedule...");
        self.store.save(self.scheduler.kept()).await
    }

    /// Takes over what has changed in the store.
    async fn look(&mut self) {
        match self.store.changed(&self.given).await {
            Ok(Some((entries, kept))) => self.scheduler.adopt(entries, kept, self.clock.now()),
            Ok(None) => {}
            Err(error) => tracing::error!("beat: Cannot read the schedule: {error}"),
        }
    }

    /// Keeps the runs, and then sends them one after the other. When beat is to stop, those that have not begun are due again;
    /// and when it takes long, as where the broker is away, so that each counts as run when it was sent.
    async fn send_together(&mut self, mut batch: Vec<Sending>, decided: Timestamp, stop: &CancellationToken) {
        if batch.len() == 1 {
            return self.send_alone(batch.remove(0)).await;
        }
        if let Err(error) = self.store.claim_together(&batch, self.scheduler.kept()).await {
            tracing::error!("beat: Cannot keep that {} tasks that are due were sent: {error}", batch.len());
        }
        let (mut rest, mut index) = (batch.into_iter(), 0);
        while !stop.is_cancelled()
            && (index == 0 || is_now(decided, self.clock.now()))
            && let Some(sending) = rest.next()
        {
            if let Err(error) = self.store.begin(index).await {
                tracing::error!("beat: Cannot keep that {} was sent: {error}", sending.name);
            }
            index += 1;
            self.send(sending).await;
        }
        self.scheduler.take_back(rest.collect());
    }

    /// Keeps the run, and then sends.
    async fn send_alone(&mut self, sending: Sending) {
        if !self.store.claim(&sending, self.scheduler.kept()).await {
            return tracing::debug!("beat: {} is another's to send.", sending.name);
        }
        self.send(sending).await;
    }

    /// Sends. What cannot be sent is due again when its schedule says.
    async fn send(&mut self, sending: Sending) {
        let Sending { name, signature, .. } = sending;
        let task = signature.task.clone();
        let logs = self.sender.logs();
        if !logs {
            tracing::info!("Scheduler: Sending due task {name} ({task})");
        }
        match self.sender.send(signature).await {
            _ if logs => {}
            Ok(id) => tracing::debug!("{task} sent. id->{id}"),
            Err(error) => tracing::error!("Message Error: Couldn't apply scheduled task {name}: {error}"),
        }
    }
}

/// Whether what was decided on then is still to be sent as of then.
fn is_now(decided: Timestamp, now: Timestamp) -> bool {
    decided.duration_until(now).abs() < ONE_INSTANT
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::schedule::{Interval, Rules};
    use crate::{Error, ErrorKind};

    type Log = Arc<Mutex<Vec<String>>>;

    /// Writes down what is kept and sent.
    #[derive(Default)]
    struct Witness {
        log: Log,
        /// Whether each of it fails.
        fails: bool,
        /// Whether it keeps together what is due together.
        gathers: bool,
        /// Stops beat when the second of several has begun.
        stop: Option<CancellationToken>,
    }

    impl Witness {
        fn note(&self, what: String) -> Result<()> {
            self.log.lock().unwrap().push(what);
            if self.fails { Err(Error::new(ErrorKind::Io, "do it")) } else { Ok(()) }
        }
    }

    #[async_trait]
    impl Store for Witness {
        async fn load(&mut self) -> Result<Kept> {
            Ok(Kept::new())
        }

        async fn save(&mut self, kept: &Kept) -> Result<()> {
            let counts: Vec<_> = kept.values().map(|run| run.total_run_count).collect();
            self.note(format!("kept {counts:?}"))
        }

        fn most_together(&self) -> usize {
            if self.gathers { 10 } else { 1 }
        }

        async fn begin(&mut self, index: usize) -> Result<()> {
            if let Some(stop) = self.stop.as_ref().filter(|_| index == 1) {
                stop.cancel();
            }
            self.note(format!("begins {index}"))
        }
    }

    #[async_trait]
    impl Sender for Witness {
        async fn send(&mut self, signature: Signature) -> Result<String> {
            self.note(format!("sent {}", signature.task)).map(|()| "an id".to_owned())
        }
    }

    /// A scheduler of tasks of these names, due every so many seconds from now on, and the clock that moves it.
    fn scheduled(names: &[&str], seconds: i64) -> (Scheduler, Clock) {
        let clock = Clock::manual("2026-11-28T12:00:00Z".parse().unwrap());
        let entry = |name: &&str| {
            let schedule = Interval::new(SignedDuration::from_secs(seconds)).into();
            Entry { name: (*name).to_owned(), schedule, signature: Signature::new(*name) }
        };
        let entries = names.iter().map(entry).collect();
        let scheduler = Scheduler::new(entries, Kept::new(), Rules::default(), Duration::from_secs(300), clock.now());
        (scheduler, clock)
    }

    /// Runs a beat with an entry of every ten seconds for 25 seconds, and gives what happened.
    async fn log(fails: bool) -> (Vec<String>, Result<()>) {
        let ((scheduler, clock), log, stop) = (scheduled(&["a"], 10), Log::default(), CancellationToken::new());
        let witness = || Witness { log: Arc::clone(&log), fails, ..Witness::default() };
        let beat = Beat::new(scheduler, witness(), witness(), clock.clone());
        let running = tokio::spawn(beat.run(stop.clone()));
        // Tokio's time is paused: it goes on with what is waited for, and the clock with it.
        for _ in 0..2500 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            clock.advance(Duration::from_millis(10));
        }
        stop.cancel();
        let ended = running.await.unwrap();
        let log = log.lock().unwrap().clone();
        (log, ended)
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_is_kept_before_it_is_sent() {
        let (log, ended) = log(false).await;
        assert_eq!(log, ["kept [1]", "sent a", "kept [2]", "sent a", "kept [2]"]);
        ended.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_due_together_is_kept_together_and_what_did_not_begin_is_due_again() {
        let (scheduler, clock) = scheduled(&["a", "b", "c", "d"], 10);
        let (log, stop) = (Log::default(), CancellationToken::new());
        clock.advance(Duration::from_secs(10));
        let witness = |stop| Witness { log: Arc::clone(&log), gathers: true, stop, ..Witness::default() };
        let (store, sender) = (witness(Some(stop.clone())), witness(None));
        Beat::new(scheduler, store, sender, clock).run(stop).await.unwrap();
        let expected = ["kept [1, 1, 1, 1]", "begins 0", "sent a", "begins 1", "sent b", "kept [1, 1, 0, 0]"];
        assert_eq!(*log.lock().unwrap(), expected);
    }

    /// Takes ten minutes to send the first.
    struct Slow {
        log: Log,
        clock: Clock,
    }

    #[async_trait]
    impl Sender for Slow {
        async fn send(&mut self, signature: Signature) -> Result<String> {
            if self.log.lock().unwrap().is_empty() {
                self.clock.advance(Duration::from_secs(600));
            }
            self.log.lock().unwrap().push(signature.task);
            Ok("an id".to_owned())
        }
    }

    /// As with Celery, whose beat counts a run when it sends it.
    #[tokio::test(start_paused = true)]
    async fn what_waited_for_the_broker_is_not_due_again_as_soon_as_it_is_sent() {
        let (scheduler, clock) = scheduled(&["a", "b", "c"], 60);
        let (log, stop) = (Log::default(), CancellationToken::new());
        clock.advance(Duration::from_secs(60));
        let sender = Slow { log: Arc::clone(&log), clock: clock.clone() };
        let store = Witness { gathers: true, ..Witness::default() };
        let running = tokio::spawn(Beat::new(scheduler, store, sender, clock).run(stop.clone()));
        tokio::time::sleep(Duration::from_secs(30)).await;
        stop.cancel();
        running.await.unwrap().unwrap();
        let mut sent = log.lock().unwrap().clone();
        sent.sort();
        assert_eq!(sent, ["a", "a", "b", "c"], "the one that took so long is due once more, and the others once");
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_does_not_end_it() {
        let (log, ended) = log(true).await;
        assert_eq!(log, ["kept [1]", "sent a", "kept [2]", "sent a", "kept [2]"]);
        assert_eq!(ended.unwrap_err().to_string(), "do it");
    }
}
