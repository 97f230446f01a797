//! [`Link`]: the connection that all requests share, opened when it is needed.

use std::fmt;

use redis::{Pipeline, RedisError, Value};
use tokio::sync::Mutex;

use super::chords::{ADD, COMPLETE, EXTEND, PART, START};
use super::store::{REPLACE, STORE};
use crate::redis_client::{ConnectOptions, RedisUrl, Script, SharedConnection, failure};
use crate::{Error, ErrorKind, Result};

/// The connection that all requests share.
#[derive(Debug)]
pub(super) struct Link {
    url: RedisUrl,
    options: ConnectOptions,
    open: Mutex<Open>,
    /// The script that stores a batch.
    pub(super) store: Script,
    /// The script that replaces one result.
    pub(super) replace: Script,
    /// The script that announces a chord.
    pub(super) start: Script,
    /// The script that counts parts of chords.
    pub(super) part: Script,
    /// The script that adds a member to a chord.
    pub(super) add: Script,
    /// The script that ends a chord.
    pub(super) complete: Script,
    /// The script that holds a claim for longer.
    pub(super) extend: Script,
}

#[derive(Debug, Default)]
struct Open {
    connection: Option<SharedConnection>,
    /// Counts connections, so that a failure discards the one that it happened on and no later one.
    number: u64,
}

/// The connection of one request.
struct Lent {
    connection: SharedConnection,
    number: u64,
    /// Opened for this request: if it fails, another one would fail as well.
    is_new: bool,
}

impl Link {
    pub(super) fn new(url: RedisUrl, options: ConnectOptions) -> Self {
        Link {
            url,
            options,
            open: Mutex::default(),
            store: Script::new(STORE),
            replace: Script::new(REPLACE),
            start: Script::new(START),
            part: Script::new(PART),
            add: Script::new(ADD),
            complete: Script::new(COMPLETE),
            extend: Script::new(EXTEND),
        }
    }

    /// Connects, and gives the server the scripts.
    pub(super) async fn prepare(&self) {
        let Ok(mut lent) = self.lend().await else { return };
        if Script::load(&self.scripts(), &mut lent.connection).await.is_err_and(|error| !is_refusal(&error)) {
            self.discard(lent.number).await;
        }
    }

    /// Sends the commands at once and returns their answers. A connection that turns out to be dead, as one does that
    /// was idle for long, is replaced once; after that the error is the caller's.
    pub(super) async fn query(&self, pipeline: &Pipeline) -> Result<Vec<Value>> {
        let mut lent = self.lend().await?;
        loop {
            let error = match self.send(&mut lent.connection, pipeline).await {
                Ok(answers) => return Ok(answers),
                Err(error) => error,
            };
            if is_refusal(&error) {
                return Err(self.refused(error));
            }
            self.discard(lent.number).await;
            if lent.is_new {
                return Err(failure("cannot use the result backend", &self.url, error));
            }
            lent = Lent { is_new: true, ..self.lend().await? };
        }
    }

    /// A script that the server does not have was not run at all, and scripts that were may be run twice.
    async fn send(
        &self,
        connection: &mut SharedConnection,
        pipeline: &Pipeline,
    ) -> std::result::Result<Vec<Value>, RedisError> {
        let count = pipeline.len();
        match extracted(connection.send_packed_commands(pipeline, 0, count).await) {
            Err(error) if error.code() == Some("NOSCRIPT") => {
                Script::load(&self.scripts(), connection).await?;
                extracted(connection.send_packed_commands(pipeline, 0, count).await)
            }
            answers => answers,
        }
    }

    fn scripts(&self) -> [&Script; 7] {
        [&self.store, &self.replace, &self.start, &self.part, &self.add, &self.complete, &self.extend]
    }

    async fn lend(&self) -> Result<Lent> {
        let mut open = self.open.lock().await;
        let is_new = open.connection.is_none();
        let connection = match &open.connection {
            Some(connection) => connection.clone(),
            None => self.url.connect(&self.options).await?.connection,
        };
        if is_new {
            *open = Open { connection: Some(connection.clone()), number: open.number + 1 };
        }
        Ok(Lent { connection, number: open.number, is_new })
    }

    async fn discard(&self, number: u64) {
        let mut open = self.open.lock().await;
        if open.number == number {
            open.connection = None;
        }
    }

    fn refused(&self, error: RedisError) -> Error {
        let kind = if can_pass(&error) { ErrorKind::Unready } else { ErrorKind::Backend };
        Error::new(kind, format!("{} refused a request: {error}", self.url)).with_source(error)
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

fn extracted(answers: std::result::Result<Vec<Value>, RedisError>) -> std::result::Result<Vec<Value>, RedisError> {
    answers?.into_iter().map(Value::extract_error).collect()
}

/// Whether the server answered, and goes on answering on this connection. After a failover another server may be the
/// one to ask, and after a change of passwords another login.
fn is_refusal(error: &RedisError) -> bool {
    let is_elsewhere = |code| matches!(code, "READONLY" | "MASTERDOWN" | "NOAUTH" | "WRONGPASS");
    error.code().is_some_and(|code| !is_elsewhere(code) && !error.to_string().contains("READONLY"))
}

/// Whether the server refused for a reason that goes away by itself. A server before Redis 7 wraps what a script was
/// told in an `ERR` of its own, so the code is looked for in the text.
fn can_pass(error: &RedisError) -> bool {
    let passing =
        ["LOADING", "BUSY", "OOM", "MISCONF", "NOREPLICAS", "CLUSTERDOWN", "TRYAGAIN", "UNKILLABLE", "NOSCRIPT"];
    let text = error.to_string();
    passing.iter().any(|code| error.code() == Some(code) || text.contains(&format!("{code} ")))
}
