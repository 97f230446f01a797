//! Notes: a file for each, which says its name, until when it is kept, and its text.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::Shared;
use super::files::{failed, remove, write_new};
use super::own::HIDDEN;
use crate::Result;
use crate::protocol::{Value, json};
use crate::transport::Note;

/// How much of a name stands in the file's.
const READABLE: usize = 80;

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
    let folder = shared.incoming.path().join(HIDDEN).join("notes");
    fs::create_dir_all(&folder).map_err(|error| failed("cannot make the folder", &folder, error))?;
    let until = shared.clock.epoch_seconds() + kept_for.as_secs_f64();
    for Note { name, text } in notes {
        let path = path(shared, name);
        let written = match text {
            None => remove(&path).map(drop),
            Some(text) => {
                let note = [Value::from(name.as_str()), Value::Float(until), Value::from(text.as_str())];
                let (content, scratch) = (json::to_vec(&Value::List(note.into()))?, shared.incoming.scratch(&own));
                write_new(&scratch, &content).and_then(|()| fs::rename(&scratch, &path))
            }
        };
        written.map_err(|error| failed("cannot write the note", &path, error))?;
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
    shared.incoming.path().join(HIDDEN).join("notes").join(format!("{readable}-{number:016x}"))
}
