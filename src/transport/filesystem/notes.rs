//! Notes: a file for each, which says its name, until when it is kept, and its text.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::Shared;
use super::files::{failed, remove, write_new};
use super::own::HIDDEN;
use crate::Result;
use crate::protocol::{Value, json};
use crate::transport::Note;

/// How much of a name stands in the file's.
const READABLE: usize = 80;
/// The longest that a file's time is told to be away.
const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

pub(super) fn read(shared: &Shared, names: &[String]) -> Result<Vec<Option<String>>> {
    names.iter().map(|name| read_one(shared, name)).collect()
}

fn read_one(shared: &Shared, name: &str) -> Result<Option<String>> {
    let path = path(shared, name);
    let content = match fs::read(&path) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("cannot read the note", &path, error)),
    };
    let Ok(Value::List(parts)) = json::parse(&content) else { return Ok(None) };
    let [known, until, text] = parts.as_slice() else { return Ok(None) };
    let is_kept = matches!(until, Value::Float(until) if *until > shared.clock.epoch_seconds());
    Ok(text.as_str().filter(|_| is_kept && known.as_str() == Some(name)).map(str::to_owned))
}

pub(super) fn write(shared: &Shared, notes: &[Note], kept_for: Duration) -> Result<()> {
    let own = shared.incoming.own()?;
    let folder = folder(shared);
    fs::create_dir_all(&folder).map_err(|error| failed("cannot make the folder", &folder, error))?;
    let until = shared.clock.epoch_seconds() + kept_for.as_secs_f64();
    for Note { name, text } in notes {
        let path = path(shared, name);
        let written = match text {
            None => remove(&path).map(drop),
            Some(text) => {
                let note = [Value::from(name.as_str()), Value::Float(until), Value::from(text.as_str())];
                let (content, scratch) = (json::to_vec(&Value::List(note.into()))?, shared.incoming.scratch(&own));
                let written = write_new(&scratch, &content).and_then(|()| {
                    // Who sweeps reads no notes: when one is of no use any more is its file's time.
                    let expiry = SystemTime::from(shared.clock.now()) + kept_for.min(CENTURY);
                    File::open(&scratch)?.set_modified(expiry)?;
                    fs::rename(&scratch, &path)
                });
                written.inspect_err(|_| drop(remove(&scratch)))
            }
        };
        written.map_err(|error| failed("cannot write the note", &path, error))?;
    }
    Ok(())
}

/// Removes what has expired. One that is written anew meanwhile may go with it: each may be forgotten before its time.
pub(super) fn sweep(shared: &Shared) -> io::Result<()> {
    let entries = match fs::read_dir(folder(shared)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let now = SystemTime::from(shared.clock.now());
    for entry in entries {
        let entry = entry?;
        if entry.metadata().and_then(|found| found.modified()).is_ok_and(|expiry| expiry <= now) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Names hold what clients have sent, of any length: beside what can be read stands a number made of all of it (FNV-1a).
/// Where two share it, the note says whose it is.
fn path(shared: &Shared, name: &str) -> PathBuf {
    let allowed = |letter: &char| letter.is_ascii_alphanumeric() || "._-".contains(*letter);
    let readable: String = name.chars().filter(allowed).take(READABLE).collect();
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let number = name.bytes().fold(0xcbf2_9ce4_8422_2325, step);
    folder(shared).join(format!("{readable}-{number:016x}"))
}

fn folder(shared: &Shared) -> PathBuf {
    shared.incoming.path().join(HIDDEN).join("notes")
}
