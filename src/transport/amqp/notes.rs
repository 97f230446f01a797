//! Notes beside the messages: each is the one message of a queue of its own.
//!
//! What RabbitMQ counts itself does not tell whom a message has killed. `x-delivery-count`, of quorum queues alone,
//! counts every return, also of what was sent ahead and never begun, and of what was given back; classic queues say no
//! more than that there was one. So a note is kept here as on other brokers, for both types of queues.
//!
//! A note's queue takes the newest message for the one before it, and goes by itself when nobody has asked for it for
//! a while.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::try_join_all;
use lapin::Channel;
use lapin::options::{BasicGetOptions, BasicNackOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::ShortString;

use super::connection::Link;
use super::declare::{self, Failed};
use crate::amqp_client::{is_refusal, refusal, short, table};
use crate::protocol::{Map, Message, Properties, Value};
use crate::transport::{Note, Publication};
use crate::{Error, Result};

const PREFIX: &str = "celeriac.notes.";
/// The longest name of a queue, in bytes.
const LONGEST: usize = 255;
/// How long a queue stays that nobody asks for, whatever is in it. It must be the same in every declaration.
const QUEUE_KEPT_FOR: Duration = Duration::from_secs(8 * 24 * 3600);

/// The texts of notes; nothing for those that are not there.
pub(super) async fn read(link: &Link, names: &[String]) -> Result<Vec<Option<String>>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let channel = link.main.channel().await?;
    let read = try_join_all(names.iter().map(|name| look(&channel, queue(name)))).await;
    let texts = read.map_err(|failure| failed(link, "cannot read notes at", failure))?;
    declare::close(&channel).await;
    Ok(texts)
}

/// Writes notes, or removes those without a text. Of several of one name the last counts.
pub(super) async fn write(link: &Link, notes: Vec<Note>, kept_for: Duration) -> Result<()> {
    let channel = link.main.channel().await?;
    let notes: Vec<_> = last_of_each(notes).into_iter().map(|note| (queue(&note.name), note.text)).collect();
    let prepared = try_join_all(notes.iter().map(|(queue, text)| prepare(&channel, queue, text.is_some()))).await;
    prepared.map_err(|failure| failed(link, "cannot write notes at", failure))?;
    declare::close(&channel).await;
    let written = notes.into_iter().filter_map(|(queue, text)| Some(publication(&queue, text?, kept_for)));
    let publications: Vec<_> = written.collect();
    if publications.is_empty() {
        return Ok(());
    }
    link.publish(&publications, true).await?.into_iter().collect()
}

/// In whatever order: no two are of one name.
fn last_of_each(notes: Vec<Note>) -> Vec<Note> {
    let mut seen = HashSet::new();
    notes.into_iter().rev().filter(|note| seen.insert(note.name.clone())).collect()
}

fn publication(queue: &str, text: String, kept_for: Duration) -> Publication {
    let expiration = Some(kept_for.min(QUEUE_KEPT_FOR).as_millis().to_string());
    let message = Message {
        properties: Properties { delivery_mode: Some(2), expiration, ..Properties::default() },
        content_type: Some("text/plain".to_owned()),
        content_encoding: Some("utf-8".to_owned()),
        body: text.into(),
        ..Message::default()
    };
    Publication::to_queue(queue, message)
}

/// Makes the queue of what is to be written, and removes that of what is not.
async fn prepare(channel: &Channel, queue: &str, is_written: bool) -> Result<(), Failed> {
    if is_written {
        declare(channel, &short(queue)?).await?;
    } else {
        channel.queue_delete(short(queue)?, QueueDeleteOptions::default()).await?;
    }
    Ok(())
}

/// Makes the queue of a note, unless it is there, and says how many messages are in it. To ask for one that is not there
/// would cost the channel.
async fn declare(channel: &Channel, queue: &ShortString) -> Result<u32, Failed> {
    let kept_for = i64::try_from(QUEUE_KEPT_FOR.as_millis()).unwrap_or(i64::MAX);
    let arguments = table(&Map::from([("x-expires", Value::Int(kept_for)), ("x-max-length", Value::Int(1))]))?;
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    Ok(channel.queue_declare(queue.clone(), options, arguments).await?.message_count())
}

/// What is in the queue, and stays there.
async fn look(channel: &Channel, queue: String) -> Result<Option<String>, Failed> {
    let queue = short(queue)?;
    if declare(channel, &queue).await? == 0 {
        return Ok(None);
    }
    let Some(got) = channel.basic_get(queue, BasicGetOptions::default()).await? else { return Ok(None) };
    let text = String::from_utf8_lossy(&got.delivery.data).into_owned();
    let requeue = BasicNackOptions { multiple: false, requeue: true };
    channel.basic_nack(got.delivery.delivery_tag, requeue).await?;
    Ok(Some(text))
}

/// The queue of a note. A name that is too long for one is cut.
fn queue(name: &str) -> String {
    let mut queue = format!("{PREFIX}{name}");
    while queue.len() > LONGEST {
        queue.pop();
    }
    queue
}

fn failed(link: &Link, what: &'static str, failure: Failed) -> Error {
    match failure {
        Failed::Here(error) => error,
        Failed::There(error) if is_refusal(&error) => refusal(what, link.main.place(), &error),
        Failed::There(error) => link.main.failed(what, &error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_note_of_a_name_counts() {
        let note = |name: &str, text: Option<&str>| Note { name: name.into(), text: text.map(str::to_owned) };
        let notes = vec![note("a", Some("1")), note("b", None), note("a", None), note("b", Some("2"))];
        let mut left = last_of_each(notes);
        left.sort_by(|one, other| one.name.cmp(&other.name));
        let left: Vec<_> = left.into_iter().map(|note| (note.name, note.text)).collect();
        assert_eq!(left, [("a".to_owned(), None), ("b".to_owned(), Some("2".to_owned()))]);
    }

    #[test]
    fn every_name_has_a_queue() {
        assert_eq!(queue("lost.1"), "celeriac.notes.lost.1");
        for name in ["x".repeat(1000), "é".repeat(1000)] {
            assert!((LONGEST - 1..=LONGEST).contains(&queue(&name).len()));
            assert!(short(queue(&name)).is_ok());
        }
    }
}
