//! [`Frozen`]: a message that is held for its ETA, made small, because there may be a million of them.
//!
//! A message that is held is not looked at, so it is kept as compressed bytes, and decoded again when its time comes.
//! Messages of one task are alike but for their ids and arguments: the first of each task is the dictionary by which the
//! others are compressed, to about a tenth of what they are decoded.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use bytes::Bytes;
use zstd::bulk::{Compressor, Decompressor};

use super::intake::{self, Intake, Tasks};
use super::malformed::Malformed;
use super::request::Work;
use crate::protocol::{Message, Value, envelope};
use crate::transport::{Growth, QueueName, Receipt, Undecodable};
use crate::{Error, ErrorKind, Result};

/// The fastest of zstd's levels: higher ones find nothing more in so little.
const LEVEL: i32 = 1;
/// How many tasks have a dictionary of their own; those beyond are compressed without.
const DICTIONARIES: usize = 64;
/// What of a message can be a dictionary.
const LONGEST_DICTIONARY: usize = 16 << 10;

/// A message that is held.
#[derive(Debug)]
pub(crate) struct Frozen {
    receipt: Receipt,
    /// Widens the prefetch window while the message is held.
    growth: Growth,
    kept: Kept,
    /// It bears stamps, by which it may be revoked.
    stamped: bool,
}

#[derive(Debug, Clone)]
enum Kept {
    /// The message, and its size when it is not compressed.
    Compressed { bytes: Box<[u8]>, size: u32, dictionary: u8 },
    /// What cannot be written, or is too large to be compressed in one piece.
    Whole(Box<Message>),
}

/// A held message for who only wants to read it, still compressed.
#[derive(Debug)]
pub(super) struct FrozenCopy {
    kept: Kept,
    queue: QueueName,
}

/// Decodes copies of held messages, away from the loop.
pub(super) struct Thawer {
    dictionaries: Vec<Arc<[u8]>>,
    /// Made when they are needed.
    decompressors: HashMap<u8, Decompressor<'static>>,
}

/// Freezes messages and thaws them.
pub(crate) struct Freezer {
    hasher: ahash::RandomState,
    /// The first knows nothing beforehand. None before something is held: each takes a hundred kilobytes.
    books: Vec<Book>,
    by_task: HashMap<String, u8>,
    buffer: Vec<u8>,
}

struct Book {
    dictionary: Arc<[u8]>,
    compressor: Compressor<'static>,
    decompressor: Decompressor<'static>,
}

impl Freezer {
    pub(crate) fn new() -> Self {
        Freezer { hasher: ahash::RandomState::new(), books: Vec::new(), by_task: HashMap::new(), buffer: Vec::new() }
    }

    /// Makes a message small that is to be held; nothing if it has been settled.
    pub(crate) fn freeze(&mut self, work: Work, growth: Growth) -> Option<Frozen> {
        let stamped = work.request.headers.get("stamped_headers").is_some_and(Value::is_truthy);
        // Not the request itself: whoever shares it makes the headers be copied.
        let task = work.request.task.clone();
        let (receipt, mut message) = work.into_message()?;
        let kept = match self.compress(&task, &mut message) {
            Ok(kept) => kept,
            Err(_) => Kept::Whole(Box::new(message)),
        };
        Some(Frozen { receipt, growth, kept, stamped })
    }

    /// Decodes a message again, to be run.
    pub(crate) fn thaw(&mut self, frozen: Frozen, tasks: &Tasks) -> Intake {
        let message = self.message(&frozen.kept);
        let Frozen { receipt, growth, kept, .. } = frozen;
        drop(growth);
        match (message, kept) {
            (Ok(message), _) => intake::again(receipt, message, tasks),
            // Our own bytes: only memory that has gone bad can bring this about, and then the message must not be lost.
            (Err(error), Kept::Compressed { bytes, .. }) => {
                let undecodable = Undecodable { reason: error.to_string(), raw: Bytes::from(bytes) };
                Intake::Malformed(Box::new(Malformed::no_message(receipt, undecodable)))
            }
            (Err(_), Kept::Whole(message)) => intake::again(receipt, *message, tasks),
        }
    }

