//! What the parent and a child say to each other: frames of four bytes of length, one byte of kind, and fields.
//!
//! A child takes the calls in the order in which they come, so that what it tells needs no name: it is about the first call
//! that has not ended.

mod fields;
mod room;
mod value;

use celeriac::protocol::{Exception, Map, State, Value};
use celeriac::task::{CallEnd, Raised, StoredMeta};
use std::time::Duration;

pub use fields::{Cut, Reader, Writer};
pub use room::{ROOM, give_back, pass};
pub use value::{Build, Plain, Written, read as read_value, write as write_value};

/// A frame is never longer; what claims to be is no frame.
pub const LONGEST: usize = 1 << 30;

/// What the parent tells a child.
#[derive(Debug, Clone, PartialEq)]
pub struct Job<'a> {
    /// The task's registered name.
    pub task: &'a str,
    /// The task's id.
    pub id: &'a str,
    /// How the body is serialized.
    pub content_type: Option<&'a str>,
    /// `utf-8` or `binary`.
    pub content_encoding: Option<&'a str>,
    /// The producer's bytes.
    pub body: &'a [u8],
    /// What the tracer gets as the request, but for what is in the body.
    pub request: &'a Map,
    /// What has become of the task, if that is to be carried out and the task not to be run.
    pub fate: Option<&'a Value>,
}

const JOB: u8 = b'j';
const FATE: u8 = b'f';
const STORED: u8 = b's';
const QUIT: u8 = b'q';

const READY: u8 = b'r';
const READING: u8 = b'd';
const ACCEPTED: u8 = b'a';
const STORE: u8 = b'm';
const ENDED: u8 = b'e';

/// The number of a question that is none.
const NO_QUESTION: u64 = u64::MAX;

/// A frame from the parent, its values made by `B`.
#[derive(Debug, Clone, PartialEq)]
pub enum ToChild<'a, T> {
    /// A call, with its request as `B` makes it.
    Job {
        /// The task's registered name.
        task: &'a str,
        /// The task's id.
        id: &'a str,
        /// How the body is serialized.
        content_type: Option<&'a str>,
        /// `utf-8` or `binary`.
        content_encoding: Option<&'a str>,
        /// The producer's bytes.
        body: &'a [u8],
        /// What the tracer gets as the request.
        request: T,
        /// What has become of the task, if it is not to be run.
        fate: Option<T>,
    },
    /// Whether the result is stored that the child has asked for under this number.
    Stored(u64, bool),
    /// Nothing more comes.
    Quit,
}

/// A frame from a child.
#[derive(Debug, Clone, PartialEq)]
pub enum FromChild {
    /// It can take calls.
    Ready {
        /// Its process id.
        pid: u32,
    },
    /// The first call's body is decoded, which may take long: its limits count, though the task has not begun.
    Reading,
    /// The first call begins.
    Accepted,
    /// A result to store.
    Store {
        /// What is stored.
        meta: StoredMeta,
        /// The child waits until it is, and has given this question a number: it may have given up waiting for one before.
        asks: Option<u64>,
    },
    /// The first call has ended.
    Ended(CallEnd),
}

/// A call as a frame.
pub fn job(job: &Job<'_>) -> Vec<u8> {
    let mut frame = Writer::new(if job.fate.is_some() { FATE } else { JOB });
    frame.text(job.task);
    frame.text(job.id);
    frame.optional_text(job.content_type);
    frame.optional_text(job.content_encoding);
    frame.bytes(job.body);
    value::write_map(job.request, frame.out());
    if let Some(fate) = job.fate {
        value::write(fate, frame.out());
    }
    frame.end()
}

/// The answer to a child that waits, with the number of its question.
pub fn stored(number: u64, is_stored: bool) -> Vec<u8> {
    let mut frame = Writer::new(STORED);
    frame.number(number);
    frame.flag(is_stored);
    frame.end()
}

/// The end of all calls.
pub fn quit() -> Vec<u8> {
    Writer::new(QUIT).end()
}

/// Reads a frame from the parent, without its length.
///
/// # Errors
/// It is none.
pub fn read_to_child<'a, B: Build>(frame: &'a [u8], build: &B) -> Result<ToChild<'a, B::Value>, Cut> {
    let (kind, mut fields) = Reader::new(frame)?;
    Ok(match kind {
        JOB | FATE => ToChild::Job {
            task: fields.text()?,
            id: fields.text()?,
            content_type: fields.optional_text()?,
            content_encoding: fields.optional_text()?,
            body: fields.bytes()?,
            request: value::read(&mut fields, build)?,
            fate: (kind == FATE).then(|| value::read(&mut fields, build)).transpose()?,
        },
        STORED => ToChild::Stored(fields.number()?, fields.flag()?),
        QUIT => ToChild::Quit,
        _ => return Err(Cut),
    })
}

/// Whether this frame is a call.
pub fn is_call(frame: &[u8]) -> bool {
    matches!(frame.first(), Some(&(JOB | FATE)))
}

