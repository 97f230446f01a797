//! [`serve`]: one child's socket.

use std::io;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tracing::error;

use super::desk::Desk;
use crate::frame::{self, ROOM};

/// How long the nursery may take to say how a child ended that was killed.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How much is written at a time, where many small frames wait.
const FULL: usize = 64 << 10;

/// How a child ended, once that is known; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Gone(watch::Sender<Option<String>>);

impl Default for Gone {
    fn default() -> Self {
        Gone(watch::Sender::new(None))
    }
}

impl Gone {
    /// Tells how; what is told first counts.
    pub(super) fn tell(&self, how: String) {
        self.0.send_if_modified(|known| match known {
            Some(_) => false,
            None => {
                *known = Some(how);
                true
            }
        });
    }

    async fn known(&self) -> String {
        let mut told = self.0.subscribe();
        // The sender is `self`, so that the channel is not closed while this waits.
        let known = told.wait_for(Option::is_some).await;
        known.ok().and_then(|how| how.clone()).unwrap_or_default()
    }
}

/// Moves frames until the child is gone, and has it buried.
pub(super) async fn serve(
    desk: Arc<Desk>,
    index: u32,
    socket: StdStream,
    outgoing: mpsc::UnboundedReceiver<Bytes>,
    gone: Gone,
) {
    let how = match stream(socket) {
        Ok(stream) => {
            let (reader, writer) = stream.into_split();
            let writing = tokio::spawn(write(writer, outgoing));
            let how = read(&desk, index, reader, &gone).await;
            writing.abort();
            how
        }
        Err(error) => {
            error!("the socket of a child cannot be used: {error}");
            gone.known().await
        }
    };
    desk.bury(index, &how);
}

fn stream(socket: StdStream) -> io::Result<UnixStream> {
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}

async fn write(mut writer: OwnedWriteHalf, mut outgoing: mpsc::UnboundedReceiver<Bytes>) {
    let mut frames = Vec::new();
    let mut buffer = BytesMut::new();
    while outgoing.recv_many(&mut frames, 64).await > 0 {
        for frame in frames.drain(..) {
            // A large one is not copied.
            if frame.len() >= FULL {
                if send(&mut writer, &mut buffer).await.is_err() || writer.write_all(&frame).await.is_err() {
                    return;
                }
                continue;
            }
            buffer.extend_from_slice(&frame);
            if buffer.len() >= FULL && send(&mut writer, &mut buffer).await.is_err() {
                return;
            }
        }
        // A child that is gone is heard of by who reads.
        if send(&mut writer, &mut buffer).await.is_err() {
            return;
        }
    }
}

async fn send(writer: &mut OwnedWriteHalf, buffer: &mut BytesMut) -> io::Result<()> {
    let written = writer.write_all(buffer).await;
    buffer.clear();
    written
}

/// Reads until the child is gone; all that it has said is heard first. Its socket may stay open longer than it lives,
/// in processes that it has forked.
async fn read(desk: &Arc<Desk>, index: u32, mut reader: OwnedReadHalf, gone: &Gone) -> String {
    let mut buffer = BytesMut::with_capacity(ROOM);
    loop {
        buffer.reserve(ROOM);
        let how = tokio::select! {
            biased;
            read = reader.read_buf(&mut buffer) => match read {
                Ok(1..) => None,
                Ok(0) | Err(_) => Some(hung_up(desk, index, gone).await),
            },
            how = gone.known() => Some(how),
        };
        if how.is_some() {
            drain(reader.as_ref(), &mut buffer);
        }
        if hear(desk, index, &mut buffer).is_err() {
            error!("a child says what is no frame, and is ended");
            desk.end(index);
            return gone.known().await;
        }
        if let Some(how) = how {
            return how;
        }
    }
}

/// Reads what is there. Tokio may not have heard of it yet: a child says its last words and is gone.
fn drain(stream: &UnixStream, buffer: &mut BytesMut) {
    let mut room = vec![0; ROOM];
    while let Ok((_, length @ 1..)) = recv(stream, room.as_mut_slice(), RecvFlags::DONTWAIT) {
        buffer.extend_from_slice(&room[..length]);
    }
}

/// How a child ended that has nothing more to say: what its project does at the end of a process takes a while, and a
/// process that hangs in it, or runs a task that has closed the line, is killed.
async fn hung_up(desk: &Arc<Desk>, index: u32, gone: &Gone) -> String {
    let patience = desk.leaving(index);
    if let Ok(how) = timeout(patience, gone.known()).await {
        return how;
    }
    error!("ForkPoolWorker-{index} has hung up and does not end within {} s: it is killed", patience.as_secs_f64());
    desk.kill(index);
    let known = timeout(LAST_WORDS, gone.known()).await;
    known.unwrap_or_else(|_| "its socket closed".to_owned())
}

fn hear(desk: &Arc<Desk>, index: u32, buffer: &mut BytesMut) -> Result<(), frame::Cut> {
    while let Some((frame, taken)) = frame::split(buffer)? {
        let told = frame::read_from_child(frame)?;
        desk.told(index, told);
        frame::pass(buffer, taken);
    }
    Ok(())
}
