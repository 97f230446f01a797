//! Single files: written whole, read when they are whole, locked as Kombu locks them; and what a failure comes to.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use crate::time::Clock;
use crate::{Error, ErrorKind};

/// After how long an empty file is taken for one that nobody will write any more.
const ABANDONED: Duration = Duration::from_secs(60);

/// What a failure is to who asked. A folder that is not there is a lost connection; a full disk may have room again; all
/// else is a refusal.
pub(super) fn failed(doing: &str, path: &Path, error: io::Error) -> Error {
    let out_of_files = |code| code == Errno::MFILE.raw_os_error() || code == Errno::NFILE.raw_os_error();
    let kind = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ErrorKind::Connection,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Unready,
        _ if error.raw_os_error().is_some_and(out_of_files) => ErrorKind::Unready,
        _ => ErrorKind::Broker,
    };
    Error::new(kind, format!("{doing} {}", path.display())).with_source(error)
}

/// Writes a file that nobody reads yet. What cannot be written whole is removed.
pub(super) fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let written = File::create(path).and_then(|mut file| file.write_all(content));
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written
}

/// Whether it was there to be removed.
pub(super) fn remove(path: &Path) -> io::Result<bool> {
    was_there(fs::remove_file(path))
}

/// Whether it was there to be moved; one of several who try succeeds.
pub(super) fn move_to(path: &Path, target: &Path) -> io::Result<bool> {
    was_there(fs::rename(path, target))
}

fn was_there(done: io::Result<()>) -> io::Result<bool> {
    match done {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Opens a message that somebody else may still be writing: Kombu makes the file, locks it, writes it and unlocks it.
/// `None`: it is not whole yet, or it is gone. What is no file is an error.
pub(super) fn open_whole(path: &Path, clock: &Clock) -> io::Result<Option<File>> {
    // What only looks like a message, such as a pipe, must not keep us waiting.
    let opened = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    if !try_lock(&file, FlockOperation::NonBlockingLockShared)? {
        return Ok(None);
    }
    // Between making and locking it is empty, and so for ever if its producer died then.
    let found = file.metadata()?;
    if found.len() == 0 {
        let written = Timestamp::try_from(found.modified()?).unwrap_or(Timestamp::MAX);
        let age = Duration::try_from(clock.now().duration_since(written)).unwrap_or_default();
        return Ok((age >= ABANDONED).then_some(file));
    }
    Ok(Some(file))
}

/// Whether a lock was to be had without waiting.
pub(super) fn try_lock(file: &File, operation: FlockOperation) -> io::Result<bool> {
    match flock(file, operation) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn read_all(file: &mut File) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.read_to_end(&mut content)?;
    Ok(content)
}
