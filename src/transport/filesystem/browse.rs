//! [`FilesystemBrowser`]: looks into a queue's files.

use std::fs;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::Shared;
use super::files::{failed, remove};
use super::names::FileName;
use super::own::claim;
use super::{publish, settle};
use crate::protocol::envelope;
use crate::transport::{Browsed, Browser, Content, Place, QueueName, Replacement, Undecodable};
use crate::{Error, ErrorKind, Result};

/// How many messages one look brings.
const PAGE: usize = 200;

pub(super) struct FilesystemBrowser {
    shared: Arc<Shared>,
    /// What was there at the beginning; a message's position is its place among them.
    names: Vec<FileName>,
    next: usize,
}

impl FilesystemBrowser {
    /// The names of what waits in a queue.
    pub(super) fn look(shared: &Shared, queue: &QueueName) -> Result<Vec<FileName>> {
        let folder = &shared.incoming;
        let names = folder.names_of(queue.as_str());
        Ok(names.map_err(|error| failed("cannot read the folder", folder.path(), error))?.into_iter().collect())
    }

    pub(super) fn new(shared: Arc<Shared>, names: Vec<FileName>) -> Self {
        FilesystemBrowser { shared, names, next: 0 }
    }

    fn name(&self, place: Place) -> Result<FileName> {
        let name = usize::try_from(place.position).ok().and_then(|position| self.names.get(position));
        name.cloned().ok_or_else(|| Error::new(ErrorKind::Configuration, "take a message that another browser found"))
    }
}

#[async_trait]
impl Browser for FilesystemBrowser {
    async fn next(&mut self) -> Result<Vec<Browsed>> {
        while self.next < self.names.len() {
            let first = self.next;
            self.next = self.names.len().min(first + PAGE);
            let (shared, names) = (Arc::clone(&self.shared), self.names[first..self.next].to_vec());
            let page = spawn_blocking(move || {
                let read =
                    |(nth, name): (usize, FileName)| Some((first + nth, fs::read(shared.incoming.file(&name)).ok()?));
                names.into_iter().enumerate().filter_map(read).collect::<Vec<_>>()
            });
            let page = page.await.map_err(ended)?;
            if !page.is_empty() {
                return Ok(page.into_iter().map(|(position, raw)| browsed(raw.into(), position)).collect());
            }
        }
        Ok(Vec::new())
    }

    async fn take(&mut self, messages: Vec<(Browsed, Option<Replacement>)>) -> Result<Vec<bool>> {
        let mut takings = Vec::with_capacity(messages.len());
        for (browsed, replacement) in messages {
            let replacement = replacement.map(|replacement| written(&self.shared, replacement)).transpose()?;
            takings.push((self.name(browsed.place)?, replacement));
        }
        let shared = Arc::clone(&self.shared);
        let taken = spawn_blocking(move || takings.into_iter().map(|(name, by)| take(&shared, &name, by)).collect());
        taken.await.map_err(ended)?
    }
}

fn take(shared: &Shared, name: &FileName, by: Option<(FileName, Vec<u8>)>) -> Result<bool> {
    let folder = &shared.incoming;
    let own = folder.own()?;
    let take = || {
        let Some(claimed) = claim(folder, &own, name)? else { return Ok(false) };
        match by {
            None => remove(&claimed).map(drop)?,
            Some((new, content)) => settle::put_in_place(folder, own.path(), &claimed, &new, &content)?,
        }
        Ok(true)
    };
    take().map_err(|error| failed("cannot take messages out of the folder", folder.path(), error))
}

fn browsed(raw: Bytes, position: usize) -> Browsed {
    let message = envelope::parse(&raw);
    let message = message.map_err(|error| Undecodable { reason: error.to_string(), raw: raw.clone() });
    Browsed { message, raw, place: Place { list: 0, position: position as u64 } }
}

/// What is put in a message's place, and under which name. Where its properties say that it was sent to is kept.
fn written(shared: &Shared, replacement: Replacement) -> Result<(FileName, Vec<u8>)> {
    let Replacement { queue, content } = replacement;
    let name = shared.namer.next(publish::sound(queue.as_str())?);
    let content = match content {
        Content::Raw(raw) => raw.to_vec(),
        Content::Message(message) => {
            let mut content = Vec::new();
            envelope::write(&message, &uuid::Uuid::new_v4().to_string(), &mut content)?;
            content
        }
    };
    Ok((name, content))
}

/// Only a runtime that ends gives up what runs.
fn ended(error: tokio::task::JoinError) -> Error {
    Error::new(ErrorKind::Connection, "the work on the broker's folder was given up").with_source(error)
}
