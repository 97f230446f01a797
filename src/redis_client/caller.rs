//! [`Caller`]: runs scripts for who is neither broker nor result backend.

use redis::{RedisError, Value};

use super::{ConnectOptions, RedisUrl, Script, SharedConnection, failure, is_refusal, refusal};
use crate::Result;

/// A connection that is opened when it is needed, and again after it was lost. Nothing is asked twice by itself.
pub(crate) struct Caller {
    url: RedisUrl,
    options: ConnectOptions,
    connection: Option<SharedConnection>,
}

/// What a script answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Lua's `false` and `nil`.
    Nothing,
    /// A number.
    Number(i64),
    /// A string, or a status.
    Text(Vec<u8>),
    /// A table.
    List(Vec<Answer>),
}

impl Caller {
    pub(crate) fn new(url: RedisUrl, options: ConnectOptions) -> Self {
        Caller { url, options, connection: None }
    }

    /// The server, its password not shown.
    pub(crate) fn uri(&self) -> String {
        self.url.to_string()
    }

    /// Runs a script.
    ///
    /// # Errors
    /// `Connection` and the like: it may have run or not. What the server refuses has another kind.
    pub(crate) async fn call(&mut self, script: &Script, keys: &[&str], arguments: &[&[u8]]) -> Result<Answer> {
        let mut call = script.call(keys.len());
        call.arg(keys).arg(arguments);
        let connection = match &mut self.connection {
            Some(connection) => connection,
            absent => absent.insert(self.url.connect(&self.options).await?.connection),
        };
        match script.run(connection, &call).await {
            Ok(value) => Ok(Answer::from(value)),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn failed(&mut self, error: RedisError) -> crate::Error {
        if is_refusal(&error) {
            return refusal("cannot run a script at", &self.url, error);
        }
        self.connection = None;
        failure("cannot run a script at", &self.url, error)
    }
}

impl Answer {
    /// The texts of a list of texts; whatever else stands in it is left out.
    pub(crate) fn into_texts(self) -> Vec<Vec<u8>> {
        let text = |answer| if let Answer::Text(text) = answer { Some(text) } else { None };
        self.into_list().into_iter().filter_map(text).collect()
    }

    /// The items of a list; of anything else none.
    pub(crate) fn into_list(self) -> Vec<Answer> {
        if let Answer::List(items) = self { items } else { Vec::new() }
    }
}

impl From<Value> for Answer {
    fn from(value: Value) -> Self {
        match value {
            Value::Int(number) => Answer::Number(number),
            Value::BulkString(text) => Answer::Text(text),
            Value::SimpleString(text) => Answer::Text(text.into_bytes()),
            Value::Okay => Answer::Text(b"OK".to_vec()),
            Value::Array(items) => Answer::List(items.into_iter().map(Answer::from).collect()),
            _ => Answer::Nothing,
        }
    }
}
