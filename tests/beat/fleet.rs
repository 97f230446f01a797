//! [`Fleet`]: several processes that are beats on one Redis, and the log of what they sent.

use std::collections::HashSet;
use std::env;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use celeriac::App;
use celeriac::beat::{Beat, Entry, Kept, RedisStore, RedisStoreOptions, Scheduler};
use celeriac::protocol::{Signature, envelope};
use celeriac::redis_client::SharedConnection;
use celeriac::redis_client::{RedisUrl, UrlPolicy};
use celeriac::schedule::{Interval, Rules};
use celeriac::time::Clock;
use jiff::SignedDuration;
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::support::eventually;
use crate::support::redis_server::RedisServer;

const QUEUE: &str = "ticks";

/// What the beats are told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// The entry's interval.
    pub(crate) every: Duration,
    /// Within how long a killed leader is followed.
    pub(crate) lease: Duration,
}

/// The beats, their Redis and what they sent.
pub(crate) struct Fleet {
    redis: RedisServer,
    plan: Plan,
    size: usize,
    beats: Vec<Child>,
    /// When the first of them was about to be started: none has sent anything before.
    began: Instant,
    log: Log,
}

/// When each message came, and its task's id.
type Log = Arc<Mutex<Vec<(Instant, String)>>>;

/// What a log comes to.
pub(crate) struct Sent {
    pub(crate) count: usize,
    /// The longest time between two messages.
    pub(crate) gap: Duration,
}

impl Fleet {
    /// Starts the beats, and waits until one of them leads.
    pub(crate) async fn start(plan: Plan, size: usize) -> Option<Self> {
        let redis = RedisServer::start().await?;
        let log = Log::default();
        tokio::spawn(write_down(redis.url(0), Arc::clone(&log)));
        let mut fleet = Fleet { redis, plan, size, beats: Vec::new(), began: Instant::now(), log };
        fleet.start_missing();
        fleet.leader_but(None).await;
        Some(fleet)
    }

