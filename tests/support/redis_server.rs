//! [`RedisServer`]: a Redis of the test's own, gone with it.

use std::io;
use std::path::PathBuf;
use std::process::Command;

use celeriac::redis_client::SharedConnection;
use celeriac::redis_client::{ConnectOptions, RedisUrl, UrlPolicy};
use rustix::process::Signal;
use tempfile::TempDir;

use super::certificates::Certificates;
use super::process::Process;
use super::{eventually, free_port, skipped};

/// A running `redis-server` on a free port and on a socket. What it holds survives a restart.
pub(crate) struct RedisServer {
    process: Process,
    directory: TempDir,
    port: u16,
    tls: Option<Certificates>,
    password: Option<&'static str>,
}

impl RedisServer {
    /// Starts a server; `None`, and a word about it, where none is installed.
    pub(crate) async fn start() -> Option<Self> {
        Self::start_with(None, false).await
    }

    /// Starts a server that asks for this password.
    pub(crate) async fn start_with_password(password: &'static str) -> Option<Self> {
        Self::start_with(Some(password), false).await
    }

    /// Starts a server that speaks TLS on its port; `None` also without the `openssl` command.
    pub(crate) async fn start_with_tls() -> Option<Self> {
        Self::start_with(None, true).await
    }

    async fn start_with(password: Option<&'static str>, tls: bool) -> Option<Self> {
        let directory = TempDir::new().expect("a temporary directory");
        let tls = match tls.then(|| Certificates::make(directory.path())) {
            Some(Err(error)) => return skipped("openssl", &error),
            Some(Ok(certificates)) => Some(certificates),
            None => None,
        };
        let process = Process::ended_by(Signal::KILL);
        let mut server = RedisServer { process, port: free_port(), directory, tls, password };
        match server.spawn() {
            Ok(()) => {}
            Err(error) => return skipped("redis-server", &error),
        }
        server.ready().await;
        Some(server)
    }

    fn spawn(&mut self) -> io::Result<()> {
        let mut command = Command::new("redis-server");
        command.arg("--dir").arg(self.directory.path()).arg("--unixsocket").arg(self.socket());
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
        match &self.tls {
            None => command.args(["--port", &self.port.to_string()]),
            Some(files) => command
                .args(["--port", "0", "--tls-port", &self.port.to_string(), "--tls-auth-clients", "no"])
                .arg("--tls-cert-file")
                .arg(&files.certificate)
                .arg("--tls-key-file")
                .arg(&files.key)
                .arg("--tls-ca-cert-file")
                .arg(&files.authority),
        };
        if let Some(password) = self.password {
            command.args(["--requirepass", password]);
        }
        self.process.start(&mut command)
    }

    /// Waits until the server answers.
    async fn ready(&self) {
        let url = self.own_url();
        eventually("redis-server answers", || async {
            let opened = url.connect(&ConnectOptions::default()).await;
            match opened {
                Ok(mut opened) => redis::cmd("PING").query_async::<String>(&mut opened.connection).await.is_ok(),
                Err(_) => false,
            }
        })
        .await;
    }

    fn own_url(&self) -> RedisUrl {
        let text = format!("socket://{}{}", self.login(), self.socket().display());
        RedisUrl::parse(&text, UrlPolicy::Broker).expect("our own URL")
    }

    /// The broker URL of a database.
    pub(crate) fn url(&self, db: u32) -> String {
        let scheme = if self.tls.is_some() { "rediss" } else { "redis" };
        format!("{scheme}://{}127.0.0.1:{}/{db}", self.login(), self.port)
    }

    /// What stands before the host in a URL.
    fn login(&self) -> String {
        let encoded = |password: &str| password.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
        self.password.map(|password| format!(":{}@", encoded(password))).unwrap_or_default()
    }

    /// The broker URL over the socket.
    pub(crate) fn socket_url(&self, db: u32) -> String {
        format!("redis+socket://{}?virtual_host={db}", self.socket().display())
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("redis.sock")
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn certificates(&self) -> Option<&Certificates> {
        self.tls.as_ref()
    }

    /// A connection to look behind the scenes.
    pub(crate) async fn connection(&self) -> SharedConnection {
        let opened = self.own_url().connect(&ConnectOptions::default()).await;
        opened.expect("the server is up").connection
    }

    /// Kills the server. What it had accepted is on disk.
    pub(crate) fn stop(&mut self) {
        self.process.stop();
    }

    /// Starts it again with what it held.
    pub(crate) async fn start_again(&mut self) {
        self.spawn().expect("it has started before");
        self.ready().await;
    }
}
