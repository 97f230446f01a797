//! [`flush`]: writes a batch of settlements to Redis.

use redis::{Cmd, Pipeline, RedisError, ServerErrorKind, Value};
use uuid::Uuid;

use super::Shared;
use super::bindings::{Bindings, exchanges};
use super::unacked::Entry;
use crate::protocol::envelope;
use crate::redis_client::{SharedConnection, is_passing, refusal};
use crate::transport::{Publication, Settlement, Tag};

/// Where a message goes when it is moved out of `unacked`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Next to be consumed.
    Front,
    /// Consumed last.
    Back,
}

/// Writes all settlements: what is done with in one go, what goes elsewhere one by one within a pipeline.
///
/// # Errors
/// The connection failed; all may be written again, since each is without effect the second time.
pub(super) async fn flush(
    shared: &Shared,
    connection: &mut SharedConnection,
    settlements: &[(Tag, Settlement)],
) -> Result<(), RedisError> {
    let sorted = Sorted::from(settlements);
    sorted.remove(shared, connection).await?;
    sorted.give_back(shared, connection).await?;
    sorted.replace(shared, connection).await
}

/// Settlements by what is to be done.
#[derive(Default)]
struct Sorted<'a> {
    removed: Vec<Tag>,
    returned: Vec<(Tag, End)>,
    replaced: Vec<(Tag, &'a Publication)>,
}

impl<'a> From<&'a [(Tag, Settlement)]> for Sorted<'a> {
    fn from(settlements: &'a [(Tag, Settlement)]) -> Self {
        let mut sorted = Sorted::default();
        for (tag, settlement) in settlements {
            match settlement {
                Settlement::Ack | Settlement::Reject => sorted.removed.push(*tag),
                Settlement::Restore => sorted.returned.push((*tag, End::Front)),
                Settlement::Requeue => sorted.returned.push((*tag, End::Back)),
                Settlement::DeadLetter(letter) | Settlement::Park(letter, _) => sorted.replaced.push((*tag, letter)),
            }
        }
        // What is pushed to the front last is consumed first, and the other way round at the back: either way the
        // order of consumption is kept.
        sorted.returned.sort_unstable_by_key(|(tag, end)| match end {
            End::Front => (0, u64::MAX - tag.0),
            End::Back => (1, tag.0),
        });
        sorted
    }
}

impl Sorted<'_> {
    async fn remove(&self, shared: &Shared, connection: &mut SharedConnection) -> Result<(), RedisError> {
        if self.removed.is_empty() {
            return Ok(());
        }
        // The hash first: an index entry without it is swept by any worker, the other way round nobody would find it.
        let mut pipeline = Pipeline::with_capacity(2);
        for (command, key) in [("HDEL", &shared.keys.unacked), ("ZREM", &shared.keys.unacked_index)] {
            pipeline.add_command(self.removal(shared, command, key));
        }
        let answers = run(connection, &pipeline).await?;
        shared.ledger.progressed();
        answers.into_iter().try_for_each(|answer| answer.extract_error().map(drop))
    }

    fn removal(&self, shared: &Shared, command: &str, key: &str) -> Cmd {
        let size = shared.ledger.prefix().len() + 24;
        let mut removal = Cmd::with_capacity(self.removed.len() + 2, self.removed.len() * size + 64);
        removal.arg(command).arg(key);
        for tag in &self.removed {
            removal.arg(shared.ledger.field(*tag));
        }
        removal
    }

    async fn give_back(&self, shared: &Shared, connection: &mut SharedConnection) -> Result<(), RedisError> {
        let fields: Vec<_> = self.returned.iter().map(|(tag, _)| shared.ledger.field(*tag)).collect();
        for (returned, fields) in self.returned.chunks(MOVES).zip(fields.chunks(MOVES)) {
            let moves = returned.iter().zip(fields).map(|((_, end), field)| Move { field, end: *end, ceiling: None });
            give_back(shared, connection, &moves.collect::<Vec<_>>()).await?;
            shared.ledger.progressed();
        }
        Ok(())
    }

    async fn replace(&self, shared: &Shared, connection: &mut SharedConnection) -> Result<(), RedisError> {
        if self.replaced.is_empty() {
            return Ok(());
        }
        let exchanges = exchanges(self.replaced.iter().map(|(_, letter)| letter.exchange.as_str()));
        let bindings = Bindings::look_up(shared, connection, exchanges).await?;
        let mut pipeline = Pipeline::new();
        for (tag, letter) in &self.replaced {
            match letter_lists(shared, &bindings, letter) {
                Ok((payload, lists)) => {
                    let field = shared.ledger.field(*tag);
                    pipeline.add_command(shared.moving(&field, End::Back, &payload, &lists, None));
                }
                // The original comes back after the visibility timeout.
                Err(error) => tracing::error!("cannot write a dead letter, the message stays reserved: {error}"),
            }
        }
        run_moves(connection, &pipeline).await?;
        shared.ledger.progressed();
        Ok(())
    }
}

/// How many messages are moved with one pipeline: they are read before, so this bounds memory.
pub(super) const MOVES: usize = 200;

/// A message that is to go back to its queue.
pub(super) struct Move<'a> {
    pub(super) field: &'a str,
    pub(super) end: End,
    /// Only if its time in the index is not later than this.
    pub(super) ceiling: Option<f64>,
}