    /// By what a held message is told from others.
    pub(crate) fn hash(&self, id: &str) -> u64 {
        self.hasher.hash_one(id)
    }

    /// What reads copies of the messages that are frozen now.
    pub(super) fn thawer(&self) -> Thawer {
        let dictionaries = self.books.iter().map(|book| Arc::clone(&book.dictionary)).collect();
        Thawer { dictionaries, decompressors: HashMap::new() }
    }

    fn compress(&mut self, task: &str, message: &mut Message) -> Result<Kept> {
        self.buffer.clear();
        write(message, &mut self.buffer)?;
        let size = u32::try_from(self.buffer.len()).map_err(failed)?;
        let dictionary = self.dictionary(task)?;
        let book = self.books.get_mut(usize::from(dictionary)).ok_or_else(|| failed("no dictionary"))?;
        let bytes = book.compressor.compress(&self.buffer).map_err(failed)?;
        // A long buffer is not kept for the sake of short ones.
        self.buffer.shrink_to(LONGEST_DICTIONARY);
        Ok(Kept::Compressed { bytes: bytes.into(), size, dictionary })
    }

    /// The dictionary of a task: the message that is in the buffer, if it is the task's first.
    fn dictionary(&mut self, task: &str) -> Result<u8> {
        if let Some(known) = self.by_task.get(task) {
            return Ok(*known);
        }
        if self.books.is_empty() {
            self.books.push(Book::new(&[])?);
        }
        if self.books.len() > DICTIONARIES || self.buffer.len() > LONGEST_DICTIONARY {
            return Ok(0);
        }
        let new = u8::try_from(self.books.len()).map_err(failed)?;
        self.books.push(Book::new(&self.buffer)?);
        self.by_task.insert(task.to_owned(), new);
        Ok(new)
    }

    fn message(&mut self, kept: &Kept) -> Result<Message> {
        match kept {
            Kept::Whole(message) => Ok(Message::clone(message)),
            Kept::Compressed { bytes, size, dictionary } => {
                let book = self.books.get_mut(usize::from(*dictionary)).ok_or_else(|| failed("no dictionary"))?;
                let bytes = book.decompressor.decompress(bytes, *size as usize).map_err(failed)?;
                read(bytes)
            }
        }
    }
}

impl Frozen {
    /// Whether it bears stamps, by which it may have been revoked. If so, only its message can tell.
    pub(crate) fn is_stamped(&self) -> bool {
        self.stamped
    }

    /// A copy that holds nothing of the broker's.
    pub(super) fn copy(&self) -> FrozenCopy {
        FrozenCopy { kept: self.kept.clone(), queue: self.receipt.queue().clone() }
    }
}

impl FrozenCopy {
    /// The queue that it was taken from.
    pub(super) fn queue(&self) -> &QueueName {
        &self.queue
    }
}

impl Thawer {
    /// The message that a copy is of.
    pub(super) fn message(&mut self, copy: &FrozenCopy) -> Result<Message> {
        let (bytes, size, dictionary) = match &copy.kept {
            Kept::Whole(message) => return Ok(Message::clone(message)),
            Kept::Compressed { bytes, size, dictionary } => (bytes, *size as usize, *dictionary),
        };
        let decompressor = match self.decompressors.entry(dictionary) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(vacant) => {
                let dictionary = self.dictionaries.get(usize::from(dictionary));
                let dictionary = dictionary.ok_or_else(|| failed("no dictionary"))?;
                vacant.insert(Decompressor::with_dictionary(dictionary).map_err(failed)?)
            }
        };
        read(decompressor.decompress(bytes, size).map_err(failed)?)
    }
}

impl std::fmt::Debug for Freezer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Freezer").field("dictionaries", &self.books.len()).finish_non_exhaustive()
    }
}

impl Book {
    fn new(dictionary: &[u8]) -> Result<Self> {
        Ok(Book {
            dictionary: dictionary.into(),
            compressor: Compressor::with_dictionary(LEVEL, dictionary).map_err(failed)?,
            decompressor: Decompressor::with_dictionary(dictionary).map_err(failed)?,
        })
    }
}

