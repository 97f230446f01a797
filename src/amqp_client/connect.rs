//! [`AmqpUrl::connect`]: one try to open a connection.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_rs::Runtime;
use lapin::tcp::AsyncTcpStream;
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo, SASLMechanism};
use lapin::{Connection, ConnectionProperties};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::stream::{Kit, LARGEST_FRAME, Socket, Stream};
use super::{AmqpConnection, AmqpUrl, failure};
use crate::tls::{Reading, client_config};
use crate::{Error, ErrorKind, Result};

/// How to connect.
#[derive(Debug, Clone, PartialEq)]
pub struct AmqpConnectOptions {
    /// How long the whole of connecting and logging in may take.
    pub connect_timeout: Duration,
    /// How often either side says something at least; zero: as often as the server asks for.
    pub heartbeat: Duration,
    /// How to log in.
    pub login_method: LoginMethod,
    /// What the server shows the connection as.
    pub connection_name: Option<String>,
}

impl Default for AmqpConnectOptions {
    fn default() -> Self {
        AmqpConnectOptions {
            connect_timeout: Duration::from_secs(4),
            heartbeat: Duration::from_secs(120),
            login_method: LoginMethod::Plain,
            connection_name: None,
        }
    }
}

/// `broker_login_method`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoginMethod {
    /// User name and password.
    #[default]
    Plain,
    /// The same as a table.
    AmqPlain,
    /// By our TLS certificate.
    External,
}

impl LoginMethod {
    /// From the setting's text.
    ///
    /// # Errors
    /// `Configuration`: a method that is not supported.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "PLAIN" => Ok(LoginMethod::Plain),
            "AMQPLAIN" => Ok(LoginMethod::AmqPlain),
            "EXTERNAL" => Ok(LoginMethod::External),
            _ => {
                let message = format!("the login method {text:?} is not supported: PLAIN, AMQPLAIN and EXTERNAL are");
                Err(Error::new(ErrorKind::Configuration, message))
            }
        }
    }
}

/// A handle to the socket that the client library holds: to end the connection where nobody answers.
pub(super) type Handle = Arc<Mutex<Option<std::net::TcpStream>>>;

pub(super) fn shut_down(socket: &Handle) {
    if let Some(stream) = socket.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // It may be closed already.
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// The socket of a connection that is being opened. Where nothing comes of it, also because nobody waits any more, it is
/// shut down: the library's thread would wait for a server that accepts and says nothing.
struct Unfinished(Option<Handle>);

impl Unfinished {
    fn socket(&self) -> Handle {
        self.0.clone().unwrap_or_default()
    }

    fn finish(mut self) -> Handle {
        self.0.take().unwrap_or_default()
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(socket) = &self.0 {
            shut_down(socket);
        }
    }
}

impl AmqpUrl {
    /// Opens a connection. One try.
    ///
    /// # Errors
    /// `Connection`, `Authentication` or `Configuration`.
    pub async fn connect(&self, options: &AmqpConnectOptions) -> Result<AmqpConnection> {
        let limit = self.connect_timeout.unwrap_or(options.connect_timeout);
        let unfinished = Unfinished(Some(Handle::default()));
        let opened = timeout(limit, self.open(options, limit, unfinished.socket())).await;
        let opened = opened.unwrap_or_else(|_| Ok(Err(io::Error::from(io::ErrorKind::TimedOut).into())));
        match opened? {
            Ok(connection) => Ok(AmqpConnection::new(connection, self.to_string(), unfinished.finish())),
            Err(error) => Err(failure("cannot connect to", self, &error)),
        }
    }

    async fn open(
        &self,
        options: &AmqpConnectOptions,
        limit: Duration,
        socket: Handle,
    ) -> Result<lapin::Result<Connection>> {
        let config = self.tls.as_ref().map(|tls| client_config(tls, Reading::Python)).transpose()?;
        let name = self.tls.as_ref().and_then(|tls| tls.server_hostname.clone()).unwrap_or_else(|| self.host.clone());
        let (host, port) = (self.host.clone(), self.port);
        let dial = async move |_, _| {
            // This runs on the library's thread, where nobody else would end it.
            let dialled = timeout(limit, dial(&host, port, config.clone(), &name, &socket)).await;
            let dialled = dialled.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            dialled.map(AsyncTcpStream::Plain).map_err(lapin::Error::from)
        };
        Ok(Connection::connector(self.uri(options), Runtime::new(Kit::current()), dial, properties(options)).await)
    }

    fn uri(&self, options: &AmqpConnectOptions) -> AMQPUri {
        let heartbeat = self.heartbeat.unwrap_or(options.heartbeat).as_secs_f64().ceil();
        let mechanism = match self.login_method.unwrap_or(options.login_method) {
            LoginMethod::Plain => SASLMechanism::Plain,
            LoginMethod::AmqPlain => SASLMechanism::AMQPlain,
            LoginMethod::External => SASLMechanism::External,
        };
        AMQPUri {
            // Encryption is the dialler's business.
            scheme: AMQPScheme::AMQP,
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo { username: self.username.clone(), password: self.password.clone() },
                host: self.host.clone(),
                port: self.port,
            },
            vhost: self.virtual_host.clone(),
            query: AMQPQueryString {
                // A cast from a float saturates.
                heartbeat: Some(heartbeat as u16),
                auth_mechanism: Some(mechanism),
                frame_max: Some(LARGEST_FRAME),
                ..AMQPQueryString::default()
            },
        }
    }
}

/// Opens the socket, to the first of the host's addresses that accepts, and encrypts it if `config` says how.
async fn dial(
    host: &str,
    port: u16,
    config: Option<Arc<ClientConfig>>,
    name: &str,
    handle: &Handle,
) -> io::Result<Stream> {
    let stream = TcpStream::connect((host, port)).await?;
    // Small frames leave at once.
    stream.set_nodelay(true)?;
    let own = stream.as_fd().try_clone_to_owned()?;
    *handle.lock().unwrap_or_else(PoisonError::into_inner) = Some(own.into());
    let Some(config) = config else { return Ok(Stream::new(Socket::Plain(stream))) };
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    let encrypted = TlsConnector::from(config).connect(name, stream).await?;
    Ok(Stream::new(Socket::Encrypted(Box::new(encrypted))))
}

fn properties(options: &AmqpConnectOptions) -> ConnectionProperties {
    let properties = ConnectionProperties::default()
        .with_client_property("product".into(), "Celeriac".into())
        .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
    match &options.connection_name {
        Some(name) => properties.with_connection_name(name.as_str().into()),
        None => properties,
    }
}
