//! [`RedisStore`]: the runs and the lease of several beats, at a Redis.
//!
//! Four keys, all behind one prefix: `lease` is there while somebody leads, and says who, `<number> <process>@<host>
//! <token>`; `fence` is the number of the last lease, which only grows; `runs` holds each entry's last run, `<time>
//! <count>`; `unsent` holds what was claimed and not sent. Each step is one script, and each that writes compares `lease` first: a number comes never
//! again, so what a former leader sends late changes nothing.
//!
//! How long the lease lasts is Redis's to count, whose clock is the only one that matters for it. When runs are due is the
//! leader's clock's to say; a follower whose clock is behind sends nothing twice, as the last run is kept and not reckoned.

use std::time::Duration;

use async_trait::async_trait;

use super::entry::{Kept, Run};
use super::run::Store;
use super::scheduler::Sending;
use super::shared::{Found, Lead, SharedStore, Unsent};
use crate::protocol::{Map, Signature, Value, json};
use crate::redis_client::{Answer, Caller, ConnectOptions, RedisUrl, Script};
use crate::transport::Claim;
use crate::{Error, ErrorKind, Result};

/// How often a beat that waits asks at least whether the leader has stopped.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// How several beats on one Redis are set up; all of one schedule have the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisStoreOptions {
    /// What the keys begin with: one schedule each.
    pub key_prefix: String,
    /// Within how long another beat sends what a killed leader would have sent. The lease itself lasts three quarters of
    /// it; a leader extends it each quarter.
    pub lease: Duration,
}

impl Default for RedisStoreOptions {
    fn default() -> Self {
        RedisStoreOptions { key_prefix: "celeriac-beat:".to_owned(), lease: Duration::from_secs(10) }
    }
}

/// A Redis that several beats share.
pub struct RedisStore {
    caller: Caller,
    keys: Keys,
    /// How long a lease lasts from when it was extended.
    lasts: Duration,
    /// This beat's own, so that no other's lease is taken for it; and people see who leads.
    token: String,
    /// What `lease` says while this beat leads.
    holder: String,
    scripts: Scripts,
}

struct Keys {
    lease: String,
    fence: String,
    runs: String,
    unsent: String,
}

struct Scripts {
    lead: Script,
    load: Script,
    begin: Script,
    claim: Script,
    settle: Script,
    release: Script,
}

impl RedisStore {
    /// The runs and the lease at this server.
    pub fn new(url: RedisUrl, options: &RedisStoreOptions) -> Self {
        let lasts = options.lease.max(Duration::from_millis(40)) * 3 / 4;
        let patience = Some(lasts.max(Duration::from_secs(1)));
        let connect = ConnectOptions { response_timeout: patience, ..ConnectOptions::default() };
        let key = |name: &str| format!("{}{name}", options.key_prefix);
        RedisStore {
            caller: Caller::new(url, connect),
            keys: Keys { lease: key("lease"), fence: key("fence"), runs: key("runs"), unsent: key("unsent") },
            lasts,
            token: token(),
            holder: String::new(),
            scripts: Scripts {
                lead: Script::new(include_str!("lead.lua")),
                load: Script::new(include_str!("load.lua")),
                begin: Script::new(include_str!("begin.lua")),
                claim: Script::new(include_str!("claim.lua")),
                settle: Script::new(include_str!("settle.lua")),
                release: Script::new(include_str!("release.lua")),
            },
        }
    }

    fn milliseconds(&self) -> String {
        self.lasts.as_millis().to_string()
    }

    /// When to ask again: as soon as the leader's lease may be over, and before, as it may be given back.
    fn wait(&self, rest: i64) -> Duration {
        let rest = Duration::from_millis(u64::try_from(rest).unwrap_or_default()) + Duration::from_millis(1);
        rest.min(self.lasts / 3).min(LONGEST_WAIT)
    }
}

/// Alone it keeps nothing: beat asks it as a [`SharedStore`].
#[async_trait]
impl Store for RedisStore {
    async fn load(&mut self) -> Result<Kept> {
        Ok(Kept::new())
    }

    async fn save(&mut self, _: &Kept) -> Result<()> {
        Ok(())
    }

    async fn peek(&mut self) -> Result<Kept> {
        Ok(self.find().await?.kept)
    }

    fn info(&self) -> Option<String> {
        Some(format!("{} ({}…)", self.caller.uri(), self.keys.lease.trim_end_matches("lease")))
    }

    fn shared(&mut self) -> Option<&mut dyn SharedStore> {
        Some(self)
    }
}

