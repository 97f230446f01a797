//! What a settlement does to a claimed file. Each step leaves the message in exactly one place: who is killed between two
//! loses nothing and doubles nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Shared;
use super::files::{failed, move_to, remove, write_new};
use super::ledger::Held;
use super::names::FileName;
use super::own::Folder;
use super::publish;
use crate::Result;
use crate::protocol::envelope;
use crate::transport::{Publication, Settlement};

/// What stands behind the name of a message that is to take another's place.
pub(super) const LETTER: &str = ".letter";
/// What the other is renamed to, which is the instant in which it is replaced.
const REPLACED: &str = ".replaced";

pub(super) fn carry_out(shared: &Shared, held: &Held, settlement: &Settlement) -> Result<()> {
    let claim = held.own.claim(&held.name);
    let done = match settlement {
        Settlement::Ack | Settlement::Reject => done_with(shared, &claim, &held.name),
        Settlement::Restore => back(shared, held, &claim, &held.name),
        Settlement::Requeue => back(shared, held, &claim, &shared.namer.next(held.name.queue())),
        Settlement::DeadLetter(letter) | Settlement::Park(letter, _) => return replace(shared, held, &claim, letter),
    };
    done.map_err(|error| failed("cannot settle a message of the folder", shared.incoming.path(), error))
}

fn done_with(shared: &Shared, claim: &Path, name: &FileName) -> io::Result<()> {
    if !shared.options.store_processed {
        return remove(claim).map(drop);
    }
    let folder = &shared.options.processed_folder;
    fs::create_dir_all(folder)?;
    let kept = folder.join(name.as_str());
    match move_to(claim, &kept) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            fs::copy(claim, &kept)?;
            remove(claim).map(drop)
        }
        moved => moved.map(drop),
    }
}

fn back(shared: &Shared, held: &Held, claim: &Path, name: &FileName) -> io::Result<()> {
    give_back(&shared.incoming, claim, name, || shared.incoming.scratch(&held.own))
}

/// Puts a claimed message back under this name, marked as redelivered. The mark is written where it is claimed still. One
/// that cannot be marked, as it is no message, cannot be read or the disk is full, goes back as it is.
pub(super) fn give_back(
    folder: &Folder,
    claim: &Path,
    name: &FileName,
    scratch: impl FnOnce() -> PathBuf,
) -> io::Result<()> {
    let content = fs::read(claim);
    if let Err(error) = &content
        && error.kind() == io::ErrorKind::NotFound
    {
        // The folder was removed, and all that was in it.
        return Ok(());
    }
    if let Ok(redelivery) = envelope::redeliver(&content.unwrap_or_default()) {
        let scratch = scratch();
        if write_new(&scratch, &redelivery.envelope).and_then(|()| fs::rename(&scratch, claim)).is_err() {
            let _ = remove(&scratch);
        }
    }
    move_to(claim, &folder.file(name)).map(drop)
}

/// Puts a letter in a message's place.
fn replace(shared: &Shared, held: &Held, claim: &Path, letter: &Publication) -> Result<()> {
    let content = publish::written(letter)?;
    let mut queues = publish::destinations(shared, letter)?;
    let last = queues.pop().unwrap_or_else(|| letter.routing_key.clone());
    for queue in &queues {
        shared.incoming.put(&shared.namer.next(publish::sound(queue)?), &content)?;
    }
    let name = shared.namer.next(publish::sound(&last)?);
    put_in_place(&shared.incoming, held.own.path(), claim, &name, &content)
        .map_err(|error| failed("cannot write a dead letter to the folder", shared.incoming.path(), error))
}

/// Puts a message where another was that is claimed.
pub(super) fn put_in_place(
    folder: &Folder,
    own: &Path,
    claim: &Path,
    name: &FileName,
    content: &[u8],
) -> io::Result<()> {
    write_new(&own.join(format!("{}{LETTER}", name.as_str())), content)?;
    fs::rename(claim, own.join(format!("{}{REPLACED}", name.as_str())))?;
    finish_replacing(folder, own, name.as_str())
}

/// What remains to be done once a letter is written, or was by who is dead: if the other message is replaced the letter
/// is sent, else it is forgotten.
pub(super) fn finish_replacing(folder: &Folder, own: &Path, name: &str) -> io::Result<()> {
    let (letter, replaced) = (own.join(format!("{name}{LETTER}")), own.join(format!("{name}{REPLACED}")));
    if !replaced.exists() {
        return remove(&letter).map(drop);
    }
    move_to(&letter, &folder.path().join(name))?;
    remove(&replaced).map(drop)
}
