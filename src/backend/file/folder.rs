//! [`Folder`]: the folder in which results are files. What is here waits for the disk.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind as Cause};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock};
use uuid::Uuid;

use crate::backend::codec::Codec;
use crate::backend::rules::overwrites;
use crate::protocol::State;
use crate::{Error, ErrorKind, Result};

/// What files begin with that are being written; Celery's own do so while it tries a folder, and its clean-up leaves them.
const UNFINISHED: &str = ".fs-backend-celeriac-";

/// A folder of results.
pub(super) struct Folder {
    path: PathBuf,
    /// The lock of the operating system is a process's, this one a thread's.
    ours: Mutex<()>,
}

/// Holds the folder for this process.
pub(super) struct Lock<'a> {
    /// Closing it gives the lock back.
    _folder: File,
    _ours: MutexGuard<'a, ()>,
}

impl Folder {
    pub(super) fn new(path: &Path) -> Self {
        Folder { path: path.to_owned(), ours: Mutex::new(()) }
    }

    /// Waits until no other process of ours stores here.
    pub(super) fn lock(&self) -> Result<Lock<'_>> {
        let ours = self.ours.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = File::open(&self.path).map_err(|error| self.failed("use", error))?;
        match flock(&folder, FlockOperation::LockExclusive) {
            // A file system without locks is used as stock workers use it.
            Ok(()) | Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::NOLCK | rustix::io::Errno::NOSYS) => {}
            Err(error) => return Err(self.failed("lock", error.into())),
        }
        Ok(Lock { _folder: folder, _ours: ours })
    }

    /// Puts a result in its place, unless what is there stays.
    pub(super) fn store(&self, name: &str, state: &State, payload: &[u8], codec: &Codec) -> Result<()> {
        let stored = self.read(name)?.and_then(|stored| match codec.decode(&stored) {
            Ok(meta) => Some(meta.status),
            // What nobody can read protects nothing: the new result would otherwise be lost.
            Err(error) => {
                tracing::warn!("The stored result {name} is overwritten: {error}");
                None
            }
        });
        match stored.is_some_and(|stored| !overwrites(&stored, state)) {
            true => Ok(()),
            false => self.write(name, payload),
        }
    }

    pub(super) fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Ok(path) = self.file(name) else { return Ok(None) };
        match fs::read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == Cause::NotFound && self.path.is_dir() => Ok(None),
            Err(error) => Err(self.failed("read", error)),
        }
    }

    /// The file is there whole or not at all.
    pub(super) fn write(&self, name: &str, payload: &[u8]) -> Result<()> {
        let path = self.file(name)?;
        let unfinished = self.path.join(format!("{UNFINISHED}{}", Uuid::new_v4().simple()));
        let written = fs::write(&unfinished, payload).and_then(|()| fs::rename(&unfinished, path));
        written.map_err(|error| {
            // What is left of it would take up what the disk lacks.
            let _ = fs::remove_file(&unfinished);
            self.failed("write to", error)
        })
    }

    pub(super) fn remove(&self, name: &str) -> Result<()> {
        let Ok(path) = self.file(name) else { return Ok(()) };
        match fs::remove_file(path) {
            Err(error) if error.kind() != Cause::NotFound => Err(self.failed("delete from", error)),
            _ => Ok(()),
        }
    }

    /// Removes what was written before `before`, as far as it bears one of the prefixes, and what was never finished.
    pub(super) fn remove_older(&self, prefixes: &[String], before: SystemTime) -> Result<()> {
        let entries = fs::read_dir(&self.path).map_err(|error| self.failed("read", error))?;
        for entry in entries {
            let entry = entry.map_err(|error| self.failed("read", error))?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let is_ours = name.starts_with(UNFINISHED) || prefixes.iter().any(|prefix| name.starts_with(prefix));
            // Another worker may clean up at the same time.
            let is_old = || entry.metadata().and_then(|known| known.modified()).is_ok_and(|written| written < before);
            if is_ours && is_old() {
                self.remove(&name)?;
            }
        }
        Ok(())
    }

    /// A task's id is whatever a client has sent: it must not lead out of the folder.
    fn file(&self, name: &str) -> Result<PathBuf> {
        if name.contains(['/', '\0']) {
            let message = format!("a result of the key {name:?} cannot be stored in a file");
            return Err(Error::new(ErrorKind::Backend, message));
        }
        Ok(self.path.join(name))
    }

    /// Most of what fails can be set right while the worker runs: space, rights, a disk that is not there.
    fn failed(&self, verb: &str, error: io::Error) -> Error {
        let kind = match error.kind() {
            Cause::InvalidFilename | Cause::InvalidInput => ErrorKind::Backend,
            _ => ErrorKind::Unready,
        };
        Error::new(kind, format!("cannot {verb} {self}: {error}"))
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file://{}", self.path.display())
    }
}
