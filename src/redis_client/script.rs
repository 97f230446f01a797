//! [`Script`]: Lua that the server keeps, run by its digest.

use redis::{Cmd, Pipeline, RedisError, ServerErrorKind, Value};

use super::SharedConnection;

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
    pub(crate) async fn run(&self, connection: &mut SharedConnection, call: &Cmd) -> Result<Value, RedisError> {
        match checked(connection.send_packed_command(call).await) {
            Err(error) if is_missing(&error) => {
                Script::load(&[self], connection).await?;
                checked(connection.send_packed_command(call).await)
            }
            answer => answer,
        }
    }

    /// Gives scripts to the server, all at once, for use in pipelines.
    pub(crate) async fn load(scripts: &[&Script], connection: &mut SharedConnection) -> Result<(), RedisError> {
        let mut loads = Pipeline::with_capacity(scripts.len());
        scripts.iter().for_each(|script| _ = loads.add_command(script.loading()));
        let answers = connection.send_packed_commands(&loads, 0, loads.len()).await?;
        answers.into_iter().try_for_each(|answer| answer.extract_error().map(drop))
    }

    /// What gives the script to the server.
    pub(crate) fn loading(&self) -> Cmd {
        let mut load = redis::cmd("SCRIPT");
        load.arg("LOAD").arg(self.source);
        load
    }
}

/// The library hands over a server's refusal as a value.
fn checked(answer: Result<Value, RedisError>) -> Result<Value, RedisError> {
    answer.and_then(Value::extract_error)
}

fn is_missing(error: &RedisError) -> bool {
    error.kind() == redis::ErrorKind::Server(ServerErrorKind::NoScript)
}
