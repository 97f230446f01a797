//! [`Scheduler`]: which entry is due next, and how long that is (`Scheduler.tick` of `celery/beat.py`).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::entry::{Entry, Kept, Run};
use crate::protocol::Signature;
use crate::schedule::{Due, Rules, humanize_seconds};

/// How much sooner than an entry is due beat wakes up (`adjust`). What is left then is waited for as it is, where Celery
/// asks without pause for so long.
const DRIFT: SignedDuration = SignedDuration::from_millis(10);

/// The entries, when each ran last, and in which order they are looked at.
#[derive(Debug)]
pub struct Scheduler {
    entries: BTreeMap<String, Entry>,
    runs: Kept,
    rules: Rules,
    max_interval: Duration,
    /// When to look at which entry, the soonest first. It is filled at the first tick and after each change of entries.
    queue: Option<BinaryHeap<Reverse<Look>>>,
    /// How many looks were planned: of two for the same instant, the one that was planned first comes first.
    planned: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Look {
    at: Timestamp,
    planned: u64,
    name: String,
}

/// What is to be done after a tick.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Keep that it ran, send it, and tick again at once.
    Send(Box<Sending>),
    /// Tick again after so long: at once, if that is zero.
    Wait(Duration),
}

/// A run that was decided on.
#[derive(Debug, Clone, PartialEq)]
pub struct Sending {
    /// The entry's name.
    pub name: String,
    /// The message to send, with the header `celery_beat_task`.
    pub signature: Signature,
    /// The run as it is to be kept.
    pub run: Run,
    /// The one before it.
    pub before: Run,
}

impl Scheduler {
    /// A scheduler of these entries at `now`. Of what was `kept`, the entries that there are go on from their last run; all
    /// others are new: they count as run just now, and what belongs to no entry is forgotten (`merge_inplace`). It
    /// looks at its entries again after `max_interval` at the latest: `beat_max_loop_interval`, 300 seconds by default.
    pub fn new(entries: Vec<Entry>, kept: Kept, rules: Rules, max_interval: Duration, now: Timestamp) -> Self {
        let none = BTreeMap::new();
        let mut scheduler = Scheduler { entries: none, runs: kept, rules, max_interval, queue: None, planned: 0 };
        scheduler.replace(entries, now);
        scheduler
    }

    /// Has these entries instead. Nothing changes if they are the same. An entry that stays keeps its last run, also when it
    /// has another schedule: if that is shorter it may be due at once.
    pub fn replace(&mut self, entries: Vec<Entry>, now: Timestamp) {
        let entries: BTreeMap<String, Entry> = entries.into_iter().map(|entry| (entry.name.clone(), entry)).collect();
        self.runs.retain(|name, _| entries.contains_key(name));
        for name in entries.keys() {
            self.runs.entry(name.clone()).or_insert_with(|| Run::new(now));
        }
        if entries != self.entries {
            self.entries = entries;
            self.queue = None;
        }
    }

    /// The same, where their runs are known from elsewhere: `kept` wins over what was counted here.
    pub fn adopt(&mut self, entries: Vec<Entry>, kept: Kept, now: Timestamp) {
        self.runs.extend(kept);
        self.queue = None;
        self.replace(entries, now);
    }

    /// Another of these entries, with the same rules and intervals.
    pub(super) fn anew(&self, entries: Vec<Entry>, kept: Kept, now: Timestamp) -> Self {
        Scheduler::new(entries, kept, self.rules.clone(), self.max_interval, now)
    }

    /// All entries.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// What to keep: the runs of all entries.
    pub fn kept(&self) -> &Kept {
        &self.runs
    }

    /// Looks at the entry that is due first, and says what to do.
    pub fn tick(&mut self, now: Timestamp) -> Step {
        if self.queue.is_none() {
            self.fill(now);
        }
        let Some(Reverse(first)) = self.queue.as_mut().and_then(BinaryHeap::pop) else {
            return Step::Wait(self.max_interval);
        };
        if first.at > now {
            let wait = now.duration_until(first.at);
            self.queue.get_or_insert_default().push(Reverse(first));
            return self.wait(wait);
        }
        let name = first.name;
        let Due { is_due, next } = self.is_due(&name, now);
        // What does not say when to ask again is asked at once after a run, and else when beat looks anyway.
        let next = next.unwrap_or(if is_due { Duration::ZERO } else { self.max_interval });
        self.plan(name.clone(), now, next);
        if is_due {
            return self.send(name, now);
        }
        // It asked to be looked at later, and what is behind it may be due by now.
        let is_still_first = self.queue.as_ref().and_then(BinaryHeap::peek).is_none_or(|next| next.0.name == name);
        if is_still_first { self.wait(adjusted(next)) } else { Step::Wait(Duration::ZERO) }
    }