fn failed(reason: impl ToString) -> Error {
    Error::new(ErrorKind::Encode, format!("keep a message that is held: {}", reason.to_string()))
}

/// The message but for its body as an envelope, its length before it, and the body. The message is as it was afterwards.
fn write(message: &mut Message, out: &mut Vec<u8>) -> Result<()> {
    out.extend([0; LENGTH]);
    let body = std::mem::take(&mut message.body);
    let written = envelope::write(message, "", out);
    message.body = body;
    written?;
    let length = u32::try_from(out.len() - LENGTH).map_err(failed)?;
    if length >= NO_PRIORITY {
        return Err(failed("its headers are too long"));
    }
    // An envelope always has a priority.
    let length = if message.properties.priority.is_none() { length | NO_PRIORITY } else { length };
    out[..LENGTH].copy_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&message.body);
    Ok(())
}

const LENGTH: usize = 4;
/// Beside the length: the message has no priority.
const NO_PRIORITY: u32 = 1 << 31;

fn read(bytes: Vec<u8>) -> Result<Message> {
    let cut = || failed("it is cut off");
    let (length, rest) = bytes.split_first_chunk::<LENGTH>().ok_or_else(cut)?;
    let length = u32::from_le_bytes(*length);
    let (head, body) = rest.split_at_checked((length & !NO_PRIORITY) as usize).ok_or_else(cut)?;
    let mut message = envelope::parse(head)?;
    message.body = Bytes::copy_from_slice(body);
    if length & NO_PRIORITY != 0 {
        message.properties.priority = None;
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDED: &str = include_str!("../protocol/testdata/envelope.json");

    fn message(nth: u32) -> Message {
        let mut message = envelope::parse(RECORDED.trim().as_bytes()).unwrap();
        let id = uuid::Uuid::from_u128(u128::from(nth) << 70 | u128::from(nth)).to_string();
        message.headers.insert("id", id.as_str());
        message.properties.correlation_id = Some(id);
        message.body = format!("[[{nth}, \"é\\ud800\"], {{}}, {{\"callbacks\": null}}]").into_bytes().into();
        message
    }

    #[test]
    fn messages_are_small_and_come_back_as_they_were() {
        let mut freezer = Freezer::new();
        let mut sizes = 0;
        for nth in 0..1000 {
            let kept = freezer.compress("proj.add", &mut message(nth)).unwrap();
            assert_eq!(freezer.message(&kept).unwrap(), message(nth));
            let Kept::Compressed { bytes, .. } = kept else { panic!("{nth} is not compressed") };
            sizes += bytes.len();
        }
        assert!(sizes / 1000 < 150, "{} bytes each", sizes / 1000);
    }

    #[test]
    fn any_number_of_tasks_and_any_size() {
        let mut freezer = Freezer::new();
        for nth in 0..300 {
            let mut message = message(nth);
            message.body = vec![u8::try_from(nth % 251).unwrap(); nth as usize * 100].into();
            let kept = freezer.compress(&format!("task {nth}"), &mut message).unwrap();
            assert_eq!(freezer.message(&kept).unwrap(), message);
        }
        assert_eq!(freezer.books.len(), DICTIONARIES + 1);
    }

    #[test]
    fn odd_messages_come_back_too() {
        let mut freezer = Freezer::new();
        let odd = envelope::parse(
            br#"{"headers": {"a": {"__type__": 5}}, "properties": {"priority": "x", "delivery_info": 1}}"#,
        );
        for mut message in [Message::default(), odd.unwrap()] {
            let kept = freezer.compress("", &mut message).unwrap();
            assert_eq!(freezer.message(&kept).unwrap(), message);
        }
    }

    #[test]
    fn what_is_cut_off_is_no_message() {
        for bytes in [vec![], vec![1, 2, 3], vec![9, 0, 0, 0, b'{', b'}'], vec![2, 0, 0, 0, b'{', b'x']] {
            assert!(read(bytes).is_err());
        }
    }
}
