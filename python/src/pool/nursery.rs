//! [`serve`]: the line to the process that forks the others.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tracing::error;

use super::desk::Desk;
use crate::frame::{self, Cut, Reader, Writer};

/// After so many questions that got no answer nobody is taken to be there.
const UNANSWERED: u32 = 5;

/// What the nursery is asked for.
#[derive(Debug)]
pub(super) enum Ask {
    /// A child of that number, in that place of the pool, with this line and these claims.
    Fork { index: u32, place: u64, line: OwnedFd, claims: OwnedFd },
    /// A signal for a child, if it still lives; the nursery answers when it has come.
    Signal { index: u32, signal: i64 },
    /// Whether it is there.
    Ping,
    /// Nothing more; it ends.
    Close,
}

impl Ask {
    fn frame(&self) -> Vec<u8> {
        let (kind, index, number) = match self {
            Ask::Fork { index, place, .. } => (b'f', *index, *place),
            Ask::Signal { index, signal } => (b's', *index, u64::try_from(*signal).unwrap_or(0)),
            Ask::Ping => (b'p', 0, 0),
            Ask::Close => (b'c', 0, 0),
        };
        let mut frame = Writer::new(kind);
        frame.number(index.into());
        frame.number(number);
        frame.end()
    }
}

/// Carries the desk's wishes to the nursery and its news back, until either hangs up.
pub(super) async fn serve(
    desk: Arc<Desk>,
    generation: u32,
    socket: StdStream,
    mut asked: mpsc::UnboundedReceiver<Ask>,
) {
    let ended = match stream(socket) {
        Ok(stream) => talk(&desk, generation, stream, &mut asked).await,
        Err(error) => Err(error),
    };
    if let Err(error) = ended
        && !is_gone(&error)
    {
        error!("the process that forks the others is not heard any more: {error}");
    }
    desk.orphaned(generation);
}

/// Whether an error is how the end of the other side is told that has left something unread.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

fn stream(socket: StdStream) -> io::Result<UnixStream> {
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}

async fn talk(
    desk: &Arc<Desk>,
    generation: u32,
    mut stream: UnixStream,
    asked: &mut mpsc::UnboundedReceiver<Ask>,
) -> io::Result<()> {
    let mut buffer = BytesMut::with_capacity(4096);
    let every = desk.ping_every();
    let mut ping = interval_at(Instant::now() + every, every);
    // A machine that stood still has not heard anything meanwhile.
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut unanswered = 0;
    loop {
        tokio::select! {
            biased;
            read = stream.read_buf(&mut buffer) => match read? {
                0 => return Ok(()),
                _ => {
                    unanswered = 0;
                    hear(desk, &mut buffer).map_err(io::Error::other)?;
                }
            },
            ask = asked.recv() => match ask {
                Some(ask) => send(&stream, &ask).await?,
                None => return Ok(()),
            },
            _ = ping.tick(), if unanswered <= UNANSWERED => {
                match unanswered {
                    UNANSWERED => desk.stuck(generation, every * UNANSWERED),
                    _ => send(&stream, &Ask::Ping).await?,
                }
                unanswered += 1;
            }
        }
    }
}

async fn send(stream: &UnixStream, ask: &Ask) -> io::Result<()> {
    let frame = ask.frame();
    let mut sent = 0;
    while sent < frame.len() {
        // The descriptors go with the first byte.
        let descriptors = match ask {
            Ask::Fork { line, claims, .. } if sent == 0 => Some([line.as_fd(), claims.as_fd()]),
            _ => None,
        };
        sent += stream.async_io(Interest::WRITABLE, || send_with(stream, &frame[sent..], descriptors)).await?;
    }
    Ok(())
}

fn send_with(stream: &UnixStream, bytes: &[u8], descriptors: Option<[BorrowedFd<'_>; 2]>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if let Some(descriptors) = &descriptors {
        ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    Ok(sendmsg(stream, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?)
}

fn hear(desk: &Arc<Desk>, buffer: &mut BytesMut) -> Result<(), Cut> {
    while let Some((frame, taken)) = frame::split(buffer)? {
        let (kind, mut fields) = Reader::new(frame)?;
        let index = u32::try_from(fields.number()?).map_err(|_| Cut)?;
        match kind {
            b'f' => desk.forked(index, u32::try_from(fields.number()?).map_err(|_| Cut)?),
            b'x' => desk.exited(index, fields.text()?),
            b's' => desk.delivered(index),
            b'p' => {}
            _ => return Err(Cut),
        }
        buffer.advance(taken);
    }
    Ok(())
}
