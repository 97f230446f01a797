//! [`PostgresServer`]: a PostgreSQL of the test's own, gone with it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;

use super::certificates::Certificates;
use super::process::Process;
use super::{eventually, free_port, skipped};

/// Who the server runs as: it refuses to be root.
const NOBODY: &str = "nobody";

/// A running `postgres` on a free port. What it holds survives a restart.
pub(crate) struct PostgresServer {
    programs: PathBuf,
    process: Process,
    directory: TempDir,
    port: u16,
    tls: Option<Certificates>,
}

impl PostgresServer {
    /// Starts a server; `None`, and a word about it, where none is installed.
    pub(crate) async fn start() -> Option<Self> {
        Self::start_with(false).await
    }

    /// Starts a server that also speaks TLS, on 127.0.0.2 too, for which it has no certificate; `None` also without the
    /// `openssl` command.
    pub(crate) async fn start_with_tls() -> Option<Self> {
        Self::start_with(true).await
    }

    async fn start_with(tls: bool) -> Option<Self> {
        let programs = match programs() {
            Ok(programs) => programs,
            Err(error) => return skipped("postgres", &error),
        };
        let directory = TempDir::new().expect("a temporary directory");
        let tls = match tls.then(|| Certificates::make(directory.path())) {
            Some(Err(error)) => return skipped("openssl", &error),
            Some(Ok(certificates)) => Some(certificates),
            None => None,
        };
        // SIGQUIT is its word for at once: its own processes end with it.
        let process = Process::ended_by(Signal::QUIT);
        let mut server = PostgresServer { programs, process, directory, port: free_port(), tls };
        if let Err(error) = server.initialize() {
            return skipped("initdb", &error);
        }
        server.start_again().await;
        Some(server)
    }

    fn initialize(&self) -> io::Result<()> {
        if is_root() {
            let owner = Command::new("chown").arg("-R").arg(NOBODY).arg(self.directory.path()).status()?;
            assert!(owner.success(), "the folder is given away");
        }
        let mut command = self.program("initdb");
        command.arg("-D").arg(self.data()).args(["-U", "celeriac", "-A", "trust", "-E", "UTF8", "--no-sync"]);
        let done = command.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        if done.success() { Ok(()) } else { Err(io::Error::other("it failed")) }
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn program(&self, name: &str) -> Command {
        let program = self.programs.join(name);
        let mut command = match is_root() {
            true => Command::new("setpriv"),
            false => return Command::new(program),
        };
        command.args(["--reuid", NOBODY, "--clear-groups", "--"]).arg(program).current_dir(self.directory.path());
        command
    }

    /// The URL of its database, as `result_backend` has it.
    pub(crate) fn url(&self) -> String {
        format!("db+postgresql://celeriac:secret@127.0.0.1:{}/postgres", self.port)
    }

    /// The file of the authority whose certificate it shows, if it speaks TLS.
    pub(crate) fn authority(&self) -> String {
        self.tls.as_ref().map(|tls| tls.authority.display().to_string()).unwrap_or_default()
    }

    /// The certificate that it shows, and its key, if it speaks TLS.
    pub(crate) fn certificate(&self) -> (String, String) {
        let files = self.tls.as_ref().map(|tls| (tls.certificate.display().to_string(), tls.key.display().to_string()));
        files.unwrap_or_default()
    }

    /// Has it show this certificate from now on, and heed these lines before those that let everybody in (`pg_hba.conf`).
    pub(crate) async fn becomes(&mut self, certificates: Option<&Certificates>, lines: &str) -> io::Result<()> {
        if let (Some(new), Some(tls)) = (certificates, &self.tls) {
            for (from, to) in [(&new.certificate, &tls.certificate), (&new.key, &tls.key)] {
                std::fs::write(to, std::fs::read(from)?)?;
            }
        }
        let rules = self.data().join("pg_hba.conf");
        std::fs::write(&rules, [lines, &std::fs::read_to_string(&rules)?].concat())?;
        self.stop();
        self.start_again().await;
        Ok(())
    }

    /// Kills the server. What it had accepted is on disk.
    pub(crate) fn stop(&mut self) {
        self.process.stop();
    }

    /// Starts it, with what it held.
    pub(crate) async fn start_again(&mut self) {
        let mut command = self.program("postgres");
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string(), "-h", "127.0.0.1", "-c", "fsync=off"]);
        command.arg("-k").arg(self.directory.path());
        if let Some(tls) = &self.tls {
            let files =
                [("ssl_cert_file", &tls.certificate), ("ssl_key_file", &tls.key), ("ssl_ca_file", &tls.authority)];
            let settings = files.map(|(name, file)| format!("{name}={}", file.display()));
            command.args(["-c", "listen_addresses=127.0.0.1,127.0.0.2", "-c", "ssl=on"]);
            command.args(settings.iter().flat_map(|setting| ["-c", setting]));
        }
        self.process.start(&mut command).expect("it can be started");
        eventually("postgres answers", || async { self.asked("SELECT 1").is_some() }).await;
    }

    /// What `psql` prints for a statement; `None`: the server does not answer, or refuses.
    pub(crate) fn asked(&self, statement: &str) -> Option<String> {
        let mut command = self.program("psql");
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "celeriac", "-d", "postgres", "-AtqX"]);
        let done = command.args(["-v", "ON_ERROR_STOP=1", "-c", statement]).output().ok()?;
        done.status.success().then(|| String::from_utf8_lossy(&done.stdout).trim().to_owned())
    }
}

/// Debian keeps each version in a folder of its own.
fn programs() -> io::Result<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql")?;
    let folders = versions.filter_map(|version| Some(version.ok()?.path().join("bin")));
    let newest = folders.filter(|folder| folder.join("initdb").exists()).max();
    newest.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no version is installed"))
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;

    std::fs::metadata(Path::new("/proc/self")).is_ok_and(|known| known.uid() == 0)
}