    /// `reserve`: the run counts before anything is sent.
    fn send(&mut self, name: String, now: Timestamp) -> Step {
        let before = self.runs.get(&name).copied().unwrap_or(Run::new(now));
        let run = before.next(now);
        self.runs.insert(name.clone(), run);
        let signature = self.entries.get(&name).map(Entry::marked).unwrap_or_default();
        Step::Send(Box::new(Sending { name, signature, run, before }))
    }

    /// The first that is due at `now`, and those behind it that are due then, too: so many at most.
    pub(super) fn together(&mut self, first: Sending, now: Timestamp, most: usize) -> Vec<Sending> {
        let mut batch = vec![first];
        while batch.len() < most {
            let Step::Send(sending) = self.tick(now) else { break };
            // One that is always due would be due for ever at this instant.
            let is_again = sending.before.last_run_at == now;
            batch.push(*sending);
            if is_again {
                break;
            }
        }
        batch
    }

    /// Runs that were decided on and are not sent do not count.
    pub(super) fn take_back(&mut self, unsent: Vec<Sending>) {
        if !unsent.is_empty() {
            // They are to be looked at again.
            self.queue = None;
        }
        // The last first: what stands twice gets the run before both.
        for Sending { name, before, .. } in unsent.into_iter().rev() {
            self.runs.insert(name, before);
        }
    }

    /// `populate_heap`.
    fn fill(&mut self, now: Timestamp) {
        self.queue = Some(BinaryHeap::with_capacity(self.entries.len()));
        for name in self.entries.keys().cloned().collect::<Vec<_>>() {
            let Due { is_due, next } = self.is_due(&name, now);
            self.plan(name, now, next.filter(|_| !is_due).unwrap_or_default());
        }
    }

    /// Whether the entry is due. One for which that cannot be said is looked at again later and hinders no other.
    fn is_due(&self, name: &str, now: Timestamp) -> Due {
        let later = Due { is_due: false, next: Some(self.max_interval) };
        let (Some(entry), Some(run)) = (self.entries.get(name), self.runs.get(name)) else { return later };
        entry.schedule.is_due(run.last_run_at, now, &self.rules).unwrap_or_else(|error| {
            let again = humanize_seconds(self.max_interval.as_secs_f64());
            tracing::error!("beat: Cannot calculate the next run of '{name}', trying again in {again}. {error}");
            later
        })
    }

    fn plan(&mut self, name: String, now: Timestamp, next: Duration) {
        // What is beyond the calendar is never looked at.
        let at = now.checked_add(adjusted(next)).unwrap_or(Timestamp::MAX);
        self.planned += 1;
        self.queue.get_or_insert_default().push(Reverse(Look { at, planned: self.planned, name }));
    }

    fn wait(&self, wait: SignedDuration) -> Step {
        Step::Wait(Duration::try_from(wait).unwrap_or_default().min(self.max_interval))
    }
}