    /// Starts as many as have ended.
    pub(crate) fn start_missing(&mut self) {
        self.beats.retain_mut(|beat| matches!(beat.try_wait(), Ok(None)));
        while self.beats.len() < self.size {
            let beat = Command::new(env::current_exe().expect("this program"))
                .args(["--exact", "one_of_several_beats", "--ignored", "--nocapture"])
                .env("BEAT_URL", self.redis.url(0))
                .env("BEAT_EVERY", self.plan.every.as_millis().to_string())
                .env("BEAT_LEASE", self.plan.lease.as_millis().to_string())
                .stdout(Stdio::null())
                .spawn();
            self.beats.push(beat.expect("it starts"));
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.log.lock().unwrap().len()
    }

    /// Waits for so many messages more than were sent by now.
    pub(crate) async fn more(&self, messages: usize) {
        let mut connection = self.redis.connection().await;
        let sent: usize = redis::cmd("LLEN").arg(QUEUE).query_async(&mut connection).await.unwrap();
        let wanted = sent + messages;
        eventually("messages come", || async { self.count() >= wanted }).await;
    }

    /// Waits so long, or until there are so many messages.
    pub(crate) async fn more_until(&self, messages: usize, most: Duration) {
        let come = async {
            while self.count() < messages {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(most, come).await;
    }

    /// Sends a signal to who leads, and says who that is. One that is killed is waited for.
    pub(crate) async fn signal_leader(&mut self, which: Signal) -> u32 {
        let leader = self.leader_but(None).await;
        self.signal(leader, which);
        if which == Signal::KILL {
            let beat = self.beats.iter_mut().find(|beat| beat.id() == leader).expect("it is one of ours");
            beat.wait().expect("it ends");
        }
        leader
    }

    pub(crate) fn signal(&self, beat: u32, which: Signal) {
        let process = i32::try_from(beat).ok().and_then(Pid::from_raw).expect("a process");
        kill_process(process, which).expect("it is there");
    }

    pub(crate) async fn another_leads(&self, than: u32) {
        self.leader_but(Some(than)).await;
    }

    pub(crate) async fn restart_redis(&mut self) {
        self.redis.stop();
        self.redis.start_again().await;
    }

    /// Who leads, as soon as it is one of those that live and not this one.
    async fn leader_but(&self, other: Option<u32>) -> u32 {
        let found = Mutex::new(None);
        eventually("a beat leads", || async {
            let mut connection = self.redis.connection().await;
            let lease: Option<String> =
                redis::cmd("GET").arg("beats:lease").query_async(&mut connection).await.unwrap();
            let process = lease.and_then(|lease| lease.split([' ', '@']).nth(1)?.parse().ok());
            let known = process.filter(|process| self.beats.iter().any(|beat| beat.id() == *process));
            *found.lock().unwrap() = known.filter(|process| other != Some(*process));
            found.lock().unwrap().is_some()
        })
        .await;
        found.into_inner().unwrap().expect("it was found")
    }

    /// Stops all beats; what they sent is then as it must be: each message once, one for each run that was kept, and no more
    /// than there were intervals.
    pub(crate) async fn end(mut self) -> Sent {
        for beat in &self.beats {
            self.signal(beat.id(), Signal::TERM);
        }
        for beat in &mut self.beats {
            beat.wait().expect("it ends");
        }
        let mut connection = self.redis.connection().await;
        let unsent: u64 = redis::cmd("HLEN").arg("beats:unsent").query_async(&mut connection).await.unwrap();
        assert_eq!(unsent, 0, "what is claimed is sent");
        let run: String = redis::cmd("HGET").arg("beats:runs").arg("tick").query_async(&mut connection).await.unwrap();
        let runs: usize = run.split(' ').nth(1).expect("a count").parse().expect("a count");
        eventually("all that was sent has come", || async { self.count() >= runs }).await;
        let log = self.log.lock().unwrap().clone();
        let ids: HashSet<&str> = log.iter().map(|(_, id)| id.as_str()).collect();
        assert_eq!((log.len(), ids.len()), (runs, runs), "as many messages and ids as runs");
        let took = log[log.len() - 1].0 - self.began;
        let most = took.as_secs_f64() / self.plan.every.as_secs_f64() + 2.0;
        assert!(log.len() as f64 <= most, "{} messages in {took:?}", log.len());
        let gaps = log.windows(2).map(|pair| pair[1].0 - pair[0].0);
        Sent { count: log.len(), gap: gaps.max().unwrap_or_default() }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for beat in &mut self.beats {
            // It may have ended.
            let _ = beat.kill();
            let _ = beat.wait();
        }
    }
}

/// Looks at the queue and writes down what comes, over as many connections as that takes.
async fn write_down(url: String, log: Log) {
    let url = RedisUrl::parse(&url, UrlPolicy::Broker).expect("the server's URL");
    loop {
        if let Ok(opened) = url.connect(&celeriac::redis_client::ConnectOptions::default()).await {
            let _ = read(opened.connection, &log).await;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Nothing is taken off: an answer that is lost would be a message that is missing.
async fn read(mut connection: SharedConnection, log: &Log) -> redis::RedisResult<()> {
    loop {
        let seen = log.lock().unwrap().len();
        let last = -1 - i64::try_from(seen).expect("not that many");
        let messages: Vec<Vec<u8>> =
            redis::cmd("LRANGE").arg(QUEUE).arg(0).arg(last).query_async(&mut connection).await?;
        for payload in messages.iter().rev() {
            let message = envelope::parse(payload).expect("a message");
            let id = message.headers.get("id").and_then(|id| id.as_str()).expect("an id").to_owned();
            log.lock().unwrap().push((Instant::now(), id));
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}

/// A beat, until it is told to stop.
pub(crate) async fn run_one() {
    let variable = |name: &str| env::var(name).expect("a fleet started it");
    let milliseconds = |name: &str| variable(name).parse::<u64>().expect("a number");
    let (url, clock, stop) = (variable("BEAT_URL"), Clock::system(), CancellationToken::new());
    let mut app = App::new("beats");
    app.config_mut().broker_url = Some(url.clone());
    let options =
        RedisStoreOptions { key_prefix: "beats:".to_owned(), lease: Duration::from_millis(milliseconds("BEAT_LEASE")) };
    let store = RedisStore::new(RedisUrl::parse(&url, UrlPolicy::Broker).expect("a URL"), &options);
    let every = Interval::new(SignedDuration::from_millis(milliseconds("BEAT_EVERY").cast_signed()));
    let mut signature = Signature::new("shop.tick");
    signature.options.insert("queue", QUEUE);
    let entry = Entry { name: "tick".to_owned(), schedule: every.into(), signature };
    let (rules, longest) = (Rules::default(), Duration::from_secs(300));
    let scheduler = Scheduler::new(vec![entry], Kept::new(), rules, longest, clock.now());
    let mut term = signal(SignalKind::terminate()).expect("signals are heard");
    let stopping = stop.clone();
    tokio::spawn(async move {
        term.recv().await;
        stopping.cancel();
    });
    Beat::new(scheduler, store, app.producer().expect("a producer"), clock).run(stop).await.expect("it stops");
}
