//! [`SharedConnection`]: a connection over which several tasks ask, and whoever asks is answered.

use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Cmd, Pipeline, RedisError, RedisFuture, RedisResult, ToRedisArgs, Value};
use tokio::time::sleep;

/// How long a request waits before it looks whether its connection still is one.
const DOUBT: Duration = Duration::from_millis(500);

/// An open connection. It is cheap to clone, and closed when the last clone drops.
///
/// The client library hands requests over to the task that writes them. When the connection ends, that task ends with an
/// error for each request that it has; but one that is handed over in this very instant it may neither take nor refuse, and
/// whoever asks would wait for as long as an answer may take, which is minutes, while other connections work. So a request
/// that waits for long asks for something else beside it: who is dead refuses that at once.
#[derive(Debug, Clone)]
pub struct SharedConnection(MultiplexedConnection);

impl SharedConnection {
    pub(super) fn new(connection: MultiplexedConnection) -> Self {
        SharedConnection(connection)
    }

    /// Sends a command. What the server refuses is a value.
    pub(crate) async fn send_packed_command(&mut self, command: &Cmd) -> RedisResult<Value> {
        let ended = ended(self.0.clone());
        unless(ended, self.0.send_packed_command(command)).await
    }

    /// Sends commands at once, and returns `count` of the answers from the one numbered `offset` on.
    pub(crate) async fn send_packed_commands(
        &mut self,
        commands: &Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisResult<Vec<Value>> {
        let ended = ended(self.0.clone());
        unless(ended, self.0.send_packed_commands(commands, offset, count)).await
    }

    /// Subscribes to channels. Needs RESP3.
    pub(crate) async fn subscribe(&mut self, channels: impl ToRedisArgs) -> RedisResult<()> {
        let ended = ended(self.0.clone());
        unless(ended, self.0.subscribe(channels)).await
    }

    /// Takes that back.
    pub(crate) async fn unsubscribe(&mut self, channels: impl ToRedisArgs) -> RedisResult<()> {
        let ended = ended(self.0.clone());
        unless(ended, self.0.unsubscribe(channels)).await
    }
}

impl ConnectionLike for SharedConnection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(self.send_packed_command(command))
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(self.send_packed_commands(commands, offset, count))
    }

    fn get_db(&self) -> i64 {
        self.0.get_db()
    }
}

/// The answer, if there is one when the connection has ended.
async fn unless<T>(
    ended: impl Future<Output = RedisError>,
    answer: impl Future<Output = RedisResult<T>>,
) -> RedisResult<T> {
    tokio::select! {
        biased;
        answer = answer => answer,
        error = ended => Err(error),
    }
}

/// Resolves when the connection is seen to have ended. Of a server that is slow nothing is said: it is asked once more
/// when it has answered.
async fn ended(mut connection: MultiplexedConnection) -> RedisError {
    let ping = redis::cmd("PING");
    loop {
        sleep(DOUBT).await;
        if let Err(error) = connection.send_packed_command(&ping).await {
            return error;
        }
    }
}
