//! Records of what a process has bound for as long as it listens: who finds it dead unbinds that.

use std::fs;
use std::path::{Path, PathBuf};

use super::files::{failed, remove, write_new};
use super::own::{Folder, HIDDEN, OwnFolder};
use super::tables::{rows, unbind, written};
use crate::Result;
use crate::transport::binding::Binding;

/// What stands behind a record's name.
const RECORD: &str = ".binding";

/// Whether a file in an own folder is a record.
pub(super) fn is_record(name: &str) -> bool {
    name.ends_with(RECORD)
}

/// Records a binding, and says where.
pub(super) fn write(own: &OwnFolder, exchange: &str, binding: &Binding) -> Result<PathBuf> {
    let path = own.path().join(format!("{}{RECORD}", uuid::Uuid::new_v4().simple()));
    // The exchange, and then the binding as a table has it.
    let named = Binding { routing_key: exchange.to_owned(), pattern: String::new(), queue: String::new() };
    let record = written(&[named, binding.clone()])?;
    write_new(&path, &record).map_err(|error| failed("cannot write to the folder", own.path(), error))?;
    Ok(path)
}

/// Unbinds and empties the queue of a record, unless another process listens to it by now: one that was started anew under
/// the same name. The record itself stays.
pub(super) fn undo(folder: &Folder, control: &Path, record: &Path) {
    let content = fs::read(record).unwrap_or_default();
    let Ok([exchange, binding]) = rows(&content, record).map(<[Binding; 2]>::try_from).unwrap_or(Err(Vec::new()))
    else {
        return;
    };
    if is_recorded_elsewhere(folder, record, &content) {
        return;
    }
    if let Err(error) = unbind(control, &exchange.routing_key, &binding) {
        tracing::warn!("{error}");
    }
    empty(folder, &binding.queue);
}

/// Throws away what waits in a queue.
pub(super) fn empty(folder: &Folder, queue: &str) {
    for name in folder.names_of(queue).unwrap_or_default() {
        let _ = remove(&folder.file(&name));
    }
}

fn is_recorded_elsewhere(folder: &Folder, record: &Path, content: &[u8]) -> bool {
    let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let mut records = entries(&folder.path().join(HIDDEN)).flat_map(|own| entries(&own).collect::<Vec<_>>());
    let is_record = |path: &Path| path.file_name().and_then(|name| name.to_str()).is_some_and(is_record);
    records.any(|path| path != record && is_record(&path) && fs::read(path).is_ok_and(|other| other == content))
}
