//! The exchanges' tables, `<exchange>.exchange` in the control folder: JSON lists of `[routing key, pattern, queue]`, which
//! are written in place under the lock that Kombu takes (kombu/transport/filesystem.py `Channel._queue_bind`). Of two stock
//! processes that make a table at once, one empties what the other has written: see [`Kept`].

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FlockOperation, flock};

use super::files::{failed, read_all};
use crate::protocol::{Value, json};
use crate::transport::binding::Binding;
use crate::{Error, ErrorKind, Result};

/// The bindings of an exchange; none where there is no table.
pub(super) fn read(control: &Path, exchange: &str) -> Result<Vec<Binding>> {
    let path = table(control, exchange)?;
    let read = || {
        let mut file = Locked::new(File::open(&path)?, FlockOperation::LockShared)?;
        read_all(&mut file.0)
    };
    match read() {
        Ok(text) => rows(&text, &path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed("cannot read the table", &path, error)),
    }
}

/// Adds a binding, if it is not there.
pub(super) fn bind(control: &Path, exchange: &str, binding: &Binding) -> Result<()> {
    let path = table(control, exchange)?;
    fs::create_dir_all(control).map_err(|error| failed("cannot make the folder", control, error))?;
    change(&path, true, |rows| {
        if !rows.contains(binding) {
            rows.insert(0, binding.clone());
        }
    })
}

/// Removes a binding.
pub(super) fn unbind(control: &Path, exchange: &str, binding: &Binding) -> Result<()> {
    change(&table(control, exchange)?, false, |rows| rows.retain(|row| row != binding))
}

/// A table that others wait for.
struct Locked(File);

impl Locked {
    fn new(file: File, operation: FlockOperation) -> io::Result<Self> {
        flock(&file, operation)?;
        Ok(Locked(file))
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // To close it would not do: a process that was forked meanwhile has it open, too.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// Where a table is. The names are those that Kombu allows (`Channel._is_valid_exchange_name`).
fn table(control: &Path, exchange: &str) -> Result<PathBuf> {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    if !exchange.chars().all(allowed) || (!exchange.is_empty() && exchange.trim_matches('.').is_empty()) {
        let message = format!("the exchange {exchange:?} has no table in {}: it is no file's name", control.display());
        return Err(Error::new(ErrorKind::Broker, message));
    }
    Ok(control.join(format!("{exchange}.exchange")))
}

fn change(path: &Path, create: bool, change: impl FnOnce(&mut Vec<Binding>)) -> Result<()> {
    let failed = |error| failed("cannot write the table", path, error);
    let file = match OpenOptions::new().read(true).write(true).create(create).truncate(false).open(path) {
        Ok(file) => file,
        Err(error) if !create && error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    let mut locked = Locked::new(file, FlockOperation::LockExclusive).map_err(failed)?;
    let file = &mut locked.0;
    let old = read_all(file).map_err(failed)?;
    let mut bindings = rows(&old, path).unwrap_or_else(|error| {
        tracing::warn!("{error}: it is begun anew");
        Vec::new()
    });
    let before = bindings.clone();
    change(&mut bindings);
    if bindings == before && !old.is_empty() {
        return Ok(());
    }
    let mut text = written(&bindings)?;
    let length = text.len();
    // One write of at least the old length: whoever dies after it leaves a table that can be read.
    text.resize(length.max(old.len()), b' ');
    file.rewind().and_then(|()| file.write_all(&text)).map_err(failed)?;
    file.set_len(length as u64).map_err(failed)
}

pub(super) fn written(bindings: &[Binding]) -> Result<Vec<u8>> {
    let row = |row: &Binding| {
        Value::List([&row.routing_key, &row.pattern, &row.queue].map(|text| Value::from(text.as_str())).into())
    };
    json::to_vec(&Value::List(bindings.iter().map(row).collect()))
}

/// The rows of a table; what is none is passed over. An empty file is one that somebody is about to write.
pub(super) fn rows(text: &[u8], path: &Path) -> Result<Vec<Binding>> {
    if text.trim_ascii().is_empty() {
        return Ok(Vec::new());
    }
    let wrong = || Error::new(ErrorKind::Broker, format!("the table {} is no list", path.display()));
    match json::parse(text) {
        Ok(Value::List(rows)) => Ok(rows.iter().filter_map(row).collect()),
        Ok(_) => Err(wrong()),
        Err(error) => Err(wrong().with_source(error)),
    }
}

fn row(value: &Value) -> Option<Binding> {
    let Value::List(parts) = value else { return None };
    let [routing_key, pattern, queue] = parts.as_slice() else { return None };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Some(Binding { routing_key: text(routing_key)?, pattern: text(pattern).unwrap_or_default(), queue: text(queue)? })
}

/// What a connection has bound, and binds again where somebody else has lost it.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<Vec<(String, Binding)>>);

impl Kept {
    /// Binds, and keeps it so.
    pub(super) fn bind(&self, control: &Path, exchange: &str, binding: &Binding) -> Result<()> {
        bind(control, exchange, binding)?;
        let kept = (exchange.to_owned(), binding.clone());
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.contains(&kept) {
            all.push(kept);
        }
        Ok(())
    }

    /// Keeps a binding no more.
    pub(super) fn forget(&self, exchange: &str, binding: &Binding) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(of, kept)| of != exchange || kept != binding);
    }

    /// Binds again what is bound no more.
    pub(super) fn restore(&self, control: &Path) -> Result<()> {
        // Whoever forgets a binding waits until it is not being restored any more.
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = HashMap::new();
        for (exchange, binding) in all.iter() {
            // A table that cannot be read is begun anew.
            let table = known.entry(exchange).or_insert_with(|| read(control, exchange).unwrap_or_default());
            if !table.contains(binding) {
                bind(control, exchange, binding)?;
            }
        }
        Ok(())
    }
}
