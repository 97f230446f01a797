//! [`MemcachedServer`]: a memcached of the test's own, gone with it.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;

use rustix::process::Signal;

use super::process::Process;
use super::{LONG, eventually, free_port, skipped};

/// A running `memcached` on a free port. A restart leaves nothing of what it held.
pub(crate) struct MemcachedServer {
    process: Process,
    port: u16,
    options: &'static [&'static str],
}

impl MemcachedServer {
    /// Starts a server that takes values of a megabyte; `None`, and a word about it, where none is installed.
    pub(crate) async fn start() -> Option<Self> {
        Self::start_with(&["-I", "1m"]).await
    }

    /// Starts a server with options of its own.
    pub(crate) async fn start_with(options: &'static [&'static str]) -> Option<Self> {
        let mut server = MemcachedServer { process: Process::ended_by(Signal::KILL), port: free_port(), options };
        match server.spawn() {
            Ok(()) => {}
            Err(error) => return skipped("memcached", &error),
        }
        server.ready().await;
        Some(server)
    }

    fn spawn(&mut self) -> io::Result<()> {
        let mut command = Command::new("memcached");
        // It refuses to be root, and has no need of a user elsewhere.
        command.args(["-u", "nobody", "-l", "127.0.0.1", "-U", "0", "-p", &self.port.to_string()]).args(self.options);
        self.process.start(&mut command)
    }

    async fn ready(&self) {
        eventually("memcached answers", || async { TcpStream::connect(("127.0.0.1", self.port)).is_ok() }).await;
    }

    /// The URL of results there.
    pub(crate) fn url(&self) -> String {
        format!("cache+memcached://127.0.0.1:{}/", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// What the server says to one line, to look behind the scenes.
    pub(crate) fn asked(&self, line: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the server is up");
        stream.set_read_timeout(Some(LONG)).expect("a timeout");
        write!(stream, "{line}\r\nquit\r\n").expect("it listens");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    }

    /// Kills the server, and with it all that it held.
    pub(crate) fn stop(&mut self) {
        self.process.stop();
    }

    /// Starts it again.
    pub(crate) async fn start_again(&mut self) {
        self.spawn().expect("it has started before");
        self.ready().await;
    }
}
