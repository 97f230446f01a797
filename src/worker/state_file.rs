//! [`StateFile`]: what a worker remembers from one run to the next (`-S`, `worker_state_db`).
//!
//! The file is ours: JSON, replaced as a whole. Celery's is a Python shelve with a pickle in it; it is refused.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::protocol::{Map, Value, json};
use crate::{Error, ErrorKind, Result};

/// The key that says whose file it is; its value is the version of the format.
const MARK: &str = "celeriac-state";

/// The file.
#[derive(Debug, Clone)]
pub(crate) struct StateFile(PathBuf);

/// What it holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Remembered {
    /// Revoked ids, the oldest first.
    pub(crate) revoked: Vec<String>,
    /// Revoked stamps, the oldest first.
    pub(crate) stamps: Vec<String>,
    /// The logical clock.
    pub(crate) clock: u64,
}

impl StateFile {
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        StateFile(path.into())
    }

    /// Reads the file and writes it back, so that one that cannot be written is found out now and not when there is
    /// something to remember. Celery's worker creates its own when it starts, too.
    ///
    /// # Errors
    /// `Configuration`: the file is not ours. `Io`: it cannot be read, or written.
    pub(crate) fn open(&self) -> Result<Remembered> {
        let remembered = self.read()?;
        self.write(&remembered)?;
        Ok(remembered)
    }

    /// Reads the file; one that does not exist holds nothing.
    ///
    /// # Errors
    /// `Configuration`: the file is not ours. `Io`: it cannot be read.
    fn read(&self) -> Result<Remembered> {
        match fs::read(&self.0) {
            Ok(bytes) if bytes.is_empty() => Ok(Remembered::default()),
            Ok(bytes) => parse(&bytes).ok_or_else(|| self.is_foreign()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Remembered::default()),
            Err(error) => {
                Err(Error::new(ErrorKind::Io, format!("read the state file {}", self.0.display())).with_source(error))
            }
        }
    }

    /// Replaces the file: whoever reads it, whenever, finds the old one or the new one.
    pub(crate) fn write(&self, remembered: &Remembered) -> Result<()> {
        let failed = |error: io::Error| {
            Error::new(ErrorKind::Io, format!("write the state file {}", self.0.display())).with_source(error)
        };
        let mut name = self.0.clone().into_os_string();
        name.push(format!(".{}.new", std::process::id()));
        let temporary = PathBuf::from(name);
        let text = json::to_vec(&to_value(remembered))?;
        let written = replace(&temporary, &self.0, &text);
        if written.is_err() {
            // It may never have come to be.
            let _ = fs::remove_file(&temporary);
        }
        written.map_err(failed)
    }

    fn is_foreign(&self) -> Error {
        let path = self.0.display();
        let message = format!(
            "the state file {path} is not Celeriac's (the files of Celery's own workers cannot be read here): \
             name another one, or remove it"
        );
        Error::new(ErrorKind::Configuration, message)
    }
}

fn replace(temporary: &Path, path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = File::create(temporary)?;
    file.write_all(text)?;
    file.sync_all()?;
    drop(file);
    fs::rename(temporary, path)
}

fn to_value(remembered: &Remembered) -> Value {
    let texts = |texts: &[String]| Value::List(texts.iter().map(|text| Value::from(text.as_str())).collect());
    Value::Map(Map::from([
        (MARK, Value::from(1)),
        ("revoked", texts(&remembered.revoked)),
        ("stamps", texts(&remembered.stamps)),
        ("clock", remembered.clock.into()),
    ]))
}

fn parse(bytes: &[u8]) -> Option<Remembered> {
    let value = json::parse(bytes).ok()?;
    let map = value.as_map().filter(|map| map.get(MARK).and_then(Value::as_u64) == Some(1))?;
    let texts = |name| {
        let texts = map.get(name).and_then(Value::as_list).unwrap_or_default();
        texts.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    Some(Remembered {
        revoked: texts("revoked"),
        stamps: texts("stamps"),
        clock: map.get("clock").and_then(Value::as_u64).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::new(folder.path().join("state"));
        assert_eq!(file.read().unwrap(), Remembered::default());
        let remembered =
            Remembered { revoked: vec!["a".into(), "\"é".into()], stamps: vec!["k='v'".into()], clock: 7 };
        file.write(&Remembered::default()).unwrap();
        file.write(&remembered).unwrap();
        assert_eq!(file.read().unwrap(), remembered);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_file_of_somebody_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        for bytes in [b"SQLite format 3\0".as_slice(), b"{}", b"[]", b"{\"celeriac-state\": 2}", b"\xce\x9a\x57\x13\0"]
        {
            fs::write(&path, bytes).unwrap();
            let error = StateFile::new(&path).read().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(error.to_string().contains("is not Celeriac's"), "{error}");
        }
    }

    #[test]
    fn a_folder_that_does_not_exist_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::new(folder.path().join("none").join("state"));
        assert_eq!(file.open().unwrap_err().kind(), ErrorKind::Io);
    }
}