/// Gives messages back to the queues that they came from, in this order; answers how many there still were.
pub(super) async fn give_back(
    shared: &Shared,
    connection: &mut SharedConnection,
    moves: &[Move<'_>],
) -> Result<usize, RedisError> {
    if moves.is_empty() {
        return Ok(0);
    }
    let mut read = redis::cmd("HMGET");
    read.arg(&shared.keys.unacked);
    for one in moves {
        read.arg(one.field);
    }
    let values: Vec<Option<Vec<u8>>> = read.query_async(connection).await?;
    let entries: Vec<_> = values.into_iter().map(|value| value.map(|text| Entry::parse(&text))).collect();
    let named = entries.iter().flatten().flatten().map(|entry| entry.exchange.as_str());
    let bindings = Bindings::look_up(shared, connection, exchanges(named)).await?;
    let mut pipeline = Pipeline::new();
    for (one, entry) in moves.iter().zip(entries) {
        match entry {
            // The script forgets what is in the index alone.
            None => drop(pipeline.add_command(shared.moving(one.field, one.end, b"", &[], one.ceiling))),
            Some(Ok(entry)) => match bindings.queues(&entry.exchange, &entry.routing_key) {
                Ok(queues) => {
                    let (payload, priority) = entry.redelivery();
                    let lists: Vec<_> = queues.iter().map(|queue| shared.keys.list_for(queue, priority)).collect();
                    pipeline.add_command(shared.moving(one.field, one.end, &payload, &lists, one.ceiling));
                }
                Err(error) if concerns_all(&error) => return Err(error),
                Err(error) => stays(one, &error),
            },
            Some(Err(error)) => stays(one, &error),
        }
    }
    run_moves(connection, &pipeline).await
}

impl Shared {
    /// A call of the script that moves a message from `unacked` to lists.
    fn moving(&self, field: &str, end: End, payload: &[u8], lists: &[String], ceiling: Option<f64>) -> Cmd {
        let mut call = self.scripts.moving.call(2 + lists.len());
        call.arg(&self.keys.unacked).arg(&self.keys.unacked_index).arg(lists).arg(field);
        call.arg(if end == End::Front { "RPUSH" } else { "LPUSH" }).arg(payload);
        call.arg(ceiling.map(|ceiling| ceiling.to_string()).unwrap_or_default());
        call
    }

    /// A message as its envelope, with a tag of its own.
    pub(super) fn envelope(&self, publication: &Publication) -> crate::Result<Vec<u8>> {
        let mut message = publication.message.clone();
        message.properties.exchange = Some(publication.exchange.clone());
        message.properties.routing_key = Some(publication.routing_key.clone());
        let mut payload = Vec::new();
        envelope::write(&message, &Uuid::new_v4().to_string(), &mut payload)?;
        Ok(payload)
    }
}

fn stays(one: &Move<'_>, error: &dyn std::error::Error) {
    tracing::warn!(tag = one.field, "cannot restore a message, it stays where it is: {error}");
}

/// A dead letter's bytes, and the lists that it goes to.
fn letter_lists(shared: &Shared, bindings: &Bindings, letter: &Publication) -> crate::Result<(Vec<u8>, Vec<String>)> {
    let payload = shared.envelope(letter)?;
    let priority = letter.message.properties.priority.unwrap_or(0);
    let queues = bindings.queues(&letter.exchange, &letter.routing_key);
    let queues = queues.map_err(|error| refusal("cannot publish to", &shared.url, error))?;
    Ok((payload, queues.iter().map(|queue| shared.keys.list_for(queue, priority)).collect()))
}

/// Runs a pipeline; answers may be refusals.
pub(super) async fn run(connection: &mut SharedConnection, pipeline: &Pipeline) -> Result<Vec<Value>, RedisError> {
    if pipeline.is_empty() {
        return Ok(Vec::new());
    }
    connection.send_packed_commands(pipeline, 0, pipeline.len()).await
}

/// Runs a pipeline of moves and counts those that were made. What Redis refuses for one message must not hold up the
/// others: it is logged, and the message comes back after the visibility timeout.
async fn run_moves(connection: &mut SharedConnection, pipeline: &Pipeline) -> Result<usize, RedisError> {
    let mut moved = 0;
    for answer in run(connection, pipeline).await? {
        match answer.extract_error() {
            Ok(Value::Int(1)) => moved += 1,
            Ok(_) => {}
            Err(error) if concerns_all(&error) => return Err(error),
            Err(error) => tracing::error!("cannot move a message, it stays reserved: {error}"),
        }
    }
    Ok(moved)
}

/// Whether a refusal is about the server's state, and another connection may help.
fn concerns_all(error: &RedisError) -> bool {
    use ServerErrorKind::{BusyLoading, ClusterDown, MasterDown, NoScript, ReadOnly, TryAgain};
    match error.kind() {
        redis::ErrorKind::Server(kind) => {
            matches!(kind, BusyLoading | ClusterDown | MasterDown | NoScript | ReadOnly | TryAgain)
                || is_forbidden_command(error)
        }
        redis::ErrorKind::Extension => is_passing(error),
        _ => true,
    }
}

/// A user who may not run scripts at all can move no message; one who may not touch a key, only none of that queue.
fn is_forbidden_command(error: &RedisError) -> bool {
    error.kind() == redis::ErrorKind::Server(ServerErrorKind::NoPerm)
        && error.to_string().contains("permissions to run")
}
