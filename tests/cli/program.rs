//! The example worker, and the program `celeriac`, as a process: started in a folder of its own, without the environment of whoever runs the tests.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::cargo::cargo;

/// No program of a test takes so long: one that does hangs, and is killed, so that what it has said is seen.
const LIMIT: Duration = Duration::from_secs(120);

/// How a program is to be started.
pub(crate) struct Program {
    program: PathBuf,
    folder: TempDir,
    variables: Vec<(String, String)>,
}

/// How it ended.
pub(crate) struct Ended {
    pub(crate) code: String,
    pub(crate) output: String,
    pub(crate) errors: String,
}

/// One that is running.
pub(crate) struct Running {
    child: Child,
    errors: BufReader<ChildStderr>,
    seen: String,
    /// Its end is the program's, as far as the watchdog is concerned.
    _watched: Sender<()>,
}

impl Program {
    pub(crate) fn new() -> Self {
        Program { program: worker().to_owned(), folder: tempfile::tempdir().unwrap(), variables: Vec::new() }
    }

    /// The program that has no app.
    pub(crate) fn without_app() -> Self {
        let program = env!("CARGO_BIN_EXE_celeriac").into();
        Program { program, folder: tempfile::tempdir().unwrap(), variables: Vec::new() }
    }

    /// The same with a variable in its environment.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Where it runs.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn write(&self, file: &str, text: &str) {
        fs::write(self.folder().join(file), text).unwrap();
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        self.start(arguments).wait()
    }

    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(self.folder()).env_clear();
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let errors = BufReader::new(child.stderr.take().unwrap());
        Running { _watched: watch(child.id()), child, errors, seen: String::new() }
    }
}

/// Kills the process after [`LIMIT`], unless what is returned is dropped before.
fn watch(id: u32) -> Sender<()> {
    let (watched, ended) = mpsc::channel();
    std::thread::spawn(move || {
        if ended.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
            send_signal("KILL", id);
        }
    });
    watched
}

fn send_signal(name: &str, id: u32) -> bool {
    // The shell's own `kill`: small systems have no such program.
    Command::new("sh").args(["-c", &format!("kill -{name} {id}")]).status().unwrap().success()
}

impl Running {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Reads standard error up to a line that contains `part`, and returns that line.
    pub(crate) fn error_line(&mut self, part: &str) -> String {
        loop {
            let mut line = String::new();
            let length = self.errors.read_line(&mut line).unwrap();
            assert!(length > 0, "it ended without '{part}': {}", self.seen);
            self.seen.push_str(&line);
            if line.contains(part) {
                return line.trim_end().to_owned();
            }
        }
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        assert!(send_signal(name, self.child.id()));
    }

    pub(crate) fn wait(mut self) -> Ended {
        let mut output = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
        self.errors.read_to_string(&mut self.seen).unwrap();
        let code = code(self.child.wait().unwrap());
        Ended { code, output, errors: std::mem::take(&mut self.seen) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A test that failed leaves no process behind; one that has ended cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// Everything that it said, as a snapshot has it.
    pub(crate) fn text(&self) -> String {
        format!("{}\n{}{}", self.code, self.output, self.errors)
    }
}

fn code(status: ExitStatus) -> String {
    status.code().map_or_else(|| status.to_string(), |code| format!("exit code {code}"))
}

/// The example worker, built once for all tests of this file.
fn worker() -> &'static Path {
    static WORKER: OnceLock<PathBuf> = OnceLock::new();
    WORKER.get_or_init(|| {
        let mut build = cargo();
        build.args(["build", "--quiet", "--example", "worker"]);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success(), "the example worker is built");
        // target/debug/deps/cli-… stands beside target/debug/examples/worker.
        let own = std::env::current_exe().unwrap();
        own.ancestors().nth(2).unwrap().join("examples").join("worker")
    })
}

/// Compares `text` with the file of that name, or writes the file when `UPDATE_SNAPSHOTS` is set.
pub(crate) fn assert_snapshot(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli").join(file);
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::write(&path, text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{file} is another; UPDATE_SNAPSHOTS=1 writes it anew");
}
