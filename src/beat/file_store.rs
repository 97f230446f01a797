//! [`FileStore`]: the last runs in a file of our own, which a crash at any time leaves whole.
//!
//! It is JSON beside where Celery's beat has its shelve (`beat_schedule_filename`), which is not touched. The file is
//! replaced as a whole: the new one is written and flushed to the disk under another name, takes the name, and the folder
//! is flushed as well, so that whoever reads it, whenever, finds the old runs or the new ones.
//!
//! Flushing takes milliseconds, so runs that are due at one instant are flushed together, before any of them is sent. The file
//! says of them which have begun: a byte of it is changed in its place right before each is sent, and not flushed. So
//!
//! - a beat that is killed leaves out the one run that it was about to send, if it had not sent it, and no other: the next
//!   beat finds which of the runs did not begin, and they are due again;
//! - a machine that crashes or loses its power may have lost such bytes, and as no run is to be sent twice, all runs of that
//!   instant count as sent: what had not begun is left out, [`TOGETHER`] runs at most. Which of the two it was the system's
//!   `boot_id` says. Where there is none, each run is flushed for itself.
//!
//! Beats of one machine may share it: one has the lock beside it and the others wait, until that one ends, however it does.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rustix::fs::{FlockOperation, flock};

use super::entry::Kept;
use super::run::Store;
use super::schedule_file::{BEGUN, Content, Setting, Together};
use super::scheduler::Sending;
use crate::{Error, ErrorKind, Result};

/// What the file's name ends in: Celery's own has the name without it, or one of its own suffixes.
const SUFFIX: &str = ".celeriac.json";
/// The end of the name of the file that is locked: the other one is replaced time and again.
const LOCK: &str = ".lock";
/// How often a beat that waits looks whether the lock is free.
const PATIENCE: Duration = Duration::from_millis(500);
/// How many runs are flushed at once at most.
pub(super) const TOGETHER: usize = 1000;
/// Where Linux says which start of the machine this is.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// A file of last runs.
#[derive(Debug, Clone)]
pub struct FileStore {
    path: PathBuf,
    setting: Setting,
    /// Held from the first load on.
    lock: Option<Arc<File>>,
    /// Which start of the machine this is, if it says so.
    boot: Option<String>,
    /// Where it is noted which of the runs that were kept together last have begun.
    marks: Option<Arc<Marks>>,
}

/// The file as it was written, and the place in it at which the first mark stands.
#[derive(Debug)]
struct Marks {
    file: File,
    offset: u64,
}