/// What the parent says of a result that a child waits for, and the number of its question, if this frame is about one.
pub fn as_stored(frame: &[u8]) -> Option<(u64, bool)> {
    match Reader::new(frame) {
        Ok((STORED, mut fields)) => Some((fields.number().ok()?, fields.flag().ok()?)),
        _ => None,
    }
}

/// Appends a frame to what a child is about to say.
pub fn write_from_child(frame: &FromChild, out: &mut Vec<u8>) {
    let mut writer = Writer::appending(out, kind_of(frame));
    match frame {
        FromChild::Ready { pid } => writer.number((*pid).into()),
        FromChild::Reading | FromChild::Accepted => {}
        FromChild::Store { meta, asks } => {
            writer.number(asks.unwrap_or(NO_QUESTION));
            writer.text(&meta.task_id);
            writer.text(meta.state.as_str());
            writer.bytes(&meta.payload);
            writer.optional_text(meta.reply_to.as_deref());
            writer.optional_text(meta.correlation_id.as_deref());
        }
        FromChild::Ended(end) => write_end(end, &mut writer),
    }
    *out = writer.end();
}

fn kind_of(frame: &FromChild) -> u8 {
    match frame {
        FromChild::Ready { .. } => READY,
        FromChild::Reading => READING,
        FromChild::Accepted => ACCEPTED,
        FromChild::Store { .. } => STORE,
        FromChild::Ended(_) => ENDED,
    }
}

/// Reads a frame from a child, without its length.
///
/// # Errors
/// It is none.
pub fn read_from_child(frame: &[u8]) -> Result<FromChild, Cut> {
    let (kind, mut fields) = Reader::new(frame)?;
    Ok(match kind {
        READY => FromChild::Ready { pid: u32::try_from(fields.number()?).map_err(|_| Cut)? },
        READING => FromChild::Reading,
        ACCEPTED => FromChild::Accepted,
        STORE => {
            let asks = Some(fields.number()?).filter(|number| *number != NO_QUESTION);
            let (task_id, state) = (fields.text()?.to_owned(), State::from(fields.text()?.to_owned()));
            let payload = bytes::Bytes::copy_from_slice(fields.bytes()?);
            let mut owned = || fields.optional_text().map(|text| text.map(str::to_owned));
            let (reply_to, correlation_id) = (owned()?, owned()?);
            FromChild::Store { meta: StoredMeta { task_id, state, payload, reply_to, correlation_id }, asks }
        }
        ENDED => FromChild::Ended(read_end(&mut fields)?),
        _ => return Err(Cut),
    })
}

fn write_end(end: &CallEnd, frame: &mut Writer) {
    match end {
        CallEnd::Success { result, runtime } => {
            frame.byte(b'S');
            frame.number(u64::try_from(runtime.as_nanos()).unwrap_or(u64::MAX));
            frame.text(result);
        }
        CallEnd::Failure(raised) => write_raised(b'F', raised, frame),
        CallEnd::Retry(raised) => write_raised(b'R', raised, frame),
        CallEnd::Ignore => frame.byte(b'I'),
        CallEnd::Reject { reason, requeue } => {
            frame.byte(b'X');
            frame.flag(*requeue);
            frame.text(reason);
        }
        CallEnd::Undecodable { refused, reason } => {
            frame.byte(b'U');
            frame.flag(*refused);
            frame.text(reason);
        }
        CallEnd::Lost(how) => {
            frame.byte(b'L');
            frame.text(how);
        }
        CallEnd::NotBegun => frame.byte(b'N'),
    }
}

fn write_raised(kind: u8, raised: &Raised, frame: &mut Writer) {
    frame.byte(kind);
    frame.text(&raised.exception.exc_type);
    frame.optional_text(raised.exception.exc_module.as_deref());
    frame.text(&raised.exception.message());
    frame.text(&raised.shown);
    frame.text(&raised.traceback);
}

fn read_end(fields: &mut Reader<'_>) -> Result<CallEnd, Cut> {
    Ok(match fields.byte()? {
        b'S' => {
            let runtime = Duration::from_nanos(fields.number()?);
            CallEnd::Success { runtime, result: fields.text()?.to_owned() }
        }
        b'F' => CallEnd::Failure(read_raised(fields)?),
        b'R' => CallEnd::Retry(read_raised(fields)?),
        b'I' => CallEnd::Ignore,
        b'X' => CallEnd::Reject { requeue: fields.flag()?, reason: fields.text()?.to_owned() },
        b'U' => CallEnd::Undecodable { refused: fields.flag()?, reason: fields.text()?.to_owned() },
        b'L' => CallEnd::Lost(fields.text()?.to_owned()),
        b'N' => CallEnd::NotBegun,
        _ => return Err(Cut),
    })
}