#[async_trait]
impl SharedStore for RedisStore {
    async fn lead(&mut self) -> Result<Lead> {
        let lasts = self.milliseconds();
        let keys = [self.keys.lease.as_str(), &self.keys.fence];
        let answer = self.caller.call(&self.scripts.lead, &keys, &[self.token.as_bytes(), lasts.as_bytes()]).await?;
        match answer {
            Answer::Number(rest) => Ok(Lead::Another(self.wait(rest))),
            Answer::Text(holder) => {
                self.holder = String::from_utf8(holder).unwrap_or_default();
                let number = self.holder.split(' ').next().and_then(|number| number.parse().ok());
                number.map(Lead::Own).ok_or_else(|| self.misfit("lease"))
            }
            _ => Err(self.misfit("lease")),
        }
    }

    fn extend_after(&self) -> Duration {
        self.lasts / 3
    }

    async fn find(&mut self) -> Result<Found> {
        let keys = [self.keys.runs.as_str(), &self.keys.unsent];
        let mut tables = self.caller.call(&self.scripts.load, &keys, &[]).await?.into_list().into_iter();
        let mut table = || pairs(tables.next().map(Answer::into_texts).unwrap_or_default());
        let (runs, unsent) = (table(), table());
        Ok(Found {
            kept: runs.filter_map(|(name, run)| Some((name, to_run(&run)?))).collect(),
            unsent: unsent.filter_map(|(id, text)| to_unsent(id, &text)).collect(),
        })
    }

    async fn begin(&mut self, kept: &Kept) -> Result<bool> {
        let texts: Vec<_> = kept.iter().map(|(name, run)| [name.clone(), run_text(*run)]).collect();
        let mut arguments = vec![self.holder.as_bytes()];
        arguments.extend(texts.iter().flatten().map(String::as_bytes));
        let keys = [self.keys.lease.as_str(), &self.keys.runs];
        Ok(self.caller.call(&self.scripts.begin, &keys, &arguments).await? == Answer::Number(1))
    }

    async fn claim(&mut self, sending: &Sending, unsent: &Unsent) -> Result<bool> {
        let (run, text, lasts) = (run_text(sending.run), unsent_text(unsent)?, self.milliseconds());
        let keys = [self.keys.lease.as_str(), &self.keys.runs, &self.keys.unsent];
        let arguments = [self.holder.as_str(), &sending.name, &run, &unsent.id].map(str::as_bytes);
        let arguments = [&arguments[..], &[text.as_slice(), lasts.as_bytes()]].concat();
        Ok(self.caller.call(&self.scripts.claim, &keys, &arguments).await? == Answer::Number(1))
    }

    fn claim_of(&self, unsent: &Unsent) -> Option<(String, Claim)> {
        Some((self.caller.uri(), Claim { hash: self.keys.unsent.clone(), field: unsent.id.clone() }))
    }

    async fn settle(&mut self, unsent: &Unsent) -> Result<()> {
        let (keys, arguments) = ([self.keys.unsent.as_str()], [unsent.id.as_bytes()]);
        self.caller.call(&self.scripts.settle, &keys, &arguments).await.map(drop)
    }

    async fn release(&mut self) -> Result<()> {
        let (keys, arguments) = ([self.keys.lease.as_str()], [self.holder.as_bytes()]);
        self.caller.call(&self.scripts.release, &keys, &arguments).await.map(drop)
    }
}

impl RedisStore {
    fn misfit(&self, key: &str) -> Error {
        let message =
            format!("{}{key} at {} is none of beat's", self.keys.lease.trim_end_matches("lease"), self.caller.uri());
        Error::new(ErrorKind::Decode, message)
    }
}

/// The process and its machine, and what no other has.
fn token() -> String {
    let host = hostname::get().unwrap_or_default();
    format!("{}@{} {}", std::process::id(), host.to_string_lossy(), uuid::Uuid::new_v4())
}

/// A table's fields and values, those that are text.
fn pairs(items: Vec<Vec<u8>>) -> impl Iterator<Item = (String, Vec<u8>)> {
    let mut items = items.into_iter();
    std::iter::from_fn(move || Some((items.next()?, items.next()?)))
        .filter_map(|(name, value)| Some((String::from_utf8(name).ok()?, value)))
}

fn run_text(run: Run) -> String {
    format!("{} {}", run.last_run_at, run.total_run_count)
}

/// A text that is no run counts as none: the entry is new.
fn to_run(text: &[u8]) -> Option<Run> {
    let (last_run_at, total_run_count) = str::from_utf8(text).ok()?.split_once(' ')?;
    Some(Run { last_run_at: last_run_at.parse().ok()?, total_run_count: total_run_count.parse().ok()? })
}

fn unsent_text(unsent: &Unsent) -> Result<Vec<u8>> {
    let signature = Value::from(unsent.signature.clone());
    json::to_vec(&Value::Map(Map::from([("name", Value::from(unsent.name.as_str())), ("signature", signature)])))
}

fn to_unsent(id: String, text: &[u8]) -> Option<Unsent> {
    let mut map = json::parse(text).ok()?.into_map()?;
    let name = map.remove("name")?.into_string()?;
    let signature = Signature::try_from(map.remove("signature")?).ok()?;
    Some(Unsent { id, name, signature })
}
