//! [`Folder`], where messages are, and in it [`OwnFolder`], where this process keeps what it has claimed.
//!
//! A claim is a rename into `<folder>/.celeriac/<id>/`, under the name that the message had: one of several who try
//! succeeds, and no stock worker looks there. Beside it lies `<id>.lock`, which is locked for as long as the process lives;
//! the system unlocks it however the process ends. Who finds it unlocked gives back what is there ([`recover`]).

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::FlockOperation;
use uuid::Uuid;

use super::files::{failed, move_to, remove, try_lock, write_new};
use super::names::FileName;
use super::{records, settle};
use crate::{Error, ErrorKind, Result};

/// Where all own folders are. A stock worker takes the name for none of a message's.
pub(super) const HIDDEN: &str = ".celeriac";

/// `data_folder_in` or `data_folder_out`.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// The option that names it.
    option: &'static str,
    own: Mutex<Option<Arc<OwnFolder>>>,
    /// How many files were written.
    written: AtomicU64,
}

impl Folder {
    pub(super) fn new(path: &Path, option: &'static str) -> Self {
        Folder { path: path.to_owned(), option, own: Mutex::default(), written: AtomicU64::new(0) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self, name: &FileName) -> PathBuf {
        self.path.join(name.as_str())
    }

    /// Whether it can be used.
    ///
    /// # Errors
    /// `Connection`, and names the folder.
    pub(super) fn check(&self) -> Result<()> {
        let read = fs::read_dir(&self.path).map(drop);
        read.map_err(|error| {
            let hint = if error.kind() == io::ErrorKind::NotFound { ", which has to be made" } else { "" };
            let message = format!("cannot read the folder {} ({}{hint})", self.path.display(), self.option);
            Error::new(ErrorKind::Connection, message).with_source(error)
        })
    }

    /// The own folder; a new one where there is none or somebody has removed it.
    pub(super) fn own(&self) -> Result<Arc<OwnFolder>> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = own.as_ref().filter(|own| own.is_there()) {
            return Ok(Arc::clone(own));
        }
        self.check()?;
        let made = OwnFolder::make(&self.path).map_err(|error| failed("cannot write to the folder", &self.path, error));
        Ok(Arc::clone(own.insert(Arc::new(made?))))
    }

    /// Whether what was claimed is still there, if anything was.
    ///
    /// # Errors
    /// `Connection`: somebody has removed the folder, and perhaps made another.
    pub(super) fn check_own(&self) -> Result<()> {
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if own.as_ref().is_none_or(|own| own.is_there()) {
            return Ok(());
        }
        let message =
            format!("the connection to filesystem:// was lost: the folder {} was emptied", self.path.display());
        Err(Error::new(ErrorKind::Connection, message))
    }

    /// Lets the own folder go; it is removed as soon as nothing in it is held.
    pub(super) fn release(&self) {
        *self.own.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// A path in the own folder that nothing else has.
    pub(super) fn scratch(&self, own: &OwnFolder) -> PathBuf {
        own.path.join(format!("{}.tmp", self.written.fetch_add(1, Ordering::Relaxed)))
    }

    /// Puts a file here. It appears whole: stock workers read without a lock.
    pub(super) fn put(&self, name: &FileName, content: &[u8]) -> Result<()> {
        let own = self.own()?;
        let scratch = self.scratch(&own);
        let put = write_new(&scratch, content).and_then(|()| fs::rename(&scratch, self.file(name)));
        put.map_err(|error| {
            let _ = fs::remove_file(&scratch);
            failed("cannot write a message to the folder", &self.path, error)
        })
    }

    /// The names of all messages here.
    pub(super) fn names(&self) -> io::Result<Vec<FileName>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            names.extend(entry?.file_name().to_str().and_then(FileName::parse));
        }
        Ok(names)
    }

    /// Those of one queue, in their order.
    pub(super) fn names_of(&self, queue: &str) -> io::Result<BTreeSet<FileName>> {
        Ok(self.names()?.into_iter().filter(|name| name.queue() == queue).collect())
    }
}

/// What one process has claimed.
#[derive(Debug)]
pub(super) struct OwnFolder {
    path: PathBuf,
    lock_path: PathBuf,
    /// Locked until this drops.
    lock: File,
}

