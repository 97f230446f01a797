//! `SharedBeat`: one of several beats on one schedule, of which one leads and the others wait.
//!
//! Who leads has a lease at the [`SharedStore`], for a while that the leader keeps extending. A leader that is killed is
//! followed when its lease is over; one that stops gives it back. The lease alone would not do: a leader that was paused
//! for longer than its lease does not know that it leads no more. So each run is *claimed* first, in one step that checks
//! the lease, writes the run down and keeps what is to be sent, its task's id included. What was claimed and not sent,
//! because its leader died between the two, is sent by the next one. A run that cannot be claimed is not sent.
//!
//! So each run is claimed once. Whether what was claimed arrives once depends on where it goes:
//!
//! - Where the broker keeps the claims (one Redis for both) and Rust sends, the message is pushed in the instant in which
//!   the claim is taken away. However often it is tried, and by whomever, it arrives once.
//! - Elsewhere it is sent, and then the claim is settled. A leader that dies between these two has its message sent again,
//!   with the same id. To leave it out would lose a run whenever a leader dies a little sooner, and nobody could know;
//!   of two messages of one id whoever counts can leave out the second.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::entry::{Entry, Kept};
use super::run::Sender;
use super::scheduler::{Scheduler, Sending, Step};
use crate::Result;
use crate::protocol::{Signature, Value};
use crate::schedule::humanize_seconds;
use crate::time::Clock;
use crate::transport::Claim;

/// How long a beat waits whose store or broker is away.
const PAUSE: Duration = Duration::from_secs(1);

/// Where several beats keep their runs, and which of them leads. All that is written is written by who leads; what comes
/// from another is refused.
#[async_trait]
pub trait SharedStore: Send {
    /// Leads, if nobody else does; extends the lease if this beat leads already.
    async fn lead(&mut self) -> Result<Lead>;

    /// For how long a lease may go without being extended, so that others do not take this beat for dead.
    fn extend_after(&self) -> Duration;

    /// What was kept, and what was claimed and not sent.
    async fn find(&mut self) -> Result<Found>;

    /// Keeps these runs and no others; says whether this beat leads.
    async fn begin(&mut self, kept: &Kept) -> Result<bool>;

    /// Keeps a run and what is to be sent; says whether this beat leads. If it fails, the run may be claimed: it is then found
    /// by [`SharedStore::find`].
    async fn claim(&mut self, sending: &Sending, unsent: &Unsent) -> Result<bool>;

    /// What the broker may take away, and at which server it is; none: the broker cannot.
    fn claim_of(&self, unsent: &Unsent) -> Option<(String, Claim)>;

    /// Forgets what was claimed: it was sent, or never can be.
    async fn settle(&mut self, unsent: &Unsent) -> Result<()>;

    /// Gives the lease back, if this beat has it.
    async fn release(&mut self) -> Result<()>;
}

/// Who leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lead {
    /// This beat, under the lease of this number; a later lease has a larger one.
    Own(u64),
    /// Another: ask again after so long.
    Another(Duration),
}

/// What a store holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Found {
    /// The last runs.
    pub kept: Kept,
    /// What was claimed and not sent.
    pub unsent: Vec<Unsent>,
}

/// What is to be sent for a run that is claimed.
#[derive(Debug, Clone, PartialEq)]
pub struct Unsent {
    /// What it is found under; no other run has it.
    pub id: String,
    /// The entry's name.
    pub name: String,
    /// What to send; its options say the task's id.
    pub signature: Signature,
}

impl Unsent {
    /// What the run sends, with an id that no other has.
    fn new(sending: &Sending) -> Self {
        let (id, mut signature) = (uuid::Uuid::new_v4().to_string(), sending.signature.clone());
        signature.options.get_or_insert_with("task_id", || Value::from(id.as_str()));
        Unsent { id, name: sending.name.clone(), signature }
    }
}

/// One of several beats on one schedule.
pub(super) struct SharedBeat<'b> {
    /// The entries of the settings.
    given: Vec<Entry>,
    /// As it was under the last lease.
    scheduler: Scheduler,
    store: &'b mut dyn SharedStore,
    sender: &'b mut dyn Sender,
    clock: Clock,
    /// What this beat knows to be kept: a store that lost its last moments is told.
    memory: Kept,
    /// The number of the lease that this beat had last.
    number: u64,
    /// When that was extended last.
    extended: Instant,
}

impl<'b> SharedBeat<'b> {
    pub(super) fn new(
        given: Vec<Entry>,
        scheduler: Scheduler,
        store: &'b mut dyn SharedStore,
        sender: &'b mut dyn Sender,
        clock: Clock,
    ) -> Self {
        SharedBeat { given, scheduler, store, sender, clock, memory: Kept::new(), number: 0, extended: Instant::now() }
    }