/// `adjust`: a little sooner, so that the wake-up is not too late.
fn adjusted(next: Duration) -> SignedDuration {
    let next = SignedDuration::try_from(next).unwrap_or(SignedDuration::MAX);
    if next > DRIFT { next - DRIFT } else { next }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::Result;
    use crate::protocol::{Map, Value};
    use crate::schedule::{Ask, Asked, Clocked, Crontab, Interval, Schedule};

    const MAX: Duration = Duration::from_secs(300);

    fn utc(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn start() -> Timestamp {
        utc("2026-11-28T12:00:00Z")
    }

    fn entry(name: &str, schedule: impl Into<Schedule>) -> Entry {
        Entry { name: name.to_owned(), schedule: schedule.into(), signature: Signature::new(format!("tasks.{name}")) }
    }

    fn every(seconds: i64) -> Interval {
        Interval::new(SignedDuration::from_secs(seconds))
    }

    fn scheduler(entries: Vec<Entry>, kept: Kept) -> Scheduler {
        Scheduler::new(entries, kept, Rules::default(), MAX, start())
    }

    /// Ticks until `until` with a clock that is as exact as it gets: what was sent, and when in seconds after the start.
    fn sent(scheduler: &mut Scheduler, until: i64) -> Vec<(String, f64)> {
        let (mut now, mut sent) = (start(), Vec::new());
        while now < start() + SignedDuration::from_secs(until) {
            match scheduler.tick(now) {
                Step::Send(sending) => sent.push((sending.name, start().duration_until(now).as_secs_f64())),
                Step::Wait(wait) => now += SignedDuration::try_from(wait).unwrap(),
            }
        }
        sent
    }

    fn named(sent: &[(String, f64)]) -> Vec<(&str, f64)> {
        sent.iter().map(|(name, at)| (name.as_str(), *at)).collect()
    }

    #[test]
    fn each_is_sent_when_it_is_due_and_no_sooner() {
        let minutely = Crontab::parse("* * * * *").unwrap();
        let mut scheduler = scheduler(vec![entry("a", every(25)), entry("b", minutely)], Kept::new());
        let expected = [("a", 25.0), ("a", 50.0), ("b", 60.0), ("a", 75.0), ("a", 100.0), ("b", 120.0), ("a", 125.0)];
        assert_eq!(named(&sent(&mut scheduler, 126)), expected);
        assert_eq!(scheduler.kept()["a"].total_run_count, 5);
    }

    #[test]
    fn it_wakes_a_little_sooner_and_waits_for_the_rest() {
        let mut scheduler = scheduler(vec![entry("a", every(25))], Kept::new());
        assert_eq!(scheduler.tick(start()), Step::Wait(Duration::from_millis(24_990)));
        let awake = start() + SignedDuration::from_millis(24_990);
        assert_eq!(scheduler.tick(awake), Step::Wait(Duration::from_millis(10)));
        assert_eq!(scheduler.tick(awake + SignedDuration::from_millis(4)), Step::Wait(Duration::from_millis(6)));
        let Step::Send(sending) = scheduler.tick(awake + DRIFT) else { panic!("it is due") };
        assert_eq!(sending.run, Run { last_run_at: awake + DRIFT, total_run_count: 1 });
    }

    #[test]
    fn nothing_is_waited_for_longer_than_the_longest_interval() {
        assert_eq!(scheduler(Vec::new(), Kept::new()).tick(start()), Step::Wait(MAX));
        let mut daily = scheduler(vec![entry("a", every(86400))], Kept::new());
        assert_eq!(daily.tick(start()), Step::Wait(MAX));
    }

    #[test]
    fn what_was_missed_is_made_up_for_once() {
        let long_ago = Run { last_run_at: utc("2026-11-01T00:00:00Z"), total_run_count: 7 };
        let kept = Kept::from([("a".to_owned(), long_ago), ("gone".to_owned(), long_ago)]);
        let mut scheduler = scheduler(vec![entry("a", every(60)), entry("b", every(60))], kept);
        assert_eq!(named(&sent(&mut scheduler, 70)), [("a", 0.0), ("b", 60.0), ("a", 60.0)]);
        assert_eq!(scheduler.kept()["a"].total_run_count, 9);
        assert!(!scheduler.kept().contains_key("gone"));
    }

    #[test]
    fn what_is_due_together_is_told_together_and_may_be_taken_back() {
        let entries = vec![entry("a", every(10)), entry("b", every(10)), entry("c", every(10)), entry("d", every(20))];
        let mut scheduler = scheduler(entries, Kept::new());
        let now = start() + SignedDuration::from_secs(10);
        let mut batch = |most| {
            let Step::Send(first) = scheduler.tick(now) else { panic!("it is due") };
            let batch = scheduler.together(*first, now, most);
            (batch.iter().map(|sending| sending.name.clone()).collect::<Vec<_>>(), batch)
        };
        assert_eq!(batch(2).0, ["a", "b"]);
        let (names, unsent) = batch(2);
        assert_eq!(names, ["c"]);
        scheduler.take_back(unsent);
        let counts = scheduler.kept().values().map(|run| run.total_run_count).collect::<Vec<_>>();
        assert_eq!(counts, [1, 1, 0, 0]);
        assert_eq!(scheduler.kept()["c"], Run::new(start()));
    }

    #[test]
    fn what_is_always_due_is_no_endless_batch() {
        let mut scheduler = scheduler(vec![entry("a", every(0))], Kept::new());
        let Step::Send(first) = scheduler.tick(start()) else { panic!("it is due") };
        let batch = scheduler.together(*first, start(), 1000);
        assert_eq!(batch.len(), 2);
        scheduler.take_back(batch);
        assert_eq!(scheduler.kept()["a"], Run::new(start()));
    }

    #[test]
    fn an_entry_that_fails_hinders_no_other() {
        let never = Clocked { clocked_time: Timestamp::MAX };
        let broken = Interval::new(SignedDuration::MAX);
        let entries = vec![entry("broken", broken), entry("never", never), entry("works", every(400))];
        assert_eq!(named(&sent(&mut scheduler(entries, Kept::new()), 900)), [("works", 400.0), ("works", 800.0)]);
    }

    /// Answers with what is due, one after the other, and counts how often it is asked.
    #[derive(Default)]
    struct Answers(Mutex<(usize, VecDeque<Due>)>);

    impl Ask for Answers {
        fn is_due(&self, _: Timestamp) -> Result<Due> {
            let mut asked = self.0.lock().unwrap();
            asked.0 += 1;
            Ok(asked.1.pop_front().unwrap_or(Due { is_due: false, next: None }))
        }

        fn name(&self) -> String {
            "answers".to_owned()
        }
    }

    /// As Celery, whose heap takes None for now, and whose tick takes it for its longest interval.
    #[test]
    fn what_does_not_say_when_to_ask_again_is_asked_when_beat_looks_anyway() {
        let of = |is_due| Due { is_due, next: None };
        let answers = Arc::new(Answers::default());
        answers.0.lock().unwrap().1.extend([of(false), of(false), of(true), of(true), of(false)]);
        let mut scheduler = scheduler(vec![entry("a", Asked(Arc::clone(&answers) as _))], Kept::new());
        assert_eq!(named(&sent(&mut scheduler, 301)), [("a", 299.99), ("a", 299.99)]);
        assert_eq!(answers.0.lock().unwrap().0, 5);
        assert_eq!(
            scheduler.tick(start() + SignedDuration::from_secs(301)),
            Step::Wait(Duration::from_millis(298_980))
        );
    }

    #[test]
    fn entries_may_change_while_it_runs() {
        let mut scheduler = scheduler(vec![entry("a", every(100)), entry("b", every(100))], Kept::new());
        let later = start() + SignedDuration::from_secs(50);
        assert_eq!(scheduler.tick(later), Step::Wait(Duration::from_millis(49_990)));
        scheduler.replace(vec![entry("a", every(20)), entry("c", every(30))], later);
        let Step::Send(sending) = scheduler.tick(later) else { panic!("the shorter interval is over") };
        assert_eq!(sending.name, "a");
        assert_eq!(scheduler.tick(later), Step::Wait(Duration::from_millis(19_990)));
        assert_eq!(scheduler.kept().keys().collect::<Vec<_>>(), ["a", "c"]);
    }

    #[test]
    fn the_message_is_marked_as_beats() {
        let mut of_user = entry("a", every(0));
        of_user.signature.options.insert("headers", Map::from([("mine", Value::from(1))]));
        of_user.signature.options.insert("queue", "slow");
        let Step::Send(sending) = scheduler(vec![of_user], Kept::new()).tick(start()) else { panic!("it is due") };
        let headers = sending.signature.options.get("headers").and_then(Value::as_map).unwrap();
        assert_eq!(headers.get("celery_beat_task"), Some(&Value::from(true)));
        assert_eq!(headers.get("mine"), Some(&Value::from(1)));
        assert_eq!(sending.signature.options.get("queue").and_then(Value::as_str), Some("slow"));
        assert_eq!(sending.signature.task, "tasks.a");
    }
}