impl OwnFolder {
    fn make(folder: &Path) -> io::Result<Self> {
        let hidden = folder.join(HIDDEN);
        if let Err(error) = fs::create_dir(&hidden)
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(error);
        }
        loop {
            let id = Uuid::new_v4().simple().to_string();
            let (path, lock_path) = (hidden.join(&id), lock_path(&hidden, &id));
            let lock = File::create_new(&lock_path)?;
            // Who looks for the dead may come between the two, and takes this one for one of them.
            if !try_lock(&lock, FlockOperation::NonBlockingLockExclusive)? || lock.metadata()?.nlink() == 0 {
                continue;
            }
            fs::create_dir(&path)?;
            return Ok(OwnFolder { path, lock_path, lock });
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where a message is while it is claimed.
    pub(super) fn claim(&self, name: &FileName) -> PathBuf {
        self.path.join(name.as_str())
    }

    fn is_there(&self) -> bool {
        self.path.is_dir() && self.lock.metadata().is_ok_and(|lock| lock.nlink() > 0)
    }
}

impl Drop for OwnFolder {
    fn drop(&mut self) {
        // What is still claimed is given back by whoever finds the lock open.
        if fs::remove_dir(&self.path).is_ok() {
            let _ = fs::remove_file(&self.lock_path);
        }
    }
}

fn lock_path(hidden: &Path, id: &str) -> PathBuf {
    hidden.join(format!("{id}.lock"))
}

/// Gives back what processes that have died had claimed, and ends what they were doing; says how many messages that is.
/// `control` is where the exchanges' tables are.
pub(super) fn recover(folder: &Folder, control: &Path) -> io::Result<usize> {
    let hidden = folder.path.join(HIDDEN);
    let entries = match fs::read_dir(&hidden) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut ids = BTreeSet::new();
    for entry in entries {
        let name = entry?.file_name();
        let id = name.to_str().map(|name| name.strip_suffix(".lock").unwrap_or(name));
        ids.extend(id.filter(|id| Uuid::try_parse(id).is_ok()).map(str::to_owned));
    }
    let (mut recovered, mut failed) = (0, None);
    for id in ids {
        match recover_if_dead(folder, &hidden, &id, control) {
            Ok(count) => recovered += count,
            // One that cannot be helped keeps nobody else waiting.
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(recovered), Err)
}

fn recover_if_dead(folder: &Folder, hidden: &Path, id: &str, control: &Path) -> io::Result<usize> {
    let (path, lock_path) = (hidden.join(id), lock_path(hidden, id));
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path)?;
    // That of a living process is locked, our own among them.
    if !try_lock(&lock, FlockOperation::NonBlockingLockExclusive)? || lock.metadata()?.nlink() == 0 {
        return Ok(0);
    }
    let mut recovered = 0;
    if path.is_dir() {
        recovered = recover_one(folder, &path, control)?;
        fs::remove_dir(&path)?;
    }
    remove(&lock_path)?;
    Ok(recovered)
}

fn recover_one(folder: &Folder, path: &Path, control: &Path) -> io::Result<usize> {
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(path)? {
        names.extend(entry?.file_name().into_string());
    }
    // What replaces another message is told apart by the other being marked, so it comes first.
    let (letters, others): (Vec<_>, Vec<_>) = names.iter().partition(|name| name.ends_with(settle::LETTER));
    for name in letters {
        settle::finish_replacing(folder, path, name.strip_suffix(settle::LETTER).unwrap_or(name))?;
    }
    let mut recovered = 0;
    for name in others {
        let file = path.join(name);
        if let Some(name) = FileName::parse(name) {
            settle::give_back(folder, &file, &name, || path.join("recovered.tmp"))?;
            recovered += 1;
            continue;
        }
        if records::is_record(name) {
            records::undo(folder, control, &file);
        }
        remove(&file)?;
    }
    Ok(recovered)
}

/// Takes a message out of a folder. `None`: somebody else has it.
pub(super) fn claim(folder: &Folder, own: &OwnFolder, name: &FileName) -> io::Result<Option<PathBuf>> {
    let claim = own.claim(name);
    Ok(move_to(&folder.file(name), &claim)?.then_some(claim))
}
