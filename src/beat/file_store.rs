//! [`FileStore`]: the last runs in a file of our own, which a crash at any time leaves whole.
//!
//! It is JSON beside where Celery's beat has its shelve (`beat_schedule_filename`), which is not touched. The file is
//! replaced as a whole: the new one is written and flushed to the disk under another name, takes the name, and the folder
//! is flushed as well, so that whoever reads it, whenever, finds the old runs or the new ones.
//!
//! Beats of one machine may share it: one has the lock beside it and the others wait, until that one ends, however it does.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rustix::fs::{FlockOperation, flock};

use super::entry::{Kept, Run};
use super::run::Store;
use crate::protocol::{Map, Value, json};
use crate::{Error, ErrorKind, Result};

/// The key that says whose file it is; its value is the version of the format.
const MARK: &str = "celeriac-beat";
/// What the file's name ends in: Celery's own has the name without it, or one of its own suffixes.
const SUFFIX: &str = ".celeriac.json";
/// The end of the name of the file that is locked: the other one is replaced time and again.
const LOCK: &str = ".lock";
/// How often a beat that waits looks whether the lock is free.
const PATIENCE: Duration = Duration::from_millis(500);

/// The settings that the runs were made with. With others they are forgotten, as with Celery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// `timezone`.
    pub timezone: Option<String>,
    /// `enable_utc`.
    pub enable_utc: bool,
}

/// A file of last runs.
#[derive(Debug, Clone)]
pub struct FileStore {
    path: PathBuf,
    setting: Setting,
    /// Held from the first load on.
    lock: Option<Arc<File>>,
}

impl FileStore {
    /// The file beside `beat_schedule_filename`.
    pub fn new(beat_schedule_filename: &Path, setting: Setting) -> Self {
        let mut path = beat_schedule_filename.as_os_str().to_owned();
        path.push(SUFFIX);
        FileStore { path: path.into(), setting, lock: None }
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the lock, unless another beat has it.
    fn lock(&self) -> Result<Option<File>> {
        let file = File::options().create(true).truncate(false).write(true).open(with_suffix(&self.path, LOCK));
        let file = file.map_err(|error| self.failed("lock", error))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(self.failed("lock", error.into())),
        }
    }

    /// Waits for the lock.
    async fn hold(&mut self) -> Result<()> {
        let mut is_told = false;
        while self.lock.is_none() {
            self.lock = self.aside(FileStore::lock).await?.map(Arc::new);
            if self.lock.is_none() {
                if !is_told {
                    tracing::warn!("beat: another beat has {}: this one waits until it ends", self.path.display());
                }
                is_told = true;
                tokio::time::sleep(PATIENCE).await;
            }
        }
        Ok(())
    }

    /// What the file holds for these settings; nothing, if there is none or it cannot be understood.
    fn look(&self) -> Result<Kept> {
        match fs::read(&self.path) {
            Ok(bytes) => Ok(parse(&bytes)
                .filter(|(setting, _)| *setting == self.setting)
                .map(|(_, kept)| kept)
                .unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Kept::new()),
            Err(error) => Err(self.failed("read", error)),
        }
    }

    /// What the file holds; nothing if there is none. One that cannot be understood is put aside under the name `….corrupt`,
    /// and beat begins anew.
    fn read(&self) -> Result<Kept> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Kept::new()),
            Err(error) => return Err(self.failed("read", error)),
        };
        let Some((setting, kept)) = parse(&bytes) else {
            let aside = with_suffix(&self.path, ".corrupt");
            tracing::error!(
                "Removing corrupted schedule file '{}': it is kept as {}",
                self.path.display(),
                aside.display()
            );
            fs::rename(&self.path, &aside).map_err(|error| self.failed("put aside", error))?;
            return Ok(Kept::new());
        };
        if setting.timezone != self.setting.timezone {
            let (old, new) = (zone(&setting), zone(&self.setting));
            tracing::warn!("Reset: Timezone changed from {old} to {new}");
            return Ok(Kept::new());
        }
        if setting.enable_utc != self.setting.enable_utc {
            let (old, new) = (utc(&setting), utc(&self.setting));
            tracing::warn!("Reset: UTC changed from {old} to {new}");
            return Ok(Kept::new());
        }
        Ok(kept)
    }

    fn write(&self, kept: &Kept) -> Result<()> {
        let text = json::to_vec(&to_value(&self.setting, kept))?;
        let temporary = with_suffix(&self.path, &format!(".{}.new", std::process::id()));
        let written = replace(&temporary, &self.path, &text);
        if written.is_err() {
            // It may never have come to be.
            let _ = fs::remove_file(&temporary);
        }
        written.map_err(|error| self.failed("write", error))
    }

    fn failed(&self, tried: &str, error: io::Error) -> Error {
        Error::new(ErrorKind::Io, format!("{tried} the schedule file {}", self.path.display())).with_source(error)
    }

    /// On a thread that may block.
    async fn aside<T: Send + 'static>(&self, what: impl FnOnce(&Self) -> Result<T> + Send + 'static) -> Result<T> {
        let store = self.clone();
        let done = tokio::task::spawn_blocking(move || what(&store)).await;
        done.map_err(|error| Error::new(ErrorKind::Io, "use the schedule file").with_source(error))?
    }
}

#[async_trait]
impl Store for FileStore {
    async fn load(&mut self) -> Result<Kept> {
        self.hold().await?;
        self.aside(FileStore::read).await
    }

    async fn peek(&mut self) -> Result<Kept> {
        self.aside(FileStore::look).await
    }

    fn info(&self) -> Option<String> {
        Some(self.path.display().to_string())
    }

