//! [`Link`]: connections to one memcached, opened when they are needed and kept for later.

use std::fmt;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::address::{Address, Place};
use super::wire::{Answer, Broken, Form, Reading, Request};
use crate::{Error, ErrorKind, Result};

/// How many requests are under way at once, each on a connection of its own; the writer has four.
const CONNECTIONS: usize = 8;
/// What memcached says at its limit of connections (`-c`).
const TOO_MANY: &str = "ERROR Too many open connections";

/// How long the server may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// To accept a connection; `None`: for ever.
    pub(super) connect: Option<Duration>,
    /// To take or to say something; `None`: for ever.
    pub(super) answer: Option<Duration>,
}

/// The way to one memcached.
pub(super) struct Link {
    address: Address,
    patience: Patience,
    idle: Mutex<Vec<Connection>>,
    places: Semaphore,
}

struct Connection {
    stream: Box<dyn Stream>,
    buffer: BytesMut,
}

trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

/// Why there is no answer.
enum Failure {
    Lost(io::Error),
    Broken(Broken),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Lost(error)
    }
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Self {
        Failure::Broken(broken)
    }
}

impl Link {
    pub(super) fn new(address: Address, patience: Patience) -> Self {
        Link { address, patience, idle: Mutex::default(), places: Semaphore::new(CONNECTIONS) }
    }

    /// Opens a connection for the first request.
    pub(super) async fn prepare(&self) {
        if let Ok(connection) = self.connect().await {
            self.keep(connection);
        }
    }

    /// Sends commands at once and returns their answers, in their order. A connection that turns out to be dead is replaced
    /// once where that can do no harm.
    ///
    /// # Errors
    /// `Connection`: it cannot be reached, or is silent for too long; `Backend`: it does not understand what is said.
    pub(super) async fn exchange(&self, request: &Request) -> Result<Vec<Answer>> {
        if request.forms().is_empty() {
            return Ok(Vec::new());
        }
        // It is never closed.
        let _place = self.places.acquire().await;
        let (mut connection, mut is_new) = match self.idle() {
            Some(connection) => (connection, false),
            None => (self.connect().await?, true),
        };
        loop {
            match connection.exchange(request, self.patience.answer).await {
                Ok(answers) => {
                    self.keep(connection);
                    return Ok(answers);
                }
                Err(Failure::Lost(_)) if !is_new && request.is_repeatable() => {
                    (connection, is_new) = (self.connect().await?, true);
                }
                Err(failure) => return Err(self.failed(failure)),
            }
        }
    }

    async fn connect(&self) -> Result<Connection> {
        let opened = within(self.patience.connect, async {
            let stream: Box<dyn Stream> = match &self.address.place {
                Place::Tcp { host, port } => {
                    let stream = TcpStream::connect((host.as_str(), *port)).await?;
                    stream.set_nodelay(true)?;
                    Box::new(stream)
                }
                Place::Unix(path) => Box::new(UnixStream::connect(path).await?),
            };
            Ok(Connection { stream, buffer: BytesMut::new() })
        });
        opened.await.map_err(|error| {
            Error::new(ErrorKind::Connection, format!("cannot connect to {}", self.address)).with_source(error)
        })
    }

    /// A connection that the server has not closed, as far as that is known.
    fn idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(mut connection) = idle.pop() {
            // There is nothing to read but an end.
            if connection.stream.read_u8().now_or_never().is_none() {
                return Some(connection);
            }
        }
        None
    }

    fn keep(&self, connection: Connection) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }

    fn failed(&self, failure: Failure) -> Error {
        match failure {
            Failure::Lost(error) => {
                // The others are most likely as dead.
                self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
                Error::new(ErrorKind::Connection, format!("cannot use {}", self.address)).with_source(error)
            }
            // Said to one connection too many, which is closed then; there will be room again.
            Failure::Broken(Broken(line)) if line.starts_with(TOO_MANY) => {
                Error::new(ErrorKind::Connection, format!("cannot use {}: {line}", self.address))
            }
            Failure::Broken(Broken(line)) => {
                Error::new(ErrorKind::Backend, format!("{} does not understand a request: {line:?}", self.address))
            }
        }
    }
}

impl Connection {
    /// Reads while it writes: a server whose answers nobody takes stops to read questions.
    async fn exchange(&mut self, request: &Request, patience: Option<Duration>) -> Result<Vec<Answer>, Failure> {
        let (reader, writer) = tokio::io::split(&mut self.stream);
        let read = read(reader, &mut self.buffer, request.forms(), patience);
        // What it says of a connection that it closes is worth more than that it did so.
        let (answers, ()) = tokio::try_join!(biased; read, write(writer, request.bytes(), patience))?;
        Ok(answers)
    }
}

async fn write(
    mut writer: impl AsyncWrite + Unpin,
    mut bytes: &[u8],
    patience: Option<Duration>,
) -> Result<(), Failure> {
    while !bytes.is_empty() {
        let written = within(patience, writer.write(bytes)).await?;
        if written == 0 {
            return Err(io::Error::from(io::ErrorKind::WriteZero).into());
        }
        bytes = &bytes[written..];
    }
    Ok(())
}

async fn read(
    mut reader: impl AsyncRead + Unpin,
    buffer: &mut BytesMut,
    forms: &[Form],
    patience: Option<Duration>,
) -> Result<Vec<Answer>, Failure> {
    let mut answers = Vec::with_capacity(forms.len());
    for form in forms {
        let mut reading = Reading::new(*form);
        answers.push(loop {
            if let Some(answer) = reading.take(buffer)? {
                break answer;
            }
            if within(patience, reader.read_buf(buffer)).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        });
    }
    Ok(answers)
}

async fn within<T>(patience: Option<Duration>, done: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match patience {
        None => done.await,
        Some(patience) => timeout(patience, done).await.unwrap_or_else(|_| {
            let message = format!("no answer within {} s", patience.as_secs_f64());
            Err(io::Error::new(io::ErrorKind::TimedOut, message))
        }),
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("address", &self.address).field("patience", &self.patience).finish_non_exhaustive()
    }
}
