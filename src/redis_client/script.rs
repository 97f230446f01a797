//! [`Script`]: Lua that the server keeps, run by its digest.

use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, ServerErrorKind, Value};

/// A Lua script, sent whole only to a server that does not have it.
#[derive(Debug)]
pub(crate) struct Script {
    source: &'static str,
    digest: String,
}

impl Script {
    /// A script with this source.
    pub(crate) fn new(source: &'static str) -> Self {
        Script { source, digest: redis::Script::new(source).get_hash().to_owned() }
    }

    /// A call with this many keys; keys and arguments are still to be added, in this order.
    pub(crate) fn call(&self, keys: usize) -> Cmd {
        let mut call = redis::cmd("EVALSHA");
        call.arg(&self.digest).arg(keys);
        call
    }

    /// Runs `call`, which [`Script::call`] began. A server that does not have the script gets it first: `NOSCRIPT`
    /// means that nothing of the call was run.
    pub(crate) async fn run(&self, connection: &mut MultiplexedConnection, call: &Cmd) -> Result<Value, RedisError> {
        match checked(connection.send_packed_command(call).await) {
            Err(error) if is_missing(&error) => {
                self.load(connection).await?;
                checked(connection.send_packed_command(call).await)
            }
            answer => answer,
        }
    }

    /// Gives the script to the server, for use in pipelines.
    pub(crate) async fn load(&self, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        redis::cmd("SCRIPT").arg("LOAD").arg(self.source).query_async(connection).await
    }
}

/// The library hands over a server's refusal as a value.
fn checked(answer: Result<Value, RedisError>) -> Result<Value, RedisError> {
    answer.and_then(Value::extract_error)
}

fn is_missing(error: &RedisError) -> bool {
    error.kind() == redis::ErrorKind::Server(ServerErrorKind::NoScript)
}
