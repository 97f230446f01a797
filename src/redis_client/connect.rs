//! [`RedisUrl::connect`]: one try to open a connection.

use std::fmt;
use std::time::Duration;

use redis::aio::PubSub;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, PushInfo,
    RedisConnectionInfo, RedisError,
};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::timeout;

use super::failure::hinted;
use super::url::Address;
use super::{Endpoint, RedisUrl, SharedConnection, failure, tls};
use crate::{Error, Result};

/// How to connect.
#[derive(Clone)]
pub struct ConnectOptions {
    /// How long the whole of connecting and logging in may take.
    pub connect_timeout: Duration,
    /// How long an answer may take before the connection counts as lost; absent: for ever.
    pub response_timeout: Option<Duration>,
    /// Sent as `CLIENT SETNAME`.
    pub client_name: Option<String>,
    /// Ask for RESP3; a server that does not speak it is connected to with RESP2.
    pub resp3: bool,
    /// Where the server's pushes go, and the library's notice that the connection is gone. Needs `resp3`.
    pub pushes: Option<UnboundedSender<PushInfo>>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        ConnectOptions {
            connect_timeout: Duration::from_secs(5),
            response_timeout: Some(Duration::from_secs(30)),
            client_name: None,
            resp3: false,
            pushes: None,
        }
    }
}

impl fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectOptions")
            .field("connect_timeout", &self.connect_timeout)
            .field("response_timeout", &self.response_timeout)
            .field("resp3", &self.resp3)
            .finish_non_exhaustive()
    }
}

/// An open connection.
#[derive(Debug, Clone)]
pub struct Opened {
    /// Requests may be sent from several tasks at a time; closed when the last clone drops.
    pub connection: SharedConnection,
    /// Whether RESP3 was agreed on, without which there are no pushes.
    pub resp3: bool,
}

impl RedisUrl {
    /// Opens a connection to the server in use. One try: after a failure the next of several servers is in use.
    ///
    /// # Errors
    /// `Connection`, `Authentication` or `Configuration`.
    pub async fn connect(&self, options: &ConnectOptions) -> Result<Opened> {
        let endpoint = self.endpoint();
        let opened = endpoint.connect(options).await;
        if opened.is_err() {
            self.fail_over();
        }
        opened
    }
}

impl RedisUrl {
    /// Opens a connection that only listens to channels, to the server in use. One try.
    ///
    /// # Errors
    /// `Connection`, `Authentication` or `Configuration`.
    pub(crate) async fn connect_pubsub(&self, options: &ConnectOptions) -> Result<PubSub> {
        let endpoint = self.endpoint();
        let failed = |error| failure("cannot connect to", endpoint, error);
        let client = Client::open(endpoint.information(false)?).map_err(failed)?;
        let timed_out = |_| RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
        let opened = timeout(options.connect_timeout, client.get_async_pubsub()).await.map_err(timed_out);
        opened.and_then(|opened| opened).map_err(failed)
    }
}

impl Endpoint {
    async fn connect(&self, options: &ConnectOptions) -> Result<Opened> {
        let opened = match self.open(options, options.resp3).await? {
            Err(error) if options.resp3 && is_resp2_server(&error) => self.open(options, false).await?,
            opened => opened,
        };
        let mut opened = opened.map_err(|error| self.cannot_connect(error))?;
        self.log_in_again(&mut opened).await?;
        if let Some(name) = &options.client_name {
            let named: Result<(), _> =
                redis::cmd("CLIENT").arg("SETNAME").arg(name).query_async(&mut opened.connection).await;
            named.map_err(|error| failure("cannot name the connection to", self, error))?;
        }
        Ok(opened)
    }

    /// `HELLO`, unlike `AUTH`, takes any password where the server has none. Stock clients send `AUTH` and are refused;
    /// whatever connects to this server shall hear the same, and not some connections this and others that.
    async fn log_in_again(&self, opened: &mut Opened) -> Result<()> {
        let Some(password) = self.password.as_ref().filter(|_| opened.resp3 && self.username.is_none()) else {
            return Ok(());
        };
        let answer: Result<(), _> = redis::cmd("AUTH").arg(password).query_async(&mut opened.connection).await;
        answer.map_err(|error| self.cannot_connect(error))
    }

    fn cannot_connect(&self, error: RedisError) -> Error {
        // A server without TLS waits for the rest of what it takes for a command.
        let hint = if error.is_timeout() && self.tls.is_some() { " (does the server speak TLS?)" } else { "" };
        hinted("cannot connect to", self, error, hint)
    }

    async fn open(&self, options: &ConnectOptions, resp3: bool) -> Result<Result<Opened, RedisError>> {
        let information = self.information(resp3)?;
        let mut config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(options.connect_timeout))
            .set_response_timeout(options.response_timeout);
        if let Some(pushes) = options.pushes.as_ref().filter(|_| resp3) {
            config = config.set_push_sender(pushes.clone());
        }
        let opened = match Client::open(information) {
            Ok(client) => client.get_multiplexed_async_connection_with_config(&config).await,
            Err(error) => Err(error),
        };
        Ok(opened.map(|connection| Opened { connection: SharedConnection::new(connection), resp3 }))
    }

    fn information(&self, resp3: bool) -> Result<ConnectionInfo> {
        let address = match (&self.address, &self.tls) {
            (Address::Tcp { host, port }, None) => ConnectionAddr::Tcp(host.clone(), *port),
            (Address::Tcp { host, port }, Some(options)) => tls::address(options, host, *port)?,
            (Address::Socket(path), _) => ConnectionAddr::Unix(path.clone()),
        };
        let mut login = RedisConnectionInfo::default()
            .set_db(self.db)
            .set_lib_name("celeriac", env!("CARGO_PKG_VERSION"))
            .set_protocol(if resp3 { ProtocolVersion::RESP3 } else { ProtocolVersion::RESP2 });
        if let Some(username) = &self.username {
            login = login.set_username(username);
        }
        if let Some(password) = &self.password {
            login = login.set_password(password);
        }
        let information = address.into_connection_info().map_err(|error| failure("cannot connect to", self, error))?;
        Ok(information.set_redis_settings(login).set_tcp_settings(tcp_settings()))
    }
}

/// Small requests leave at once, and a peer that vanished without a word is noticed.
fn tcp_settings() -> TcpSettings {
    let keepalive = redis::io::tcp::socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(10));
    TcpSettings::default().set_nodelay(true).set_keepalive(keepalive)
}

/// Servers before Redis 6, and some proxies, do not know `HELLO`.
fn is_resp2_server(error: &RedisError) -> bool {
    let text = error.to_string().to_lowercase();
    error.kind() == redis::ErrorKind::RESP3NotSupported || text.contains("unknown command") || text.contains("noproto")
}