/// The exception has its text as the only argument: the whole of it is in the result.
fn read_raised(fields: &mut Reader<'_>) -> Result<Raised, Cut> {
    let (exc_type, exc_module) = (fields.text()?.to_owned(), fields.optional_text()?.map(str::to_owned));
    let exception = Exception { exc_type, exc_module, exc_message: vec![fields.text()?.into()] };
    Ok(Raised { exception, shown: fields.text()?.to_owned(), traceback: fields.text()?.to_owned() })
}

/// The first whole frame of what was read, without its length, and how many bytes it took; `None`: more is to be read.
///
/// # Errors
/// What was read is no frame.
pub fn split(read: &[u8]) -> Result<Option<(&[u8], usize)>, Cut> {
    let Some((length, rest)) = read.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*length) as usize;
    match rest.get(..length) {
        _ if length == 0 || length > LONGEST => Err(Cut),
        Some(frame) => Ok(Some((frame, length + 4))),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raised() -> Raised {
        Raised {
            exception: Exception { exc_module: None, ..Exception::new("ValueError", "bad") },
            shown: "ValueError('bad')".into(),
            traceback: "Traceback …".into(),
        }
    }

    fn all() -> Vec<FromChild> {
        let meta = StoredMeta {
            task_id: "i".into(),
            state: State::Success,
            payload: "{}".into(),
            reply_to: Some("q".into()),
            correlation_id: None,
        };
        let ends = [
            CallEnd::Success { result: "'é'".into(), runtime: Duration::from_micros(57) },
            CallEnd::Failure(raised()),
            CallEnd::Retry(raised()),
            CallEnd::Ignore,
            CallEnd::Reject { reason: "no".into(), requeue: true },
            CallEnd::Undecodable { refused: true, reason: "pickle".into() },
            CallEnd::Lost("exitcode 3".into()),
            CallEnd::NotBegun,
        ];
        let words = [FromChild::Ready { pid: 7 }, FromChild::Reading, FromChild::Accepted];
        let others = words.into_iter().chain([FromChild::Store { meta, asks: Some(3) }]);
        others.chain(ends.map(FromChild::Ended)).collect()
    }

    #[test]
    fn what_a_child_says_is_read_as_it_was_said() {
        let (mut out, mut found) = (Vec::new(), Vec::new());
        all().iter().for_each(|frame| write_from_child(frame, &mut out));
        let mut rest = out.as_slice();
        while let Some((frame, taken)) = split(rest).unwrap() {
            found.push(read_from_child(frame).unwrap());
            rest = &rest[taken..];
        }
        assert_eq!((found, rest.len()), (all(), 0));
    }

    #[test]
    fn calls_are_read_as_they_were_written() {
        let fate = Value::List(vec!["lost".into(), 7.into()]);
        for fate in [None, Some(&fate)] {
            is_read_as_it_was_written(fate);
        }
    }

    fn is_read_as_it_was_written(fate: Option<&Value>) {
        let request = Map::from([("id", Value::from("i")), ("retries", 2.into())]);
        let written = Job {
            task: "t",
            id: "i",
            content_type: Some("application/json"),
            content_encoding: None,
            body: b"[]",
            request: &request,
            fate,
        };
        let bytes = job(&written);
        let (frame, taken) = split(&bytes).unwrap().unwrap();
        assert_eq!(taken, bytes.len());
        let Ok(ToChild::Job { task, id, content_type, content_encoding, body, request: read, fate: told }) =
            read_to_child(frame, &Plain)
        else {
            panic!("no job");
        };
        assert_eq!((task, id, content_encoding, body), ("t", "i", None, b"[]".as_slice()));
        assert_eq!((content_type, read), (Some("application/json"), Value::Map(request.clone())));
        assert_eq!(told.as_ref(), fate);
        for (bytes, expected) in [(stored(5, true), ToChild::Stored(5, true)), (quit(), ToChild::Quit)] {
            assert_eq!(read_to_child(&bytes[4..], &Plain), Ok(expected));
        }
    }

    #[test]
    fn what_is_cut_off_or_made_up_is_no_frame() {
        let mut out = Vec::new();
        all().iter().for_each(|frame| write_from_child(frame, &mut out));
        let mut rest = out.as_slice();
        while let Some((frame, taken)) = split(rest).unwrap() {
            (1..frame.len()).for_each(|length| {
                // A shorter text or value may be whole; nothing panics.
                let _ = read_from_child(&frame[..length]);
            });
            rest = &rest[taken..];
        }
        assert_eq!(split(&[1, 0, 0]), Ok(None));
        assert_eq!(split(&[2, 0, 0, 0, b'r']), Ok(None));
        assert_eq!(split(&[0, 0, 0, 0]), Err(Cut));
        assert_eq!(split(&[255, 255, 255, 255]), Err(Cut));
        for bytes in [b"?".as_slice(), b"e?", b"m\x01\xff\xff\xff\xff"] {
            assert_eq!(read_from_child(bytes), Err(Cut));
            assert_eq!(read_to_child(bytes, &Plain), Err(Cut));
        }
    }
}
