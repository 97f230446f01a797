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
        let read = match fs::metadata(&self.0) {
            // A pipe or a device would be read for ever.
            Ok(found) if !found.is_file() => Err(io::Error::other("it is no regular file")),
            Ok(_) => fs::read(&self.0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(vec![]),
            Err(error) => Err(error),
        };
        match read {
            Ok(bytes) if bytes.is_empty() => Ok(Remembered::default()),
            Ok(bytes) => parse(&bytes).ok_or_else(|| self.is_foreign()),
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
        let path = self.target();
        let mut name = path.clone().into_os_string();
        name.push(format!(".{}.new", std::process::id()));
        let temporary = PathBuf::from(name);
        let text = json::to_vec(&to_value(remembered))?;
        let written = replace(&temporary, &path, &text);
        if written.is_err() {
            // It may never have come to be.
            let _ = fs::remove_file(&temporary);
        }
        written.map_err(failed)
    }

    /// The file itself where the path is a link to it: the file is replaced, and the link stays.
    fn target(&self) -> PathBuf {
        let of_link = || fs::read_link(&self.0).map(|to| folder(&self.0).join(to));
        fs::canonicalize(&self.0).or_else(|_| of_link()).unwrap_or_else(|_| self.0.clone())
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

/// The folder that a file is in.
fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
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

    #[test]
    fn what_is_no_regular_file_is_not_read() {
        for path in ["/dev/zero", "/proc"] {
            let error = StateFile::new(path).read().unwrap_err();
            assert_eq!(error.to_string(), format!("read the state file {path}: it is no regular file"));
        }
    }

    #[test]
    fn a_link_stays_a_link() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (link, path) = (here.path().join("link"), there.path().join("state"));
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let file = StateFile::new(&link);
        assert_eq!(file.read().unwrap(), Remembered::default());
        for clock in [7, 8] {
            let remembered = Remembered { clock, ..Remembered::default() };
            file.write(&remembered).unwrap();
            assert_eq!(StateFile::new(&path).read().unwrap(), remembered);
        }
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }
}