    /// Waits until it leads, then sends what is due, until `stop` is cancelled; then gives the lease back. A task that is
    /// being sent is waited for.
    ///
    /// # Errors
    ///
    /// The lease cannot be given back: whoever follows waits until it is over.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Result<()> {
        let mut waits = false;
        while !stop.is_cancelled() {
            let pause = match self.turn(&stop, &mut waits).await {
                Ok(pause) => pause,
                Err(error) => {
                    let pause = PAUSE.min(self.store.extend_after());
                    let again = humanize_seconds(pause.as_secs_f64());
                    tracing::error!("beat: Connection error: {error}. Trying again in {again}...");
                    pause
                }
            };
            let _ = stop.run_until_cancelled(tokio::time::sleep(pause)).await;
        }
        self.store.release().await
    }

    /// Tries to lead, and leads; says after how long to try again.
    async fn turn(&mut self, stop: &CancellationToken, waits: &mut bool) -> Result<Duration> {
        match self.extend().await? {
            Lead::Another(pause) => {
                if !std::mem::replace(waits, true) {
                    tracing::info!("beat: Another beat leads; waiting.");
                }
                Ok(pause)
            }
            Lead::Own(number) => {
                *waits = false;
                self.number = number;
                tracing::info!("beat: Leads the schedule (lease {number}).");
                if !self.lead(stop).await? {
                    tracing::warn!("beat: Leads the schedule no more.");
                }
                Ok(Duration::ZERO)
            }
        }
    }

    /// Sends what is due under one lease, until that is lost, which it says, or beat is to stop.
    async fn lead(&mut self, stop: &CancellationToken) -> Result<bool> {
        let Found { kept, unsent } = self.store.find().await?;
        let kept = later(kept, &self.memory);
        self.scheduler = self.scheduler.anew(self.given.clone(), kept, self.clock.now());
        if !self.store.begin(self.scheduler.kept()).await? {
            return Ok(false);
        }
        self.memory = self.scheduler.kept().clone();
        for unsent in unsent {
            if !self.leads_on().await? {
                return Ok(false);
            }
            tracing::warn!("beat: {} was claimed by a beat that did not send it.", unsent.name);
            self.send(unsent).await?;
        }
        while !stop.is_cancelled() {
            if !self.leads_on().await? {
                return Ok(false);
            }
            match self.scheduler.tick(self.clock.now()) {
                Step::Send(sending) => {
                    if !self.claim(*sending).await? {
                        return Ok(false);
                    }
                }
                Step::Wait(wait) => {
                    let rest = self.store.extend_after().saturating_sub(self.extended.elapsed());
                    let _ = stop.run_until_cancelled(tokio::time::sleep(wait.min(rest))).await;
                }
            }
        }
        Ok(true)
    }

    /// Whether this beat leads under the same lease as before, which it extends when that is due. Under another one, somebody
    /// else may have led meanwhile.
    async fn leads_on(&mut self) -> Result<bool> {
        Ok(self.extended.elapsed() < self.store.extend_after() || self.extend().await? == Lead::Own(self.number))
    }

    async fn extend(&mut self) -> Result<Lead> {
        // Counted from when it was asked: the lease may begin as soon as that.
        let asked = Instant::now();
        let lead = self.store.lead().await?;
        self.extended = asked;
        Ok(lead)
    }

    /// Claims a run and sends it; says whether it could be claimed.
    async fn claim(&mut self, sending: Sending) -> Result<bool> {
        let unsent = Unsent::new(&sending);
        if !self.store.claim(&sending, &unsent).await? {
            return Ok(false);
        }
        self.memory.insert(sending.name, sending.run);
        self.send(unsent).await?;
        Ok(true)
    }

    /// Sends, and extends the lease meanwhile: others would send the same after it.
    async fn send_and_lead(&mut self, signature: Signature) -> Result<String> {
        let sending = self.sender.send(signature);
        tokio::pin!(sending);
        loop {
            tokio::select! {
                sent = &mut sending => return sent,
                () = tokio::time::sleep(self.store.extend_after()) => {}
            }
            let asked = Instant::now();
            // If it was not this lease that was extended, that is found out before the next run.
            if self.store.lead().await.is_ok_and(|lead| lead == Lead::Own(self.number)) {
                self.extended = asked;
            }
        }
    }

    /// Sends what is claimed. What cannot be sent is told of and due again when its schedule says; but what the broker was
    /// not there for stays claimed.
    async fn send(&mut self, unsent: Unsent) -> Result<()> {
        let Unsent { name, signature, .. } = &unsent;
        let task = signature.task.clone();
        let logs = self.sender.logs();
        if !logs {
            tracing::info!("Scheduler: Sending due task {name} ({task})");
        }
        let sent = match self.store.claim_of(&unsent) {
            Some((server, claim)) => self.sender.send_claimed(signature.clone(), &server, claim).await,
            None => Ok(false),
        };
        let sent = match sent {
            Ok(true) => {
                tracing::debug!("{task} sent.");
                return Ok(());
            }
            Ok(false) => self.send_and_lead(signature.clone()).await,
            Err(error) => Err(error),
        };
        match sent {
            Err(error) if error.is_connection() => return Err(error),
            _ if logs => {}
            Ok(id) => tracing::debug!("{task} sent. id->{id}"),
            Err(error) => tracing::error!("Message Error: Couldn't apply scheduled task {name}: {error}"),
        }
        self.store.settle(&unsent).await
    }
}

