//! [`Pidfile`]: at most one worker for each file (celery/platforms.py `Pidfile`).

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind as IoErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, test_kill_process};

use super::failure::{Code, Failure};
use crate::{Error, ErrorKind};

/// The file with our process id; removed when this is dropped.
#[derive(Debug)]
pub(super) struct Pidfile(PathBuf);

impl Pidfile {
    /// Makes the file. One that a dead process left behind, or that cannot be read, is replaced; `note` is told.
    pub(super) fn create(path: &Path, note: impl Fn(&str)) -> Result<Self, Failure> {
        match fs::read_to_string(path) {
            Err(error) if error.kind() == IoErrorKind::NotFound => {}
            Err(error) => return Err(failed("read", path, error)),
            Ok(text) => {
                match Claim::of(&text) {
                    Claim::Live(id) => return Err(locked(path, id)),
                    Claim::Broken => note("Broken pidfile found - Removing it."),
                    Claim::Stale => note("Stale pidfile exists - Removing it."),
                    Claim::Ours => {}
                }
                remove(path).map_err(|error| failed("remove", path, error))?;
            }
        }
        write(path).map_err(|error| failed("write", path, error))?;
        Ok(Pidfile(path.to_owned()))
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        // A file that is left behind is stale, and the next start removes it.
        let _ = remove(&self.0);
    }
}

/// What the text of a pidfile says.
#[derive(Debug, PartialEq)]
enum Claim {
    Broken,
    Stale,
    /// A container's first process has the same id each time.
    Ours,
    Live(i32),
}

impl Claim {
    fn of(text: &str) -> Self {
        let line = text.split_inclusive('\n').next().unwrap_or_default();
        let id = line.strip_suffix('\n').and_then(|line| line.trim().parse::<i32>().ok()).filter(|id| *id > 0);
        match id {
            None => Claim::Broken,
            Some(id) if id.cast_unsigned() == std::process::id() => Claim::Ours,
            // A process of somebody else's has the id by chance (as Celery, which takes EPERM for ESRCH).
            Some(id) if Pid::from_raw(id).is_some_and(|id| test_kill_process(id).is_ok()) => Claim::Live(id),
            Some(_) => Claim::Stale,
        }
    }
}

fn write(path: &Path) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
    file.write_all(format!("{}\n", std::process::id()).as_bytes())?;
    file.sync_all()
}

fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != IoErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn locked(path: &Path, id: i32) -> Failure {
    let message = format!("Pidfile ({}) already exists. Seems we're already running? (pid: {id})", path.display());
    Failure { message, code: Code::CannotCreate }
}

fn failed(what: &str, path: &Path, error: std::io::Error) -> Failure {
    Error::new(ErrorKind::Io, format!("{what} the pidfile {}", path.display())).with_source(error).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_pidfile_claims() {
        let check = |text: &str, expected: Claim| assert_eq!(Claim::of(text), expected, "{text:?}");
        check("", Claim::Broken);
        check("12", Claim::Broken);
        check("twelve\n", Claim::Broken);
        check("-1\n", Claim::Broken);
        check("2147483647\n", Claim::Stale);
        check("99999999999999999999\n", Claim::Broken);
        check(&format!("{}\n", std::process::id()), Claim::Ours);
        let parent = std::os::unix::process::parent_id();
        check(&format!("{parent}\n"), Claim::Live(parent.cast_signed()));
    }

    #[test]
    fn a_stale_file_is_replaced_and_ours_removed_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("worker.pid");
        fs::write(&path, "2147483647\n").unwrap();
        let notes = std::cell::RefCell::new(Vec::new());
        let pidfile = Pidfile::create(&path, |note| notes.borrow_mut().push(note.to_owned())).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        assert_eq!(notes.into_inner(), ["Stale pidfile exists - Removing it."]);
        drop(pidfile);
        assert!(!path.exists());
    }

    #[test]
    fn a_live_process_keeps_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("worker.pid");
        fs::write(&path, format!("{}\n", std::os::unix::process::parent_id())).unwrap();
        let failure = Pidfile::create(&path, |_| ()).unwrap_err();
        assert_eq!(failure.code, Code::CannotCreate);
        assert!(path.exists());
    }
}
