//! [`LogSink`]: lines are gathered in memory and written by a thread of their own.
//!
//! Whoever logs holds a lock for the length of a copy and makes no system call. A line after a pause is written at once,
//! before what other processes say of the same task; what comes within [`GATHER`] of the last write waits for the end
//! of that time, unless it is an error. When the writer cannot keep up, whoever logs waits: nothing is thrown away.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::{Error, ErrorKind, Result};

/// How long lines are gathered after others were written.
const GATHER: Duration = Duration::from_millis(10);

/// How much is gathered before the writer is called at once.
const ENOUGH: usize = 64 * 1024;

/// How much is gathered before whoever logs waits for the writer.
const FULL: usize = 4 * 1024 * 1024;

/// How long a flush waits for a writer that does not get on.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where lines go. Clones share one writer; it ends with the last of them.
#[derive(Debug, Clone)]
pub struct LogSink(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// The writer waits here for lines.
    lines: Condvar,
    /// Whoever logs too fast, or flushes, waits here.
    written: Condvar,
}

#[derive(Debug, Default)]
struct State {
    buffer: Vec<u8>,
    /// Whether the writer waits without a time limit, and so has to be woken.
    asleep: bool,
    /// Write now.
    urgent: bool,
    /// How many bytes were appended, ever.
    appended: u64,
    /// How many of them are in the file.
    done: u64,
    closed: bool,
}

impl LogSink {
    /// Starts the writer.
    ///
    /// # Errors
    /// `Io` when no thread can be started.
    pub fn start(file: LogFile) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let writer = Arc::clone(&shared);
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || writer.run(file))
            .map_err(|error| Error::new(ErrorKind::Io, "start the thread that writes the log").with_source(error))?;
        Ok(LogSink(Arc::new(Handle { shared })))
    }

    /// Appends whole lines. `urgent` ones are written at once.
    pub fn write(&self, lines: &str, urgent: bool) {
        let shared = &self.0.shared;
        let mut state = shared.lock();
        while state.buffer.len() >= FULL && !state.closed {
            state = shared.written.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.buffer.extend_from_slice(lines.as_bytes());
        state.appended += lines.len() as u64;
        let urgent = urgent || state.buffer.len() >= ENOUGH;
        if state.asleep || (urgent && !state.urgent) {
            state.asleep = false;
            shared.lines.notify_one();
        }
        state.urgent |= urgent;
    }

    /// Returns when everything that was appended before is written, or when the writer has not got on for a few seconds:
    /// whoever reads the log may have stopped reading.
    pub fn flush(&self) {
        let shared = &self.0.shared;
        let mut state = shared.lock();
        let until = state.appended;
        while state.done < until {
            state.urgent = true;
            shared.lines.notify_one();
            let waited = shared.written.wait_timeout(state, PATIENCE).unwrap_or_else(PoisonError::into_inner);
            if waited.1.timed_out() {
                return;
            }
            state = waited.0;
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.lines.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writer: what gathers while one batch is written is the next batch.
    fn run(&self, mut file: LogFile) {
        let mut batch = Vec::new();
        while self.take(&mut batch) {
            // What could be said of a failure has been said.
            let _ = file.write(&batch);
            self.lock().done += batch.len() as u64;
            batch.clear();
            batch.shrink_to(FULL);
            self.written.notify_all();
            self.gather();
        }
    }

    /// Lets lines come that need not be written at once.
    fn gather(&self) {
        let wait = |state: &mut State| !state.urgent && !state.closed;
        drop(self.lines.wait_timeout_while(self.lock(), GATHER, wait));
    }

    /// Waits for lines and moves them to `batch`; `false` when there will be none.
    fn take(&self, batch: &mut Vec<u8>) -> bool {
        let mut state = self.lock();
        while state.buffer.is_empty() {
            if state.closed {
                return false;
            }
            state.asleep = true;
            state = self.lines.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        (state.asleep, state.urgent) = (false, false);
        std::mem::swap(batch, &mut state.buffer);
        true
    }
}

/// An open log: a file that may be rotated under us, or standard error.
#[derive(Debug)]
pub struct LogFile {
    target: Target,
}

#[derive(Debug)]
enum Target {
    Stderr,
    File {
        path: PathBuf,
        file: File,
        identity: Option<(u64, u64)>,
        /// It has been said that it cannot be written.
        is_failing: bool,
    },
}

impl LogFile {
    /// Standard error.
    pub fn stderr() -> Self {
        LogFile { target: Target::Stderr }
    }

    /// Opens a file to append to it, and makes it if it is missing.
    ///
    /// # Errors
    /// `Io`
    pub fn open(path: &Path) -> Result<Self> {
        let (file, identity) = open(path).map_err(|error| {
            Error::new(ErrorKind::Io, format!("open the log file {}", path.display())).with_source(error)
        })?;
        Ok(LogFile { target: Target::File { path: path.to_owned(), file, identity, is_failing: false } })
    }

    fn write(&mut self, batch: &[u8]) -> io::Result<()> {
        match &mut self.target {
            Target::Stderr => io::stderr().lock().write_all(batch),
            Target::File { path, file, identity, is_failing } => {
                // Another file stands there now, or none: it was rotated (logging.handlers.WatchedFileHandler).
                if *identity != identity_of(path)
                    && let Ok((opened, new)) = open(path)
                {
                    (*file, *identity) = (opened, new);
                }
                let written = file.write_all(batch);
                if let Err(error) = &written
                    && !*is_failing
                {
                    // If nobody listens there either, nobody can be told.
                    let _ = writeln!(io::stderr().lock(), "celeriac: write the log file {}: {error}", path.display());
                }
                *is_failing = written.is_err();
                written
            }
        }
    }
}

fn open(path: &Path) -> io::Result<(File, Option<(u64, u64)>)> {
    let file = OpenOptions::new().append(true).create(true).open(path)?;
    let metadata = file.metadata()?;
    Ok((file, Some((metadata.dev(), metadata.ino()))))
}

fn identity_of(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn lines_of_many_threads_stay_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let sink = LogSink::start(LogFile::open(&path).unwrap()).unwrap();
        let threads: Vec<_> = (0..8)
            .map(|name| {
                let sink = sink.clone();
                thread::spawn(move || (0..2000).for_each(|line| sink.write(&format!("{name} {line}\n"), line == 0)))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        sink.flush();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 16_000);
        for name in 0..8 {
            let prefix = format!("{name} ");
            let lines: Vec<u32> =
                text.lines().filter_map(|line| line.strip_prefix(&prefix)).map(|line| line.parse().unwrap()).collect();
            assert!(lines.iter().copied().eq(0..2000), "lines of one thread are in order");
        }
    }

    #[test]
    fn a_rotated_file_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("log"), folder.path().join("log.1"));
        let sink = LogSink::start(LogFile::open(&path).unwrap()).unwrap();
        sink.write("before\n", false);
        sink.flush();
        fs::rename(&path, &old).unwrap();
        sink.write("after\n", false);
        sink.flush();
        assert_eq!(fs::read_to_string(&old).unwrap(), "before\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "after\n");
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let error = LogFile::open(Path::new("/nowhere/log")).unwrap_err();
        assert_eq!(error.to_string(), "open the log file /nowhere/log: No such file or directory (os error 2)");
    }
}
