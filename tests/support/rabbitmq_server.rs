//! [`RabbitServer`]: a RabbitMQ node of the tests' own, gone with them; [`VHost`]: a part of it for one test.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::certificates::Certificates;
use super::{free_port, skipped};

/// A running node. What it holds survives a restart.
///
/// It boots for seconds: [`shared`](RabbitServer::shared) is the node of a whole test file, in which each test takes a
/// [`vhost`](RabbitServer::vhost). A test that stops the node, or sets an alarm, starts its own.
///
/// The node itself is `rabbitmq_node.erl`: it answers [questions](RabbitServer::ask) much faster than `rabbitmqctl`,
/// and removes its files and ends when its standard input does. So it outlives no test process, however that ends.
pub(crate) struct RabbitServer {
    node: Mutex<Option<Node>>,
    folder: PathBuf,
    port: u16,
    tls: Option<(u16, Certificates)>,
    vhosts: AtomicUsize,
}

struct Node {
    process: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl RabbitServer {
    /// Starts a node; `None`, and a word about it, where RabbitMQ is not installed.
    pub(crate) async fn start() -> Option<Arc<Self>> {
        Self::start_with(false).await
    }

    /// Starts a node that also speaks TLS, on another port; `None` also without the `openssl` command.
    pub(crate) async fn start_with_tls() -> Option<Arc<Self>> {
        Self::start_with(true).await
    }

    /// The node of this test file, which ends with it.
    pub(crate) async fn shared() -> Option<Arc<Self>> {
        static SHARED: OnceCell<Option<Arc<RabbitServer>>> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await.clone()
    }

    async fn start_with(tls: bool) -> Option<Arc<Self>> {
        // The node removes its folder, as nothing in this process is dropped for certain.
        let folder = TempDir::new().expect("a temporary directory").keep();
        let tls = match tls.then(|| Certificates::make(&folder)) {
            Some(Err(error)) => return skipped("openssl", &error),
            Some(Ok(certificates)) => Some((free_port(), certificates)),
            None => None,
        };
        let (node, vhosts) = (Mutex::new(None), AtomicUsize::new(0));
        let server = Arc::new(RabbitServer { node, folder, port: free_port(), tls, vhosts });
        match server.boot().await {
            Ok(()) => Some(server),
            Err(error) => skipped("rabbitmq-server", &error),
        }
    }

    /// Starts the node and waits until it accepts connections, beside whatever else the test does.
    async fn boot(self: &Arc<Self>) -> io::Result<()> {
        let server = Arc::clone(self);
        let booting = tokio::task::spawn_blocking(move || {
            let node = Node::spawn(&server)?;
            *server.node.lock().expect("nobody panics with it") = Some(node);
            Ok(())
        });
        booting.await.expect("it does not panic")
    }

    /// A vhost that no other test has.
    pub(crate) fn vhost(self: &Arc<Self>) -> VHost {
        let name = format!("test {}", self.vhosts.fetch_add(1, Ordering::SeqCst));
        let added = self.ask(&format!("rabbitmq_node:add_vhost(<<\"{name}\">>, <<\"guest\">>)."));
        assert_eq!(added, "ok");
        VHost { server: Arc::clone(self), name }
    }

    /// The value of an Erlang expression in the node, as Erlang writes it.
    pub(crate) fn ask(&self, expression: &str) -> String {
        let answer = {
            let mut node = self.node.lock().expect("nobody panics with it");
            node.as_mut().expect("it is up").ask(expression)
        };
        let answer = answer.expect("it answers");
        assert!(!answer.starts_with("{'EXIT',"), "{expression} failed: {answer}");
        answer
    }

    /// As if memory were low: who publishes is blocked. For the whole node.
    pub(crate) fn alarm(&self, raised: bool) {
        assert_eq!(self.ask(&format!("rabbitmq_node:alarm({raised}).")), "ok");
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The port on which it speaks TLS, and what it shows there.
    pub(crate) fn tls(&self) -> Option<(u16, &Certificates)> {
        self.tls.as_ref().map(|(port, certificates)| (*port, certificates))
    }

    /// Ends the node as an operator does.
    pub(crate) fn stop(&self) {
        self.end(|node| drop(writeln!(node.questions, "rabbit:stop_and_halt().")));
    }

    /// Kills the node. What it had confirmed is on disk.
    pub(crate) fn kill(&self) {
        self.end(|node| {
            let _ = node.ask("rabbitmq_node:settle().");
            let _ = node.process.kill();
        });
    }

    fn end(&self, ending: impl FnOnce(&mut Node)) {
        let node = self.node.lock().expect("nobody panics with it").take();
        if let Some(mut node) = node {
            ending(&mut node);
            // Its input stays open until then: at its end the node would remove what it holds.
            let Node { mut process, questions: _open, .. } = node;
            let _ = process.wait();
        }
    }

    /// Starts it again with what it held.
    pub(crate) async fn start_again(self: &Arc<Self>) {
        self.boot().await.expect("it has started before");
    }

    /// What it logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for RabbitServer {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Node {
    fn spawn(server: &RabbitServer) -> io::Result<Self> {
        let home = home()?;
        std::fs::write(server.folder.join("plugins"), "[].\n")?;
        let mut command = Command::new("erl");
        command.args(ERLANG).args(["-rabbit", "tcp_listeners", &listener(server.port)]);
        if let Some((port, files)) = &server.tls {
            let options = format!(
                "[{{cacertfile,{:?}}},{{certfile,{:?}}},{{keyfile,{:?}}},{{verify,verify_none}}]",
                files.authority, files.certificate, files.key
            );
            command.args(["-rabbit", "ssl_listeners", &listener(*port), "-rabbit", "ssl_options", &options]);
        }
        command.arg("-own_folder").arg(&server.folder).args(["-eval", &run_source()]);
        command.env("HOME", &server.folder).env("ERL_LIBS", home.join("plugins")).env("RABBITMQ_HOME", &home);
        command.env("RABBITMQ_PLUGINS_DIR", home.join("plugins"));
        command.env("RABBITMQ_NODENAME", "rabbit@localhost");
        for (variable, file) in FILES {
            command.env(variable, server.folder.join(file));
        }
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let (questions, answers) = (process.stdin.take().expect("piped"), process.stdout.take().expect("piped"));
        let mut node = Node { process, questions, answers: BufReader::new(answers) };
        let ready = node.answer();
        assert_eq!(ready.ok().as_deref(), Some("ready"), "the node does not boot: {}", server.log());
        Ok(node)
    }

    fn ask(&mut self, expression: &str) -> io::Result<String> {
        writeln!(self.questions, "{expression}")?;
        self.answer()
    }

    /// The next line that is an answer.
    fn answer(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        loop {
            line.clear();
            if self.answers.read_until(b'\n', &mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(answer) = line.strip_prefix(b"> ") {
                return Ok(String::from_utf8_lossy(answer).trim_end().to_owned());
            }
        }
    }
}

/// Few threads that do not spin, and a node that needs no register of nodes.
const ERLANG: &[&str] = &[
    "+S",
    "2:2",
    "+sbwt",
    "none",
    "+sbwtdcpu",
    "none",
    "+sbwtdio",
    "none",
    "+W",
    "w",
    "-noshell",
    "-boot",
    "start_sasl",
    "-epmd_module",
    "rabbitmq_node",
    "-erl_epmd_port",
    "1",
    "-kernel",
    "inet_dist_use_interface",
    "{127,0,0,1}",
    "-kernel",
    "prevent_overlapping_partitions",
    "false",
    "-syslog",
    "logger",
    "[]",
    "-syslog",
    "syslog_error_logger",
    "false",
    "-rabbit",
    "loopback_users",
    "[]",
];

/// Where it keeps what; some are not there, so that nobody else's are read.
const FILES: &[(&str, &str)] = &[
    ("RABBITMQ_MNESIA_BASE", ""),
    ("RABBITMQ_MNESIA_DIR", "data"),
    ("RABBITMQ_FEATURE_FLAGS_FILE", "feature-flags"),
    ("RABBITMQ_ENABLED_PLUGINS_FILE", "plugins"),
    ("RABBITMQ_GENERATED_CONFIG_DIR", "configuration"),
    ("RABBITMQ_PID_FILE", "pid"),
    ("RABBITMQ_LOG_BASE", ""),
    ("RABBITMQ_LOGS", "log"),
    ("RABBITMQ_CONFIG_FILE", "none"),
    ("RABBITMQ_CONFIG_FILES", "none"),
    ("RABBITMQ_ADVANCED_CONFIG_FILE", "none"),
    ("RABBITMQ_CONF_ENV_FILE", "none"),
];

fn listener(port: u16) -> String {
    format!("[{{\"127.0.0.1\",{port}}}]")
}

/// Compiles the node's own module, in memory, and starts it.
fn run_source() -> String {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/rabbitmq_node.erl");
    format!("{{ok,M,B}}=compile:file({source:?},[binary]),{{module,_}}=code:load_binary(M,{source:?},B),M:start().")
}

/// Where RabbitMQ is installed: Debian's place, or `RABBITMQ_HOME`.
fn home() -> io::Result<PathBuf> {
    if let Some(home) = std::env::var_os("RABBITMQ_HOME") {
        return Ok(home.into());
    }
    let installed = std::fs::read_dir("/usr/lib/rabbitmq/lib")?.filter_map(Result::ok).map(|entry| entry.path());
    installed.max().ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// A vhost of a node.
pub(crate) struct VHost {
    server: Arc<RabbitServer>,
    name: String,
}

/// How many messages are in a queue.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Depth {
    pub(crate) queue: String,
    pub(crate) ready: usize,
    pub(crate) unacknowledged: usize,
}

impl VHost {
    pub(crate) fn server(&self) -> &Arc<RabbitServer> {
        &self.server
    }

    /// Its name, with a character that a URL has to encode.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The broker URL.
    pub(crate) fn url(&self) -> String {
        self.url_at(self.server.port)
    }

    /// The broker URL through something that stands before the node.
    pub(crate) fn url_at(&self, port: u16) -> String {
        format!("amqp://guest:guest@127.0.0.1:{port}/{}", self.name.replace(' ', "%20"))
    }

    /// Asks the node with this vhost as the first argument.
    fn ask(&self, function: &str, arguments: &str) -> String {
        self.server.ask(&format!("rabbitmq_node:{function}(<<\"{}\">>{arguments}).", self.name))
    }

    /// All queues, in the order of their names.
    pub(crate) fn depths(&self) -> Vec<Depth> {
        let pattern = regex::Regex::new(r#"\{<<"(.*?)"(?:/utf8)?>>,(\d+),(\d+)\}"#).expect("our own pattern");
        let answer = self.ask("depths", "");
        let depth = |(_, [queue, ready, unacknowledged]): (_, [&str; 3])| {
            let count = |text: &str| text.parse().expect("a number");
            Depth { queue: queue.to_owned(), ready: count(ready), unacknowledged: count(unacknowledged) }
        };
        pattern.captures_iter(&answer).map(|found| depth(found.extract())).collect()
    }

    /// One queue; zeros for one that is not there.
    pub(crate) fn depth(&self, queue: &str) -> Depth {
        self.depths().into_iter().find(|depth| depth.queue == queue).unwrap_or_default()
    }

    /// Breaks every connection to it without a word; returns how many there were.
    pub(crate) fn cut(&self) -> usize {
        self.ask("cut", "").parse().expect("a number")
    }

    /// Closes every connection to it as an operator does: CONNECTION_FORCED and a reason.
    pub(crate) fn close(&self, reason: &str) -> usize {
        self.ask("close", &format!(", {reason:?}")).parse().expect("a number")
    }
}

impl Drop for VHost {
    fn drop(&mut self) {
        let up = self.server.node.lock().is_ok_and(|node| node.is_some());
        if up && !std::thread::panicking() {
            self.ask("remove_vhost", "");
        }
    }
}