/// Of each entry the later run.
fn later(mut kept: Kept, memory: &Kept) -> Kept {
    for (name, run) in memory {
        let known = kept.entry(name.clone()).or_insert(*run);
        if known.last_run_at < run.last_run_at {
            *known = *run;
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use jiff::{SignedDuration, Timestamp};

    use super::*;
    use crate::beat::entry::Run;
    use crate::schedule::{Interval, Rules};

    type Log = Arc<Mutex<Vec<String>>>;

    const LEASE: Duration = Duration::from_secs(3);

    /// Its lease ends while the first run is sent: another beat sends what else is due, and this one has a lease anew.
    struct Loses {
        log: Log,
        now: Timestamp,
        /// Whether what is to be sent was claimed before.
        is_claimed: bool,
    }

    impl Loses {
        fn note(&self, what: impl Into<String>) {
            self.log.lock().unwrap().push(what.into());
        }

        fn has(&self, what: &str) -> bool {
            self.log.lock().unwrap().iter().any(|noted| noted == what)
        }
    }

    #[async_trait]
    impl SharedStore for Loses {
        async fn lead(&mut self) -> Result<Lead> {
            Ok(Lead::Own(if self.has("a is being sent") { 2 } else { 1 }))
        }

        fn extend_after(&self) -> Duration {
            LEASE / 3
        }

        async fn find(&mut self) -> Result<Found> {
            let first = !self.has("found");
            self.note("found");
            let is_due = first && !self.is_claimed;
            let last_run_at = if is_due { self.now - SignedDuration::from_hours(2) } else { self.now };
            let kept = ["a", "b"].map(|name| (name.to_owned(), Run { last_run_at, total_run_count: 1 }));
            let unsent = |name: &str| Unsent { id: name.into(), name: name.into(), signature: Signature::new(name) };
            let unsent = if first && self.is_claimed { vec![unsent("a"), unsent("b")] } else { Vec::new() };
            Ok(Found { kept: Kept::from(kept), unsent })
        }

        async fn begin(&mut self, _: &Kept) -> Result<bool> {
            Ok(true)
        }

        async fn claim(&mut self, sending: &Sending, _: &Unsent) -> Result<bool> {
            self.note(format!("claimed {}", sending.name));
            Ok(true)
        }

        fn claim_of(&self, _: &Unsent) -> Option<(String, Claim)> {
            None
        }

        async fn settle(&mut self, _: &Unsent) -> Result<()> {
            Ok(())
        }

        async fn release(&mut self) -> Result<()> {
            Ok(())
        }
    }

    /// Takes longer than a lease, and ends soon after that was asked for last.
    struct Slow(Log);

    #[async_trait]
    impl Sender for Slow {
        async fn send(&mut self, signature: Signature) -> Result<String> {
            self.0.lock().unwrap().push(format!("{} is being sent", signature.task));
            tokio::time::sleep(2 * LEASE + LEASE / 10).await;
            Ok("an id".to_owned())
        }
    }

    /// What a beat does on such a store.
    async fn log(is_claimed: bool) -> Vec<String> {
        let (log, stop, now) = (Log::default(), CancellationToken::new(), "2026-11-28T12:00:00Z".parse().unwrap());
        let entries = ["a", "b"].map(|name| {
            let schedule = Interval::new(SignedDuration::from_hours(1)).into();
            Entry { name: name.to_owned(), schedule, signature: Signature::new(name) }
        });
        let longest = Duration::from_secs(300);
        let scheduler = Scheduler::new(entries.to_vec(), Kept::new(), Rules::default(), longest, now);
        let (mut store, mut sender) = (Loses { log: Arc::clone(&log), now, is_claimed }, Slow(Arc::clone(&log)));
        let clock = Clock::manual(now);
        let beat = SharedBeat::new(entries.to_vec(), scheduler, &mut store, &mut sender, clock).run(stop.clone());
        let stopping = async {
            tokio::time::sleep(10 * LEASE).await;
            stop.cancel();
        };
        tokio::join!(beat, stopping).0.unwrap();
        log.lock().unwrap().clone()
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_came_anew_while_something_was_sent_begins_anew() {
        assert_eq!(log(false).await, ["found", "claimed a", "a is being sent", "found"]);
        assert_eq!(log(true).await, ["found", "a is being sent", "found"]);
    }
}
