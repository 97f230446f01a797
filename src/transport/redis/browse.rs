//! [`RedisBrowser`]: looks into the lists of a queue.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use redis::Cmd;
use uuid::Uuid;

use super::connection::Link;
use crate::protocol::{Message, envelope};
use crate::transport::{Browsed, Browser, Content, Place, QueueName, Replacement, Undecodable};
use crate::{Error, ErrorKind, Result};

/// How many messages one look brings.
const PAGE: usize = 200;
/// How many messages one script takes.
const TAKES: usize = 100;

/// Looks at the lists of one queue, one after the other.
pub(super) struct RedisBrowser {
    link: Arc<Link>,
    /// The one that is consumed first in front.
    lists: Vec<String>,
    /// The list that is being read.
    list: usize,
    /// How many messages at its end have been seen and are still there.
    seen: usize,
}

/// A message that is to be taken: where it was seen, its bytes, and what is pushed to which lists.
struct Taking {
    place: Place,
    raw: Bytes,
    payload: Vec<u8>,
    targets: Vec<String>,
}

impl RedisBrowser {
    pub(super) fn new(link: Arc<Link>, queue: &QueueName) -> Self {
        let keys = &link.shared.keys;
        let lists = keys.steps().iter().map(|step| keys.list(queue.as_str(), *step)).collect();
        RedisBrowser { link, lists, list: 0, seen: 0 }
    }

    /// The next page of the list that is being read, the next to be consumed in front.
    async fn page(&self) -> Result<Vec<Bytes>> {
        let mut range = redis::cmd("LRANGE");
        let (first, last) = (negative(self.seen + PAGE), negative(self.seen + 1));
        range.arg(&self.lists[self.list]).arg(first).arg(last);
        let page: redis::RedisResult<Vec<Bytes>> = range.query_async(&mut self.link.connection.clone()).await;
        let mut page = page.map_err(|error| self.link.refused("cannot look into a queue at", error))?;
        page.reverse();
        Ok(page)
    }

    fn taking(&self, browsed: Browsed, replacement: Option<Replacement>) -> Result<Taking> {
        let (payload, targets) = match replacement {
            None => (Vec::new(), Vec::new()),
            Some(Replacement { queue, content: Content::Raw(raw) }) => {
                (raw.to_vec(), vec![self.link.shared.keys.list_for(queue.as_str(), 0)])
            }
            Some(Replacement { queue, content: Content::Message(message) }) => {
                let priority = message.properties.priority.unwrap_or(0);
                (written(&message)?, vec![self.link.shared.keys.list_for(queue.as_str(), priority)])
            }
        };
        Ok(Taking { place: browsed.place, raw: browsed.raw, payload, targets })
    }

    /// Takes messages of one list.
    async fn run(&mut self, list: usize, takings: &[Taking]) -> Result<Vec<bool>> {
        let script = &self.link.shared.scripts.take;
        let connection = &mut self.link.connection.clone();
        let answer = script.run(connection, &self.call(list, takings)).await;
        let taken: redis::RedisResult<Vec<u8>> = answer.and_then(|answer| Ok(redis::from_redis_value(answer)?));
        let taken = taken.map_err(|error| self.link.refused("cannot take messages out of a queue at", error))?;
        if list == self.list {
            self.seen -= taken.iter().filter(|taken| **taken == 1).count().min(self.seen);
        }
        Ok(taken.into_iter().map(|taken| taken == 1).collect())
    }

    fn call(&self, list: usize, takings: &[Taking]) -> Cmd {
        let targets = takings.iter().map(|taking| taking.targets.len()).sum::<usize>();
        let mut call = self.link.shared.scripts.take.call(1 + targets);
        call.arg(&self.lists[list]);
        for target in takings.iter().flat_map(|taking| &taking.targets) {
            call.arg(target);
        }
        call.arg(format!("celeriac-taken-{}", Uuid::new_v4()));
        for taking in takings {
            let position = usize::try_from(taking.place.position).unwrap_or(usize::MAX);
            call.arg(negative(position.saturating_add(1))).arg(&taking.raw[..]);
            call.arg(&taking.payload).arg(taking.targets.len());
        }
        call
    }
}

#[async_trait]
impl Browser for RedisBrowser {
    async fn next(&mut self) -> Result<Vec<Browsed>> {
        while self.list < self.lists.len() {
            let page = self.page().await?;
            if page.is_empty() {
                (self.list, self.seen) = (self.list + 1, 0);
                continue;
            }
            let first = self.seen;
            self.seen += page.len();
            let place = |nth| Place { list: self.list, position: (first + nth) as u64 };
            return Ok(page.into_iter().enumerate().map(|(nth, raw)| browsed(raw, place(nth))).collect());
        }
        Ok(Vec::new())
    }

    async fn take(&mut self, messages: Vec<(Browsed, Option<Replacement>)>) -> Result<Vec<bool>> {
        let takings = messages.into_iter().map(|(browsed, replacement)| self.taking(browsed, replacement));
        let mut takings: Vec<Taking> = takings.collect::<Result<_>>()?;
        if takings.iter().any(|taking| taking.place.list >= self.lists.len()) {
            return Err(Error::new(ErrorKind::Configuration, "take a message that another browser found"));
        }
        let mut taken = Vec::with_capacity(takings.len());
        for same_list in takings.chunk_by_mut(|one, other| one.place.list == other.place.list) {
            let mut gone = 0;
            for takings in same_list.chunks_mut(TAKES) {
                // What was taken before stood nearer to the end.
                takings.iter_mut().for_each(|taking| taking.place.position -= gone.min(taking.place.position));
                let answers = self.run(takings[0].place.list, takings).await?;
                gone += answers.iter().filter(|taken| **taken).count() as u64;
                taken.extend(answers);
            }
        }
        Ok(taken)
    }
}

fn browsed(raw: Bytes, place: Place) -> Browsed {
    let message = envelope::parse(&raw);
    let message = message.map_err(|error| Undecodable { reason: error.to_string(), raw: raw.clone() });
    Browsed { message, raw, place }
}

/// A message as its envelope, with a tag of its own; where its properties say that it was sent to is kept.
fn written(message: &Message) -> Result<Vec<u8>> {
    let mut payload = Vec::new();
    envelope::write(message, &Uuid::new_v4().to_string(), &mut payload)?;
    Ok(payload)
}

/// An index that counts from the right end.
fn negative(count: usize) -> i64 {
    i64::try_from(count).map_or(i64::MIN, |count| -count)
}
