//! A private Redis for one test.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use tempfile::TempDir;

/// A `redis-server` on a socket in a directory of its own, which keeps what it has acknowledged over a restart.
pub struct RedisServer {
    directory: TempDir,
    password: Option<&'static str>,
    process: Option<Child>,
}

impl RedisServer {
    /// A server, or nothing where none is installed, which is said.
    pub fn start() -> Option<Self> {
        Self::with_password(None)
    }

    pub fn with_password(password: Option<&'static str>) -> Option<Self> {
        if Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_err() {
            eprintln!("skipped: redis-server is not installed");
            return None;
        }
        let mut server = RedisServer { directory: tempfile::tempdir().unwrap(), password, process: None };
        server.restart();
        Some(server)
    }

    /// Starts it again, killing it first when it runs.
    pub fn restart(&mut self) {
        self.kill();
        let directory = self.directory.path().to_str().unwrap();
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
        command.args(["--dir", directory, "--unixsocket", &format!("{directory}/redis.sock")]);
        command.args(self.password.into_iter().flat_map(|password| ["--requirepass", password]));
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        wait_until_ready(process.stdout.take().unwrap());
        self.process = Some(process);
    }

    /// Kills it at once.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    pub fn url(&self) -> String {
        self.url_with(self.password.unwrap_or_default())
    }

    pub fn url_with(&self, password: &str) -> String {
        let login = if password.is_empty() { String::new() } else { format!(":{password}@") };
        format!("redis+socket://{login}{}/redis.sock", self.directory.path().display())
    }

    /// A connection of the test's own.
    pub fn connection(&self) -> redis::Connection {
        let mut url = format!("redis+unix://{}/redis.sock", self.directory.path().display());
        if let Some(password) = self.password {
            url += &format!("?pass={password}");
        }
        redis::Client::open(url).unwrap().get_connection().unwrap()
    }

    /// Deletes everything.
    pub fn flush(&self) {
        redis::cmd("FLUSHALL").exec(&mut self.connection()).unwrap();
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Reads the server's log until it serves; a thread goes on reading, for a full pipe would stop the server.
fn wait_until_ready(log: ChildStdout) {
    let mut lines = BufReader::new(log).lines();
    let ready = lines.by_ref().map_while(Result::ok).any(|line| line.contains("eady to accept connections"));
    assert!(ready, "redis-server ended before it was ready");
    std::thread::spawn(move || lines.for_each(drop));
}
