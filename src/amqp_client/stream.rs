//! [`Stream`]: the socket, encrypted or not, from which the client library reads frames that are fit for it; and [`Kit`],
//! the runtime that it has.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_rs::Tokio;
use async_rs::traits::{Executor, Reactor, RuntimeKit};
use async_rs::util::Task;
use futures_io::{AsyncRead, AsyncWrite};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::scrub::{Scrubbed, scrub};

/// Larger frames are not negotiated; it is the server's own default.
pub(super) const LARGEST_FRAME: u32 = 131_072;
/// How much is read at a time, beside what is left of a frame.
const READ: usize = 64 * 1024;

/// A socket to a server.
pub(super) enum Socket {
    Plain(TcpStream),
    Encrypted(Box<TlsStream<TcpStream>>),
}

/// A socket of which whole frames are read, and made fit before.
pub(super) struct Stream {
    socket: Socket,
    /// What has arrived, and room behind it.
    buffer: Vec<u8>,
    /// Where in it what is to be read begins.
    begin: usize,
    /// Up to where it is fit.
    fit: usize,
    /// Up to where it has arrived.
    filled: usize,
    /// What comes is no frames.
    unframed: bool,
}

impl Stream {
    pub(super) fn new(socket: Socket) -> Self {
        Stream { socket, buffer: Vec::new(), begin: 0, fit: 0, filled: 0, unframed: false }
    }

    /// Reads on, and makes fit what is whole. Brings how many bytes came: none at the end.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.buffer.copy_within(self.begin..self.filled, 0);
        (self.filled, self.fit, self.begin) = (self.filled - self.begin, self.fit - self.begin, 0);
        if self.buffer.len() < self.filled + READ {
            self.buffer.resize(self.filled + READ, 0);
        }
        let mut room = ReadBuf::new(&mut self.buffer[self.filled..]);
        let read = match &mut self.socket {
            Socket::Plain(stream) => Pin::new(stream).poll_read(context, &mut room),
            Socket::Encrypted(stream) => Pin::new(stream).poll_read(context, &mut room),
        };
        let came = room.filled().len();
        ready!(read)?;
        self.filled += came;
        match scrub(&mut self.buffer[self.fit..self.filled], LARGEST_FRAME as usize) {
            _ if self.unframed || came == 0 => self.fit = self.filled,
            Scrubbed::Frames(whole) => self.fit += whole,
            Scrubbed::Unframed => (self.unframed, self.fit) = (true, self.filled),
        }
        Poll::Ready(Ok(came))
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        while self.begin == self.fit {
            if ready!(self.poll_fill(context))? == 0 && self.begin == self.fit {
                return Poll::Ready(Ok(0));
            }
        }
        let count = buffer.len().min(self.fit - self.begin);
        buffer[..count].copy_from_slice(&self.buffer[self.begin..self.begin + count]);
        self.begin += count;
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.socket {
            Socket::Plain(stream) => Pin::new(stream).poll_write(context, buffer),
            Socket::Encrypted(stream) => Pin::new(stream).poll_write(context, buffer),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Plain(stream) => Pin::new(stream).poll_flush(context),
            Socket::Encrypted(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Socket::Encrypted(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// Tokio, with streams of ours.
#[derive(Debug, Clone)]
pub(super) struct Kit(Tokio);

impl Kit {
    /// The runtime that this is called on.
    pub(super) fn current() -> Self {
        Kit(Tokio::current())
    }
}

impl RuntimeKit for Kit {}

impl Executor for Kit {
    type Task<T: Send + 'static> = <Tokio as Executor>::Task<T>;

    fn block_on<T, F: Future<Output = T>>(&self, future: F) -> T {
        self.0.block_on(future)
    }

    fn spawn<T: Send + 'static, F: Future<Output = T> + Send + 'static>(&self, future: F) -> Task<Self::Task<T>> {
        self.0.spawn(future)
    }

    fn spawn_blocking<T: Send + 'static, F: FnOnce() -> T + Send + 'static>(&self, work: F) -> Task<Self::Task<T>> {
        self.0.spawn_blocking(work)
    }
}

impl Reactor for Kit {
    type TcpStream = Stream;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: io::Read + io::Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.0.register(socket)
    }

    fn sleep(&self, time: Duration) -> Self::Sleep {
        self.0.sleep(time)
    }

    fn interval(&self, time: Duration) -> impl futures_util::Stream<Item = Instant> + Send + 'static {
        self.0.interval(time)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        let connecting = TcpStream::connect(address);
        async move { Ok(Stream::new(Socket::Plain(connecting.await?))) }
    }
}