impl FileStore {
    /// The file beside `beat_schedule_filename`.
    pub fn new(beat_schedule_filename: &Path, setting: Setting) -> Self {
        let mut path = beat_schedule_filename.as_os_str().to_owned();
        path.push(SUFFIX);
        let boot = fs::read_to_string(BOOT).ok().map(|text| text.trim().to_owned());
        FileStore { path: path.into(), setting, lock: None, boot, marks: None }
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
            Ok(bytes) => Ok(Content::parse(&bytes)
                .filter(|content| content.setting == self.setting)
                .map(|content| content.runs(self.boot.as_deref()).0)
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
        let Some(content) = Content::parse(&bytes) else {
            let aside = with_suffix(&self.path, ".corrupt");
            tracing::error!(
                "Removing corrupted schedule file '{}': it is kept as {}",
                self.path.display(),
                aside.display()
            );
            fs::rename(&self.path, &aside).map_err(|error| self.failed("put aside", error))?;
            return Ok(Kept::new());
        };
        if content.setting.timezone != self.setting.timezone {
            let (old, new) = (content.setting.zone(), self.setting.zone());
            tracing::warn!("Reset: Timezone changed from {old} to {new}");
            return Ok(Kept::new());
        }
        if content.setting.enable_utc != self.setting.enable_utc {
            let (old, new) = (content.setting.utc(), self.setting.utc());
            tracing::warn!("Reset: UTC changed from {old} to {new}");
            return Ok(Kept::new());
        }
        let (kept, unsent) = content.runs(self.boot.as_deref());
        if unsent > 0 {
            tracing::warn!("beat: {unsent} tasks were due when a beat ended that had not begun to send them");
        }
        Ok(kept)
    }

    /// Replaces the file; gives it as it is then, and the place of the first mark; and whether its folder was flushed, too.
    fn write(&self, kept: Kept, together: Option<Together>) -> Result<(Marks, Result<()>)> {
        let (text, offset) = Content { setting: self.setting.clone(), kept, together }.to_bytes()?;
        let temporary = with_suffix(&self.path, &format!(".{}.new", std::process::id()));
        let written = replace(&temporary, &self.path, &text);
        if written.is_err() {
            // It may never have come to be.
            let _ = fs::remove_file(&temporary);
        }
        let (file, flushed) = written.map_err(|error| self.failed("write", error))?;
        Ok((Marks { file, offset: offset as u64 }, flushed.map_err(|error| self.failed("write", error))))
    }

    fn mark(&self, index: usize) -> Result<()> {
        let Some(marks) = &self.marks else { return Ok(()) };
        let marked = marks.file.write_all_at(&[BEGUN], marks.offset + index as u64);
        marked.map_err(|error| self.failed("write", error))
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
        self.marks = None;
        self.aside(move |store| store.write(kept, None)).await?.1
    }

    fn most_together(&self) -> usize {
        if self.boot.is_some() { TOGETHER } else { 1 }
    }

    async fn claim_together(&mut self, batch: &[Sending], kept: &Kept) -> Result<()> {
        let Some(boot) = self.boot.clone() else { return self.save(kept).await };
        let before = batch.iter().map(|sending| (sending.name.clone(), sending.before)).collect();
        let (kept, together) = (kept.clone(), Together { boot, before, begun: 0 });
        self.marks = None;
        let (marks, flushed) = self.aside(move |store| store.write(kept, Some(together))).await?;
        // It has taken the name, whatever became of the folder: what is sent from now on is to be marked in it.
        self.marks = Some(Arc::new(marks));
        flushed
    }

    async fn begin(&mut self, index: usize) -> Result<()> {
        if self.marks.is_none() {
            return Ok(());
        }
        self.aside(move |store| store.mark(index)).await
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The file, and how flushing its folder went.
fn replace(temporary: &Path, path: &Path, text: &[u8]) -> io::Result<(File, io::Result<()>)> {
    let mut file = File::create(temporary)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(temporary, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((file, File::open(folder).and_then(|folder| folder.sync_all())))
}

#[cfg(test)]
mod tests {
    use super::super::entry::Run;
    use super::*;
    use crate::protocol::Signature;

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

    /// Of three runs that were kept together two have begun when the beat is killed.
    async fn killed_with_two_of_three_begun(folder: &tempfile::TempDir) -> (Kept, Kept) {
        let (before, after) = (kept(1)["b"], kept(2)["b"]);
        let names = ["a", "b", "c"].map(str::to_owned);
        let sending =
            |name: &String| Sending { name: name.clone(), signature: Signature::new("tasks.t"), run: after, before };
        let batch: Vec<Sending> = names.iter().map(sending).collect();
        let of = |run: Run| names.iter().map(|name| (name.clone(), run)).collect::<Kept>();
        let mut killed = store(folder, berlin());
        killed.load().await.unwrap();
        assert_eq!(killed.most_together(), TOGETHER);
        killed.claim_together(&batch, &of(after)).await.unwrap();
        assert_eq!(store(folder, berlin()).peek().await.unwrap(), of(before), "none has begun");
        killed.begin(0).await.unwrap();
        killed.begin(1).await.unwrap();
        (of(before), of(after))
    }

    #[tokio::test]
    async fn what_did_not_begin_before_a_beat_was_killed_is_due_again() {
        let folder = tempfile::tempdir().unwrap();
        let (before, after) = killed_with_two_of_three_begun(&folder).await;
        let mut expected = after.clone();
        expected.insert("c".to_owned(), before["c"]);
        let mut next = store(&folder, berlin());
        assert_eq!(next.peek().await.unwrap(), expected);
        assert_eq!(next.load().await.unwrap(), expected);
        // What is kept later says nothing of it any more.
        next.save(&after).await.unwrap();
        next.begin(0).await.unwrap();
        assert_eq!(next.load().await.unwrap(), after);
    }

    /// Marks may be lost then.
    #[tokio::test]
    async fn what_was_kept_before_the_machine_crashed_counts_as_sent() {
        let folder = tempfile::tempdir().unwrap();
        let (_, after) = killed_with_two_of_three_begun(&folder).await;
        for boot in [Some("another".to_owned()), None] {
            let mut next = FileStore { boot: boot.clone(), ..store(&folder, berlin()) };
            assert_eq!(next.load().await.unwrap(), after, "{boot:?}");
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