    async fn save(&mut self, kept: &Kept) -> Result<()> {
        let kept = kept.clone();
        self.aside(move |store| store.write(&kept)).await
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn replace(temporary: &Path, path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = File::create(temporary)?;
    file.write_all(text)?;
    file.sync_all()?;
    drop(file);
    fs::rename(temporary, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// As Python shows it.
fn zone(setting: &Setting) -> String {
    setting.timezone.as_ref().map_or("None".to_owned(), |name| format!("'{name}'"))
}

fn utc(setting: &Setting) -> &'static str {
    if setting.enable_utc { "enabled" } else { "disabled" }
}

fn to_value(setting: &Setting, kept: &Kept) -> Value {
    let run = |run: &Run| {
        let last_run_at = Value::from(run.last_run_at.to_string());
        Value::Map(Map::from([("last_run_at", last_run_at), ("total_run_count", run.total_run_count.into())]))
    };
    let entries: Map = kept.iter().map(|(name, kept)| (name.clone(), run(kept))).collect();
    Value::Map(Map::from([
        (MARK, Value::from(1)),
        ("timezone", setting.timezone.clone().map_or(Value::Null, Value::from)),
        ("enable_utc", setting.enable_utc.into()),
        ("entries", Value::Map(entries)),
    ]))
}

fn parse(bytes: &[u8]) -> Option<(Setting, Kept)> {
    let value = json::parse(bytes).ok()?;
    let map = value.as_map().filter(|map| map.get(MARK).and_then(Value::as_u64) == Some(1))?;
    let timezone = match map.get("timezone")? {
        Value::Null => None,
        name => Some(name.as_str()?.to_owned()),
    };
    let setting = Setting { timezone, enable_utc: map.get("enable_utc")?.as_bool()? };
    let run = |(name, run): (&str, &Value)| {
        let run = run.as_map()?;
        let last_run_at = run.get("last_run_at")?.as_str()?.parse().ok()?;
        Some((name.to_owned(), Run { last_run_at, total_run_count: run.get("total_run_count")?.as_u64()? }))
    };
    let kept: Option<Kept> = map.get("entries")?.as_map()?.iter().map(run).collect();
    Some((setting, kept?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn berlin() -> Setting {
        Setting { timezone: Some("Europe/Berlin".to_owned()), enable_utc: true }
    }

    fn kept(count: u64) -> Kept {
        let run = Run { last_run_at: "2026-11-28T12:00:00.123456Z".parse().unwrap(), total_run_count: count };
        Kept::from([("a \"name\"".to_owned(), run), ("b".to_owned(), run)])
    }

    fn store(folder: &tempfile::TempDir, setting: Setting) -> FileStore {
        FileStore::new(&folder.path().join("celerybeat-schedule"), setting)
    }

    fn names(folder: &tempfile::TempDir) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn what_was_saved_is_loaded_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(store(&folder, berlin()).load().await.unwrap(), Kept::new());
        for count in [1, 2] {
            store(&folder, berlin()).save(&kept(count)).await.unwrap();
            assert_eq!(store(&folder, berlin()).load().await.unwrap(), kept(count));
        }
        let lock = "celerybeat-schedule.celeriac.json.lock";
        assert_eq!(names(&folder), ["celerybeat-schedule.celeriac.json", lock]);
    }

    #[tokio::test]
    async fn other_time_zones_forget_it() {
        let folder = tempfile::tempdir().unwrap();
        store(&folder, berlin()).save(&kept(1)).await.unwrap();
        let others = [
            Setting { timezone: None, enable_utc: true },
            Setting { timezone: Some("UTC".to_owned()), enable_utc: true },
            Setting { enable_utc: false, ..berlin() },
        ];
        for setting in others {
            assert_eq!(store(&folder, setting.clone()).load().await.unwrap(), Kept::new(), "{setting:?}");
        }
    }

    /// Whatever there is of a file, it is loaded as a whole or put aside.
    #[tokio::test]
    async fn a_file_that_was_cut_is_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = store(&folder, berlin());
        store.save(&kept(1)).await.unwrap();
        let whole = fs::read(store.path()).unwrap();
        for length in 0..whole.len() {
            fs::write(store.path(), &whole[..length]).unwrap();
            assert_eq!(store.load().await.unwrap(), Kept::new(), "{length} bytes");
            assert!(!store.path().exists(), "{length} bytes");
            assert_eq!(fs::read(with_suffix(store.path(), ".corrupt")).unwrap(), whole[..length]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_of_two_beats_has_it_and_the_other_waits() {
        let folder = tempfile::tempdir().unwrap();
        let (mut first, mut second) = (store(&folder, berlin()), store(&folder, berlin()));
        first.load().await.unwrap();
        first.save(&kept(1)).await.unwrap();
        assert_eq!(second.peek().await.unwrap(), kept(1));
        let mut waiting = std::pin::pin!(second.load());
        assert!(tokio::time::timeout(PATIENCE * 5, &mut waiting).await.is_err());
        first.save(&kept(2)).await.unwrap();
        drop(first);
        assert_eq!(waiting.await.unwrap(), kept(2));
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_written_leaves_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = store(&folder, berlin());
        store.save(&kept(1)).await.unwrap();
        // The name of the new file is taken by a folder: the write fails.
        fs::create_dir(with_suffix(store.path(), &format!(".{}.new", std::process::id()))).unwrap();
        let error = store.save(&kept(2)).await.unwrap_err();
        assert!(error.to_string().starts_with("write the schedule file "), "{error}");
        assert_eq!(store.load().await.unwrap(), kept(1));
    }
}
